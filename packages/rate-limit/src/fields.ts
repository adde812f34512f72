/**
 * What a client is told: `RateLimit-Policy` and `RateLimit` as Structured Fields (draft-ietf-httpapi-ratelimit-headers-11), and `Retry-After` with a
 * refusal. A policy is the same in every response, so it is written once. Keys are never told (`pk`): they may be somebody's address or secret.
 */
import type { HeaderList } from '@weir/core'
import type { Limit, Verdict } from './limit.ts'
import type { Charge } from './store.ts'

declare module '@weir/core' {
  interface ExchangeLocals {
    /** A rate limit further in has set its fields, so that one further out adds to them. */
    rateLimitFields?: boolean
  }
}

/** Seconds as the draft and RFC 9110 want them: whole, and rounded up, since a client that comes back early is only refused again. */
export const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1000 - 1e-6))

/** A window that is no whole number of seconds is told as the next longer one: a client that keeps to it keeps to the real one. */
export const policyItem = (limit: Limit): string => `"${limit.name}";q=${limit.quota};w=${seconds(limit.windowMs)}`

function limitItem({ limit }: Charge, verdict: Verdict): string {
  const t = verdict.resetMs > 0 && Number.isFinite(verdict.resetMs) ? `;t=${seconds(verdict.resetMs)}` : ''
  return `"${limit.name}";r=${verdict.remaining}${t}`
}

/**
 * In a refusal only the limits that refused: `Retry-After` should not name a time before the end of a window that is told (draft §6), and a limit that
 * would have allowed the request may have a window of a day.
 */
export function limitItems(charges: readonly Charge[], verdicts: readonly Verdict[], refused: boolean): string {
  let items = ''
  for (let i = 0; i < charges.length; i++) {
    const verdict = verdicts[i] as Verdict
    if (refused && verdict.allowed) continue
    items += `${items === '' ? '' : ', '}${limitItem(charges[i] as Charge, verdict)}`
  }
  return items
}

/** The longest wait of those that refused; undefined when no wait would help. */
export function retryAfter(verdicts: readonly Verdict[]): number | undefined {
  let longest = 0
  for (const verdict of verdicts) if (!verdict.allowed) longest = Math.max(longest, verdict.retryAfterMs)
  return Number.isFinite(longest) ? seconds(longest) : undefined
}

/** @param add there are fields of another rate limit of this proxy already */
export function setFields(headers: HeaderList, policy: string, items: string, add: boolean): void {
  if (add) {
    const [policies, limits] = [headers.get('RateLimit-Policy'), headers.get('RateLimit')]
    headers.set('RateLimit-Policy', policies === undefined ? policy : `${policies}, ${policy}`)
    headers.set('RateLimit', limits === undefined ? items : `${limits}, ${items}`)
  } else {
    headers.set('RateLimit-Policy', policy)
    headers.set('RateLimit', items)
  }
}
