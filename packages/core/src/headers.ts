/**
 * Header fields as they were on the wire. Node's `req.headers` lower-cases names, joins duplicates and drops some of them; a proxy must not.
 * `HeaderList` keeps the parser's flat list `[name, value, name, value ...]` and copies it on the first write, so that a request that no
 * stage edits shares its list with the parser. Lookups compare lengths before letters: with ten to thirty fields a scan beats an index
 * that would have to be built for every message.
 */
import { ProxyError } from './errors.ts'

// RFC 9110 §5.5: field values hold HTAB, SP, VCHAR and obs-text; CR, LF and NUL are what response splitting is made of.
const forbiddenValue = /[^\t\x20-\x7e\x80-\xff]/
const tokenPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/** Is `name` this field? `lower` must be lower-case. */
export function isField(name: string, lower: string): boolean {
  return name.length === lower.length && (name === lower || name.toLowerCase() === lower)
}

/** @throws ProxyError ERR_HEADER_VALUE */
export function checkField(name: string, value: string): void {
  if (!tokenPattern.test(name)) throw new ProxyError('ERR_HEADER_VALUE', { message: `Header name ${JSON.stringify(name)} is not a token.` })
  if (forbiddenValue.test(value))
    throw new ProxyError('ERR_HEADER_VALUE', {
      message: `The value of header ${name} holds a character that HTTP forbids; encode it (control characters and everything above U+00FF).`,
    })
}

export class HeaderList implements Iterable<[name: string, value: string]> {
  #raw: string[]
  #shared: boolean

  /** @param raw flat list, latin1; it is not copied until the first write, and never written to */
  constructor(raw: readonly string[]) {
    this.#raw = raw as string[]
    this.#shared = true
  }

  /** The value; several lines of one name are joined with `, ` (RFC 9110 §5.3), except `Set-Cookie`, of which the first is returned. */
  get(name: string): string | undefined {
    const raw = this.#raw
    const lower = name.toLowerCase()
    let found: string | undefined
    for (let i = 0; i < raw.length; i += 2) {
      if (!isField(raw[i] as string, lower)) continue
      if (found === undefined) {
        found = raw[i + 1] as string
        if (lower === 'set-cookie') return found
      } else found = `${found}, ${raw[i + 1]}`
    }
    return found
  }

  /** Every line of this name, in order. */
  getAll(name: string): string[] {
    const lower = name.toLowerCase()
    const values: string[] = []
    for (let i = 0; i < this.#raw.length; i += 2) if (isField(this.#raw[i] as string, lower)) values.push(this.#raw[i + 1] as string)
    return values
  }

  has(name: string): boolean {
    const lower = name.toLowerCase()
    for (let i = 0; i < this.#raw.length; i += 2) if (isField(this.#raw[i] as string, lower)) return true
    return false
  }

  /** Replaces every line of this name; the first keeps its place. @throws ProxyError ERR_HEADER_VALUE */
  set(name: string, value: string | readonly string[]): this {
    const values = typeof value === 'string' ? [value] : value
    for (const v of values) checkField(name, v)
    const lower = name.toLowerCase()
    const next: string[] = []
    let placed = false
    for (let i = 0; i < this.#raw.length; i += 2) {
      if (!isField(this.#raw[i] as string, lower)) next.push(this.#raw[i] as string, this.#raw[i + 1] as string)
      else if (!placed) {
        placed = true
        for (const v of values) next.push(name, v)
      }
    }
    if (!placed) for (const v of values) next.push(name, v)
    this.#raw = next
    this.#shared = false
    return this
  }

  /** Adds a line behind the others. @throws ProxyError ERR_HEADER_VALUE */
  append(name: string, value: string): this {
    checkField(name, value)
    this.#own().push(name, value)
    return this
  }

  /** Removes every line of this name; false when there was none. */
  delete(name: string): boolean {
    if (!this.has(name)) return false
    const lower = name.toLowerCase()
    this.#raw = filterFields(this.#raw, (field) => !isField(field, lower))
    this.#shared = false
    return true
  }

  /** Gives every line of `from` the name `to`, in place. @throws ProxyError ERR_HEADER_VALUE */
  rename(from: string, to: string): boolean {
    checkField(to, '')
    const lower = from.toLowerCase()
    let found = false
    for (let i = 0; i < this.#raw.length; i += 2) {
      if (!isField(this.#raw[i] as string, lower)) continue
      found = true
      this.#own()[i] = to
    }
    return found
  }

  /** Number of field lines. */
  get size(): number {
    return this.#raw.length / 2
  }

  /** The flat list. Not a copy: do not write to it. */
  get raw(): readonly string[] {
    return this.#raw
  }

  *[Symbol.iterator](): Generator<[string, string]> {
    for (let i = 0; i < this.#raw.length; i += 2) yield [this.#raw[i] as string, this.#raw[i + 1] as string]
  }

  #own(): string[] {
    if (this.#shared) {
      this.#raw = this.#raw.slice()
      this.#shared = false
    }
    return this.#raw
  }
}

export function filterFields(raw: readonly string[], keep: (name: string) => boolean): string[] {
  const next: string[] = []
  for (let i = 0; i < raw.length; i += 2) if (keep(raw[i] as string)) next.push(raw[i] as string, raw[i + 1] as string)
  return next
}
