/**
 * The waiting line of a pool whose upstreams are all at their concurrency cap. First in, first out; bounded in length and in time; and a
 * client that leaves takes its place with it (a queue that serves the absent is how overload outlives its cause). A linked list, since the
 * common removal is from the middle.
 */
import type { Clock } from './clock.ts'
import { ProxyError } from './errors.ts'
import type { Exchange } from './exchange.ts'

export class Waiter {
  readonly exchange: Exchange
  readonly since: number
  next: Waiter | undefined = undefined
  previous: Waiter | undefined = undefined
  timer: unknown = undefined
  waiting: boolean = true
  readonly #settle: (error: ProxyError | undefined) => void

  constructor(exchange: Exchange, since: number, settle: (error: ProxyError | undefined) => void) {
    this.exchange = exchange
    this.since = since
    this.#settle = settle
  }

  settle(error: ProxyError | undefined): void {
    this.#settle(error)
  }
}

export class WaitQueue {
  readonly #clock: Clock
  readonly #limit: number
  readonly #timeout: number
  #head: Waiter | undefined
  #tail: Waiter | undefined
  #size = 0

  /** @param limit most waiters @param timeout milliseconds */
  constructor(clock: Clock, limit: number, timeout: number) {
    this.#clock = clock
    this.#limit = limit
    this.#timeout = timeout
  }

  get size(): number {
    return this.#size
  }

  /** `settle` is called once, with an error when the wait was in vain. Returns undefined when the queue is full. */
  enter(exchange: Exchange, settle: (error: ProxyError | undefined) => void): Waiter | undefined {
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
    this.#clock.clearTimeout(waiter.timer)
    if (waiter.previous === undefined) this.#head = waiter.next
    else waiter.previous.next = waiter.next
    if (waiter.next === undefined) this.#tail = waiter.previous
    else waiter.next.previous = waiter.previous
    this.#size--
    return true
  }

  /** Lets the first waiter go that `ready` accepts, and says whether there was one; looks at a bounded number, because waiters differ only in what they have tried. */
  wake(ready: (waiter: Waiter) => boolean): boolean {
    let waiter = this.#head
    for (let looked = 0; waiter !== undefined && looked < 16; looked++) {
      const next: Waiter | undefined = waiter.next
      if (ready(waiter)) {
        this.leave(waiter)
        waiter.settle(undefined)
        return true
      }
      waiter = next
    }
    return false
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
