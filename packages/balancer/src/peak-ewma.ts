/**
 * Peak EWMA: the better of two random upstreams, by how long it takes and how much it already has to do. It finds the slow server that counting
 * exchanges alone finds only when they have piled up there, and it is quick to distrust: one slow answer counts at once and in full, and is
 * forgotten only with time. The idea is Finagle's (M. Caravan and others, `PeakEwma`); comparing two at random is what keeps many proxies from
 * running to the same quick server (Mitzenmacher 2001).
 *
 * The cost is time x (exchanges in flight per weight + 1), with weights in units of their mean: the time that this exchange would take with those
 * before it. The weight divides what is in flight and not the 1, since a server of twice the weight holds twice as much but answers a lone request
 * no sooner; else a quiet pool would send everything to its heaviest server. Times that differ by less than a tenth count as equal.
 */
import { type AttemptOutcome, type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { Latencies, type LatencyOptions, type LatencyRules, latencyNames, readLatencyRules } from './latencies.ts'
import { type RandomOption, readRandom } from './random-option.ts'
import { WeightedTable } from './weighted-table.ts'

export interface PeakEwmaOptions extends RandomOption, LatencyOptions {}

/**
 * By time to the response head, of two upstreams drawn by weight. O(1) per pick. New ones, and ones not heard of for long, count as typical of the
 * pool. A failure counts as ten times the typical time, however quickly it came.
 *
 * Not where times say more about the request than about the server, such as one route that reports and another that looks up: then `powerOfTwo`.
 * Nor for streams that end after hours, since an answer's time is learnt when it has ended.
 *
 * @throws OptionsError
 */
export function peakEwma(options?: PeakEwmaOptions): Balancer {
  const read = new OptionReader('peakEwma')
  const given = read.object(options, ['random', ...latencyNames])
  const random = readRandom(read, given.random)
  const rules = readLatencyRules(read, given)
  read.check()
  return new PeakEwma(random, rules)
}

/** Times within a tenth of each other are equal: smaller differences are noise, and would give a quiet pool's whole traffic to one server. */
const alike = 1.1

class PeakEwma implements Balancer {
  readonly name: string = 'peak-ewma'
  readonly #random: () => number
  readonly #latencies: Latencies
  #table = new WeightedTable([])
  #picks = 0
  #running = 0
  /** Whom the last pick has drawn, -1 for nobody. */
  #first = -1
  #second = -1

  constructor(random: () => number, rules: LatencyRules) {
    this.#random = random
    this.#latencies = new Latencies(rules, true)
  }

  update(available: readonly Upstream[]): void {
    this.#latencies.update(available)
    this.#table = new WeightedTable(available)
  }

  pick(exchange: Exchange): Upstream | undefined {
    const table = this.#table
    const first = table.draw(exchange, this.#random, -1)
    this.#first = first
    this.#second = -1
    if (first === -1) return undefined
    const second = table.draw(exchange, this.#random, first)
    this.#second = second
    if (second === -1) return table.upstream(first)
    // While exchanges end, their outcomes tell the time. It must not stand still in a quiet pool, nor in one where nothing ends.
    if (this.#running === 0 || (this.#picks++ & 15) === 0) this.#latencies.tick()
    return table.upstream(this.#prefersSecond(first, second) ? second : first)
  }

  explain(upstream: Upstream): string {
    const slot = [this.#first, this.#second].find((drawn) => drawn !== -1 && this.#table.upstream(drawn) === upstream)
    return slot === undefined ? 'not drawn' : `drawn; taken for ${(this.#latencies.current[slot] as number).toFixed(2)} ms`
  }

  acquire(): void {
    this.#running++
  }

  release(upstream: Upstream, outcome: AttemptOutcome): void {
    this.#running--
    const slot = this.#latencies.slot(upstream)
    if (slot !== -1) this.#latencies.observe(slot, outcome, false)
  }

  #prefersSecond(first: number, second: number): boolean {
    const latencies = this.#latencies
    latencies.refresh(first)
    latencies.refresh(second)
    const a = this.#table.upstream(first)
    const b = this.#table.upstream(second)
    const timeA = latencies.current[first] as number
    const timeB = latencies.current[second] as number
    if (timeA < timeB * alike && timeB < timeA * alike) return b.inflight * a.weight < a.inflight * b.weight
    const mean = this.#table.mean
    // Both sides times both weights: a division costs more than all of this.
    return timeB * (b.inflight * mean + b.weight) * a.weight < timeA * (a.inflight * mean + a.weight) * b.weight
  }
}
