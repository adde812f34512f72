/**
 * Reading options. A wrong configuration is reported once and whole: every problem with its path, what was given and what is allowed, in a
 * single `OptionsError`, because finding the second mistake only after mending the first wastes a deployment. Readers return a usable value
 * even when they record a problem, so that reading can go on to the end; `check()` throws.
 */

export interface OptionProblem {
  /** Path from the factory's argument, `upstreams[1].weight`. */
  readonly path: string
  /** What was given, shortened. */
  readonly given: string
  /** What is allowed, and how to mend it. */
  readonly expected: string
}

const brand = Symbol.for('weir.OptionsError')

/** Thrown by every factory for wrong options. `problems` lists all of them; the message prints one per line. */
export class OptionsError extends TypeError {
  override readonly name: string = 'OptionsError'
  readonly code: 'ERR_OPTIONS' = 'ERR_OPTIONS'
  readonly problems: readonly OptionProblem[]

  constructor(factory: string, problems: readonly OptionProblem[]) {
    super(
      `${factory}: ${problems.length === 1 ? '1 wrong option' : `${problems.length} wrong options`}\n${problems
        .map((p) => `  ${p.path}: expected ${p.expected}; given ${p.given}`)
        .join('\n')}`,
    )
    this.problems = problems
    Object.defineProperty(this, brand, { value: true })
  }

  static is(value: unknown): value is OptionsError {
    return typeof value === 'object' && value !== null && brand in value
  }
}

/** Milliseconds, or a number with a unit. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`
/** Bytes, or a number with a binary unit. */
export type Size = number | `${number}${'B' | 'KiB' | 'MiB' | 'GiB'}`

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const sizeUnits: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }
const durationPattern = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/
const sizePattern = /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)$/

/** Milliseconds, or undefined when the value is no duration. */
export function parseDuration(value: unknown): number | undefined {
  return parseQuantity(value, durationPattern, durationUnits)
}

/** Bytes, or undefined when the value is no size. */
export function parseSize(value: unknown): number | undefined {
  const bytes = parseQuantity(value, sizePattern, sizeUnits)
  return bytes === undefined ? undefined : Math.floor(bytes)
}

function parseQuantity(value: unknown, pattern: RegExp, units: Readonly<Record<string, number>>): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) && value >= 0 ? value : undefined
  if (typeof value !== 'string') return undefined
  const match = pattern.exec(value)
  const quantity = match === null ? undefined : Number(match[1]) * (units[match[2] as string] as number)
  return Number.isFinite(quantity) ? quantity : undefined
}

function show(value: unknown): string {
  if (typeof value === 'function') return `a function${value.name ? ` (${value.name})` : ''}`
  if (typeof value === 'bigint' || typeof value === 'symbol' || value === undefined) return String(value)
  if (typeof value === 'number') return String(value)
  let text: string
  try {
    text = value instanceof URL || value instanceof RegExp ? String(value) : (JSON.stringify(value) ?? String(value))
  } catch {
    text = Object.prototype.toString.call(value)
  }
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

export interface NumberRange {
  readonly min?: number
  readonly max?: number
  readonly integer?: boolean
}

/** Collects the problems of one factory call. `at('retry')` reads below a path and reports to the same list. */
export class OptionReader {
  readonly #factory: string
  readonly #prefix: string
  readonly #problems: OptionProblem[]

  constructor(factory: string, prefix = '', problems: OptionProblem[] = []) {
    this.#factory = factory
    this.#prefix = prefix
    this.#problems = problems
  }

  at(name: string | number): OptionReader {
    return new OptionReader(this.#factory, this.path(name), this.#problems)
  }

  path(name: string | number): string {
    if (name === '') return this.#prefix || 'options'
    if (typeof name === 'number') return `${this.#prefix}[${name}]`
    return this.#prefix === '' ? name : `${this.#prefix}.${name}`
  }

  problem(name: string | number, given: unknown, expected: string): void {
    this.#problems.push({ path: this.path(name), given: show(given), expected })
  }

  /** Takes over the problems of another factory that was given a part of these options; anything else is thrown on. */
  absorb(error: unknown): void {
    if (!OptionsError.is(error)) throw error
    for (const { path, given, expected } of error.problems) this.#problems.push({ path: this.path(path), given, expected })
  }

  /** The options object itself: undefined becomes `{}`; unknown names are problems, since a misspelt option is silently off. */
  object<T extends object>(value: T | undefined, known: readonly string[]): Partial<T> {
    if (value === undefined) return {}
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.problem('', value, 'an object of options')
      return {}
    }
    for (const name of Object.keys(value)) {
      if (!known.includes(name)) this.problem(name, (value as Record<string, unknown>)[name], `no such option; known: ${known.join(', ')}`)
    }
    return value
  }

  duration(name: string, value: unknown, fallback: number, range: NumberRange = {}): number {
    if (value === undefined) return fallback
    const ms = parseDuration(value)
    const { min = 0, max = 2_147_483_647 } = range
    if (ms === undefined || ms < min || ms > max) {
      this.problem(name, value, `a duration from ${min} ms to ${max} ms: a number of milliseconds, or a string like '250ms', '5s', '10m'`)
      return fallback
    }
    return ms
  }

  size(name: string, value: unknown, fallback: number, range: NumberRange = {}): number {
    if (value === undefined) return fallback
    const bytes = parseSize(value)
    const { min = 0, max = Number.MAX_SAFE_INTEGER } = range
    if (bytes === undefined || bytes < min || bytes > max) {
      this.problem(name, value, `a size of at least ${min} bytes: a number of bytes, or a string like '64KiB', '256MiB'`)
      return fallback
    }
    return bytes
  }

  number<F>(name: string, value: unknown, fallback: F, range: NumberRange = {}): number | F {
    if (value === undefined) return fallback
    const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY, integer = false } = range
    if (typeof value !== 'number' || Number.isNaN(value) || value < min || value > max || (integer && !Number.isInteger(value))) {
      const bounds = `${min === Number.NEGATIVE_INFINITY ? '' : ` from ${min}`}${max === Number.POSITIVE_INFINITY ? '' : ` to ${max}`}`
      this.problem(name, value, `a ${integer ? 'whole ' : ''}number${bounds}`)
      return fallback
    }
    return value
  }

  /** A name for people: events, logs. */
  name(name: string, value: unknown, fallback: string): string {
    if (value === undefined) return fallback
    if (typeof value !== 'string' || value === '') {
      this.problem(name, value, 'a non-empty string')
      return fallback
    }
    return value
  }

  boolean(name: string, value: unknown, fallback: boolean): boolean {
    if (value === undefined) return fallback
    if (typeof value !== 'boolean') {
      this.problem(name, value, 'true or false')
      return fallback
    }
    return value
  }

  /** For injected clocks and generators, callbacks and the like. */
  function<F extends (...args: never[]) => unknown>(name: string, value: unknown, fallback: F): F {
    if (value === undefined) return fallback
    if (typeof value !== 'function') {
      this.problem(name, value, 'a function')
      return fallback
    }
    return value as F
  }

  optionalFunction<F extends (...args: never[]) => unknown>(name: string, value: F | undefined): F | undefined {
    if (value === undefined || typeof value === 'function') return value
    this.problem(name, value, 'a function')
    return undefined
  }

  oneOf<T>(name: string, value: unknown, allowed: readonly T[], fallback: T): T {
    if (value === undefined) return fallback
    if (!allowed.includes(value as T)) {
      this.problem(name, value, `one of ${allowed.map(show).join(', ')}`)
      return fallback
    }
    return value as T
  }

  /** Throws one `OptionsError` with everything that was wrong. */
  check(): void {
    if (this.#problems.length > 0) throw new OptionsError(this.#factory, this.#problems)
  }
}
