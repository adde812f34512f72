/**
 * Quantiles of response times in bounded memory: counts in buckets that each are 5 % wider than the one before, from 10 µs to about 10 minutes.
 * Recording is one logarithm and one increment, and a quantile is right to 2.5 %, which is far less than what a decision about servers hangs on.
 */
const smallest = 0.01
const growth = Math.log(1.05)
const buckets = 368

export class LatencyHistogram {
  readonly #counts = new Uint32Array(buckets)
  #total = 0

  get total(): number {
    return this.#total
  }

  record(ms: number): void {
    const index = ms <= smallest ? 0 : Math.min(buckets - 1, Math.floor(Math.log(ms / smallest) / growth))
    this.#counts[index] = (this.#counts[index] as number) + 1
    this.#total++
  }

  /** The value that a share `q` of all is not above, as the middle of its bucket; 0 when nothing was recorded. */
  quantile(q: number): number {
    let left = Math.max(1, Math.ceil(q * this.#total))
    if (left > this.#total) return 0
    for (let i = 0; i < buckets; i++) {
      left -= this.#counts[i] as number
      if (left <= 0) return smallest * Math.exp((i + 0.5) * growth)
    }
    return 0
  }

  reset(): void {
    this.#counts.fill(0)
    this.#total = 0
  }
}
