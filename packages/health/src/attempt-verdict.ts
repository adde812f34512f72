/**
 * What an attempt says about its upstream. Most mistakes of outlier detection are made here: an overload inside the proxy, a client that left or
 * a hedge that lost must not be held against a server, or the proxy ejects servers for its own trouble.
 */
import type { AttemptOutcome } from '@weir/core'

export type AttemptVerdict =
  /** Says nothing about the upstream. */
  | 'ignored'
  /** It answered; its status tells how. */
  | 'answered'
  /** It could not be reached, did not answer in time, broke off, or answered something that is not HTTP. */
  | 'failed'

export function attemptVerdict(outcome: AttemptOutcome): AttemptVerdict {
  const { error } = outcome
  if (error === undefined) return outcome.status === undefined ? 'ignored' : 'answered'
  if (error.source !== 'upstream') return 'ignored'
  switch (error.code) {
    case 'ERR_UPSTREAM_RESET':
      // A pooled connection that the server had closed meanwhile.
      return outcome.reused ? 'ignored' : 'failed'
    case 'ERR_UPSTREAM_DOWN':
      // Cut by a health policy: a consequence, not a finding.
      return 'ignored'
    case 'ERR_TUNNEL_BROKEN':
      // Either side of it.
      return 'ignored'
    default:
      return 'failed'
  }
}
