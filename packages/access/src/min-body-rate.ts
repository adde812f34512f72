/**
 * A client that sends its upload a byte now and then holds a connection, an upstream's slot and memory for as long as it likes, and never looks
 * idle. So it has to keep a pace. Only the client's own slowness counts: while an upstream takes nothing, or the request waits in a queue, the client
 * is not being read and its time stands still. Core knows which it is, and tells.
 *
 * The account is a bucket of time. It begins with `grace`, runs down while the client is read, and every byte puts back the time that it may take
 * at `rate`, up to `grace` again. An average over the whole upload would be kinder to attackers: after a quick first megabyte they could be silent for an
 * hour.
 */
import {
  type Clock,
  type Duration,
  type Exchange,
  type Hooks,
  OptionReader,
  ProxyError,
  type RequestTap,
  readClock,
  type Size,
} from '@weir/core'
import { type AccessStage, Gate, refusal } from './gate.ts'

export interface MinBodyRateOptions {
  /** Bytes per second that a client must keep up while its body is read. Default 500. */
  readonly rate?: Size
  /** How long a client may fall behind, at the beginning and after every byte that came in time. Default 20 s; not below what a phone takes to change its network. */
  readonly grace?: Duration
  /** Decides, counts and tells, and ends nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'minBodyRate'`. */
  readonly name?: string
  /** For tests. Default: real time. */
  readonly clock?: Clock
}

const tooSlow = refusal(408)

/** What a client has left. Times in milliseconds. */
export class PaceAccount {
  readonly #grace: number
  readonly #perByte: number
  #left: number
  /** When it was last brought up to date; undefined while the clock stands still. */
  #since: number | undefined = undefined

  constructor(rate: number, grace: number) {
    this.#grace = grace
    this.#perByte = 1000 / rate
    this.#left = grace
  }

  /** The client is read from `now` on. */
  run(now: number): void {
    this.#since ??= now
  }

  /** It is not. */
  stop(now: number): void {
    this.#settle(now)
    this.#since = undefined
  }

  pay(now: number, bytes: number): void {
    this.#settle(now)
    this.#left = Math.min(this.#grace, this.#left + bytes * this.#perByte)
  }

  overdrawn(now: number): boolean {
    this.#settle(now)
    return this.#left < 0
  }

  #settle(now: number): void {
    if (this.#since === undefined) return
    this.#left -= now - this.#since
    this.#since = now
  }
}

/** One upload. Among those that are looked at while its client is read. */
class Upload implements RequestTap, Hooks {
  readonly exchange: Exchange
  readonly account: PaceAccount
  /** The look before this one found it overdrawn. After a stall of this process, what came in time may not have been read yet: that look is not enough. */
  suspect: boolean = false
  /** The exchange has ended, and what may be left of the upload is thrown away by core, within a limit of its own; or it has been told of. */
  #over = false
  readonly #patrol: Patrol

  constructor(exchange: Exchange, patrol: Patrol, account: PaceAccount) {
    this.exchange = exchange
    this.account = account
    this.#patrol = patrol
  }

  onFlow(reading: boolean): void {
    if (this.#over) return
    if (reading) {
      this.account.run(this.#patrol.clock.now())
      this.#patrol.add(this)
    } else {
      this.account.stop(this.#patrol.clock.now())
      this.#patrol.drop(this)
    }
  }

  onChunk(chunk: Uint8Array): void {
    this.account.pay(this.#patrol.clock.now(), chunk.length)
  }

  onEnd(complete: boolean): void {
    this.#patrol.drop(this)
    if (complete) this.#patrol.gate.allowed++
  }

  onFinish(): void {
    this.leave()
  }

  /** Not looked at any more. */
  leave(): void {
    this.#over = true
    this.#patrol.drop(this)
  }
}

/** One timer for all uploads, and none while there are none. */
class Patrol {
  readonly clock: Clock
  readonly gate: Gate
  readonly #period: number
  readonly #uploads = new Set<Upload>()
  #timer: unknown = undefined

  constructor(clock: Clock, gate: Gate, grace: number) {
    this.clock = clock
    this.gate = gate
    this.#period = Math.min(1000, Math.max(10, grace / 8))
  }

  get watched(): number {
    return this.#uploads.size
  }

  add(upload: Upload): void {
    this.#uploads.add(upload)
    this.#timer ??= this.clock.setTimeout(() => this.#look(), this.#period)
  }

  drop(upload: Upload): void {
    this.#uploads.delete(upload)
    upload.suspect = false
    if (this.#uploads.size > 0) return
    this.clock.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #look(): void {
    this.#timer = undefined
    const now = this.clock.now()
    for (const upload of [...this.#uploads]) {
      const overdrawn = upload.account.overdrawn(now)
      if (overdrawn && upload.suspect) this.#end(upload)
      else upload.suspect = overdrawn
    }
    if (this.#uploads.size > 0) this.#timer ??= this.clock.setTimeout(() => this.#look(), this.#period)
  }

  #end(upload: Upload): void {
    upload.leave()
    const { exchange } = upload
    if (this.gate.refuse(exchange, tooSlow, 'rate') !== undefined) exchange.fail(new ProxyError('ERR_BODY_TOO_SLOW'))
  }
}

export interface MinBodyRateStats {
  /** Bodies that came to their end. */
  readonly allowed: number
  readonly refused: number
  /** Would have been ended, but for `dryRun`. */
  readonly dry: number
  /** Uploads that are being read now. */
  readonly watched: number
}

/**
 * Ends uploads whose clients are too slow: 408, or a broken connection when the response has begun. Looks about once a second, so an end comes up to two
 * looks late and never early.
 *
 * @throws OptionsError
 */
export function minBodyRate(options?: MinBodyRateOptions): AccessStage<MinBodyRateStats> {
  const read = new OptionReader('minBodyRate')
  const given = read.object<MinBodyRateOptions>(options, ['rate', 'grace', 'dryRun', 'name', 'clock'])
  const rate = read.size('rate', given.rate, 500, { min: 1 })
  const grace = read.duration('grace', given.grace, 20_000, { min: 1 })
  const gate = new Gate(read.name('name', given.name, 'minBodyRate'), read.boolean('dryRun', given.dryRun, false))
  const clock = readClock(given.clock, read)
  read.check()

  const patrol = new Patrol(clock, gate, grace)
  return {
    name: gate.stage,
    handle(exchange) {
      if (!exchange.hasBody) return undefined
      const upload = new Upload(exchange, patrol, new PaceAccount(rate, grace))
      exchange.tapRequest(upload)
      return upload
    },
    stats: () => ({ ...gate.stats(), watched: patrol.watched }),
  }
}
