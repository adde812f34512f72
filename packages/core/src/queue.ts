/**
 * The waiting line of a pool whose upstreams are all at their concurrency cap. First in, first out; bounded in length and in time; and a
 * client that leaves takes its place with it (a queue that serves the absent is how overload outlives its cause). A linked list, since the
 * common removal is from the middle.
 */
import type { Clock } from './clock.ts'
import { ProxyError } from './errors.ts'
import type { Exchange } from './exchange.ts'

/**
 * With an error: the wait is over, and was in vain. Without: there may be room. Whoever takes it leaves the line first, since what it begins may end at once and wake
 * others, and says true; with false it keeps its place and its time.
 */
export type Settle = (error: ProxyError | undefined) => boolean

/**
 * So many are looked at in one turn. They differ in what they have tried and in what their balancer wants of them; most of the time the first one takes the slot. Where
 * all of them want something else, the search goes on behind them in a later turn, until all have been asked.
 */
const mostLooks = 256

export class Waiter {
  readonly exchange: Exchange
  readonly since: number
  next: Waiter | undefined = undefined
  previous: Waiter | undefined = undefined
  timer: unknown = undefined
  waiting: boolean = true
  readonly #settle: Settle

  constructor(exchange: Exchange, since: number, settle: Settle) {
    this.exchange = exchange
    this.since = since
    this.#settle = settle
  }

  settle(error: ProxyError | undefined): boolean {
    return this.#settle(error)
  }
}

export class WaitQueue {
  readonly #clock: Clock
  readonly #limit: number
  readonly #timeout: number
  #head: Waiter | undefined
  #tail: Waiter | undefined
  #size = 0
  #asked: Waiter | undefined
  /** Who is to be looked at next by a search that was broken off. */
  #rest: Waiter | undefined
  /** Something has become free behind its back: those it has passed are to be looked at once more. */
  #passed = false

  /** @param limit most waiters @param timeout milliseconds */
  constructor(clock: Clock, limit: number, timeout: number) {
    this.#clock = clock
    this.#limit = limit
    this.#timeout = timeout
  }

  /** Whoever is being asked whether it takes what there is does not count: it does not stand in its own way. */
  get size(): number {
    return this.#asked?.waiting === true ? this.#size - 1 : this.#size
  }

  /** Returns undefined when the queue is full. */
  enter(exchange: Exchange, settle: Settle): Waiter | undefined {
    if (this.#size >= this.#limit) return undefined
    const waiter = new Waiter(exchange, this.#clock.now(), settle)
    waiter.timer = this.#clock.setTimeout(() => {
      if (this.leave(waiter)) waiter.settle(new ProxyError('ERR_QUEUE_TIMEOUT'))
    }, this.#timeout)
    waiter.previous = this.#tail
    if (this.#tail === undefined) this.#head = waiter
    else this.#tail.next = waiter
    this.#tail = waiter
    this.#size++
    return waiter
  }

  /** Takes a waiter out without settling it; false when it had left already. */
  leave(waiter: Waiter): boolean {
    if (!waiter.waiting) return false
    waiter.waiting = false
    if (this.#rest === waiter) this.#rest = waiter.next
    this.#clock.clearTimeout(waiter.timer)
    if (waiter.previous === undefined) this.#head = waiter.next
    else waiter.previous.next = waiter.next
    if (waiter.next === undefined) this.#tail = waiter.previous
    else waiter.next.previous = waiter.previous
    this.#size--
    return true
  }

  /** A search has not come to the end: see `lookOn`. */
  get isSearching(): boolean {
    return this.#rest !== undefined
  }

  /** Lets the first waiter go that `ready` accepts and that takes what there is, and says whether there was one. */
  wake(ready: (waiter: Waiter) => boolean): boolean {
    const [found, rest] = this.#search(this.#head, ready)
    if (!found && rest !== undefined) {
      if (this.#rest === undefined) this.#rest = rest
      else this.#passed = true
    }
    return found
  }

  /** The same, from where the search before was broken off. */
  lookOn(ready: (waiter: Waiter) => boolean): boolean {
    const from = this.#rest
    this.#rest = undefined
    const [found, rest] = this.#search(from, ready)
    this.#rest = rest ?? (this.#passed ? this.#head : undefined)
    if (rest === undefined) this.#passed = false
    return found
  }

  /** Returns also who would be next; undefined at the end of the line. */
  #search(from: Waiter | undefined, ready: (waiter: Waiter) => boolean): readonly [found: boolean, rest: Waiter | undefined] {
    let waiter = from
    for (let looked = 0; waiter !== undefined && looked < mostLooks; looked++) {
      if (ready(waiter) && this.#ask(waiter)) {
        const { next } = waiter
        this.leave(waiter)
        return [true, next?.waiting === true ? next : undefined]
      }
      waiter = waiter.next
    }
    return [false, waiter]
  }

  #ask(waiter: Waiter): boolean {
    // What one takes may end at once and free somebody for another.
    const before = this.#asked
    this.#asked = waiter
    try {
      return waiter.settle(undefined)
    } finally {
      this.#asked = before
    }
  }

  /** Nobody will be served any more. */
  fail(error: () => ProxyError): void {
    while (this.#head !== undefined) {
      const waiter = this.#head
      this.leave(waiter)
      waiter.settle(error())
    }
  }
}
