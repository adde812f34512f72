/**
 * Upstreams of equal weight, lined up by how many exchanges they have in flight. A level is a number in flight and a queue of those who have
 * it; the levels of a class are a list in order. An exchange that begins or ends changes that number by one, so an upstream only ever moves to
 * the level next to its own: O(1), where a heap would move it along O(log n) others. Whoever arrives on a level goes to the end of its queue,
 * so equals are served in turn.
 *
 * Numbers instead of objects: slots, levels and classes are indexes into arrays that are made once, so nothing is allocated while running.
 */

const none = -1

export class Levels {
  readonly #classOf: Int32Array
  // By slot: a ring per level.
  readonly #next: Int32Array
  readonly #previous: Int32Array
  readonly #levelOf: Int32Array
  // By level.
  readonly #inflight: Int32Array
  readonly #head: Int32Array
  readonly #size: Int32Array
  readonly #above: Int32Array
  readonly #below: Int32Array
  /** Levels not in use, as a stack. No level is empty, so there are never more levels than slots. */
  readonly #free: Int32Array
  #freeCount: number
  // By class.
  readonly #lowest: Int32Array

  /** @param classOf by slot; all slots start outside */
  constructor(classOf: Int32Array, classes: number) {
    const n = classOf.length
    this.#classOf = classOf
    this.#next = new Int32Array(n)
    this.#previous = new Int32Array(n)
    this.#levelOf = new Int32Array(n).fill(none)
    this.#inflight = new Int32Array(n)
    this.#head = new Int32Array(n)
    this.#size = new Int32Array(n)
    this.#above = new Int32Array(n)
    this.#below = new Int32Array(n)
    this.#free = Int32Array.from({ length: n }, (_, level) => level)
    this.#freeCount = n
    this.#lowest = new Int32Array(classes).fill(none)
  }

  has(slot: number): boolean {
    return this.#levelOf[slot] !== none
  }

  isEmpty(index: number): boolean {
    return this.#lowest[index] === none
  }

  /** The smallest number in flight in this class, which must not be empty; the same for the two below. */
  least(index: number): number {
    return this.#inflight[this.#lowest[index] as number] as number
  }

  /** How many have the smallest number in flight. */
  leastCount(index: number): number {
    return this.#size[this.#lowest[index] as number] as number
  }

  /** The first in the queue of those with the smallest number in flight. */
  first(index: number): number {
    return this.#head[this.#lowest[index] as number] as number
  }

  /** Sends the first to the end of its queue. */
  rotate(index: number): void {
    const level = this.#lowest[index] as number
    this.#head[level] = this.#next[this.#head[level] as number] as number
  }

  /** Walks up from the lowest level: for those who come back, who are seldom far from it. */
  add(slot: number, inflight: number): void {
    const index = this.#classOf[slot] as number
    let below = none
    let level = this.#lowest[index] as number
    while (level !== none && (this.#inflight[level] as number) < inflight) {
      below = level
      level = this.#above[level] as number
    }
    if (level === none || this.#inflight[level] !== inflight) level = this.#open(index, inflight, below, level)
    this.#append(slot, level)
  }

  remove(slot: number): void {
    this.#unlink(slot, this.#levelOf[slot] as number)
    this.#levelOf[slot] = none
  }

  #unlink(slot: number, level: number): void {
    const rest = (this.#size[level] as number) - 1
    this.#size[level] = rest
    if (rest === 0) {
      this.#close(this.#classOf[slot] as number, level)
      return
    }
    const next = this.#next[slot] as number
    const previous = this.#previous[slot] as number
    this.#next[previous] = next
    this.#previous[next] = previous
    if (this.#head[level] === slot) this.#head[level] = next
  }

  /** One more in flight. True when `least` of its class has changed, and so for `lower`. */
  raise(slot: number): boolean {
    const level = this.#levelOf[slot] as number
    const above = this.#above[level] as number
    const inflight = (this.#inflight[level] as number) + 1
    const leastRises = this.#size[level] === 1 && this.#below[level] === none
    if (above !== none && this.#inflight[above] === inflight) this.#move(slot, level, above)
    else if (this.#size[level] === 1) this.#inflight[level] = inflight
    else this.#move(slot, level, this.#open(this.#classOf[slot] as number, inflight, level, above))
    return leastRises
  }

  /** One less in flight. */
  lower(slot: number): boolean {
    const level = this.#levelOf[slot] as number
    const below = this.#below[level] as number
    const inflight = (this.#inflight[level] as number) - 1
    if (below !== none && this.#inflight[below] === inflight) this.#move(slot, level, below)
    else if (this.#size[level] === 1) this.#inflight[level] = inflight
    else this.#move(slot, level, this.#open(this.#classOf[slot] as number, inflight, below, level))
    return below === none
  }

  inflight(slot: number): number {
    return this.#inflight[this.#levelOf[slot] as number] as number
  }

  #move(slot: number, from: number, to: number): void {
    this.#unlink(slot, from)
    this.#append(slot, to)
  }

  #append(slot: number, level: number): void {
    const size = this.#size[level] as number
    const head = size === 0 ? slot : (this.#head[level] as number)
    const tail = size === 0 ? slot : (this.#previous[head] as number)
    this.#levelOf[slot] = level
    this.#size[level] = size + 1
    this.#head[level] = head
    this.#next[tail] = slot
    this.#previous[slot] = tail
    this.#next[slot] = head
    this.#previous[head] = slot
  }

  #open(index: number, inflight: number, below: number, above: number): number {
    const level = this.#free[--this.#freeCount] as number
    this.#inflight[level] = inflight
    this.#size[level] = 0
    this.#link(index, below, level)
    this.#link(index, level, above)
    return level
  }

  #close(index: number, level: number): void {
    this.#link(index, this.#below[level] as number, this.#above[level] as number)
    this.#free[this.#freeCount++] = level
  }

  #link(index: number, below: number, above: number): void {
    if (below === none) this.#lowest[index] = above
    else this.#above[below] = above
    if (above !== none) this.#below[above] = below
  }
}
