/**
 * What can go wrong while looking for upstreams. Such an error never reaches a request: the last good list stays in force, and the error goes
 * to `onError` and to the channel `weir:discovery`. Programs tell errors apart by `code`; `problems` and `cause` are for people.
 */
import type { OptionProblem } from '@weir/core'

export type DiscoveryErrorCode =
  /** The DNS did not answer, or answered with a failure (SERVFAIL, REFUSED). `cause` is node's error. */
  | 'ERR_DISCOVERY_DNS'
  /** The DNS says that there is nothing: no such name, or no such record. */
  | 'ERR_DISCOVERY_EMPTY'
  /** The guard refused everything that was found. */
  | 'ERR_DISCOVERY_REFUSED'
  /** The file cannot be read. */
  | 'ERR_DISCOVERY_FILE'
  /** The endpoint did not answer in time, or not with a list. */
  | 'ERR_DISCOVERY_HTTP'
  /** File or answer is longer than `maxSize`. */
  | 'ERR_DISCOVERY_TOO_LARGE'
  /** File or answer cannot be parsed. */
  | 'ERR_DISCOVERY_SYNTAX'
  /** It can be parsed, but is no list of upstreams, or says what a fetched list may not say: see `problems`. */
  | 'ERR_DISCOVERY_LIST'

export interface DiscoveryErrorOptions {
  readonly problems?: readonly OptionProblem[]
  readonly retryAfterMs?: number
  readonly cause?: unknown
}

const brand = Symbol.for('weir.DiscoveryError')

export class DiscoveryError extends Error {
  override readonly name: string = 'DiscoveryError'
  readonly code: DiscoveryErrorCode
  /** The `name` of the source. */
  readonly source: string
  /** Everything that is wrong with the list, with JSON paths such as `$[1].weight`; empty when that is not the trouble. */
  readonly problems: readonly OptionProblem[]
  /** How long the other side asked to be left alone, milliseconds. */
  readonly retryAfterMs: number | undefined

  constructor(code: DiscoveryErrorCode, source: string, message: string, options: DiscoveryErrorOptions = {}) {
    const { problems = [], retryAfterMs, cause } = options
    const lines = problems.map(({ path, expected, given }) => `\n  ${path}: expected ${expected}; given ${given}`)
    super(`${source}: ${message}${lines.join('')}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.source = source
    this.problems = problems
    this.retryAfterMs = retryAfterMs
    Object.defineProperty(this, brand, { value: true })
  }

  /** Also for errors of another copy of this package. */
  static is(value: unknown): value is DiscoveryError {
    return typeof value === 'object' && value !== null && brand in value
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
