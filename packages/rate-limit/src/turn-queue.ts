/**
 * Requests that wait for their turn, a line for each key. A turn is a time; whoever leaves gives it to the one behind, who gives away the own one, and
 * so on: what becomes free is the last place in line, and the order stays the order of arrival. Moving up here is what makes a place that was left
 * free for all; lowering a number in the store alone would give the next arrival a turn that somebody in line already has.
 */
import type { Clock } from '@weir/core'

class Waiter {
  turn: number
  readonly share: number
  readonly go: (ready: boolean) => void

  constructor(turn: number, share: number, go: (ready: boolean) => void) {
    this.turn = turn
    this.share = share
    this.go = go
  }
}

class Line {
  readonly waiters: Waiter[] = []
  timer: unknown
}

export class TurnQueue {
  #waiting = 0
  readonly #lines = new Map<string, Line>()
  readonly #clock: Clock
  readonly #limit: number

  /** @param limit most that wait at once, all keys together */
  constructor(clock: Clock, limit: number) {
    this.#clock = clock
    this.#limit = limit
  }

  get waiting(): number {
    return this.#waiting
  }

  get full(): boolean {
    return this.#waiting >= this.#limit
  }

  /**
   * @param share milliseconds of the queue that this one takes up
   * @returns true when its turn has come, false when it left before; then its share is free
   */
  wait(key: string, delayMs: number, share: number, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      if (signal.aborted) {
        resolve(false)
        return
      }
      let line = this.#lines.get(key)
      if (line === undefined) {
        line = new Line()
        this.#lines.set(key, line)
      }
      const joined = line
      const turn = this.#clock.now() + delayMs
      const left = (): void => this.#leave(key, joined, waiter)
      const waiter = new Waiter(turn, share, (ready) => {
        this.#waiting--
        signal.removeEventListener('abort', left)
        resolve(ready)
      })
      signal.addEventListener('abort', left, { once: true })
      // Answers of a shared store may overtake each other; the order is the store's.
      let at = line.waiters.length
      while (at > 0 && (line.waiters[at - 1] as Waiter).turn > turn) at--
      line.waiters.splice(at, 0, waiter)
      this.#waiting++
      if (at === 0) this.#arm(key, line)
    })
  }

  #leave(key: string, line: Line, waiter: Waiter): void {
    const at = line.waiters.indexOf(waiter)
    if (at < 0) return
    line.waiters.splice(at, 1)
    for (let i = at; i < line.waiters.length; i++) (line.waiters[i] as Waiter).turn -= waiter.share
    waiter.go(false)
    this.#arm(key, line)
  }

  #arm(key: string, line: Line): void {
    this.#clock.clearTimeout(line.timer)
    const first = line.waiters[0]
    if (first === undefined) this.#lines.delete(key)
    else line.timer = this.#clock.setTimeout(() => this.#due(key, line), Math.max(0, first.turn - this.#clock.now()))
  }

  #due(key: string, line: Line): void {
    // Timers of the operating system may be a little early.
    const now = this.#clock.now() + 1e-6
    while (line.waiters.length > 0 && (line.waiters[0] as Waiter).turn <= now) (line.waiters.shift() as Waiter).go(true)
    this.#arm(key, line)
  }
}
