/**
 * When a second try is allowed. Three guards stand before it, and each exists because a proxy without it made an outage worse:
 * - idempotency: a request that may have been processed is not sent again unless its method (or an `Idempotency-Key`, if permitted) says
 *   that twice is the same as once (RFC 9110 §9.2.2);
 * - the replay buffer: a body that is no longer whole cannot be sent again (replay.ts);
 * - the budget: retries are a share of the requests, not a number per request, since "two tries each" doubles the load on a pool exactly
 *   when it is failing.
 */
import type { ErrorCode, ProxyError } from './errors.ts'
import type { Duration, OptionReader, Size } from './options.ts'

/** `connect`: no connection. `reset`: the connection died before a response head. `timeout`: no head in time. Or a status from 400 to 599. */
export type RetryCondition = 'connect' | 'reset' | 'timeout' | number

export interface RetryOptions {
  /** Tries in all, the first included, from 1. Default 2: one retry. */
  readonly attempts?: number
  /**
   * Default `['connect', 'reset']`. `reset` and `timeout` hold for idempotent requests only, as do statuses. Do not list `timeout` for
   * upstreams whose slowness is load: a second try doubles it.
   */
  readonly on?: readonly RetryCondition[]
  /** Methods that may be sent twice. Default GET, HEAD, OPTIONS, PUT, DELETE, QUERY. */
  readonly methods?: readonly string[]
  /** Let `Idempotency-Key` make any request retryable. Only when every upstream honours that field. Default false. */
  readonly idempotencyKey?: boolean
  /** Most time for one try to its response head; 0 leaves it to `timeouts.head`. Default 0. */
  readonly perTryTimeout?: Duration
  readonly budget?: RetryBudgetOptions | false
  /** Pause before a retry that goes to an upstream already tried, or follows a status: full jitter below `base` doubled per try, at most `max`. Default 25 ms, 250 ms. */
  readonly backoff?: { readonly base?: Duration; readonly max?: Duration }
  /** A `Retry-After` up to this is waited for; a longer one ends the retries and the response goes to the client. Default 1 s. */
  readonly maxRetryAfter?: Duration
  /** Request body bytes kept per request. Default 64 KiB. */
  readonly replayBuffer?: Size
  /** A second try beside a slow first one; for requests without a body whose method is in `methods`. Default: none. */
  readonly hedge?: HedgeOptions
}

export interface HedgeOptions {
  /**
   * How long a try may go without a response head before a second goes to another upstream. Choose it near the 95th percentile of what the upstreams
   * take: much lower, and the second request is the rule. Not for upstreams whose slowness is load.
   */
  readonly after: Duration
  /** Further tries at most, from 1, each `after` the one before it. Default 1. */
  readonly attempts?: number
  /** Default: 5 % of the requests, and 1 a second always. `false`: no bound but `attempts`. */
  readonly budget?: RetryBudgetOptions | false
}

export interface RetryBudgetOptions {
  /** Retries per request, from 0 to 1, over the last 10 s. Default 0.2. */
  readonly ratio?: number
  /** Retries per second that are always allowed, so that a quiet service can retry at all. Default 10. */
  readonly minPerSecond?: number
}

const windowSeconds = 10

/** Requests and retries of the last ten seconds in one-second slots: a ring, because a timestamp per request would cost more than it tells. */
export class RetryBudget {
  readonly #ratio: number
  readonly #floor: number
  readonly #requests = new Float64Array(windowSeconds)
  readonly #retries = new Float64Array(windowSeconds)
  #second = 0

  constructor(ratio: number, minPerSecond: number) {
    this.#ratio = ratio
    this.#floor = minPerSecond * windowSeconds
  }

  /** Counts a request. `now` in milliseconds. */
  onRequest(now: number): void {
    const slot = this.#advance(now)
    this.#requests[slot] = (this.#requests[slot] as number) + 1
  }

  /** Takes one retry out of the budget; false when there is none left. */
  tryRetry(now: number): boolean {
    const slot = this.#advance(now)
    let requests = 0
    let retries = 0
    for (let i = 0; i < windowSeconds; i++) {
      requests += this.#requests[i] as number
      retries += this.#retries[i] as number
    }
    if (retries + 1 > requests * this.#ratio + this.#floor) return false
    this.#retries[slot] = (this.#retries[slot] as number) + 1
    return true
  }

  /** The retry that was taken out last was not sent. */
  giveBack(now: number): void {
    const slot = this.#advance(now)
    this.#retries[slot] = Math.max(0, (this.#retries[slot] as number) - 1)
  }

  #advance(now: number): number {
    const second = Math.floor(now / 1000)
    if (second > this.#second) {
      const stale = Math.min(second - this.#second, windowSeconds)
      for (let i = 1; i <= stale; i++) {
        const slot = (this.#second + i) % windowSeconds
        this.#requests[slot] = 0
        this.#retries[slot] = 0
      }
      this.#second = second
    }
    return second % windowSeconds
  }
}

export interface RetryPolicy {
  readonly attempts: number
  readonly connect: boolean
  readonly reset: boolean
  readonly timeout: boolean
  /** Undefined when no status is retried. */
  readonly statuses: ReadonlySet<number> | undefined
  readonly methods: ReadonlySet<string>
  readonly idempotencyKey: boolean
  readonly perTryTimeout: number
  readonly budget: RetryBudget | undefined
  readonly backoffBase: number
  readonly backoffMax: number
  readonly maxRetryAfter: number
  readonly replayBuffer: number
  readonly hedge: HedgePolicy | undefined
}

export interface HedgePolicy {
  readonly after: number
  readonly attempts: number
  readonly budget: RetryBudget | undefined
}

const defaultMethods: readonly string[] = ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'QUERY']

export function compileRetry(value: RetryOptions | false | undefined, read: OptionReader): RetryPolicy {
  if (value === false) return compileRetry({ attempts: 1 }, read)
  const given = read.object<RetryOptions>(value, [
    'attempts',
    'on',
    'methods',
    'idempotencyKey',
    'perTryTimeout',
    'budget',
    'backoff',
    'maxRetryAfter',
    'replayBuffer',
    'hedge',
  ])
  const on: readonly unknown[] = given.on === undefined ? ['connect', 'reset'] : Array.isArray(given.on) ? given.on : []
  const statuses = new Set<number>()
  if (given.on !== undefined && !Array.isArray(given.on))
    read.problem('on', given.on, "a list of 'connect', 'reset', 'timeout' and statuses from 400 to 599")
  else
    on.forEach((condition: unknown, index: number) => {
      if (typeof condition === 'number' && Number.isInteger(condition) && condition >= 400 && condition <= 599) statuses.add(condition)
      else if (condition !== 'connect' && condition !== 'reset' && condition !== 'timeout')
        read.problem(`on[${index}]`, condition, "'connect', 'reset', 'timeout' or a status from 400 to 599")
    })
  if (given.methods !== undefined && !(Array.isArray(given.methods) && given.methods.every((m) => typeof m === 'string')))
    read.problem('methods', given.methods, "a list of method names such as ['GET', 'HEAD']")
  const backoff = read.at('backoff').object<NonNullable<RetryOptions['backoff']>>(given.backoff, ['base', 'max'])
  return {
    attempts: read.number('attempts', given.attempts, 2, { min: 1, max: 100, integer: true }),
    connect: on.includes('connect'),
    reset: on.includes('reset'),
    timeout: on.includes('timeout'),
    statuses: statuses.size > 0 ? statuses : undefined,
    methods: new Set((Array.isArray(given.methods) ? given.methods : defaultMethods).map((method) => String(method).toUpperCase())),
    idempotencyKey: read.boolean('idempotencyKey', given.idempotencyKey, false),
    perTryTimeout: read.duration('perTryTimeout', given.perTryTimeout, 0),
    budget: readBudget(given.budget, read.at('budget'), 0.2, 10),
    backoffBase: read.at('backoff').duration('base', backoff.base, 25),
    backoffMax: read.at('backoff').duration('max', backoff.max, 250),
    maxRetryAfter: read.duration('maxRetryAfter', given.maxRetryAfter, 1000),
    replayBuffer: read.size('replayBuffer', given.replayBuffer, 65_536),
    hedge: given.hedge === undefined ? undefined : readHedge(given.hedge, read.at('hedge')),
  }
}

function readHedge(value: HedgeOptions, read: OptionReader): HedgePolicy {
  const given = read.object<HedgeOptions>(value, ['after', 'attempts', 'budget'])
  if (given.after === undefined) read.problem('after', undefined, "a duration such as '50ms'; there is no good default")
  return {
    after: read.duration('after', given.after, 0, { min: 1 }),
    attempts: read.number('attempts', given.attempts, 1, { min: 1, max: 10, integer: true }),
    budget: readBudget(given.budget, read.at('budget'), 0.05, 1),
  }
}

function readBudget(
  value: RetryBudgetOptions | false | undefined,
  read: OptionReader,
  ratio: number,
  minPerSecond: number,
): RetryBudget | undefined {
  if (value === false) return undefined
  const given = read.object<RetryBudgetOptions>(value, ['ratio', 'minPerSecond'])
  return new RetryBudget(
    read.number('ratio', given.ratio, ratio, { min: 0, max: 1 }),
    read.number('minPerSecond', given.minPerSecond, minPerSecond, { min: 0 }),
  )
}

const resetCodes: ReadonlySet<ErrorCode> = new Set(['ERR_UPSTREAM_RESET', 'ERR_UPSTREAM_DOWN'])

/** Is this failure one that the policy retries, given whether the request may be processed twice? Body and budget are the caller's to check. */
export function retriesError(policy: RetryPolicy, error: ProxyError, sent: boolean, repeatable: boolean): boolean {
  if (error.source !== 'upstream') return false
  if (!sent || error.retry === true) {
    // Nothing of the request has reached anybody: safe for every method.
    return error.phase === 'connect' ? policy.connect : policy.connect || policy.reset
  }
  if (error.retry !== 'if-reused' || !repeatable) return false
  return resetCodes.has(error.code) ? policy.reset : policy.timeout
}

/** Milliseconds to wait before try number `attempt` (2 is the first retry): full jitter, as in "Exponential Backoff And Jitter" (AWS, 2015). */
export function backoffDelay(policy: RetryPolicy, attempt: number, random: () => number): number {
  return Math.min(policy.backoffMax, policy.backoffBase * 2 ** (attempt - 2)) * random()
}

/** RFC 9110 §10.2.3: seconds or an HTTP date. Milliseconds from `nowEpoch`, undefined when it is neither. */
export function parseRetryAfter(value: string | undefined, nowEpoch: number): number | undefined {
  if (value === undefined) return undefined
  const text = value.trim()
  if (/^\d+$/.test(text)) return Math.min(Number(text) * 1000, Number.MAX_SAFE_INTEGER)
  // RFC 9110 §5.6.7: three shapes, always GMT. Date.parse alone skips words it does not know and takes the third for local time.
  const zoned =
    /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/.test(text) ||
    /^[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/.test(text)
  const asctime = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/.test(text)
  if (!zoned && !asctime) return undefined
  const date = Date.parse(asctime ? `${text} GMT` : text)
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowEpoch)
}
