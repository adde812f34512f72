/**
 * The least loaded of a set of classes: a binary heap by load, and by turn among equals. It holds classes and not upstreams (see
 * `least-connections.ts`), so it is as deep as there are different weights, which is seldom more than a few.
 */
export class LoadHeap {
  size: number = 0
  readonly #items: Int32Array
  readonly #positions: Int32Array
  // By item.
  readonly #loads: Float64Array
  readonly #turns: Float64Array

  constructor(capacity: number) {
    this.#items = new Int32Array(capacity)
    this.#positions = new Int32Array(capacity).fill(-1)
    this.#loads = new Float64Array(capacity)
    this.#turns = new Float64Array(capacity)
  }

  get top(): number {
    return this.#items[0] as number
  }

  /** Puts `item` in, or gives it another place. */
  set(item: number, load: number, turn: number): void {
    this.#loads[item] = load
    this.#turns[item] = turn
    const at = this.#positions[item] as number
    this.#settle(at === -1 ? this.size++ : at, item)
  }

  remove(item: number): void {
    const at = this.#positions[item] as number
    if (at === -1) return
    this.#positions[item] = -1
    const last = --this.size
    if (at !== last) this.#settle(at, this.#items[last] as number)
  }

  /** `at` is free: moves others until `item` fits. */
  #settle(from: number, item: number): void {
    let at = from
    while (at > 0) {
      const parent = this.#items[(at - 1) >> 1] as number
      if (!this.#before(item, parent)) break
      this.#put(at, parent)
      at = (at - 1) >> 1
    }
    for (let child = 2 * at + 1; child < this.size; child = 2 * at + 1) {
      if (child + 1 < this.size && this.#before(this.#items[child + 1] as number, this.#items[child] as number)) child++
      if (!this.#before(this.#items[child] as number, item)) break
      this.#put(at, this.#items[child] as number)
      at = child
    }
    this.#put(at, item)
  }

  #before(a: number, b: number): boolean {
    const difference = (this.#loads[a] as number) - (this.#loads[b] as number)
    return difference < 0 || (difference === 0 && (this.#turns[a] as number) < (this.#turns[b] as number))
  }

  #put(at: number, item: number): void {
    this.#items[at] = item
    this.#positions[item] = at
  }
}
