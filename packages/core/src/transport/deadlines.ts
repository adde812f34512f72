/**
 * Limits that need not be exact. A timer per request costs more than most of what Weir does for it, and nobody minds whether "60 s" is 60 or
 * 60.5: one sweep every half second looks at all running calls, and a call costs two links in a list. It never fires early.
 */
export interface Limited {
  /** Sweeps since something last happened; the call itself sets it back to 0. */
  ticks: number
  /** Sweeps that are too many; Infinity for no limit. */
  limit: number
  previous: Limited | undefined
  next: Limited | undefined
  expire(): void
}

const period = 500

/** Milliseconds to sweeps, 0 meaning no limit. */
export function toTicks(ms: number): number {
  return ms === 0 ? Number.POSITIVE_INFINITY : Math.ceil(ms / period) + 1
}

export class Deadlines {
  #first: Limited | undefined
  #timer: NodeJS.Timeout | undefined

  add(entry: Limited): void {
    const first = this.#first
    entry.next = first
    if (first !== undefined) first.previous = entry
    this.#first = entry
    if (this.#timer === undefined) {
      this.#timer = setInterval(() => this.#sweep(), period)
      this.#timer.unref()
    }
  }

  remove(entry: Limited): void {
    const { previous, next } = entry
    if (previous !== undefined) previous.next = next
    else if (this.#first === entry) this.#first = next
    if (next !== undefined) next.previous = previous
    entry.previous = undefined
    entry.next = undefined
  }

  /** Nothing runs any more. */
  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #sweep(): void {
    let entry = this.#first
    if (entry === undefined) {
      this.stop()
      return
    }
    while (entry !== undefined) {
      // Read first: expiring takes the entry out of the list.
      const following: Limited | undefined = entry.next
      entry.ticks++
      if (entry.ticks >= entry.limit) entry.expire()
      entry = following
    }
  }
}
