/**
 * Which media types are worth it. A list of what is text, not of what is not: an unknown type is more often packed already (images, video,
 * archives, fonts) than not, and to compress that again costs time and saves nothing.
 */

/** `/*` at the end stands for every subtype, `+` at the beginning for every type with this suffix (RFC 6839). */
export const defaultTypes: readonly string[] = [
  'text/*',
  '+json',
  '+xml',
  '+text',
  '+json-seq',
  'application/json',
  'application/json-seq',
  'application/x-ndjson',
  'application/ndjson',
  'application/jsonl',
  'application/javascript',
  'application/x-javascript',
  'application/ecmascript',
  'application/xml',
  'application/xml-dtd',
  'application/graphql',
  'application/x-www-form-urlencoded',
  'application/yaml',
  'application/toml',
  'application/sql',
  'application/rtf',
  'application/wasm',
  'application/vnd.ms-fontobject',
  'application/x-font-ttf',
  'font/ttf',
  'font/otf',
  'font/collection',
  'image/svg+xml',
  'image/bmp',
  'image/x-icon',
  'image/vnd.microsoft.icon',
]

const pattern = /^(?:\*\/\*|[\w!#$&^.+-]+\/(?:\*|[\w!#$&^.+-]+)|\+[\w!#$&^.-]+)$/

export function isTypePattern(value: unknown): value is string {
  return typeof value === 'string' && pattern.test(value)
}

/** The type without parameters, in lower case; `''` when there is none. */
export function essenceOf(contentType: string | undefined): string {
  if (contentType === undefined) return ''
  const semicolon = contentType.indexOf(';')
  return (semicolon < 0 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase()
}

export function typeMatcher(patterns: readonly string[]): (type: string) => boolean {
  const exact = new Set<string>()
  const families = new Set<string>()
  const suffixes = new Set<string>()
  for (const given of patterns) {
    const lower = given.toLowerCase()
    if (lower === '*/*') return (type) => type !== ''
    if (lower.endsWith('/*')) families.add(lower.slice(0, -2))
    else if (lower.startsWith('+')) suffixes.add(lower)
    else exact.add(lower)
  }
  return (type) => {
    if (exact.has(type)) return true
    const slash = type.indexOf('/')
    if (slash <= 0) return false
    if (families.has(type.slice(0, slash))) return true
    const plus = type.lastIndexOf('+')
    return plus > slash && suffixes.has(type.slice(plus))
  }
}

const live: ReadonlySet<string> = new Set([
  'text/event-stream',
  'application/x-ndjson',
  'application/ndjson',
  'application/jsonl',
  'application/json-seq',
  'application/stream+json',
])

/** Each write is a message that somebody waits for. */
export function isLive(type: string): boolean {
  return live.has(type) || type.endsWith('+json-seq')
}
