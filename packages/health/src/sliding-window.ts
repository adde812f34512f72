/** Counts over the last `ms` milliseconds in ten slices, so that what is old leaves a tenth at a time. Bounded, and nothing is allocated later on. */
const slices = 10

export class SlidingWindow {
  readonly #width: number
  readonly #requests = new Uint32Array(slices)
  readonly #failures = new Uint32Array(slices)
  readonly #slow = new Uint32Array(slices)
  /** Number of the newest slice since time 0. */
  #newest = 0
  requests = 0
  failures = 0
  slow = 0

  constructor(ms: number) {
    this.#width = ms / slices
  }

  record(now: number, failed: boolean, slow: boolean): void {
    this.advance(now)
    const at = this.#newest % slices
    this.#requests[at] = (this.#requests[at] as number) + 1
    this.requests++
    if (failed) {
      this.#failures[at] = (this.#failures[at] as number) + 1
      this.failures++
    }
    if (slow) {
      this.#slow[at] = (this.#slow[at] as number) + 1
      this.slow++
    }
  }

  /** Lets go of what is too old. */
  advance(now: number): void {
    const newest = Math.max(this.#newest, Math.floor(now / this.#width))
    const passed = Math.min(slices, newest - this.#newest)
    for (let i = 1; i <= passed; i++) {
      const at = (this.#newest + i) % slices
      this.requests -= this.#requests[at] as number
      this.failures -= this.#failures[at] as number
      this.slow -= this.#slow[at] as number
      this.#requests[at] = 0
      this.#failures[at] = 0
      this.#slow[at] = 0
    }
    this.#newest = newest
  }

  reset(): void {
    this.#requests.fill(0)
    this.#failures.fill(0)
    this.#slow.fill(0)
    this.requests = 0
    this.failures = 0
    this.slow = 0
  }
}
