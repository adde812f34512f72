/** One copy of a request on its way to a shadow: a transport call whose answer is kept up to a cap, and let run into nothing beyond it. */
import { type ProxyError, ProxyError as ProxyErrorClass, type RequestBody, type ResponseSink, type UpstreamCall } from '@weir/core'
import type { ShadowAnswer } from './shadow-diff.ts'

/** The first bytes of a body. */
export class KeptBody {
  readonly #limit: number
  readonly #chunks: Buffer[] = []
  #bytes = 0
  truncated: boolean = false

  constructor(limit: number) {
    this.#limit = limit
  }

  push(chunk: Uint8Array): void {
    const room = this.#limit - this.#bytes
    if (chunk.length > room) this.truncated = true
    if (room <= 0) return
    // A copy: the transport may reuse its memory, and a slice would keep the whole chunk alive.
    const kept = Buffer.from(chunk.subarray(0, room))
    this.#chunks.push(kept)
    this.#bytes += kept.length
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

export class ShadowCall implements ResponseSink {
  readonly #done: (answer: ShadowAnswer | ProxyError) => void
  readonly #body: KeptBody
  readonly #startedAt: number = performance.now()
  readonly #timer: NodeJS.Timeout
  #call: UpstreamCall | undefined
  #status = 0
  #headers: readonly string[] = []
  #over = false

  /** @param done called once */
  constructor(limit: number, timeout: number, done: (answer: ShadowAnswer | ProxyError) => void) {
    this.#done = done
    this.#body = new KeptBody(limit)
    this.#timer = setTimeout(() => this.abort(new ProxyErrorClass('ERR_HEAD_TIMEOUT')), timeout)
    this.#timer.unref()
  }

  onStart(call: UpstreamCall): void {
    this.#call = call
  }

  onInterim(): void {}

  onHead(status: number, _reason: string, headers: string[]): void {
    this.#status = status
    this.#headers = headers
  }

  onData(chunk: Buffer): void {
    this.#body.push(chunk)
  }

  onEnd(): void {
    const { bytes: body, truncated } = this.#body
    this.#settle({ status: this.#status, headers: this.#headers, body, truncated, durationMs: performance.now() - this.#startedAt })
  }

  onError(error: ProxyError): void {
    this.#settle(error)
  }

  abort(error: ProxyError): void {
    if (this.#over) return
    this.#call?.abort()
    this.#settle(error)
  }

  #settle(result: ShadowAnswer | ProxyError): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#timer)
    this.#done(result)
  }
}

/** A body that is whole in memory. */
export function wholeBody(bytes: Buffer): RequestBody {
  return {
    length: bytes.length,
    hasTrailers: false,
    ready: true,
    open(reader) {
      let state: 'new' | 'sent' | 'closed' = 'new'
      return {
        resume: () => {
          if (state !== 'new') return
          state = 'sent'
          reader.onChunk(bytes)
          if (state === 'sent') reader.onEnd(undefined)
        },
        close: () => {
          state = 'closed'
        },
      }
    },
  }
}
