/**
 * Header rules of a route or proxy: small edits that need no stage. They run last on the way out to each side, so that what they set is what
 * arrives, and response rules also cover answers that the proxy makes itself.
 */
import type { Exchange } from './exchange.ts'
import { checkField, type HeaderList } from './headers.ts'
import type { OptionReader } from './options.ts'

/** A value, or a function of the exchange; undefined from the function leaves the field alone. */
export type HeaderValue = string | ((exchange: Exchange) => string | undefined)

/** Applied in this order: remove, rename, set, add, setIfMissing. */
export interface HeaderRules {
  readonly remove?: readonly string[]
  /** Old name to new name; the value stays. */
  readonly rename?: Readonly<Record<string, string>>
  /** Replaces every line of the name. */
  readonly set?: Readonly<Record<string, HeaderValue>>
  /** Adds a line. */
  readonly add?: Readonly<Record<string, HeaderValue>>
  readonly setIfMissing?: Readonly<Record<string, HeaderValue>>
}

export type HeaderEdit = (headers: HeaderList, exchange: Exchange) => void

/** Fields that decide about framing or the connection: a rule that touches them would desynchronise a connection. */
const framing = new Set(['connection', 'content-length', 'transfer-encoding', 'upgrade', 'keep-alive', 'te', 'trailer', 'expect'])

export function compileHeaderRules(value: HeaderRules | undefined, read: OptionReader): HeaderEdit | undefined {
  if (value === undefined) return undefined
  const rules = read.object<HeaderRules>(value, ['remove', 'rename', 'set', 'add', 'setIfMissing'])
  const edits: HeaderEdit[] = []
  const usable = (path: string, name: unknown, fixed: unknown): name is string => {
    if (typeof name !== 'string') {
      read.problem(path, name, 'header names that are strings')
      return false
    }
    try {
      checkField(name, typeof fixed === 'string' ? fixed : '')
    } catch {
      read.problem(path, { [name]: fixed }, 'a header name that is a token and a value of visible characters (no CR, LF, NUL)')
      return false
    }
    if (framing.has(name.toLowerCase())) {
      read.problem(path, name, 'a field that does not frame the message; Weir sets Connection, lengths and codings itself')
      return false
    }
    return true
  }
  if (rules.remove !== undefined && !Array.isArray(rules.remove))
    read.problem('remove', rules.remove, "a list of names such as ['x-debug']")
  for (const name of Array.isArray(rules.remove) ? rules.remove : [])
    if (usable('remove', name, '')) edits.push((headers) => void headers.delete(name))
  const fields = (key: 'rename' | 'set' | 'add' | 'setIfMissing'): [string, unknown][] => {
    const value: unknown = rules[key]
    if (value === undefined) return []
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return Object.entries(value)
    read.problem(key, value, "an object such as { 'x-name': 'value' }")
    return []
  }
  for (const [from, to] of fields('rename')) {
    if (usable('rename', from, '') && usable('rename', to, '')) edits.push((headers) => void headers.rename(from, to))
  }
  const each = (key: 'set' | 'add' | 'setIfMissing', apply: (headers: HeaderList, name: string, value: string) => void): void => {
    for (const [name, given] of fields(key)) {
      if (typeof given !== 'string' && typeof given !== 'function') {
        read.problem(key, { [name]: given }, 'a string, or a function of the exchange that returns one')
        continue
      }
      if (!usable(key, name, given)) continue
      edits.push((headers, exchange) => {
        const text = typeof given === 'string' ? given : (given as (exchange: Exchange) => string | undefined)(exchange)
        if (text !== undefined) apply(headers, name, text)
      })
    }
  }
  each('set', (headers, name, text) => void headers.set(name, text))
  each('add', (headers, name, text) => void headers.append(name, text))
  each('setIfMissing', (headers, name, text) => {
    if (!headers.has(name)) headers.append(name, text)
  })
  if (edits.length === 0) return undefined
  return (headers, exchange) => {
    for (const edit of edits) edit(headers, exchange)
  }
}
