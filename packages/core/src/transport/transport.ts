/**
 * The port to the upstream. It mirrors a parser's callbacks on purpose: a head reaches the stages in the very tick in which it was parsed,
 * with no stream object and no promise between. A transport moves bytes and reports; it never decides about retries, never touches the
 * client, and never throws out of `send`.
 */
import type { Duplex } from 'node:stream'
import type { RequestBody } from '../body.ts'
import type { ProxyError } from '../errors.ts'
import type { MaybePromise } from '../stage.ts'
import type { Upstream } from '../upstream.ts'
import type { AddressCheck } from './address-check.ts'
import type { ConnectPhases } from './connect-phases.ts'

/** One request to one upstream, final: nothing is added but framing and `Connection`. */
export interface UpstreamRequest {
  readonly method: string
  /** Request target as it goes on the wire: origin-form, or `*`. */
  readonly path: string
  /** Flat list `[name, value, name, value ...]`, `Host` included; no hop-by-hop field, no `Transfer-Encoding`; `Content-Length` at most once. */
  readonly headers: readonly string[]
  /** Undefined when the request has no body. */
  readonly body: RequestBody | undefined
  /** Milliseconds; 0 switches that timeout off. */
  readonly timeouts: TransportTimeouts
  /** The try before met a stale pooled connection: use a new one, and trust none of the idle ones, which are as old. */
  readonly fresh?: boolean
}

export interface TransportTimeouts {
  /** Lookup, TCP and TLS. */
  readonly connect: number
  /** From the request to the final head. */
  readonly head: number
  /** Between two chunks of the body. A paused reader does not run it down. */
  readonly idle: number
}

/** The running call, handed to the sink synchronously inside `send`. Every method is safe at any time and any number of times. */
export interface UpstreamCall {
  /** Cancels in this turn. The sink hears nothing more. */
  abort(): void
  pause(): void
  resume(): void
  /** True when the connection had carried a response before. Known from `onSend` on. */
  readonly reused: boolean
  /** Milliseconds for lookup, TCP and TLS; undefined when reused. Known from `onSend` on. */
  readonly connectMs: number | undefined
  /** The same in its parts, from a transport that can tell. */
  readonly connectPhases?: ConnectPhases | undefined
  /** False as long as it is certain that no byte of the request has been handed to the connection. */
  readonly sent: boolean
}

export interface ResponseSink {
  onStart(call: UpstreamCall): void
  /** A 1xx head other than 100 and 101. */
  onInterim(status: number, headers: string[]): void
  /** The final head; flat list with case, order and duplicates as received, latin1; it is the sink's to keep and change. Once. */
  onHead(status: number, reason: string, headers: string[]): void
  /**
   * The chunk is the sink's to keep. When `reclaim` is given, calling it with the chunk, once, says that nothing refers to its memory any more and
   * that it may be read into again; never calling it is fine.
   */
  onData(chunk: Buffer, reclaim?: (chunk: Buffer) => void): void
  /** The message is complete. Trailers as a flat list, undefined when there are none. Ends the call, as `onError` does; one of them, once. */
  onEnd(trailers: string[] | undefined): void
  onError(error: ProxyError): void
}

export interface UpgradeRequest extends Omit<UpstreamRequest, 'body'> {
  /** The client's protocol list as received; travels as the `Upgrade` field, with `Connection: Upgrade`. */
  readonly protocol: string
  /** The client's connection: paused, nothing read. The transport touches it only in `PendingTunnel.open`. */
  readonly client: Duplex
}

/** The upstream said 101 and waits for `open`; destroy `socket` to refuse after all. */
export interface PendingTunnel {
  /** The upstream's side, paused, first bytes included. */
  readonly socket: Duplex
  /** Writes `101 Switching Protocols` with these fields (flat list, `Connection` and `Upgrade` included) to the client and joins both sides. */
  open(headers: readonly string[]): void
}

export interface UpgradeSink extends ResponseSink {
  /** 101 arrived: the call has ended well, what follows belongs to the tunnel. Any other final head comes through `onHead`, as for a request. */
  onUpgrade(headers: string[], tunnel: PendingTunnel): void
}

export interface Transport {
  readonly name: string
  /** Which addresses it connects to, where it asks: health probes ask the same. */
  readonly allowAddress?: AddressCheck | undefined
  /** Never throws; the sink hears `onStart` first and ends with `onEnd` or `onError`, once, unless aborted. */
  send(request: UpstreamRequest, upstream: Upstream, sink: ResponseSink): void
  upgrade?(request: UpgradeRequest, upstream: Upstream, sink: UpgradeSink): void
  /** The upstream has left the pool: close its idle connections; running calls go on. */
  forget?(upstream: Upstream): void
  /** Closes idle connections at once and running ones as they end. Idempotent. */
  close?(): MaybePromise<void>
}
