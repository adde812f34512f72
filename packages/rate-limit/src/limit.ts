/**
 * What the algorithms have in common. Each one is a pure function of numbers: what is remembered of a key, the time, a cost, and the limit go in;
 * what is remembered from now on and a verdict come out. No clock, no store, no promise. So each can be tested against its own definition, and a
 * script inside a shared store can do the same arithmetic in one round trip.
 *
 * What is remembered is three numbers at most, all zero for a key never seen. They are called `a`, `b` and `c` here, because a store that keeps
 * them in columns must not care which algorithm they belong to; every algorithm says at its top what they mean to it.
 */

export type AlgorithmName = 'gcra' | 'token-bucket' | 'fixed-window' | 'sliding-window' | 'leaky-bucket'

/** One limit, ready for use. All times are milliseconds. */
export interface Limit {
  /** Under this name the store keeps it: the stage's name and the limit's. */
  readonly id: string
  /** For people and for the `RateLimit` fields. */
  readonly name: string
  readonly algorithm: AlgorithmName
  /** So much ... */
  readonly quota: number
  /** ... per this. */
  readonly windowMs: number
  /** The most that can be taken at one moment. For `gcra` and `token-bucket`; elsewhere it is `quota`. */
  readonly burst: number
  /** How long a request may wait for its turn. For `leaky-bucket`; elsewhere 0. */
  readonly maxDelayMs: number
}

/** What is remembered of one key. */
export interface LimitState {
  a: number
  b: number
  c: number
}

/** What a limit says to one request. Durations count from the moment of the decision, so that nobody has to agree on the time of day. */
export interface Verdict {
  readonly allowed: boolean
  /** Whole units that are left, after this request if it was charged. */
  readonly remaining: number
  /** Milliseconds until the same request would be allowed if nobody else came; `Infinity` when it costs more than there ever is. 0 when allowed. */
  readonly retryAfterMs: number
  /** Milliseconds until there is one unit more than `remaining`; 0 when there is nothing to wait for. */
  readonly resetMs: number
  /** Milliseconds that an allowed request has to wait for its turn. */
  readonly delayMs: number
  /** The time of the decision on the clock of whoever decided. Given back to `adjust`, and of no other use. */
  readonly at: number
}

/**
 * New state and verdict in one object. A class, since it lives as long as the exchange (its numbers become header fields at the end), and what
 * lives that long must not come from a literal: docs/decisions/0019.
 */
export class LimitStep implements Verdict, LimitState {
  allowed: boolean
  remaining: number
  retryAfterMs: number
  resetMs: number
  delayMs: number
  at: number
  a: number
  b: number
  c: number

  constructor(
    allowed: boolean,
    remaining: number,
    retryAfterMs: number,
    resetMs: number,
    delayMs: number,
    at: number,
    a: number,
    b: number,
    c: number,
  ) {
    this.allowed = allowed
    this.remaining = remaining
    this.retryAfterMs = retryAfterMs
    this.resetMs = resetMs
    this.delayMs = delayMs
    this.at = at
    this.a = a
    this.b = b
    this.c = c
  }
}

export interface Algorithm {
  /** How many of `a`, `b` and `c` it uses, from `a` on; the others stay 0. */
  readonly numbers: 1 | 2 | 3
  /** Asks for `cost`. A refused request changes nothing. Cost 0 takes nothing and passes unless more is taken already than there is. */
  take(state: Readonly<LimitState>, nowMs: number, cost: number, limit: Limit): LimitStep
  /**
   * Corrects a charge made at `chargedAt`: `difference` more, or less when negative. More may overdraw, and later requests pay for it. Less is never
   * more than what the charge still weighs: what time has already given back is not given back twice.
   */
  adjust(state: Readonly<LimitState>, nowMs: number, difference: number, chargedAt: number, limit: Limit): LimitStep
  /** From this time on `take` and `adjust` make of the state what they would make of a key never seen. */
  expiresAt(state: Readonly<LimitState>, limit: Limit): number
}

/**
 * Sums of milliseconds are not exact. A tenth of a thousandth of a unit of good will lets a hundred requests through a limit of a hundred, and
 * never a hundred and one.
 */
export const slack = 1e-4
