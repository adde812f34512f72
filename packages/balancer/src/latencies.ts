/**
 * How long each upstream takes, as a moving average, for the strategies that go by time.
 *
 * How to think about it. An average over samples forgets by counting, so a server that gets no requests keeps a bad minute for ever. Here it
 * forgets by the clock: a sample loses weight with the time constant `decay`, and what is left of it is taken by the *typical* time of the pool.
 * So one that is new, or was avoided for long, counts as average: it is tried again, and not flooded as an unknown with time 0 would be.
 *
 * A failure is no short time. A refused connection takes a millisecond, and a server that looked quick for it would draw all traffic to itself.
 * Whatever the upstream did wrong counts as a time well above the typical one, at once. What a client or the proxy did says nothing, but for one case: a
 * try that has lost against a hedge had taken so long and longer, and where that is more than was believed of its server, it is believed now. Or those
 * that hedging is there for would never be found out.
 *
 * Numbers live in arrays by slot, and travel in them: a fraction that is returned by a function that is not inlined is an allocation.
 */
import { type AttemptOutcome, type Clock, type Duration, type OptionReader, parseDuration, type Upstream } from '@weir/core'

export interface LatencyOptions {
  /** Time constant: after it, a sample has 37 % of its weight, after three times as long 5 %. Default 10 s. Shorter reacts to noise. */
  readonly decay?: Duration
  /** A failed try counts as at least so many times the typical time of the pool, from 1. Default 10. */
  readonly failurePenalty?: number
  /** Answers with status 500 to 599 are failures. Default true; false where applications answer them to bad requests, and quickly. */
  readonly serverErrors?: boolean
  /** For tests: the same one that the pool has. */
  readonly clock?: Pick<Clock, 'now'>
}

export const latencyNames: readonly string[] = ['decay', 'failurePenalty', 'serverErrors', 'clock']

export interface LatencyRules {
  readonly decay: number
  readonly failurePenalty: number
  readonly serverErrors: boolean
  /** Undefined: the real one. */
  readonly clock: Pick<Clock, 'now'> | undefined
}

export function readLatencyRules(read: OptionReader, given: LatencyOptions): LatencyRules {
  const decay = read.duration('decay', given.decay, 10_000, { min: 1, max: parseDuration('1d') as number })
  const failurePenalty = read.number('failurePenalty', given.failurePenalty, 10, { min: 1, max: 1_000_000 })
  const serverErrors = read.boolean('serverErrors', given.serverErrors, true)
  return { decay, failurePenalty, serverErrors, clock: given.clock === undefined ? undefined : readNow(read, given.clock) }
}

/** Only the time is read, so whatever has `now` will do. */
export function readNow(read: OptionReader, value: unknown): Pick<Clock, 'now'> {
  if (value === undefined) return performance
  if (typeof (value as Partial<Clock> | null)?.now !== 'function') read.problem('clock', value, 'an object with now')
  return value as Pick<Clock, 'now'>
}

/** Milliseconds that everything is taken for until the first answer. Only what differs from it matters. */
const firstGuess = 10
/** Below this, differences are those of the clock. */
const shortest = 0.05

export class Latencies {
  /** What each is taken for now, by slot; kept up to date by `refresh`. Milliseconds, above 0. */
  current: Float64Array = new Float64Array(0)
  /** True when any answer has been seen. */
  known: boolean = false
  readonly #rules: LatencyRules
  /** Of a time constant, each millisecond. */
  readonly #perDecay: number
  readonly #peak: boolean
  /** Of those that are no members now. */
  readonly #memory = new WeakMap<Upstream, readonly [estimate: number, at: number]>()
  #upstreams: readonly Upstream[] = []
  #slots = new Map<Upstream, number>()
  /** Moving average, by slot; 0 before the first sample. */
  #estimates = new Float64Array(0)
  /** When its last sample came, by slot. */
  #at = new Float64Array(0)
  /** Of the pool: decayed sum of samples, decayed number of samples, when the last came, and the typical time, which is their quotient. */
  readonly #pool = Float64Array.of(0, 0, 0, firstGuess)
  readonly #now = new Float64Array(1)

  /** @param peak a longer time than the average replaces it at once */
  constructor(rules: LatencyRules, peak: boolean) {
    this.#rules = rules
    this.#perDecay = 1 / rules.decay
    this.#peak = peak
  }

  update(available: readonly Upstream[]): void {
    for (let slot = 0; slot < this.#upstreams.length; slot++)
      this.#memory.set(this.#upstreams[slot] as Upstream, [this.#estimates[slot] as number, this.#at[slot] as number])
    this.#upstreams = available.slice()
    this.#slots = new Map(available.map((upstream, slot) => [upstream, slot]))
    this.#estimates = Float64Array.from(available, (upstream) => this.#memory.get(upstream)?.[0] ?? 0)
    this.#at = Float64Array.from(available, (upstream) => this.#memory.get(upstream)?.[1] ?? 0)
    this.current = new Float64Array(available.length)
    this.tick()
    for (let slot = 0; slot < available.length; slot++) this.refresh(slot)
  }

  /** -1 for one that is no member. */
  slot(upstream: Upstream): number {
    return this.#slots.get(upstream) ?? -1
  }

  /** Reads the clock. `refresh` goes by the time read last, since a look at the clock costs as much as a whole pick. */
  tick(): void {
    this.#now[0] = (this.#rules.clock ?? performance).now()
  }

  /** Lets go of what is old. */
  refresh(slot: number): void {
    const estimate = this.#estimates[slot] as number
    const typical = this.#pool[3] as number
    const age = ((this.#now[0] as number) - (this.#at[slot] as number)) * this.#perDecay
    // Within a hundredth of the time constant there is nothing to see, and in a busy pool no exponential to compute.
    if (estimate === 0) this.current[slot] = typical
    else if (age < 0.01) this.current[slot] = estimate
    else this.current[slot] = typical + (estimate - typical) * Math.exp(-age)
  }

  /** Takes in how a try ended; false when that says nothing about the upstream. */
  observe(slot: number, outcome: AttemptOutcome, byLastByte: boolean): boolean {
    const { error, status } = outcome
    const lost = error?.code === 'ERR_HEDGE_LOST'
    if (error !== undefined && error.source !== 'upstream' && !lost) return false
    // A pooled connection that had gone stale: the server may be in the best of health.
    if (error?.code === 'ERR_UPSTREAM_RESET' && outcome.reused) return false
    const failed = (error !== undefined && !lost) || (this.#rules.serverErrors && status !== undefined && status >= 500)
    const whole = failed || lost || byLastByte ? outcome.durationMs : outcome.headMs
    if (whole === undefined) return false
    const measured = whole - outcome.uploadMs
    // An outcome tells when it was, which spares a look at the clock; only a clock of one's own does not know about that.
    if (this.#rules.clock === undefined) this.#now[0] = Math.max(this.#now[0] as number, outcome.startedAt + outcome.durationMs)
    else this.tick()
    const now = this.#now[0] as number
    const { decay, failurePenalty } = this.#rules
    let sample = Math.max(measured, shortest)
    if (lost) {
      this.refresh(slot)
      if (sample <= (this.current[slot] as number)) return false
    } else if (failed) sample = Math.max(sample, failurePenalty * (this.#pool[3] as number))
    else this.#learn(sample, now)
    const estimate = this.#estimates[slot] as number
    if (estimate === 0 || (sample > estimate && (failed || this.#peak))) this.#estimates[slot] = sample
    // Rather than a weighted sum, which would not give back a value that never changes.
    else {
      const age = (now - (this.#at[slot] as number)) / decay
      // Beside a busy server's short steps, the exponential cannot be told from its beginning.
      this.#estimates[slot] = estimate + (sample - estimate) * (age < 0.001 ? age * (1 - age / 2) : -Math.expm1(-age))
    }
    this.#at[slot] = now
    this.refresh(slot)
    return true
  }

  #learn(sample: number, now: number): void {
    const pool = this.#pool
    const age = (now - (pool[2] as number)) / this.#rules.decay
    const kept = age < 0.001 ? 1 - age * (1 - age / 2) : Math.exp(-age)
    pool[0] = (pool[0] as number) * kept + sample
    pool[1] = (pool[1] as number) * kept + 1
    pool[2] = now
    pool[3] = (pool[0] as number) / (pool[1] as number)
    this.known = true
  }
}
