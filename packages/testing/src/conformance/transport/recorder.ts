/**
 * A sink that writes down what a transport says, and objects to whatever the port forbids: a word before `onStart` or after the end, two
 * heads, data without a head, a list of fields that is none. Objections are kept, not thrown: an exception inside a callback would change
 * the behaviour of the transport under test.
 */
import type { PendingTunnel, ProxyError, ResponseSink, UpgradeSink, UpstreamCall } from '@weir/core'
import { defaultDeadline, Watch } from '../../watch.ts'

export interface RecordedHead {
  readonly status: number
  readonly reason: string
  readonly headers: readonly string[]
}

export interface RecorderOptions {
  /** Called inside the callback, after it was written down. */
  readonly onStart?: (recorder: Recorder) => void
  readonly onHead?: (recorder: Recorder) => void
  readonly onData?: (recorder: Recorder) => void
  /** False counts body bytes without keeping them. Default true. */
  readonly keep?: boolean
  readonly deadline?: number
}

export class Recorder implements ResponseSink {
  readonly interims: Omit<RecordedHead, 'reason'>[] = []
  readonly objections: string[] = []
  head: RecordedHead | undefined
  trailers: string[] | undefined
  error: ProxyError | undefined
  bytes = 0
  /** How it stands: `ended`, `failed` and `upgraded` are endings; `aborted` is one from this side. */
  state: 'new' | 'started' | 'head' | 'ended' | 'failed' | 'upgraded' | 'aborted' = 'new'
  tunnel: PendingTunnel | undefined
  /** A paused call delivers no body bytes. It may end, when it had delivered all of them. */
  paused = false
  readonly #chunks: Buffer[] = []
  readonly #watch = new Watch()
  readonly #options: RecorderOptions
  #call: UpstreamCall | undefined

  constructor(options: RecorderOptions = {}) {
    this.#options = options
  }

  get call(): UpstreamCall {
    if (this.#call === undefined) throw new Error('onStart was not called inside send')
    return this.#call
  }

  get body(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  get over(): boolean {
    return this.state === 'ended' || this.state === 'failed' || this.state === 'upgraded' || this.state === 'aborted'
  }

  abort(): void {
    if (!this.over) this.state = 'aborted'
    this.call.abort()
    this.#watch.changed()
  }

  pause(): void {
    this.paused = true
    this.call.pause()
  }

  resume(): void {
    this.paused = false
    this.call.resume()
  }

  onStart(call: UpstreamCall): void {
    if (this.state !== 'new') this.#object('onStart', 'it had been called already')
    this.#call = call
    this.state = 'started'
    this.#options.onStart?.(this)
  }

  onInterim(status: number, headers: string[]): void {
    this.#expect('onInterim', 'started')
    if (status < 102 || status > 199) this.#object('onInterim', `status ${status}`)
    this.#fields('onInterim', headers)
    this.interims.push({ status, headers })
    this.#watch.changed()
  }

  onHead(status: number, reason: string, headers: string[]): void {
    this.#expect('onHead', 'started')
    this.#fields('onHead', headers)
    if (typeof reason !== 'string') this.#object('onHead', `reason ${String(reason)}`)
    this.head = { status, reason, headers }
    if (!this.over) this.state = 'head'
    this.#watch.changed()
    this.#options.onHead?.(this)
  }

  onData(chunk: Buffer): void {
    this.#expect('onData', 'head')
    if (this.paused) this.#object('onData', 'the call was paused')
    if (!Buffer.isBuffer(chunk)) this.#object('onData', 'not a Buffer')
    this.bytes += chunk.length
    // Copied: a transport may reuse its read buffer.
    if (this.#options.keep !== false) this.#chunks.push(Buffer.from(chunk))
    this.#watch.changed()
    this.#options.onData?.(this)
  }

  onEnd(trailers: string[] | undefined): void {
    this.#expect('onEnd', 'head')
    if (trailers !== undefined) this.#fields('onEnd', trailers)
    this.trailers = trailers
    this.#ends('ended')
  }

  onError(error: ProxyError): void {
    this.#expect('onError', 'started', 'head')
    this.error = error
    this.#ends('failed')
  }

  /** Resolves with the final head. */
  async headed(): Promise<RecordedHead> {
    return this.#until('a head', () => {
      if (this.head === undefined && this.over) throw new Error(`${this.state} without a head: ${this.#failure()}`)
      return this.head
    })
  }

  /** Resolves when the message was complete. */
  async ended(): Promise<this> {
    return this.#until('the end', () => {
      if (this.over && this.state !== 'ended') throw new Error(`not ended but ${this.state}: ${this.#failure()}`)
      return this.state === 'ended' ? this : undefined
    })
  }

  /** Resolves with the error that ended the call. */
  async failed(): Promise<ProxyError> {
    return this.#until('an error', () => {
      if (this.over && this.state !== 'failed')
        throw new Error(`not failed but ${this.state}, head ${JSON.stringify(this.head)}, ${this.bytes} bytes`)
      return this.error
    })
  }

  async settled(): Promise<this> {
    return this.#until('any end', () => (this.over ? this : undefined))
  }

  async received(bytes: number): Promise<void> {
    await this.#until(`${bytes} body bytes`, () => {
      if (this.bytes >= bytes) return true
      if (this.over) throw new Error(`${this.state} after ${this.bytes} bytes: ${this.#failure()}`)
      return undefined
    })
  }

  async interim(count: number): Promise<void> {
    await this.#until(`${count} interim responses`, () => (this.interims.length >= count ? true : undefined))
  }

  protected upgraded(tunnel: PendingTunnel): void {
    this.#expect('onUpgrade', 'started')
    this.tunnel = tunnel
    this.#ends('upgraded')
  }

  protected until<T>(what: string, look: () => T | undefined): Promise<T> {
    return this.#until(what, look)
  }

  #until<T>(what: string, look: () => T | undefined): Promise<T> {
    const { deadline = defaultDeadline } = this.#options
    return this.#watch.until(
      look,
      deadline,
      () => new Error(`${what} did not come within ${deadline} ms; ${this.state}, head ${JSON.stringify(this.head)}, ${this.bytes} bytes`),
    )
  }

  #ends(state: 'ended' | 'failed' | 'upgraded'): void {
    if (!this.over) this.state = state
    this.#watch.changed()
  }

  #failure(): string {
    if (this.error === undefined) return 'no error'
    const { cause } = this.error
    return `${this.error.code} ${this.error.message}${cause === undefined ? '' : `, caused by ${String(cause)}`}`
  }

  #expect(callback: string, ...states: readonly Recorder['state'][]): void {
    if (!states.includes(this.state)) this.#object(callback, `the call was ${this.state}`)
  }

  #fields(callback: string, headers: readonly string[]): void {
    const flat = Array.isArray(headers) && headers.length % 2 === 0 && headers.every((part) => typeof part === 'string')
    if (!flat) this.#object(callback, 'fields are not a flat list of strings')
  }

  #object(callback: string, what: string): void {
    this.objections.push(`${callback}: ${what}`)
  }
}

export class UpgradeRecorder extends Recorder implements UpgradeSink {
  upgradeHeaders: readonly string[] = []

  onUpgrade(headers: string[], tunnel: PendingTunnel): void {
    this.upgradeHeaders = headers
    this.upgraded(tunnel)
  }

  /** Resolves with the tunnel when the upstream has said 101. */
  async switched(): Promise<PendingTunnel> {
    return this.until('a 101', () => {
      if (this.over && this.state !== 'upgraded')
        throw new Error(`not upgraded but ${this.state}: ${this.error?.code}, head ${JSON.stringify(this.head)}`)
      return this.tunnel
    })
  }
}
