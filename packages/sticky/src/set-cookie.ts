/**
 * `Set-Cookie` lines: those that the application sends and that we read or add to. Only the value between the first `=` and the first `;` is ever
 * changed; attributes belong to whoever set the cookie.
 */
import type { HeaderList } from '@weir/core'
import { quoteAs, spelling, unquote } from './cookie-pairs.ts'

/** One line, cut where its value begins and ends. */
export interface SetCookie {
  readonly head: string
  /** As it was sent. */
  readonly sent: string
  /** Without quotes around it. */
  readonly value: string
  readonly tail: string
}

export function parseSetCookie(line: string, name: string): SetCookie | undefined {
  const semicolon = line.indexOf(';')
  const end = semicolon < 0 ? line.length : semicolon
  const equals = line.indexOf('=')
  if (equals < 0 || equals > end || line.slice(0, equals).trim() !== name) return undefined
  const sent = line.slice(equals + 1, end).trim()
  return { head: line.slice(0, equals + 1), sent, value: unquote(sent), tail: line.slice(end) }
}

/** The last cookie of this name in a response: it is the one that a browser keeps. */
export function setCookieOf(headers: HeaderList, name: string): SetCookie | undefined {
  let found: SetCookie | undefined
  for (const line of headers.getAll('set-cookie')) found = parseSetCookie(line, name) ?? found
  return found
}

/** Does this line take the cookie away? `Max-Age` goes before `Expires` (RFC 6265 §5.3). @param now milliseconds of the epoch */
export function isRemoval({ value, tail }: SetCookie, now: number): boolean {
  if (value === '') return true
  const maxAge = /;\s*max-age\s*=\s*(-?\d+)\s*(?:;|$)/i.exec(tail)
  if (maxAge !== null) return Number(maxAge[1]) <= 0
  const expires = /;\s*expires\s*=\s*([^;]+)/i.exec(tail)
  return expires !== null && Date.parse(expires[1] as string) <= now
}

/** Gives every set cookie of this name another value, in quotes where it was; true when there was one. Removals are left alone. */
export function editSetCookies(headers: HeaderList, name: string, now: number, edit: (value: string) => string): boolean {
  let changed = false
  const lines = headers.getAll('set-cookie').map((line) => {
    const cookie = parseSetCookie(line, name)
    if (cookie === undefined || isRemoval(cookie, now)) return line
    changed = true
    return `${cookie.head}${quoteAs(cookie.sent, edit(cookie.value))}${cookie.tail}`
  })
  if (changed) headers.set(spelling(headers, 'set-cookie'), lines)
  return changed
}
