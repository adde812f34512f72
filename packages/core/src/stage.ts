/**
 * The contract between the proxy and everything that plugs into it.
 *
 * A stage is a function that may return what it wants to see next. It runs once per exchange, and what it returns decides the rest:
 * nothing (it is not called again for this exchange), a `Reply` (answer here), or `Hooks` (call me at these moments). The shape is chosen
 * so that cost follows use: an uninterested stage costs one call, a stateless one returns a module-level `Hooks` constant and allocates
 * nothing, and no promise exists on the path unless a stage returned one.
 */
import type { Duplex, Readable } from 'node:stream'
import type { ProxyError } from './errors.ts'
import type { Exchange, Outcome } from './exchange.ts'
import type { HeaderList } from './headers.ts'
import type { ReplyFields } from './reply-fields.ts'
import type { Upstream } from './upstream.ts'

export type MaybePromise<T> = T | Promise<T>

/** Header fields of a reply: one value, or several lines of the same name (`Set-Cookie`). */
export type HeaderFields = Readonly<Record<string, string | readonly string[]>>

/** An answer made by the proxy itself. `body` is sent as it is; a string is UTF-8. Core adds `Content-Length` when it knows it. */
export interface Reply {
  readonly status: number
  readonly headers?: HeaderFields
  /**
   * Instead of `headers`: a flat list of names and values, of which order, case and lines of one name survive (an answer that was kept from an upstream). It is
   * core's from then on. With a `Content-Length` in it a stream's length is known, and the stream has to keep to it. Whoever sends the same ones more than once gives `ReplyFields`, which are read
   * but once and are nobody's.
   */
  readonly fields?: readonly string[] | ReplyFields
  readonly body?: string | Uint8Array | Readable
  /**
   * Besides a `body` of bytes: the same, a character for an octet, by somebody who has it at hand. A short answer leaves as one string, which then need not be made.
   * Not looked at unless it is as long as the body.
   */
  readonly latin1?: string
}

/** Sees the body as it passes this point of the chain. It can neither slow nor change it; what it throws ends the exchange with a 500. */
export interface BodyTap {
  onChunk?(chunk: Uint8Array): void
  /** The body ended; `complete` is false when it broke off. Called once. */
  onEnd?(complete: boolean): void
}

/** Sees a request's body: see `Exchange.tapRequest`. */
export interface RequestTap extends BodyTap {
  /**
   * Whether the client is being read. False while whoever the body goes to can take no more, or nobody has been chosen yet: what a client does not send
   * meanwhile is not its fault. Until the first call it is not read. Not called for a body that was complete before Weir saw it.
   */
  onFlow?(reading: boolean): void
}

/** The final head of a response, before anything was sent. */
export interface ProxyResponse {
  status: number
  readonly headers: HeaderList
  /** False for HEAD, 204 and 304: there are no body bytes, whatever `Content-Length` says. A `status` that has none drops the body. */
  readonly hasBody: boolean
  /** Where the response came from; undefined when a stage or the proxy itself answered. */
  readonly upstream: Upstream | undefined
  /** Core pipes the body through `stream`, carries back-pressure and drops `Content-Length`. The caller adjusts validators. */
  transform(stream: Duplex): void
  tap(tap: BodyTap): void
  /**
   * Lets the upstream be read for up to `bytes` bytes ahead of a client that takes them slowly, so that a tap is not slowed by this client. What is ahead is
   * held in memory. Default 0: the upstream is read as fast as the client reads.
   */
  readAhead(bytes: number): void
  /** Drops the upstream's head and body and answers this instead. Stages further out see the replacement. */
  replace(reply: Reply): void
}

/** The moments of an exchange that a stage asked for. Called innermost first (reverse list order), but for `onAttempt`, which faces the upstream and runs in list order. */
export interface Hooks {
  /** Before each try: `headers` is this attempt's own copy, hop-by-hop fields are gone and forwarding fields are set. */
  onAttempt?(headers: HeaderList, upstream: Upstream): void
  /** Final head, nothing sent yet; once. Return nothing synchronously where possible: a promise pauses the upstream's parser. */
  onResponse?(response: ProxyResponse, exchange: Exchange): MaybePromise<void>
  /** The exchange failed and nothing was sent. The first Reply wins over the default error answer. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a hook without a return statement is the usual one
  onError?(error: ProxyError, exchange: Exchange): MaybePromise<Reply | undefined | void>
  /** Exactly once, always, synchronous: after the last byte, an error, or the client's disconnect. */
  onFinish?(outcome: Outcome, exchange: Exchange): void
}

// biome-ignore lint/suspicious/noConfusingVoidType: a stage without a return statement is not interested
export type StageHandler = (exchange: Exchange) => MaybePromise<Reply | Hooks | undefined | void>

/** What a stage gets at `start`. */
export interface StageContext {
  /** Aborted when the proxy closes: pass it to whatever the stage starts in the background. */
  readonly signal: AbortSignal
}

export interface Stage {
  readonly name: string
  /** Verified at `createProxy`, never re-sorted: a wrong order is an error that names both stages and the reason. */
  readonly order?: { readonly after?: readonly string[]; readonly before?: readonly string[] }
  handle: StageHandler
  /** Runs in list order, before the first exchange. */
  start?(context: StageContext): MaybePromise<void>
  /** Runs in reverse list order, when the proxy has drained. */
  close?(): MaybePromise<void>
}

/** `prod && compress()` works. */
export type StageLike = Stage | StageHandler | false | null | undefined
