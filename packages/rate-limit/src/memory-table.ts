/**
 * The keys of one limit in memory, millions of them if need be, at one cache miss per decision: an open-addressing table in one buffer, a row of 16 to 32
 * bytes per key, as its algorithm needs, with 60 bits of a secret hash in place of the key. No object, no string and no pointer per key, so nothing for the garbage collector to walk, and
 * no pause when entries are replaced. Two keys with one hash would share a count; a new key meets that among a million remembered ones with a
 * probability of 1e-12, and nobody who does not know the process's secret can look for it (key-hash.ts, docs/decisions/0022).
 *
 * Bounded by the number of keys. Who comes when it is full takes the place of one of the next few in line: one whose limit has run out by itself
 * if there is one, else whoever has used the least of it. Not of whoever was longest not seen, as caches do: keeping that order costs more memory
 * accesses than the decision itself, and a flood of new keys would wipe those out who are at their limit, whom a limit is there to remember.
 */
import type { Clock } from '@weir/core'
import { KeyHash, prime } from './key-hash.ts'
import type { LimitState, LimitStep } from './limit.ts'

/** How many are compared when one has to go. With more, the choice hardly gets better, and a flood gets dearer. */
const compared = 16
/** Rows per key. Fewer are longer to search, more are further apart. */
const spread = 1.5
const hashBits = 0x3fffffff
/**
 * Bytes in front of the first row. The C library puts large memory 16 bytes behind the beginning of a page; with these, a row of 16 or 32 lies in one line of
 * the processor's caches there, and nothing depends on it elsewhere.
 */
const lead = 48

export class MemoryTable {
  evictions = 0
  size = 0
  readonly #maxEntries: number
  readonly #clock: Clock
  /** Quarters of the limit in one unit of it. */
  #quarters = 0
  readonly #expiresAt: (state: Readonly<LimitState>) => number
  /**
   * Of a row, in float64: the hash, and as many of `a`, `b` and `c` as the algorithm uses. The hash are two int32: its lower half plus one, 0 for an empty row;
   * its upper half with two bits in front of it that tell how much of its limit the key has used, by quarters.
   */
  readonly #width: number
  readonly #hash: KeyHash = new KeyHash()
  readonly #rows: number
  readonly #scale: number
  readonly #numbers: Float64Array
  /** The same memory, for the hashes. */
  readonly #words: Int32Array
  /** Where the next comparison begins. */
  #hand = 0
  /** Of the one that is compared. */
  readonly #compared: LimitState = { a: 0, b: 0, c: 0 }

  /** @param numbers see `Algorithm` @param expiresAt from when on what is remembered says no more than nothing would */
  constructor(maxEntries: number, clock: Clock, whole: number, numbers: 1 | 2 | 3, expiresAt: (state: Readonly<LimitState>) => number) {
    this.#maxEntries = maxEntries
    this.#clock = clock
    this.whole = whole
    this.#expiresAt = expiresAt
    this.#width = 1 + numbers
    // All of it at once. It is zeros, which the system gives no memory to before they are written; growing would move every row, and stop the process for as
    // long (measured: 0.1 s at half a million keys), and it is floods that make a table grow.
    this.#rows = Math.ceil(maxEntries * spread) + 1
    this.#scale = this.#rows / prime
    const memory = new ArrayBuffer(lead + this.#rows * this.#width * 8)
    this.#numbers = new Float64Array(memory, lead)
    this.#words = new Int32Array(memory, lead)
  }

  /** What a key has left when it has used nothing. */
  set whole(amount: number) {
    this.#quarters = 4 / amount
  }

  /** Reads what is remembered into `state` and returns its row, -1 for a key never seen. */
  read(key: string, state: LimitState): number {
    const hash = this.#hash
    hash.update(key)
    // One more than it is: an empty row has zeros.
    const low = hash.low + 1
    const high = hash.high
    const words = this.#words
    const width = this.#width
    let row = this.#home(high)
    for (;;) {
      const at = row * width * 2
      const there = words[at] as number
      if (there === low && ((words[at + 1] as number) & hashBits) === high) break
      if (there === 0) {
        state.a = 0
        state.b = 0
        state.c = 0
        return -1
      }
      row = row + 1 === this.#rows ? 0 : row + 1
    }
    this.#copy(row, state)
    return row
  }

  #copy(row: number, state: LimitState): void {
    const numbers = this.#numbers
    const width = this.#width
    const at = row * width
    state.a = numbers[at + 1] as number
    state.b = width > 2 ? (numbers[at + 2] as number) : 0
    state.c = width > 3 ? (numbers[at + 3] as number) : 0
  }

  /** Of the key that was read last. @param row what `read` returned, with no other call in between */
  write(row: number, step: LimitStep): void {
    const to = row < 0 ? this.#insert() : row
    const width = this.#width
    const at = to * width
    const numbers = this.#numbers
    numbers[at + 1] = step.a
    if (width > 2) numbers[at + 2] = step.b
    if (width > 3) numbers[at + 3] = step.c
    const used = Math.max(0, Math.min(3, Math.floor(4 - step.remaining * this.#quarters)))
    this.#words[at * 2 + 1] = this.#hash.high | (used << 30)
  }

  /** Where a hash is looked for first. */
  #home(high: number): number {
    return Math.floor(high * this.#scale)
  }

  #insert(): number {
    if (this.size === this.#maxEntries) this.#remove(this.#leastUsed())
    const { low, high } = this.#hash
    this.size++
    const row = this.#vacant(high)
    this.#words[row * this.#width * 2] = low + 1
    return row
  }

  #vacant(high: number): number {
    let row = this.#home(high)
    while (this.#taken(row)) row = row + 1 === this.#rows ? 0 : row + 1
    return row
  }

  #taken(row: number): boolean {
    return this.#words[row * this.#width * 2] !== 0
  }

  /** Who is given up; counts what is lost. */
  #leastUsed(): number {
    const now = this.#clock.now()
    let least = -1
    let used = 4
    for (let seen = Math.min(compared, this.size); seen > 0; ) {
      const row = this.#hand
      this.#hand = row + 1 === this.#rows ? 0 : row + 1
      if (!this.#taken(row)) continue
      seen--
      this.#copy(row, this.#compared)
      if (this.#expiresAt(this.#compared) <= now) return row
      const uses = (this.#words[row * this.#width * 2 + 1] as number) >>> 30
      if (uses >= used) continue
      used = uses
      least = row
    }
    this.evictions++
    return least
  }

  /** Closes the gap behind it: whoever stands further from home than the gap is moves up, so that no search ends too early. */
  #remove(row: number): void {
    const words = this.#words
    const width = this.#width
    let gap = row
    let next = row
    for (;;) {
      next = next + 1 === this.#rows ? 0 : next + 1
      if (!this.#taken(next)) break
      const home = this.#home((words[next * width * 2 + 1] as number) & hashBits)
      const fromHome = (next - home + this.#rows) % this.#rows
      const fromGap = (next - gap + this.#rows) % this.#rows
      if (fromHome < fromGap) continue
      this.#numbers.copyWithin(gap * width, next * width, (next + 1) * width)
      gap = next
    }
    words[gap * width * 2] = 0
    this.size--
  }
}
