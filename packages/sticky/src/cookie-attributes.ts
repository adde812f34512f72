/**
 * The attributes of the cookie that the proxy sets of its own. Defaults are the strict ones, because nobody needs a script or another site to see
 * this cookie. Combinations that a browser would silently refuse are errors when the stage is made: a cookie that is never stored is a session
 * that never sticks, and nothing anywhere would say why.
 */
import type { OptionReader } from '@weir/core'

export interface CookieAttributes {
  /** Which sites' requests carry it. Default `lax`. `none` only where the service is embedded in other sites; it needs `secure: true`. */
  readonly sameSite?: 'strict' | 'lax' | 'none'
  /**
   * `auto`: when the client's connection is TLS, or a trusted proxy in front says so with `X-Forwarded-Proto`. Default `auto`. `true` where
   * every client comes over TLS; `false` only where the same cookie must hold for http and https.
   */
  readonly secure?: boolean | 'auto'
  /** Hidden from scripts. Default true. No reason is known to us to turn it off. */
  readonly httpOnly?: boolean
  /** Default `/`. A narrower one where a route has a service of its own. */
  readonly path?: string
  /** Default: none, so that only this host gets it. A domain shares it with every host below, and with whatever runs there. */
  readonly domain?: string
  /** One cookie per embedding site (CHIPS). Default false. Implies `secure: true`. */
  readonly partitioned?: boolean
  /**
   * Sends `Max-Age`, as long as the session has left, so that it outlives the browser. Default false: the cookie goes with the browser's session.
   * The lifetime in the signed value holds either way.
   */
  readonly persistent?: boolean
}

export const attributeKeys: readonly string[] = ['sameSite', 'secure', 'httpOnly', 'path', 'domain', 'partitioned', 'persistent']

export interface CookieShape {
  readonly name: string
  readonly secure: boolean | 'auto'
  readonly persistent: boolean
  /** Everything behind the value that is the same for all. */
  readonly suffix: string
}

// RFC 6265 §4.1.1: the name is a token; attribute values hold no control character and no semicolon.
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const attribute = /^[\x20-\x3a\x3c-\x7e]+$/
const sites = { strict: 'Strict', lax: 'Lax', none: 'None' } as const

export function readCookieName(read: OptionReader, option: string, value: unknown, fallback: string): string {
  if (value === undefined) return fallback
  if (typeof value === 'string' && token.test(value)) return value
  read.problem(option, value, "a cookie name: letters, digits and any of !#$%&'*+-.^_`|~")
  return fallback
}

export function readAttributes(read: OptionReader, given: CookieAttributes, name: string): CookieShape {
  const sameSite = read.oneOf('sameSite', given.sameSite, ['strict', 'lax', 'none'] as const, 'lax')
  const partitioned = read.boolean('partitioned', given.partitioned, false)
  const asked = read.oneOf('secure', given.secure, [true, false, 'auto'] as const, 'auto')
  const path = readText(read, 'path', given.path, '/', (text) => text.startsWith('/'), "a path such as '/app'")
  const domain = readText(read, 'domain', given.domain, '', (text) => /^\.?[a-z0-9.-]+$/i.test(text), "a domain such as 'example.com'")
  const lower = name.toLowerCase()
  // Browsers compare these prefixes without case.
  const host = lower.startsWith('__host-')
  if (sameSite === 'none' && asked !== true && !partitioned)
    read.problem('secure', given.secure, 'true, since browsers refuse SameSite=None without Secure; or another `sameSite`')
  if (partitioned && given.secure === false) read.problem('secure', given.secure, 'true or nothing: `partitioned` needs Secure')
  if ((host || lower.startsWith('__secure-')) && asked !== true && !partitioned)
    read.problem('secure', given.secure, `true, since browsers refuse ${name} without Secure; or a \`cookie\` without that prefix`)
  if (host && path !== '/') read.problem('path', given.path, "'/', which the prefix __Host- demands; or a `cookie` without it")
  if (host && domain !== '') read.problem('domain', given.domain, 'nothing, which the prefix __Host- demands; or a `cookie` without it')
  const parts = [`Path=${path}`]
  if (domain !== '') parts.push(`Domain=${domain}`)
  if (read.boolean('httpOnly', given.httpOnly, true)) parts.push('HttpOnly')
  parts.push(`SameSite=${sites[sameSite]}`)
  if (partitioned) parts.push('Partitioned')
  return {
    name,
    secure: partitioned ? true : asked,
    persistent: read.boolean('persistent', given.persistent, false),
    suffix: `; ${parts.join('; ')}`,
  }
}

function readText(
  read: OptionReader,
  name: string,
  value: unknown,
  fallback: string,
  fits: (text: string) => boolean,
  expected: string,
): string {
  if (value === undefined) return fallback
  if (typeof value === 'string' && attribute.test(value) && fits(value)) return value
  read.problem(name, value, expected)
  return fallback
}

/** @param leftMs what the session has left */
export function cookieLine(shape: CookieShape, value: string, overTls: boolean, leftMs: number): string {
  const secure = shape.secure === 'auto' ? overTls : shape.secure
  const maxAge = shape.persistent ? `; Max-Age=${Math.max(1, Math.ceil(leftMs / 1000))}` : ''
  return `${shape.name}=${value}${shape.suffix}${secure ? '; Secure' : ''}${maxAge}`
}
