/**
 * `Cache-Control` (RFC 9111 §5.2) as it is sent in the wild. Names are of any case, values tokens or quoted strings, unknown directives are skipped. Of a
 * directive that comes twice the first counts (§4.2.1), and a lifetime that is no whole number of seconds is one of zero: doubt means stale.
 */

export interface ResponseDirectives {
  /** Seconds. */
  readonly maxAge: number | undefined
  readonly sMaxAge: number | undefined
  readonly noStore: boolean
  /** Without field names; with them see `withheld`. */
  readonly noCache: boolean
  readonly private: boolean
  readonly public: boolean
  readonly mustRevalidate: boolean
  readonly proxyRevalidate: boolean
  readonly mustUnderstand: boolean
  readonly immutable: boolean
  /** Seconds; RFC 5861. */
  readonly staleWhileRevalidate: number | undefined
  readonly staleIfError: number | undefined
  /** Fields named by `no-cache="..."` and `private="..."`, lower-case: this cache does not keep them. */
  readonly withheld: readonly string[]
}

export interface RequestDirectives {
  /** Seconds. */
  readonly maxAge: number | undefined
  readonly minFresh: number | undefined
  /** Seconds; `Infinity` without a value. */
  readonly maxStale: number | undefined
  readonly noCache: boolean
  readonly noStore: boolean
  readonly onlyIfCached: boolean
}

/** RFC 9111 §1.2.2: what is larger counts as this. */
const longest = 2_147_483_648

/** The first value of every directive; `true` for one without a value. */
export function parseDirectives(text: string): Map<string, string | true> {
  const found = new Map<string, string | true>()
  let at = 0
  while (at < text.length) {
    const start = at
    while (at < text.length && text[at] !== ',' && text[at] !== '=') at++
    // Spaces around "=" are not in the grammar; such a name is none that we know.
    const name = text
      .slice(start, at)
      .replace(/^[ \t]+/, '')
      .toLowerCase()
    let value: string | true = true
    if (text[at] === '=') {
      at++
      if (text[at] === '"') {
        let quoted = ''
        at++
        while (at < text.length && text[at] !== '"') {
          if (text[at] === '\\') at++
          quoted += text[at] ?? ''
          at++
        }
        at++
        const rest = at
        while (at < text.length && text[at] !== ',') at++
        value = quoted + text.slice(rest, at).trimEnd()
      } else {
        const from = at
        while (at < text.length && text[at] !== ',') at++
        value = text.slice(from, at).trimEnd()
      }
    }
    at++
    const key = value === true ? name.trimEnd() : name
    if (key !== '' && !found.has(key)) found.set(key, value)
  }
  return found
}

/** Seconds; undefined when the directive is absent, 0 when its value is none. */
function seconds(directives: ReadonlyMap<string, string | true>, name: string): number | undefined {
  const value = directives.get(name)
  if (value === undefined) return undefined
  if (value === true || !/^[0-9]+$/.test(value)) return 0
  return Math.min(Number(value), longest)
}

export function responseDirectives(directives: ReadonlyMap<string, string | true>): ResponseDirectives {
  const noCache = directives.get('no-cache')
  const isPrivate = directives.get('private')
  return {
    maxAge: seconds(directives, 'max-age'),
    sMaxAge: seconds(directives, 's-maxage'),
    noStore: directives.has('no-store'),
    noCache: noCache === true || noCache === '',
    private: isPrivate === true || isPrivate === '',
    public: directives.has('public'),
    mustRevalidate: directives.has('must-revalidate'),
    proxyRevalidate: directives.has('proxy-revalidate'),
    mustUnderstand: directives.has('must-understand'),
    immutable: directives.has('immutable'),
    staleWhileRevalidate: seconds(directives, 'stale-while-revalidate'),
    staleIfError: seconds(directives, 'stale-if-error'),
    withheld: [...fieldNames(noCache), ...fieldNames(isPrivate)],
  }
}

function fieldNames(value: string | true | undefined): string[] {
  if (value === undefined || value === true) return []
  return value
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '')
}

const nothingAsked: RequestDirectives = {
  maxAge: undefined,
  minFresh: undefined,
  maxStale: undefined,
  noCache: false,
  noStore: false,
  onlyIfCached: false,
}

/** @param pragma counts only where there is no `Cache-Control` (RFC 9111 §5.4) */
export function requestDirectives(cacheControl: string | undefined, pragma: string | undefined): RequestDirectives {
  if (cacheControl === undefined) {
    if (pragma === undefined || !/(?:^|,)\s*no-cache\s*(?:,|$)/i.test(pragma)) return nothingAsked
    return { ...nothingAsked, noCache: true }
  }
  const directives = parseDirectives(cacheControl)
  return {
    maxAge: seconds(directives, 'max-age'),
    minFresh: seconds(directives, 'min-fresh'),
    maxStale: directives.get('max-stale') === true ? Number.POSITIVE_INFINITY : seconds(directives, 'max-stale'),
    noCache: directives.has('no-cache'),
    noStore: directives.has('no-store'),
    onlyIfCached: directives.has('only-if-cached'),
  }
}
