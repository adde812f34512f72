/** How long an answer is good for, and how long a server wants to be left alone, as its header fields say it. */
import type { IncomingHttpHeaders } from 'node:http'

/**
 * `Cache-Control: max-age` less `Age` (RFC 9111 §4.2), in milliseconds; undefined when the answer does not say. `s-maxage` is for caches that many share,
 * which this is not.
 */
export function freshMs(headers: IncomingHttpHeaders): number | undefined {
  const directives = (headers['cache-control'] ?? '').split(',').map((directive) => directive.trim().toLowerCase())
  if (directives.some((directive) => /^no-(store|cache)(=|$)/.test(directive))) return undefined
  const maxAge = directives.map((directive) => /^max-age="?(\d+)"?$/.exec(directive)?.[1]).find((seconds) => seconds !== undefined)
  if (maxAge === undefined) return undefined
  const age = /^\d+$/.test(headers.age ?? '') ? Number(headers.age) : 0
  return Math.max(0, Number(maxAge) - age) * 1000
}

/** `Retry-After` (RFC 9110 §10.2.3), in milliseconds. @param now milliseconds of the epoch, for the form with a date */
export function retryAfterMs(headers: IncomingHttpHeaders, now: number): number | undefined {
  const value = headers['retry-after']?.trim() ?? ''
  if (/^\d+$/.test(value)) return Number(value) * 1000
  const date = value === '' ? Number.NaN : Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
