/**
 * Limits that need not be exact. A timer per request costs more than most of what Weir does for it, and nobody minds whether "60 s" is 60 or
 * 60.5: one sweep every half second looks at what runs. It never fires early.
 *
 * What is kept are the connections and not the calls: a connection that is busy is nearly always busy again before the next sweep, so that a call
 * costs a look at a flag. Those that a sweep finds idle are dropped.
 */
export interface Limited {
  /** Sweeps since something last happened; the call itself sets it back to 0. */
  ticks: number
  /** Sweeps that are too many; Infinity for no limit. */
  readonly limit: number
  expire(): void
}

export interface Watched {
  /** What it is busy with. */
  readonly running: Limited | undefined
  /** Is it among those that are looked at? Belongs to `Deadlines`. */
  watched: boolean
}

const period = 500

/** Milliseconds to sweeps, 0 meaning no limit. */
export function toTicks(ms: number): number {
  return ms === 0 ? Number.POSITIVE_INFINITY : Math.ceil(ms / period) + 1
}

export class Deadlines {
  #watched: Watched[] = []
  #timer: NodeJS.Timeout | undefined

  /** Looks at what `busy` runs until a sweep finds it idle. */
  watch(busy: Watched): void {
    if (busy.watched) return
    busy.watched = true
    this.#watched.push(busy)
    if (this.#timer === undefined) {
      this.#timer = setInterval(() => this.#sweep(), period)
      this.#timer.unref()
    }
  }

  /** Nothing runs any more. */
  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #sweep(): void {
    const before = this.#watched
    this.#watched = []
    for (const busy of before) {
      const { running } = busy
      if (running === undefined) busy.watched = false
      else {
        this.#watched.push(busy)
        // Expiring may start the next call on a connection that is in neither list yet: that one is pushed by `watch`.
        if (++running.ticks >= running.limit) running.expire()
      }
    }
    if (this.#watched.length === 0) this.stop()
  }
}
