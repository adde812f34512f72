/** Field names and patterns of them, in options: `X-Internal-*` stands for every name that begins so, in any case. */
import type { OptionReader } from '@weir/core'

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const pattern = /^[!#$%&'+\-.^_`|~0-9A-Za-z]+\*?$/

/** What frames a message or belongs to one connection; a stage that sets or strips these breaks it. */
const framing: ReadonlySet<string> = new Set(
  'connection content-length transfer-encoding upgrade keep-alive te trailer expect host proxy-connection http2-settings'.split(' '),
)

function isFramingField(name: string): boolean {
  return framing.has(name.toLowerCase())
}

/** A field that a stage sets. Undefined without one. */
export function readFieldName(read: OptionReader, name: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && token.test(value) && !isFramingField(value)) return value
  read.problem(name, value, "a field name such as 'X-User', and none that frames the message")
  return undefined
}

/** A list of plain field names. */
export function readFieldNames(read: OptionReader, name: string, value: unknown, fallback: readonly string[]): readonly string[] {
  if (value === undefined) return fallback
  if (!Array.isArray(value)) {
    read.problem(name, value, "a list of field names such as ['X-User']")
    return fallback
  }
  return value.flatMap((entry: unknown, index): string[] => {
    if (typeof entry === 'string' && token.test(entry) && !isFramingField(entry)) return [entry]
    read.at(name).problem(index, entry, 'a field name, and none that frames the message')
    return []
  })
}

export class FieldPatterns {
  readonly #names = new Set<string>()
  readonly #prefixes: string[] = []

  constructor(patterns: readonly string[]) {
    for (const text of patterns) {
      const lower = text.toLowerCase()
      if (lower.endsWith('*')) this.#prefixes.push(lower.slice(0, -1))
      else this.#names.add(lower)
    }
  }

  get empty(): boolean {
    return this.#names.size === 0 && this.#prefixes.length === 0
  }

  /** `lower` is lower-case. */
  match(lower: string): boolean {
    if (this.#names.has(lower)) return true
    for (const prefix of this.#prefixes) if (lower.startsWith(prefix)) return true
    return false
  }
}

export function readPatterns(read: OptionReader, name: string, value: unknown): readonly string[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) {
    read.problem(name, value, "a list of field names and patterns such as ['X-Internal-*']")
    return []
  }
  return value.filter((entry: unknown, index): entry is string => {
    if (typeof entry === 'string' && pattern.test(entry) && !isFramingField(entry)) return true
    read
      .at(name)
      .problem(index, entry, "a field name, or the beginning of one and a star, such as 'X-Internal-*', and none that frames the message")
    return false
  })
}
