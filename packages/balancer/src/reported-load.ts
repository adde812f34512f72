/**
 * Weights from what servers say of themselves. A server that serves 200 requests per second at half of its capacity can serve 400; give each its
 * share of what all can serve, and they end up equally busy, however different their machines and their other clients are. Servers say it in a
 * response header (`load-report.ts`), for free, and no prober asks for it.
 *
 * The formula is that of gRPC's client-side weighted round robin (gRFC A58): capacity = rps / (utilization + errors per request x penalty). What
 * has no say of its own counts as the mean of those who have, per unit of configured weight; a slow start's factor applies to all.
 *
 * Weights are computed at most once per `interval`, by the first pick that finds it over. No timer runs, and an idle pool does nothing.
 */
import { type Balancer, type Clock, type Duration, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { readNow } from './latencies.ts'
import { parseLoadReport } from './load-report.ts'
import { type RandomOption, readRandom } from './random-option.ts'
import { WeightedTable } from './weighted-table.ts'

export interface ReportedLoadOptions extends RandomOption {
  /** The response header. Default `endpoint-load-metrics`. It goes on to the client unless a header rule removes it. */
  readonly header?: string
  /** From its first report on, a server's reports are not used for so long: its first requests say little. Default 10 s. */
  readonly blackout?: Duration
  /** A report is not used any more when no other has come for so long. Default 3 min. */
  readonly expiry?: Duration
  /** How often weights are computed. Default 1 s. */
  readonly interval?: Duration
  /** How much an error costs: with 1 (default), a server whose requests all fail counts as busy by one whole capacity more. 0: nothing. */
  readonly errorPenalty?: number
  /** For tests. */
  readonly clock?: Pick<Clock, 'now'>
}

/**
 * Drawn by reported capacity. O(1) per pick, and O(n) once per `interval`. Until servers report, it is `random`.
 *
 * Only for servers that one trusts: one that says it is idle gets the traffic. Not for servers that report rarely, or whose load changes within
 * the interval: it follows load, it does not feel it as `leastConnections` or `peakEwma` do.
 *
 * @throws OptionsError
 */
export function reportedLoad(options?: ReportedLoadOptions): Balancer {
  const read = new OptionReader('reportedLoad')
  const given = read.object(options, ['header', 'blackout', 'expiry', 'interval', 'errorPenalty', 'random', 'clock'])
  const header = read.name('header', given.header, 'endpoint-load-metrics')
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(header)) read.problem('header', header, 'the name of a header field')
  const settings: Settings = {
    header: header.toLowerCase(),
    blackout: read.duration('blackout', given.blackout, 10_000),
    expiry: read.duration('expiry', given.expiry, 180_000, { min: 1 }),
    interval: read.duration('interval', given.interval, 1_000, { min: 100 }),
    errorPenalty: read.number('errorPenalty', given.errorPenalty, 1, { min: 0, max: 1_000 }),
    random: readRandom(read, given.random),
    clock: readNow(read, given.clock),
  }
  read.check()
  return new ReportedLoad(settings)
}

interface Settings {
  readonly header: string
  readonly blackout: number
  readonly expiry: number
  readonly interval: number
  readonly errorPenalty: number
  readonly random: () => number
  readonly clock: Pick<Clock, 'now'>
}

/** Fields of a record: requests per second at full use; when the first and the last report came. */
const capacity = 0
const first = 1
const last = 2

class ReportedLoad implements Balancer {
  readonly name: string = 'reported-load'
  readonly #settings: Settings
  readonly #records = new WeakMap<Upstream, Float64Array>()
  #upstreams: readonly Upstream[] = []
  /** By slot; the empty ones are of those who have not reported. */
  #reports: Float64Array[] = []
  #table = new WeightedTable([])
  /** When weights were computed last. */
  readonly #weighed = new Float64Array(1)

  constructor(settings: Settings) {
    this.#settings = settings
  }

  update(available: readonly Upstream[]): void {
    this.#upstreams = available.slice()
    this.#reports = available.map((upstream) => {
      const record = this.#records.get(upstream) ?? new Float64Array(3)
      this.#records.set(upstream, record)
      return record
    })
    this.#table = new WeightedTable(available)
    this.#weigh(this.#settings.clock.now())
  }

  pick(exchange: Exchange): Upstream | undefined {
    const now = this.#settings.clock.now()
    if (now - (this.#weighed[0] as number) >= this.#settings.interval) this.#weigh(now)
    const slot = this.#table.draw(exchange, this.#settings.random, -1)
    return slot === -1 ? undefined : this.#table.upstream(slot)
  }

  explain(upstream: Upstream): string | undefined {
    const slot = this.#upstreams.indexOf(upstream)
    if (slot === -1) return undefined
    const reports = this.#isUsed(this.#reports[slot] as Float64Array, this.#weighed[0] as number)
    return `${reports ? 'by its reports' : 'without reports'} of weight ${(this.#table.weights[slot] as number).toPrecision(3)}`
  }

  onHead(upstream: Upstream, _status: number, headers: readonly string[]): void {
    const { header, clock, errorPenalty, expiry } = this.#settings
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i] as string
      if (name.length !== header.length || name.toLowerCase() !== header) continue
      const record = this.#records.get(upstream)
      const report = parseLoadReport(headers[i + 1] as string)
      if (report === undefined || record === undefined) return
      const now = clock.now()
      if (record[capacity] === 0 || now - (record[last] as number) >= expiry) record[first] = now
      record[last] = now
      record[capacity] = report.rps / (report.utilization + (report.eps / report.rps) * errorPenalty)
      return
    }
  }

  #isUsed(record: Float64Array, now: number): boolean {
    const { blackout, expiry } = this.#settings
    return record[capacity] !== 0 && now - (record[first] as number) >= blackout && now - (record[last] as number) < expiry
  }

  #weigh(now: number): void {
    this.#weighed[0] = now
    let sum = 0
    let reporting = 0
    for (let slot = 0; slot < this.#upstreams.length; slot++) {
      const record = this.#reports[slot] as Float64Array
      if (!this.#isUsed(record, now)) continue
      reporting++
      sum += (record[capacity] as number) / (this.#upstreams[slot] as Upstream).configuredWeight
    }
    const typical = reporting === 0 ? 1 : sum / reporting
    const { weights } = this.#table
    for (let slot = 0; slot < this.#upstreams.length; slot++) {
      const record = this.#reports[slot] as Float64Array
      const { weight, configuredWeight } = this.#upstreams[slot] as Upstream
      // The configured weight cancels out for those who report: what they can do is known, not guessed.
      weights[slot] = this.#isUsed(record, now) ? ((record[capacity] as number) * weight) / configuredWeight : typical * weight
    }
    this.#table.fill()
  }
}
