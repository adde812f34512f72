/**
 * Times of this process as times of the server. Whether a response was asked for before something was invalidated is decided by one clock, the server's, whatever
 * those of the proxies say; and in doubt it was asked for before.
 *
 * An answer that brings the server's time was written before it was read here. So that time less the one it was read at is an offset that makes of a moment here
 * one of the server's which is too early by as long as the answer took, and never too late. The greatest of some is the nearest; of the last seconds only,
 * because clocks do not run alike for ever.
 */

/** Milliseconds of a generation. Two are looked at: clocks that differ by 100 ppm have come apart by a millisecond in that time, our own rounding. */
const generation = 5000

export class ServerTime {
  #began = Number.NEGATIVE_INFINITY
  #before = Number.NEGATIVE_INFINITY
  #best = Number.NEGATIVE_INFINITY

  /** Undefined before the first answer. */
  get offset(): number | undefined {
    const offset = Math.max(this.#best, this.#before)
    return offset === Number.NEGATIVE_INFINITY ? undefined : offset
  }

  /** @param server its time, and @param here ours when that was read; both in milliseconds of the epoch */
  heard(server: number, here: number): void {
    // A clock that was set back begins anew, like one that was not asked for long.
    if (here < this.#began || here >= this.#began + 2 * generation) {
      this.#before = Number.NEGATIVE_INFINITY
      this.#best = Number.NEGATIVE_INFINITY
      this.#began = here
    } else if (here >= this.#began + generation) {
      this.#before = this.#best
      this.#best = Number.NEGATIVE_INFINITY
      this.#began = here
    }
    // Ours are rounded down.
    this.#best = Math.max(this.#best, server - (here + 1))
  }
}
