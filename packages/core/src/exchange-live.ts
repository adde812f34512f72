/**
 * The exchange as core sees it: the public fields of `Exchange` and, behind them, what the pipeline and the attempt loop keep. One object
 * per request instead of one per concern, because on the hot path every object is an allocation; the split is in the code that works on it
 * (pipeline.ts, forward.ts, response.ts), not in the data.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import type { Attempt } from './attempt.ts'
import type { IncomingBody, PumpEvents, RequestBody, ResponsePump } from './body.ts'
import { endUpload } from './client-head.ts'
import type { ProxyError } from './errors.ts'
import type { Exchange, ExchangeLocals, ForkRequest } from './exchange.ts'
import { cutShort } from './forward.ts'
import type { Connection } from './forwarded.ts'
import { HeaderList } from './headers.ts'
import type { Hedge } from './hedge.ts'
import { type HookChain, stageError } from './pipeline.ts'
import type { ProxyCore } from './proxy.ts'
import type { Waiter } from './queue.ts'
import { readWhole } from './read-body.ts'
import { isHttp2, type RequestFacts } from './request-check.ts'
import type { ResponseHead, Stash } from './response-head.ts'
import type { CompiledRoute } from './route.ts'
import type { Hooks, MaybePromise, RequestTap, Stage } from './stage.ts'
import type { Tunnel } from './upgrade.ts'
import type { Upstream } from './upstream.ts'

const nobody: readonly Upstream[] = []
/** Until the request has been checked; nobody but core sees an exchange before that. */
const unread: HeaderList = new HeaderList([])

export class LiveExchange implements Exchange, PumpEvents {
  // Public: see Exchange.
  readonly kind: 'request' | 'upgrade'
  readonly req: IncomingMessage
  method: string
  url: string
  headers: HeaderList
  clientIp: string
  readonly startedAt: number
  route: CompiledRoute | undefined = undefined
  tried: readonly Upstream[] = nobody
  upstream: Upstream | undefined = undefined
  affinity: string | undefined = undefined
  hashKey: string | undefined = undefined
  parent: LiveExchange | undefined = undefined

  // Core's own.
  readonly core: ProxyCore
  res: ServerResponse
  facts: RequestFacts | undefined = undefined
  connection: Connection | undefined = undefined
  hooks: HookChain | undefined = undefined
  /** The last failure; decides the termination reason. */
  error: ProxyError | undefined = undefined
  /** Status that was, or is to be, answered. */
  status: number = 0
  body: RequestBody | undefined = undefined
  /** Whether somebody still wants the response when the client has left. */
  wanted: (() => boolean) | undefined = undefined
  /** The client has left and the exchange goes on: how it will have ended. */
  left: ProxyError | undefined = undefined
  /** The whole body has been read into memory. */
  bodyRead: boolean = false
  /** Who wants to see the request's body. */
  requestTaps: RequestTap[] | undefined = undefined
  /** Which of its trailers go no further. */
  trailerRules: ((name: string) => boolean)[] | undefined = undefined
  /** What it passes through on its way to the upstream. */
  requestTransforms: Duplex[] | undefined = undefined
  /** The same body, when it streams from the client. */
  incoming: IncomingBody | undefined = undefined
  /** The try that was sent last; each knows the one before it. A chain and not an array literal: see docs/decisions/0019. */
  latest: Attempt | undefined = undefined
  /** The try that may still answer: the latest, or the one that won against it. */
  attempt: Attempt | undefined = undefined
  pump: ResponsePump | undefined = undefined
  /** Tries that run side by side, until one of them has won. */
  hedge: Hedge | undefined = undefined
  stash: Stash | undefined = undefined
  /** Of a stage's reply: given back at the end, whatever has become of it. */
  replyBody: Readable | undefined = undefined
  waiter: Waiter | undefined = undefined
  /** Back-off or deadline handles. */
  backoffTimer: unknown = undefined
  deadlineTimer: unknown = undefined
  /** This event came by `checkContinue`: the 100 is ours to send. */
  owesContinue: boolean = false
  /** 1xx heads that were relayed. */
  interims: number = 0
  /** A head is being written or was: no second answer is possible. */
  answered: boolean = false
  /** It has failed, and is on its way to its end: nothing may set it going again, whatever was under way. */
  failing: boolean = false
  /** We have broken the client's connection off; it did not leave. */
  brokenOff: boolean = false
  /** An asynchronous response hook is running: another answer must not wait for it. */
  thinking: boolean = false
  /** What it thinks about. */
  deciding: ResponseHead | undefined = undefined
  /** The last byte was handed over. */
  pumped: boolean = false
  /** Ended; every late callback looks here first. */
  finished: boolean = false
  /** The client's connection, for upgrades. */
  socket: Duplex | undefined = undefined
  upgradeHead: Buffer | undefined = undefined
  /** Stops watching a client that waits for its 101. */
  stopWatching: (() => void) | undefined = undefined
  tunnel: Tunnel | undefined = undefined
  tunnelBytes: number = 0
  // Intrusive list of running exchanges: a Set costs more than the two links.
  previous: LiveExchange | undefined = undefined
  next: LiveExchange | undefined = undefined
  #locals: ExchangeLocals | undefined = undefined
  #abort: AbortController | undefined = undefined

  constructor(core: ProxyCore, kind: 'request' | 'upgrade', req: IncomingMessage, res: ServerResponse, startedAt: number) {
    this.core = core
    this.kind = kind
    this.req = req
    this.res = res
    this.method = req.method as string
    this.url = req.url as string
    this.headers = unread
    this.clientIp = ''
    this.startedAt = startedAt
  }

  /** Worked out when asked, from what arrived: what stages do to the field later changes nothing. */
  get scheme(): 'http' | 'https' {
    const { connection, facts } = this
    if (connection?.trusted === true && facts !== undefined) {
      // Several proxies make a list of it; the first one met the client. Anything but the two schemes is no word of ours.
      const told = new HeaderList(facts.raw).get('x-forwarded-proto')?.split(',', 1)[0]?.trim().toLowerCase()
      if (told === 'http' || told === 'https') return told
    }
    return connection?.proto ?? 'http'
  }

  get viaTrustedProxy(): boolean {
    return this.connection?.trusted === true
  }

  get hasBody(): boolean {
    return this.facts?.hasBody === true
  }

  /** How many tries were sent. */
  get tries(): number {
    return this.latest === undefined ? 0 : this.latest.number
  }

  /** All tries, oldest first. */
  get attempts(): readonly Attempt[] {
    const list: Attempt[] = []
    for (let attempt = this.latest; attempt !== undefined; attempt = attempt.before) list.push(attempt)
    return list.reverse()
  }

  get locals(): ExchangeLocals {
    this.#locals ??= {}
    return this.#locals
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.finished) this.#abort.abort(this.error)
    }
    return this.#abort.signal
  }

  tapRequest(tap: RequestTap): void {
    this.requestTaps ??= []
    this.requestTaps.push(tap)
  }

  dropTrailers(matches: (name: string) => boolean): void {
    if (!this.hasBody) return
    this.trailerRules ??= []
    this.trailerRules.push(matches)
  }

  transformRequest(stream: Duplex): void {
    if (!this.hasBody || this.finished) {
      stream.destroy()
      return
    }
    if (this.incoming !== undefined || this.latest !== undefined) {
      stream.destroy()
      throw new TypeError('transformRequest: the body is on its way to the upstream; call it from `handle`')
    }
    this.requestTransforms ??= []
    this.requestTransforms.push(stream)
    this.headers.delete('content-length')
    // Nobody else listens before the body is opened, and an error without a listener ends the process.
    stream.on('error', (cause) => {
      if (this.incoming === undefined) this.fail(stageError('transformRequest', cause))
    })
  }

  /** Frees what the transforms hold, whether or not the body ever came to them. */
  dropTransforms(): void {
    this.incoming?.dropTransforms()
    for (const stream of this.requestTransforms ?? []) stream.destroy()
  }

  readBody(limit: number): MaybePromise<Uint8Array | undefined> {
    return readWhole(this, limit)
  }

  outlive(wanted: () => boolean): void {
    const { wanted: before } = this
    // Both are asked: each may have something to see to.
    this.wanted = before === undefined ? wanted : () => [before(), wanted()].includes(true)
  }

  fork(stage: Stage, request: ForkRequest, hooks: Hooks): LiveExchange {
    return this.core.fork(this, stage, request, hooks)
  }

  fail(error: ProxyError): void {
    // Also from within a hook that hears of this very failure.
    if (this.finished || this.failing) return
    if (this.tunnel === undefined) cutShort(this, error)
    else this.tunnel.destroy(error)
  }

  // PumpEvents

  onPumped(): void {
    this.pumped = true
    // RFC 9113 §8.1: the answer is complete, the rest of the upload is not needed. Without a word the client would wait for flow control.
    if (this.facts?.hasBody === true && this.incoming?.complete !== true && !this.bodyRead && isHttp2(this.req)) {
      endUpload(this.res)
      // Node keeps a closed stream for as long as there is something in it that nobody reads.
      this.incoming?.discard()
    }
  }

  onPumpError(error: unknown): void {
    this.core.breakOff(this, stageError('transform', error))
  }

  /** Tells whoever took the signal that nobody waits any more. */
  abortSignal(reason: unknown): void {
    this.#abort?.abort(reason)
  }
}
