/** Reads where a key is, in all the ways in which it may be written, into the one form that `key-source.ts` works with. */
import type { Exchange, OptionReader } from '@weir/core'
import { FieldName, type KeySource, wholePath } from './key-source.ts'

const expected =
  "where the key is: 'header:<name>', 'cookie:<name>', 'query:<name>', 'path', 'url', 'clientIp', 'hashKey', an object such as { cookie: 'uid' } or " +
  '{ path: { depth: 2 } }, a function of the exchange, or a list of these'

/** One `HashKey` or a list of them. Problems go to `read`; what is returned may then be empty. */
export function readSources(read: OptionReader, value: unknown, name: string = 'key'): KeySource[] {
  if (!Array.isArray(value)) {
    const source = parseSource(value)
    if (source === undefined) read.problem(name, value, expected)
    return source === undefined ? [] : [source]
  }
  if (value.length === 0) read.problem(name, value, expected)
  return value.flatMap((entry, i) => {
    const source = parseSource(entry)
    if (source === undefined) read.at(name).problem(i, entry, expected)
    return source === undefined ? [] : [source]
  })
}

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

function parseSource(value: unknown): KeySource | undefined {
  if (typeof value === 'function') return { kind: 'function', read: value as (exchange: Exchange) => string | undefined }
  if (value === 'path') return { kind: 'path', depth: wholePath }
  if (value === 'url' || value === 'clientIp' || value === 'hashKey') return { kind: value }
  let kind: string
  let of: unknown
  if (typeof value === 'string') {
    const colon = value.indexOf(':')
    kind = value.slice(0, Math.max(0, colon))
    of = value.slice(colon + 1)
    if (kind === 'path') return undefined
  } else {
    const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
    if (entries.length !== 1) return undefined
    ;[kind, of] = entries[0] as [string, unknown]
  }
  if (kind === 'path') return parsePath(of)
  if (typeof of !== 'string' || of === '') return undefined
  if (kind === 'header') return token.test(of) ? { kind, name: new FieldName(of) } : undefined
  if (kind === 'cookie') return token.test(of) ? { kind, name: of } : undefined
  return kind === 'query' && !/[&=#\s]/.test(of) ? { kind, name: of } : undefined
}

function parsePath(value: unknown): KeySource | undefined {
  if (typeof value !== 'object' || value === null || Object.keys(value).some((name) => name !== 'depth')) return undefined
  const { depth = wholePath } = value as { depth?: unknown }
  if (!Number.isInteger(depth) || (depth as number) < 1) return undefined
  return { kind: 'path', depth: Math.min(depth as number, wholePath) }
}
