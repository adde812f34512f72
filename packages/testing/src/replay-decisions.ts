/**
 * "What would another strategy have done?" Decisions that a pool published (`weir:decision`), played to another balancer: it is shown the upstreams that
 * the pool had at that moment and asked where each request should go. Nothing is sent anywhere.
 *
 * A record holds loads, not endings, so endings are worked out: an upstream whose recorded load is lower than what went there so far has finished
 * that many of its exchanges, the oldest first. An exchange ends in the replay when it ended in the record, wherever the replay had put it; so the
 * two sides differ in who was chosen and in nothing else.
 */
import type { Balancer, Candidate, Decision, Exchange, Upstream, UpstreamState } from '@weir/core'
import { HeaderList } from '@weir/core'
import { stubExchange, stubOutcome } from './balancer-fixtures.ts'

/** A `Decision` as it was written down: without the live exchange, and with what JSON makes of `undefined` (nothing) and `Infinity` (null). */
export interface DecisionRecord extends Omit<Decision, 'exchange' | 'request' | 'candidates' | 'chosen'> {
  readonly request: Omit<Decision['request'], 'hashKey' | 'affinity'> & {
    readonly hashKey?: string | undefined
    readonly affinity?: string | undefined
  }
  readonly candidates: readonly CandidateRecord[]
  readonly chosen?: string | undefined
}

export interface CandidateRecord extends Omit<Candidate, 'maxConcurrent' | 'excluded' | 'note' | 'reason'> {
  /** Null: no limit. */
  readonly maxConcurrent: number | null
  readonly excluded?: Candidate['excluded']
  readonly note?: Candidate['note']
  readonly reason?: string | undefined
}

export interface ReplayOptions {
  /**
   * Which load the balancer sees in `inflight` and `full`. `recorded` (the default): what there was, so that every question is the one that was asked then; right
   * for "how often would it have chosen otherwise". `replayed`: what its own choices would have led to; right for "would it have spread the load better",
   * above all with strategies that look at load. A strategy that keeps its own books by `acquire` and `release` sees its own choices either way.
   */
  readonly load?: 'recorded' | 'replayed'
}

export interface ReplayedChoices {
  /** Name of the balancer. */
  readonly balancer: string
  /** How often each upstream was chosen; everybody who could have been is in it. */
  readonly counts: Readonly<Record<string, number>>
  /** The largest count divided by the mean of all: 1 is even. Weights take no part: with unequal ones, look at `counts`. */
  readonly imbalance: number
}

export interface Replay {
  readonly decisions: number
  /** Decisions that the other balancer was asked about: all but those that affinity made, which no strategy is asked about. */
  readonly asked: number
  /** Of those that it was asked about, how many it decided alike; nobody, as well as somebody, can be agreed on. */
  readonly agreed: number
  readonly recorded: ReplayedChoices
  readonly replayed: ReplayedChoices
}

/**
 * Plays `records` of one pool, in the order in which they were made, to `balancer`, which must be new and is of no use afterwards.
 *
 * Affinity decides in the replay as it did in the record, and so does a last resort when the balancer has nobody. What is not in a record does not reach
 * the balancer: response heads (`onHead`), statuses and errors of attempts; `release` is told an attempt of the recorded average latency.
 *
 * @throws RangeError when the records are of several pools
 */
export function replayDecisions(records: Iterable<DecisionRecord>, balancer: Balancer, options: ReplayOptions = {}): Replay {
  const stage = new ReplayStage(balancer, options.load ?? 'recorded')
  let pool: string | undefined
  let recordedBy: string | undefined
  let [decisions, asked, agreed] = [0, 0, 0]
  const recorded = new Map<string, number>()
  const replayed = new Map<string, number>()
  for (const record of records) {
    pool ??= record.pool
    recordedBy ??= record.balancer
    if (record.pool !== pool) throw new RangeError(`records of one pool at a time; given ${pool} and ${record.pool}`)
    decisions++
    stage.set(record.candidates)
    for (const id of stage.available) for (const counts of [recorded, replayed]) counts.set(id, counts.get(id) ?? 0)
    const chosen = stage.choose(record)
    if (record.by !== 'affinity') {
      asked++
      if (chosen?.id === record.chosen) agreed++
    }
    if (record.chosen !== undefined) recorded.set(record.chosen, (recorded.get(record.chosen) ?? 0) + 1)
    if (chosen !== undefined) replayed.set(chosen.id, (replayed.get(chosen.id) ?? 0) + 1)
  }
  return {
    decisions,
    asked,
    agreed,
    recorded: { balancer: recordedBy ?? '', ...summary(recorded) },
    replayed: { balancer: balancer.name, ...summary(replayed) },
  }
}

function summary(counts: ReadonlyMap<string, number>): Pick<ReplayedChoices, 'counts' | 'imbalance'> {
  let [sum, largest] = [0, 0]
  for (const count of counts.values()) {
    sum += count
    largest = Math.max(largest, count)
  }
  return { counts: Object.fromEntries(counts), imbalance: sum === 0 ? 1 : (largest * counts.size) / sum }
}

/** One exchange in flight: in the record it is where its list says, in the replay on `upstream`. */
interface Running {
  readonly upstream: ReplayUpstream | undefined
}

/** The pool's part: upstreams as the balancer sees them, who is offered, what is in flight. */
class ReplayStage {
  readonly #balancer: Balancer
  readonly #load: 'recorded' | 'replayed'
  readonly #members = new Map<string, ReplayUpstream>()
  /** What runs on an upstream in the record, oldest first. */
  readonly #running = new Map<ReplayUpstream, Running[]>()
  /** Ids of those who are offered now. */
  available: readonly string[] = []
  /** What was true of them when the balancer was told last. */
  #offered: string | undefined

  constructor(balancer: Balancer, load: 'recorded' | 'replayed') {
    this.#balancer = balancer
    this.#load = load
  }

  /** Everybody as this record has them: who came, who went, what has ended since the last one. */
  set(candidates: readonly CandidateRecord[]): void {
    const gone = new Set(this.#members.values())
    const offered: ReplayUpstream[] = []
    for (const candidate of candidates) {
      let member = this.#members.get(candidate.id)
      // The same id at another place is another server, as in a pool.
      if (member === undefined || member.url.href !== new URL(candidate.url).href) {
        member = new ReplayUpstream(candidate)
        this.#members.set(candidate.id, member)
        this.#running.set(member, [])
      }
      gone.delete(member)
      member.take(candidate)
      if (isOffered(candidate)) offered.push(member)
    }
    for (const member of gone) {
      if (this.#members.get(member.id) === member) this.#members.delete(member.id)
      // Whatever still runs there is in no record any more.
      this.#settle(member, 0)
      this.#running.delete(member)
    }
    for (const { id, inflight } of candidates) this.#settle(this.#members.get(id) as ReplayUpstream, inflight)
    this.#show()
    // A table is built from these. Loads are no reason to build one anew, in a pool either.
    const facts = JSON.stringify(offered.map(({ id, url, weight, priority, meta }) => [id, url.href, weight, priority, meta]))
    if (facts !== this.#offered) {
      this.#offered = facts
      this.available = offered.map(({ id }) => id)
      this.#balancer.update(offered)
    }
    // What runs since before the first record is somebody's all the same.
    for (const { id, inflight } of candidates) this.#fill(this.#members.get(id) as ReplayUpstream, inflight)
    this.#show()
  }

  #show(): void {
    for (const member of this.#members.values()) member.inflight = this.#load === 'recorded' ? member.recordedLoad : member.ownLoad
  }

  /** Asks the balancer, unless it was not asked either, and takes whoever is chosen. */
  choose(record: DecisionRecord): Upstream | undefined {
    const recorded = record.chosen === undefined ? undefined : this.#members.get(record.chosen)
    const { by } = record
    let chosen = by === 'affinity' ? recorded : (this.#balancer.pick(this.#exchangeOf(record)) as ReplayUpstream | undefined)
    if (chosen === undefined && by === 'last-resort') chosen = recorded
    if (chosen !== undefined) this.#acquire(chosen)
    if (recorded !== undefined) this.#running.get(recorded)?.push({ upstream: chosen })
    // Nobody had it in the record, so nothing tells its end.
    else if (chosen !== undefined) this.#release(chosen)
    return chosen
  }

  #acquire(upstream: ReplayUpstream): void {
    upstream.ownLoad++
    upstream.inflight++
    this.#balancer.acquire?.(upstream)
  }

  #release(upstream: ReplayUpstream): void {
    upstream.ownLoad--
    upstream.inflight--
    const { latencyMs } = upstream
    this.#balancer.release?.(upstream, { ...stubOutcome(upstream), headMs: latencyMs, durationMs: latencyMs })
  }

  /** Ends the oldest exchanges of an upstream until so many are left. */
  #settle(upstream: ReplayUpstream, left: number): void {
    const running = this.#running.get(upstream) as Running[]
    for (const { upstream: on } of running.splice(0, Math.max(0, running.length - left))) if (on !== undefined) this.#release(on)
  }

  #fill(upstream: ReplayUpstream, wanted: number): void {
    const running = this.#running.get(upstream) as Running[]
    while (running.length < wanted) {
      running.unshift({ upstream })
      this.#acquire(upstream)
    }
  }

  #exchangeOf({ request, candidates }: DecisionRecord): Exchange {
    const { method, url, clientIp, hashKey, affinity, headers } = request
    const tried = candidates.filter(({ excluded }) => excluded === 'tried').map(({ id }) => this.#members.get(id) as Upstream)
    const exchange = stubExchange({ method, url, clientIp, tried, ...(hashKey === undefined ? null : { hashKey }) })
    return { ...exchange, affinity, headers: new HeaderList([...headers]) }
  }
}

/** Of the tier in use: a pool offers those who are full, or were tried, as well, and leaves it to the strategy to skip them. */
function isOffered({ excluded }: CandidateRecord): boolean {
  return excluded === undefined || excluded === 'tried' || excluded === 'full'
}

class ReplayUpstream implements Upstream {
  readonly id: string
  readonly url: URL
  readonly host: string | undefined = undefined
  weight: number = 1
  configuredWeight: number = 1
  priority: number = 0
  state: UpstreamState = 'up'
  degraded: boolean = false
  inflight: number = 0
  maxConcurrent: number = Number.POSITIVE_INFINITY
  latencyMs: number = 0
  meta: Readonly<Record<string, unknown>> = {}
  recordedLoad: number = 0
  /** What the replay has sent here and the record has not ended. */
  ownLoad: number = 0

  constructor({ id, url }: CandidateRecord) {
    this.id = id
    this.url = new URL(url)
  }

  get full(): boolean {
    return this.inflight >= this.maxConcurrent
  }

  take(candidate: CandidateRecord): void {
    this.weight = candidate.weight
    // Not in the record; strategies go by `weight`.
    this.configuredWeight = candidate.weight
    this.priority = candidate.priority
    this.state = candidate.state
    this.degraded = candidate.excluded === 'degraded'
    this.maxConcurrent = candidate.maxConcurrent ?? Number.POSITIVE_INFINITY
    this.latencyMs = candidate.latencyMs
    this.meta = candidate.meta
    this.recordedLoad = candidate.inflight
  }
}
