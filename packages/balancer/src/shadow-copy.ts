/**
 * One request and its copy. It hooks into the exchange of the primary, waits for the request to be whole, sends the copy, and at the end has both
 * answers.
 */
import {
  type BodyTap,
  type Exchange,
  type HeaderList,
  type Hooks,
  type Outcome,
  ProxyError,
  type ProxyResponse,
  type Upstream,
} from '@weir/core'
import { KeptBody, ShadowCall, wholeBody } from './shadow-call.ts'
import { differences, type ShadowAnswer, type ShadowDifference } from './shadow-diff.ts'
import type { ShadowResult, ShadowSettings } from './shadow-options.ts'

/** What a copy needs of the stage that it belongs to. */
export interface CopyKeeper {
  readonly settings: ShadowSettings
  readonly running: Set<ShadowCall>
  /** Somebody wants to know of differences. */
  readonly compares: boolean
  pick(): Upstream | undefined
  onSent(): void
  /** The copy has its answer, and its place is free: the primary's may go on for hours. */
  onAnswered(): void
  /** It waits for the primary's answer, to be compared. */
  onWaiting(copy: Copy): void
  onWaited(copy: Copy): void
  /** The copy came to nothing. */
  give(): void
  finish(result: ShadowResult): void
  warn(option: string, cause: unknown): void
}

export class Copy implements Hooks, BodyTap {
  readonly #stage: CopyKeeper
  readonly #exchange: Exchange
  #body: KeptBody | undefined
  #answer: KeptBody | undefined
  readonly #url: string
  /** Somebody wants to know of differences. */
  readonly #compares: boolean
  #path = ''
  #fields: string[] | undefined
  #bodyState: 'none' | 'reading' | 'whole' = 'none'
  #given = false
  #upstream: Upstream | undefined
  #sent = false
  #primary: ShadowAnswer | 'pending' | undefined = 'pending'
  #status = 0
  #headers: readonly string[] = []
  #shadow: ShadowAnswer | ProxyError | undefined

  constructor(stage: CopyKeeper, exchange: Exchange) {
    this.#stage = stage
    this.#exchange = exchange
    this.#url = exchange.url
    this.#compares = stage.compares
    this.#body = new KeptBody(stage.settings.maxBody)
    this.#answer = new KeptBody(stage.settings.maxCompare)
  }

  // BodyTap of the request

  onChunk(chunk: Uint8Array): void {
    this.#bodyState = 'reading'
    this.#body?.push(chunk)
    if (this.#body?.truncated === true) this.#giveUp()
  }

  onEnd(complete: boolean): void {
    this.#bodyState = 'whole'
    if (complete) this.#go()
    else this.#giveUp()
  }

  // Hooks

  onAttempt(headers: HeaderList): void {
    if (this.#fields !== undefined) return
    this.#fields = [...headers.raw]
    this.#path = this.#exchange.url
    if (!this.#exchange.hasBody) this.#bodyState = 'whole'
    if (this.#bodyState === 'whole') this.#go()
  }

  onResponse(response: ProxyResponse): void {
    if (response.upstream === undefined) return
    this.#status = response.status
    this.#headers = [...response.headers.raw]
    if (!this.#given && this.#compares) response.tap({ onChunk: (chunk) => this.#answer?.push(chunk) })
  }

  onFinish(outcome: Outcome): void {
    const answer = this.#answer
    this.#primary =
      outcome.reason === 'completed' && this.#status !== 0 && answer !== undefined
        ? { status: this.#status, headers: this.#headers, body: answer.bytes, truncated: answer.truncated, durationMs: outcome.durationMs }
        : undefined
    // Never forwarded, or its body never came to an end: there is nothing to copy.
    if (this.#sent) this.#compare()
    else this.#giveUp()
  }

  #giveUp(): void {
    if (this.#given || this.#sent) return
    this.#given = true
    this.#body = undefined
    this.#answer = undefined
    this.#stage.give()
  }

  #go(): void {
    if (this.#given || this.#sent || this.#fields === undefined) return
    this.#sent = true
    // From a later turn: the primary's bytes are on their way first.
    setImmediate(() => {
      try {
        this.#send(this.#fields as string[])
      } catch (cause) {
        this.#stage.warn('rewrite or headers', cause)
        this.#answered(new ProxyError('ERR_REQUEST_NOT_SENT', { cause }))
      }
    })
  }

  #send(fields: string[]): void {
    const stage = this.#stage
    const { settings } = stage
    const exchange = this.#exchange
    const upstream = stage.pick()
    if (upstream === undefined) {
      this.#answered(new ProxyError('ERR_NO_UPSTREAM'))
      return
    }
    this.#upstream = upstream
    const bytes = this.#body?.bytes ?? Buffer.alloc(0)
    this.#body = undefined
    const headers: string[] = []
    const given = settings.headers.map(([name]) => name.toLowerCase())
    const replaced = new Set(['content-length', 'content-encoding', ...given])
    for (let i = 0; i < fields.length; i += 2)
      if (!replaced.has((fields[i] as string).toLowerCase())) headers.push(fields[i] as string, fields[i + 1] as string)
    for (const [name, value] of settings.headers) headers.push(name, value)
    // A stage may have the body decoded for the primary; what is here is what the client sent.
    const coding = exchange.req.headers['content-encoding']
    if (coding !== undefined && !given.includes('content-encoding')) headers.push('Content-Encoding', coding)
    if (bytes.length > 0) headers.push('Content-Length', String(bytes.length))
    const { protocol, pathname } = upstream.url
    const base = protocol === 'unix:' ? '' : pathname.replace(/\/+$/, '')
    const path = base + (settings.rewrite?.(this.#path, exchange) ?? this.#path)
    const call = new ShadowCall(this.#compares ? settings.maxCompare : 0, settings.timeout, (answer) => {
      stage.running.delete(call)
      this.#answered(answer)
    })
    stage.running.add(call)
    stage.onSent()
    const { timeout } = settings
    const body = bytes.length > 0 ? wholeBody(bytes) : undefined
    const request = { method: exchange.method, path, headers, body, timeouts: { connect: timeout, head: timeout, idle: timeout } }
    try {
      settings.transport.send(request, upstream, call)
    } catch (cause) {
      // A transport must not throw. One that does has started nothing.
      call.abort(new ProxyError('ERR_REQUEST_NOT_SENT', { cause }))
    }
  }

  #answered(answer: ShadowAnswer | ProxyError): void {
    if (this.#shadow !== undefined) return
    this.#shadow = answer
    this.#stage.onAnswered()
    if (this.#primary === 'pending' && this.#compares) this.#stage.onWaiting(this)
    else this.#compare()
  }

  /** The primary's answer takes too long: they are not compared. */
  stopWaiting(): void {
    this.#primary = undefined
    this.#compare()
  }

  #compare(): void {
    const { settings } = this.#stage
    const shadow = this.#shadow
    let primary = this.#primary
    if (shadow === undefined || primary === 'pending' || this.#given) return
    this.#given = true
    this.#answer = undefined
    this.#stage.onWaited(this)
    let other = shadow
    let found: readonly ShadowDifference[] = []
    if (this.#compares && primary !== undefined && !ProxyError.is(other)) {
      try {
        if (settings.normalise !== undefined) {
          primary = settings.normalise(primary)
          other = settings.normalise(other)
        }
        found = differences(primary, other, settings.ignored)
      } catch (cause) {
        this.#stage.warn('normalise', cause)
      }
    }
    this.#stage.finish({
      method: this.#exchange.method,
      url: this.#url,
      upstream: this.#upstream as Upstream,
      primary,
      shadow: other,
      differences: found,
    })
  }
}
