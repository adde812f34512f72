/**
 * A request body in the shape that undici takes for a stream. undici only listens to `data`, `end`, `error` and `close` and calls `pause`,
 * `resume` and `destroy`; a real Readable in between would copy every chunk through one more queue with one more high-water mark.
 */
import { EventEmitter } from 'node:events'
import type { BodyFlow, BodyReader, RequestBody } from '../body.ts'
import { whenWritten } from './upload-socket.ts'

export class BodyStream extends EventEmitter implements BodyReader {
  destroyed: boolean = false
  readonly #flow: BodyFlow
  #paused = false
  #ended = false

  constructor(body: RequestBody) {
    super()
    this.#flow = body.open(this)
  }

  onChunk(chunk: Buffer, reclaim?: (chunk: Buffer) => void): boolean {
    if (reclaim !== undefined) whenWritten(chunk, reclaim)
    this.emit('data', chunk)
    return !this.#paused
  }

  onEnd(): void {
    this.#ended = true
    this.emit('end')
  }

  onError(error: Error): void {
    if (this.listenerCount('error') > 0) this.emit('error', error)
  }

  /** The upstream reads as fast as the client sends, and the client has not finished. */
  get waitsForClient(): boolean {
    return !this.#ended && !this.#paused
  }

  pause(): this {
    this.#paused = true
    return this
  }

  resume(): this {
    this.#paused = false
    this.#flow.resume()
    return this
  }

  /** undici reports a body that it cannot send (a length that does not fit) by destroying it with the reason, and waits for the events of a stream. */
  destroy(error?: Error): this {
    if (!this.destroyed) {
      this.destroyed = true
      this.#flow.close()
      queueMicrotask(() => {
        if (error && this.listenerCount('error') > 0) this.emit('error', error)
        this.emit('close')
      })
    }
    return this
  }

  /** Only its presence matters: undici tells streams from other bodies by it. */
  pipe(): never {
    throw new Error('A request body is read by events.')
  }
}
