/**
 * What stands for a key in the table: two numbers, each a random linear combination of the key's code units and its length, modulo a prime (Carter and
 * Wegman, "Universal classes of hash functions", 1979, their class H1 for strings). For any two different keys, whatever they are, both numbers agree with a
 * probability of 1/prime² = 9e-19 over the choice of the coefficients. That is a theorem and needs no trust in mixing, and it holds for keys that clients choose, since
 * the coefficients are a secret of the process and no hash ever leaves it.
 *
 * A cryptographic hash of this size (HalfSipHash-1-3) was tried and costs 90 ns for an address, this 25.
 */
import { randomInt } from 'node:crypto'

/** The largest below 2^30: the products of 64 code units and as many coefficients are summed up in a float64 without rounding. */
export const prime = 1_073_741_789
const block = 64

export class KeyHash {
  /** The last hash: both halves from 0 to `prime - 1`. */
  low = 0
  high = 0
  /** The first coefficient is the length's. As long as the longest key so far needs. */
  #a: Float64Array
  #b: Float64Array
  readonly #random: () => number

  /** @param random numbers from 0 to `prime - 1` */
  constructor(random: () => number = () => randomInt(prime)) {
    this.#random = random
    this.#a = Float64Array.from({ length: block + 1 }, random)
    this.#b = Float64Array.from({ length: block + 1 }, random)
  }

  /** Leaves the hash of `key` in `low` and `high`. */
  update(key: string): void {
    const { length } = key
    if (length >= this.#a.length) this.#lengthen(length)
    const a = this.#a
    const b = this.#b
    let low = length * (a[0] as number)
    let high = length * (b[0] as number)
    for (let i = 0; i < length; ) {
      const end = Math.min(i + block, length)
      for (; i < end; i++) {
        const unit = key.charCodeAt(i)
        low += unit * (a[i + 1] as number)
        high += unit * (b[i + 1] as number)
      }
      low = modulo(low)
      high = modulo(high)
    }
    this.low = low
    this.high = high
  }

  #lengthen(length: number): void {
    const longer = (list: Float64Array): Float64Array =>
      Float64Array.from({ length: length + 1 }, (_, i) => (i < list.length ? (list[i] as number) : this.#random()))
    this.#a = longer(this.#a)
    this.#b = longer(this.#b)
  }
}

/** Of a whole number below 2^53. Several times as fast as `%`, which is exact for all float64 and has to be. */
function modulo(sum: number): number {
  const rest = sum - Math.floor(sum / prime) * prime
  // The quotient was rounded, so it may be one off.
  return rest < 0 ? rest + prime : rest >= prime ? rest - prime : rest
}
