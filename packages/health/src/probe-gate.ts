/** How many probes may run at once: a pool of a thousand must not open a thousand connections because a link came back. First come, first served. */
export class ProbeGate {
  readonly #limit: number
  #running = 0
  /** In order of arrival; a set, so that one that leaves the line is found at once. */
  readonly #line = new Set<() => void>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Calls `go` now, or when there is room. Everyone that was let go calls `leave` once. */
  enter(go: () => void): void {
    if (this.#running < this.#limit) {
      this.#running++
      go()
    } else this.#line.add(go)
  }

  withdraw(go: () => void): void {
    this.#line.delete(go)
  }

  /** Nobody in line is let go any more. */
  close(): void {
    this.#line.clear()
  }

  leave(): void {
    this.#running--
    for (const go of this.#line) {
      if (this.#running >= this.#limit) return
      this.#line.delete(go)
      this.#running++
      go()
    }
  }
}
