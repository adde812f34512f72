/**
 * The parts of structured fields (RFC 9651) that a cache reads and writes: dictionaries for targeted cache directives (RFC 9213), lists of strings for
 * `Cache-Groups` (RFC 9875), and the strings of `Cache-Status` (RFC 9211). What does not parse is ignored whole, as RFC 9213 §2.2 wants it.
 */

/** A member: of what kind and value. Of an inner list the strings; undefined in their place where it holds anything else. */
interface Item {
  readonly type: 'integer' | 'decimal' | 'boolean' | 'string' | 'token' | 'list' | 'other'
  readonly value: string | number | boolean
  readonly strings?: readonly string[] | undefined
}

const key = /[a-z*][a-z0-9_\-.*]*/y
const number = /-?(?:\d{1,12}\.\d{1,3}|\d{1,15})(?![\d.])/y
const token = /[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y
const text = /"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y
const bytes = /:[A-Za-z0-9+/=]*:/y
const date = /@-?\d{1,15}/y
const display = /%"[\x20-\x24\x26-\x7e%]*"/y

class Parser {
  #at = 0
  readonly #text: string

  constructor(source: string) {
    this.#text = source
    this.spaces(/ */y)
  }

  get done(): boolean {
    return this.#at >= this.#text.length
  }

  take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#text)
    if (match === null) return undefined
    this.#at = pattern.lastIndex
    return match
  }

  spaces(pattern: RegExp): void {
    this.take(pattern)
  }

  next(character: string): boolean {
    if (this.#text[this.#at] !== character) return false
    this.#at++
    return true
  }

  item(): Item | undefined {
    const found = this.#bare()
    return found !== undefined && this.parameters() ? found : undefined
  }

  #bare(): Item | undefined {
    let match = this.take(number)
    if (match !== undefined) return { type: match[0].includes('.') ? 'decimal' : 'integer', value: Number(match[0]) }
    match = this.take(text)
    if (match !== undefined) return { type: 'string', value: (match[1] as string).replace(/\\(.)/g, '$1') }
    match = this.take(token)
    if (match !== undefined) return { type: 'token', value: match[0] }
    match = this.take(/\?[01]/y)
    if (match !== undefined) return { type: 'boolean', value: match[0] === '?1' }
    match = this.take(bytes) ?? this.take(date) ?? this.take(display)
    return match === undefined ? undefined : { type: 'other', value: match[0] }
  }

  /** Behind its opening parenthesis. */
  innerList(): Item | undefined {
    let strings: string[] | undefined = []
    for (;;) {
      this.spaces(/ */y)
      if (this.next(')')) return this.parameters() ? { type: 'list', value: '', strings } : undefined
      const item = this.item()
      if (item === undefined || this.done) return undefined
      if (item.type === 'string') strings?.push(item.value as string)
      else strings = undefined
    }
  }

  parameters(): boolean {
    while (this.next(';')) {
      this.spaces(/ */y)
      if (this.take(key) === undefined) return false
      if (this.next('=') && this.#bare() === undefined) return false
    }
    return true
  }

  /** After a member: true at a comma with something behind it, false at the end; undefined when it is neither. */
  more(): boolean | undefined {
    this.spaces(/[ \t]*/y)
    if (this.done) return false
    if (!this.next(',')) return undefined
    this.spaces(/[ \t]*/y)
    return this.done ? undefined : true
  }
}

/** Undefined when the field is not a dictionary. Of a key that comes twice the last counts (RFC 9651 §3.2). */
export function parseDictionary(source: string): Map<string, Item> | undefined {
  const parser = new Parser(source)
  const found = new Map<string, Item>()
  if (parser.done) return found
  for (;;) {
    const name = parser.take(key)?.[0]
    if (name === undefined) return undefined
    let value: Item | undefined = { type: 'boolean', value: true }
    if (!parser.next('=')) {
      if (!parser.parameters()) return undefined
    } else value = parser.next('(') ? parser.innerList() : parser.item()
    if (value === undefined) return undefined
    found.set(name, value)
    const more = parser.more()
    if (more === undefined) return undefined
    if (!more) return found
  }
}

/** The members of a list of strings; undefined when it is anything else. */
export function parseStringList(source: string): string[] | undefined {
  const parser = new Parser(source)
  const found: string[] = []
  if (parser.done) return found
  for (;;) {
    const item = parser.item()
    if (item?.type !== 'string') return undefined
    found.push(item.value as string)
    const more = parser.more()
    if (more === undefined) return undefined
    if (!more) return found
  }
}

/** A string as a structured field writes it; what it cannot hold becomes `%XX`. */
export function serializeString(value: string): string {
  const ascii = value.replace(/[^\x20-\x7e]/g, (character) => encodeURIComponent(character))
  return `"${ascii.replace(/["\\]/g, '\\$&')}"`
}

/**
 * A targeted field (RFC 9213) as plain directives: its members have to be of the types that the directives are defined with, else the field is ignored.
 * Undefined when it is to be ignored.
 */
export function targetedDirectives(source: string): Map<string, string | true> | undefined {
  const dictionary = parseDictionary(source)
  if (dictionary === undefined || dictionary.size === 0) return undefined
  const directives = new Map<string, string | true>()
  for (const [name, item] of dictionary) {
    if (lifetimes.has(name)) {
      if (item.type !== 'integer' || (item.value as number) < 0) return undefined
      directives.set(name, String(item.value))
    } else if (item.type === 'boolean') {
      if (item.value === true) directives.set(name, true)
    } else directives.set(name, String(item.value))
  }
  return directives
}

const lifetimes: ReadonlySet<string> = new Set(['max-age', 's-maxage', 'stale-while-revalidate', 'stale-if-error'])
