/**
 * A concurrency limit that finds itself: see gradient.ts for how. A fixed cap is right on the day it is chosen; this one follows the servers, at the price
 * of refusing some requests while it measures. For the pool the excess is answered 503 at once (`ERR_OVERLOADED`); per upstream it waits in the
 * pool's queue, or goes to others.
 */
import { type Clock, type Duration, type HealthControl, type HealthPolicy, OptionReader, ProxyError, type Upstream } from '@weir/core'
import { attemptVerdict } from './attempt-verdict.ts'
import { firstGradient, type Gradient, type GradientSettings, limitOf, nextGradient, takesSample } from './gradient.ts'
import { LatencyHistogram } from './latency-histogram.ts'

export interface AdaptiveConcurrencyOptions {
  /** One limit for the pool, or one per upstream. Default `pool`. */
  readonly scope?: 'pool' | 'upstream'
  /** Default 3. */
  readonly minLimit?: number
  /** Default 1,000. */
  readonly maxLimit?: number
  /** What it begins with after the first measurement. Default 20. */
  readonly initialLimit?: number
  /** Milliseconds over which times are gathered before the limit changes. Default 100 ms. */
  readonly step?: Duration
  /** Which time counts. Default 0.5, the median. */
  readonly quantile?: number
  /** Share by which times may lie above the best; more where times vary much by themselves. Default 0.25. */
  readonly tolerance?: number
  /** How often the best time is measured anew (later by up to 15 %, at random). Default 60 s. */
  readonly measureEvery?: Duration
  /** Requests of a measurement. Default 50. */
  readonly measureSamples?: number
  /** The limit during one. Default 3. */
  readonly measureLimit?: number
  /** For events. Default `adaptiveConcurrency`. */
  readonly name?: string
}

/** Samples that a step needs; with fewer its median is chance. */
const smallestStep = 5

/** One limit: state, samples, and the timer of its steps. Without traffic there are no samples, and no timer either. */
class Limiter {
  gradient: Gradient
  readonly #settings: GradientSettings
  readonly #clock: Clock
  readonly #random: () => number
  readonly #histogram = new LatencyHistogram()
  readonly #onLimit: (limit: number) => void
  #timer: unknown
  #ticked = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(settings: GradientSettings, initial: number, clock: Clock, random: () => number, onLimit: (limit: number) => void) {
    this.#settings = settings
    this.#clock = clock
    this.#random = random
    this.#onLimit = onLimit
    this.gradient = firstGradient(clock.now(), initial)
  }

  get limit(): number {
    return limitOf(this.gradient, this.#settings)
  }

  sample(ms: number, startedAt: number): void {
    if (this.#closed) return
    if (takesSample(this.gradient, startedAt)) this.#histogram.record(ms)
    if (this.#timer !== undefined) return
    const due = Math.max(this.#clock.now(), this.#ticked) + this.#settings.step
    this.#timer = this.#clock.setTimeout(() => this.#tick(due), this.#settings.step)
  }

  close(): void {
    this.#closed = true
    this.#clock.clearTimeout(this.#timer)
  }

  /** @param due when it was to be: a timer may be a fraction early, and the step would be put off by a whole one */
  #tick(due: number): void {
    this.#timer = undefined
    const before = this.limit
    this.#ticked = Math.max(due, this.#clock.now())
    this.gradient = nextGradient(this.gradient, this.#ticked, this.#random(), this.#histogram, this.#settings)
    if (this.limit !== before) this.#onLimit(this.limit)
  }
}

/** @throws OptionsError */
export function adaptiveConcurrency(options?: AdaptiveConcurrencyOptions): HealthPolicy {
  const read = new OptionReader('adaptiveConcurrency')
  const given = read.object<AdaptiveConcurrencyOptions>(options, [
    'scope',
    'minLimit',
    'maxLimit',
    'initialLimit',
    'step',
    'quantile',
    'tolerance',
    'measureEvery',
    'measureSamples',
    'measureLimit',
    'name',
  ])
  const whole = (name: 'minLimit' | 'maxLimit' | 'initialLimit' | 'measureSamples' | 'measureLimit', fallback: number, min = 1): number =>
    read.number(name, given[name], fallback, { min, max: 1_000_000, integer: true })
  const minLimit = whole('minLimit', 3)
  const maxLimit = whole('maxLimit', Math.max(1000, minLimit), minLimit)
  const initial = Math.min(maxLimit, whole('initialLimit', Math.max(20, minLimit), minLimit))
  const settings: GradientSettings = {
    minLimit,
    maxLimit,
    measureLimit: whole('measureLimit', 3),
    measureSamples: whole('measureSamples', 50),
    measureEvery: read.duration('measureEvery', given.measureEvery, 60_000, { min: 1 }),
    step: read.duration('step', given.step, 100, { min: 1 }),
    minSamples: smallestStep,
    quantile: read.number('quantile', given.quantile, 0.5, { min: 0.01, max: 1 }),
    tolerance: read.number('tolerance', given.tolerance, 0.25, { min: 0, max: 10 }),
  }
  const scope = read.oneOf('scope', given.scope, ['pool', 'upstream'] as const, 'pool')
  const name = read.name('name', given.name, 'adaptiveConcurrency')
  read.check()
  return scope === 'pool' ? poolLimit(name, settings, initial) : upstreamLimits(name, settings, initial)
}

/** Only answers that were answers: a fast failure is no sign of a fast server. */
function sampleInto(limiter: Limiter | undefined, outcome: Parameters<NonNullable<HealthPolicy['onAttempt']>>[0]): void {
  const { headMs, uploadMs, status = 0, startedAt } = outcome
  if (limiter !== undefined && headMs !== undefined && status < 500 && status !== 101 && attemptVerdict(outcome) === 'answered')
    limiter.sample(headMs - uploadMs, startedAt)
}

function poolLimit(name: string, settings: GradientSettings, initial: number): HealthPolicy {
  let limiter: Limiter | undefined
  /** Attempts that wait for their head: what is measured is the time to it, and a tunnel or an event stream that was answered is no load on the queue. */
  let busy = 0
  return {
    name,
    attach(control) {
      limiter = new Limiter(settings, initial, control.clock, control.random, () => {})
    },
    admit: () => (limiter !== undefined && busy >= limiter.limit ? new ProxyError('ERR_OVERLOADED') : undefined),
    onAcquire: () => void busy++,
    onHead: () => void busy--,
    onAttempt(outcome) {
      if (outcome.headMs === undefined) busy--
      sampleInto(limiter, outcome)
    },
    close: () => limiter?.close(),
  }
}

/** The limit of one upstream. */
interface Limited {
  readonly limiter: Limiter
  /** Attempts that have got their head and go on: as above they are no load on the queue, but hold one of the upstream's places. */
  answered: number
}

function upstreamLimits(name: string, settings: GradientSettings, initial: number): HealthPolicy {
  const members = new Map<Upstream, Limited>()
  let pool: HealthControl | undefined
  const apply = (upstream: Upstream, { limiter, answered }: Limited): void => pool?.setLimit(upstream, policy, limiter.limit + answered)
  const join = (upstream: Upstream, { clock, random }: HealthControl): void => {
    const member: Limited = { limiter: new Limiter(settings, initial, clock, random, () => apply(upstream, member)), answered: 0 }
    members.set(upstream, member)
    apply(upstream, member)
  }
  const count = (upstream: Upstream, change: 1 | -1): void => {
    const member = members.get(upstream)
    if (member === undefined) return
    member.answered = Math.max(0, member.answered + change)
    apply(upstream, member)
  }
  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) join(upstream, control)
    },
    onUpstream({ upstream, from, to }) {
      if (pool === undefined) return
      if (from === undefined) join(upstream, pool)
      else if (to === undefined) {
        members.get(upstream)?.limiter.close()
        members.delete(upstream)
      }
    },
    onHead: (upstream) => count(upstream, 1),
    onAttempt(outcome) {
      if (outcome.headMs !== undefined) count(outcome.upstream, -1)
      sampleInto(members.get(outcome.upstream)?.limiter, outcome)
    },
    close() {
      pool = undefined
      for (const { limiter } of members.values()) limiter.close()
      members.clear()
    },
  }
  return policy
}
