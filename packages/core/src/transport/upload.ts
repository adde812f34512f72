/**
 * A request body on its way into a node:http request. The body's source pushes and is told to wait by the return value of `onChunk`; node
 * says when it can take more. The bytes are counted against the announced length: one too many would be read by the upstream as the
 * beginning of another request, one too few would make it wait for ever.
 */
import type { ClientRequest } from 'node:http'
import type { BodyFlow, BodyReader, RequestBody } from '../body.ts'
import { whenWritten } from './upload-socket.ts'

const nothing = Buffer.alloc(0)

export interface UploadEvents {
  /** The upstream took what had been held up, or all is written. */
  onProgress(): void
  /** The client broke off. */
  onBroken(): void
  /** The body cannot be written as announced. */
  onInvalid(error: unknown): void
}

export class Upload implements BodyReader {
  /** Everything has been given to node. */
  done: boolean = false
  /** The upstream does not take more at present. */
  blocked: boolean = false
  readonly #request: ClientRequest
  readonly #events: UploadEvents
  readonly #length: number
  readonly #flow: BodyFlow
  #bytes = 0
  #closed = false

  /** @param length as announced, -1 for chunked */
  constructor(request: ClientRequest, body: RequestBody, length: number, events: UploadEvents) {
    this.#request = request
    this.#events = events
    this.#length = length
    this.#flow = body.open(this)
    request.on('drain', () => {
      if (this.#closed) return
      this.blocked = false
      events.onProgress()
      this.#flow.resume()
    })
  }

  start(): void {
    this.#flow.resume()
    // The head goes out now, together with what the body had ready; an upstream may want to answer before the rest. An empty Buffer, since
    // `flushHeaders` would write the head as UTF-8.
    if (!this.done && !this.#closed) this.#request.write(nothing)
  }

  /** Reads no more. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#flow.close()
  }

  onChunk(chunk: Buffer, reclaim?: (chunk: Buffer) => void): boolean {
    if (this.#closed) return false
    this.#bytes += chunk.length
    if (this.#length >= 0 && this.#bytes > this.#length) {
      this.#events.onInvalid(new RangeError(`The body is longer than its announced ${this.#length} bytes`))
      return false
    }
    if (reclaim !== undefined) whenWritten(chunk, reclaim)
    if (this.#request.write(chunk)) return true
    this.blocked = true
    return false
  }

  onEnd(trailers: string[] | undefined): void {
    if (this.#closed) return
    if (this.#length >= 0 && this.#bytes < this.#length) {
      this.#events.onInvalid(new RangeError(`The body ended after ${this.#bytes} of ${this.#length} bytes`))
      return
    }
    try {
      if (trailers !== undefined && this.#length === -1) this.#request.addTrailers(pairs(trailers))
    } catch (error) {
      this.#events.onInvalid(error)
      return
    }
    this.done = true
    this.blocked = false
    this.#request.end()
    this.#events.onProgress()
  }

  onError(): void {
    if (!this.#closed) this.#events.onBroken()
  }
}

function pairs(flat: readonly string[]): [string, string][] {
  const list: [string, string][] = []
  for (let i = 0; i < flat.length; i += 2) list.push([flat[i] as string, flat[i + 1] as string])
  return list
}
