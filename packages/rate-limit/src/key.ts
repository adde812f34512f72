/**
 * Who is counted together. The default is the client's address, which is right in front of anonymous traffic and wrong behind a NAT of a thousand
 * desks; a header with an API key is right behind authentication and an invitation to invent keys in front of it.
 *
 * Whatever a key is made of, it is never long: above 64 characters its SHA-256 takes its place, so that clients who choose their keys cannot choose
 * how much memory they fill.
 */
import { createHash } from 'node:crypto'
import type { Exchange, MaybePromise, OptionReader } from '@weir/core'
import { ipKey } from './ip-key.ts'
import { isPromise } from './maybe-promise.ts'

/** Undefined: this exchange is not limited. */
export type KeyFunction = (exchange: Exchange) => MaybePromise<string | undefined>

export interface HeaderKey {
  /** The field whose value is the key. */
  readonly header: string
  /** What counts for a request without it: its address, nothing at all (not limited), or one key for all of them. Default `ip`. */
  readonly missing?: 'ip' | 'exempt' | 'shared'
}

export type KeyPart = 'ip' | 'route' | HeaderKey | KeyFunction
/** A list is the combination of all its parts. */
export type KeyOption = KeyPart | readonly KeyPart[]

const longest = 64

/** The key as stores see it. What already looks like a hash is hashed too, or a client could send somebody else's. */
export function boundedKey(key: string): string {
  if (key.length <= longest && !key.startsWith('#')) return key
  return `#${createHash('sha256').update(key, 'utf16le').digest('base64url')}`
}

export function readKey(read: OptionReader, name: string, value: KeyOption | undefined, ipv6Prefix: number): KeyFunction {
  if (!Array.isArray(value)) return readPart(read, name, (value as KeyPart | undefined) ?? 'ip', ipv6Prefix)
  if (value.length === 0) read.problem(name, value, 'at least one part')
  const parts = value.map((part: KeyPart, i) => readPart(read.at(name), i, part, ipv6Prefix))
  return parts.length === 1 ? (parts[0] as KeyFunction) : (exchange) => combine(exchange, parts, 0, '')
}

/** Each part with its length in front: no two lists of parts make the same key. */
function combine(exchange: Exchange, parts: readonly KeyFunction[], from: number, before: string): MaybePromise<string | undefined> {
  let key = before
  for (let i = from; i < parts.length; i++) {
    const part = (parts[i] as KeyFunction)(exchange)
    if (isPromise(part))
      return part.then((late) => (late === undefined ? undefined : combine(exchange, parts, i + 1, `${key}${late.length}:${late}`)))
    if (part === undefined) return undefined
    key += `${part.length}:${part}`
  }
  return key
}

function readPart(read: OptionReader, name: string | number, value: KeyPart, ipv6Prefix: number): KeyFunction {
  if (typeof value === 'function') return value
  const byIp: KeyFunction = (exchange) => ipKey(exchange.clientIp, ipv6Prefix)
  if (value === 'ip') return byIp
  if (value === 'route') return (exchange) => exchange.route?.name ?? ''
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const reader = read.at(name)
    const { header, missing: otherwise } = reader.object<HeaderKey>(value, ['header', 'missing'])
    const missing = reader.oneOf('missing', otherwise, ['ip', 'exempt', 'shared'] as const, 'ip')
    if (typeof header !== 'string' || !/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(header)) {
      reader.problem('header', header, "the name of a field, such as 'X-API-Key'")
      return byIp
    }
    // A letter in front keeps values apart from addresses: nobody can send somebody else's address as a key.
    return (exchange) => {
      const given = exchange.headers.get(header)
      if (given !== undefined && given !== '') return `h${given}`
      return missing === 'ip' ? byIp(exchange) : missing === 'shared' ? 'h' : undefined
    }
  }
  read.problem(name, value, "'ip', 'route', { header }, a function of the exchange, or a list of these")
  return byIp
}
