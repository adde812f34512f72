/**
 * Drawing an upstream with a chance in proportion to its weight, in constant time whatever the number of upstreams.
 *
 * Think of n equal cells. Each holds one upstream up to a mark and another, its alias, above; the table is filled so that the heights of
 * each upstream add up to its weight. One number then finds the cell with its whole part and the side of the mark with its fraction
 * (A. J. Walker 1977; filled in linear time after M. D. Vose 1991).
 *
 * Upstreams that cannot be picked are not taken out of the table, since that would cost O(n) for every pick: the draw is repeated. Repeating
 * leaves the chances of all others in proportion, so nobody inherits the share of the one skipped. Only when repeating stays fruitless
 * (most of the weight is tried or full) does a scan decide, with the same chances.
 */
import { type Exchange, isPickable, type Upstream } from '@weir/core'

/** Draws before the scan. 64 draws cost less than scanning 1,000 upstreams, and all fail only when less than a tenth of the weight is pickable. */
const mostDraws = 64

export class WeightedTable {
  /** Weight of all, divided by their number. */
  mean: number = 0.5
  /** By slot, above 0. After changing any, `fill`. */
  readonly weights: Float64Array
  readonly #upstreams: readonly Upstream[]
  /** Weight of all upstreams up to and including this one. */
  readonly #sums: Float64Array
  readonly #marks: Float64Array
  readonly #aliases: Int32Array
  /** What each has that no cell holds yet, and a stack of those with less than a cell below one of those with more. */
  readonly #left: Float64Array
  readonly #open: Int32Array

  constructor(upstreams: readonly Upstream[]) {
    const n = upstreams.length
    this.#upstreams = upstreams.slice()
    this.weights = Float64Array.from(upstreams, ({ weight }) => weight)
    this.#sums = new Float64Array(n)
    this.#marks = new Float64Array(n)
    this.#aliases = new Int32Array(n)
    this.#left = new Float64Array(n)
    this.#open = new Int32Array(n)
    this.fill()
  }

  /**
   * Gives what a light upstream leaves of its cell to one that has more than a cell, until all are even. In place: it may run between two picks,
   * O(n).
   */
  fill(): void {
    const n = this.#upstreams.length
    const open = this.#open
    const left = this.#left
    let total = 0
    for (let i = 0; i < n; i++) {
      total += this.weights[i] as number
      this.#sums[i] = total
    }
    this.mean = total / n
    this.#marks.fill(1)
    let light = 0
    let heavy = n
    for (let i = 0; i < n; i++) {
      left[i] = (this.weights[i] as number) / this.mean
      if ((left[i] as number) < 1) open[light++] = i
      else open[--heavy] = i
    }
    while (light > 0 && heavy < n) {
      const low = open[--light] as number
      const high = open[heavy] as number
      this.#marks[low] = left[low] as number
      this.#aliases[low] = high
      left[high] = (left[high] as number) + (left[low] as number) - 1
      if ((left[high] as number) < 1) {
        heavy++
        open[light++] = high
      }
    }
  }

  upstream(slot: number): Upstream {
    return this.#upstreams[slot] as Upstream
  }

  /** The slot of a pickable upstream other than `except`; -1 when there is none. */
  draw(exchange: Exchange, random: () => number, except: number): number {
    const n = this.#upstreams.length
    if (n === 0 || (n === 1 && except === 0)) return -1
    for (let draws = Math.min(n, mostDraws); draws > 0; draws--) {
      let slot = this.#any(random)
      if (slot === except) slot = this.#other(random, except)
      if (isPickable(this.#upstreams[slot] as Upstream, exchange)) return slot
    }
    return this.#scan(exchange, random, except)
  }

  #any(random: () => number): number {
    const height = random() * this.#upstreams.length
    const cell = Math.floor(height)
    return height - cell < (this.#marks[cell] as number) ? cell : (this.#aliases[cell] as number)
  }

  /** By bisection. Drawing again instead would go on for long where `except` has most of the weight. */
  #other(random: () => number, except: number): number {
    const weight = this.weights[except] as number
    const before = (this.#sums[except] as number) - weight
    const last = this.#upstreams.length - 1
    let target = random() * ((this.#sums[last] as number) - weight)
    let low = 0
    let high = except - 1
    if (target >= before) {
      target += weight
      low = except + 1
      high = last
    }
    while (low < high) {
      const middle = (low + high) >> 1
      if (target < (this.#sums[middle] as number)) high = middle
      else low = middle + 1
    }
    // Fractional weights can round to a range beyond the end, which is empty when `except` is the last.
    return low > last ? last - 1 : low
  }

  #scan(exchange: Exchange, random: () => number, except: number): number {
    let total = 0
    for (let i = 0; i < this.#upstreams.length; i++) if (this.#eligible(i, exchange, except)) total += this.weights[i] as number
    let rest = random() * total
    let found = -1
    for (let i = 0; i < this.#upstreams.length; i++) {
      if (!this.#eligible(i, exchange, except)) continue
      found = i
      rest -= this.weights[i] as number
      if (rest < 0) break
    }
    return found
  }

  #eligible(slot: number, exchange: Exchange, except: number): boolean {
    return slot !== except && isPickable(this.#upstreams[slot] as Upstream, exchange)
  }
}
