/**
 * `No-Vary-Search` (draft-ietf-httpbis-no-vary-search): an origin that says which query parameters do not matter. What it says of a path is remembered, and
 * URLs of that path are looked up by what is left of their query, too. Only answers that said so are stored under such a key: of another one of the same path
 * nothing is known.
 */
import { LRUCache } from 'lru-cache'
import { parseDictionary } from './structured-field.ts'

interface Rule {
  /** As it was written. */
  readonly text: string
  readonly ignoresOrder: boolean
  /** `all`: but for those of `names`; `some`: those of `names`. */
  readonly ignores: 'all' | 'some'
  readonly names: ReadonlySet<string>
}

/** Undefined when it does not parse, or says nothing. */
export function parseNoVarySearch(text: string): Rule | undefined {
  const dictionary = parseDictionary(text)
  if (dictionary === undefined) return undefined
  const order = dictionary.get('key-order')
  const params = dictionary.get('params')
  const except = dictionary.get('except')
  if (order !== undefined && order.type !== 'boolean') return undefined
  if (except !== undefined && (except.strings === undefined || params?.value !== true)) return undefined
  if (params !== undefined && params.type !== 'boolean' && params.strings === undefined) return undefined
  const ignoresAll = params?.type === 'boolean' && params.value === true
  const names = new Set(ignoresAll ? except?.strings : params?.strings)
  const ignoresOrder = order?.value === true
  if (!ignoresAll && !ignoresOrder && names.size === 0) return undefined
  return { text, ignoresOrder, ignores: ignoresAll ? 'all' : 'some', names }
}

export class SearchRules {
  readonly #rules = new LRUCache<string, Rule>({ max: 10_000 })

  /** Paths of which something is known. */
  get known(): number {
    return this.#rules.size
  }

  /** The key for what is left of a URL's query; undefined when nothing is known about its path. */
  keyFor(key: string): string | undefined {
    if (this.#rules.size === 0) return undefined
    const rule = this.#rules.get(base(key))
    return rule === undefined ? undefined : keyBy(rule, key)
  }

  /** A response under `key` says `text`. @returns what to store it under */
  learn(key: string, text: string): string | undefined {
    const rule = parseNoVarySearch(text)
    if (rule === undefined) return undefined
    this.#rules.set(base(key), rule)
    return keyBy(rule, key)
  }
}

/** Up to the query, and what stands in the key behind the URL: fields and cookies, which no rule about queries does away with. */
function base(key: string): string {
  const { path, rest } = parts(key)
  return path + rest
}

function parts(key: string): { readonly path: string; readonly query: string; readonly rest: string } {
  const line = key.indexOf('\n')
  const url = line < 0 ? key : key.slice(0, line)
  const mark = url.indexOf('?')
  return { path: mark < 0 ? url : url.slice(0, mark), query: mark < 0 ? '' : url.slice(mark + 1), rest: line < 0 ? '' : key.slice(line) }
}

function keyBy(rule: Rule, key: string): string {
  const { path, query, rest } = parts(key)
  const kept: [name: string, value: string][] = []
  for (const pair of new URLSearchParams(query)) if (rule.names.has(pair[0]) === (rule.ignores === 'all')) kept.push(pair)
  // Stable: what comes several times keeps its order (URL standard, "sort").
  if (rule.ignoresOrder) kept.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0))
  return `${path}?${new URLSearchParams(kept)} No-Vary-Search ${rule.text}${rest}`
}
