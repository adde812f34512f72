/**
 * What a probe is: one question to one upstream, with a yes or a reason for the no. A probe knows nothing of intervals, thresholds or pools, so
 * that the same question can be asked alone, combined with others (`allOf`, `anyOf`) or on a schedule (`activeCheck`).
 *
 * A probe is opened once per upstream: options are read there, a kept connection lives there, and whoever opened it closes it.
 */
import type { AddressCheck, Upstream, UpstreamTlsOptions } from '@weir/core'
import type { ProbeOverrides } from './overrides.ts'

/** What a passing probe may say besides "yes". */
export interface ProbeResult {
  /** Works, but is to be used only while nobody works properly. */
  readonly degraded?: boolean
  /** Works, and wants no new clients. */
  readonly draining?: boolean
}

export interface ProbeTarget {
  readonly upstream: Upstream
  /** What `overrides` and `upstream.meta.health` say of this upstream. */
  readonly overrides: ProbeOverrides
  /** TLS towards upstreams as the pool has it. */
  readonly tls: UpstreamTlsOptions | undefined
  /** Which addresses the pool may connect to. Default: all. */
  readonly allowAddress?: AddressCheck | undefined
}

/** A probe of your own: resolves when the upstream is well, rejects with the reason when not. Stop at `signal`: it is the timeout. */
// biome-ignore lint/suspicious/noConfusingVoidType: a probe without a return statement is the usual one
export type ProbeFunction = (target: ProbeTarget, signal: AbortSignal) => Promise<ProbeResult | void>

export interface Probe {
  readonly name: string
  /** Prepares the question to one upstream; opens no connection. @throws OptionsError for overrides that are wrong */
  open(target: ProbeTarget): OpenProbe
}

export interface OpenProbe {
  /** Asks once. Never called again before the promise has settled. Rejects soon after `signal` aborts. */
  // biome-ignore lint/suspicious/noConfusingVoidType: see ProbeFunction
  run(signal: AbortSignal): Promise<ProbeResult | void>
  /** Lets go of a kept connection. */
  close?(): void
}

export type ProbeErrorCode =
  /** No answer within `timeout`. */
  | 'ERR_PROBE_TIMEOUT'
  /** The connection failed, or broke before the answer was complete: name, TCP, TLS. `cause` has the system's error. */
  | 'ERR_PROBE_CONNECTION'
  /** The answer is not of the protocol. */
  | 'ERR_PROBE_PROTOCOL'
  | 'ERR_PROBE_STATUS'
  | 'ERR_PROBE_HEADER'
  /** The body, or what a TCP server said, is not what was expected. */
  | 'ERR_PROBE_BODY'
  /** An expression took too long on what the server said: see `body` of `httpProbe`. */
  | 'ERR_PROBE_PATTERN'
  /** gRPC: the service says that it does not serve, or is not known. */
  | 'ERR_PROBE_SERVICE'

/** Why a probe of this package failed. Probes of your own may reject with anything. */
export class ProbeError extends Error {
  override readonly name: string = 'ProbeError'
  readonly code: ProbeErrorCode

  constructor(code: ProbeErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
  }
}

export function connectionError(cause: unknown): ProbeError {
  return cause instanceof ProbeError ? cause : new ProbeError('ERR_PROBE_CONNECTION', `connection failed: ${reasonOf(cause)}`, cause)
}

/** One line for events and `proxy.health()`. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.message || (error as { code?: string }).code || error.name
}

export function toProbe(probe: Probe | ProbeFunction): Probe {
  if (typeof probe !== 'function') return probe
  return { name: probe.name || 'custom', open: (target) => ({ run: (signal) => probe(target, signal) }) }
}

export function isProbe(value: unknown): value is Probe | ProbeFunction {
  return (
    typeof value === 'function' || (typeof value === 'object' && value !== null && typeof (value as Partial<Probe>).open === 'function')
  )
}
