/**
 * How often a key was asked for lately, in a few bits: a count-min sketch of four-bit counters that are all halved when as many keys were counted as ten times
 * its size (TinyLFU: Einziger, Friedman, Manes, 2017). For deciding which of two entries is worth its place.
 */
export class FrequencySketch {
  readonly #table: Uint8Array
  readonly #mask: number
  readonly #sample: number
  #counted = 0

  /** @param entries that the cache holds about */
  constructor(entries: number) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(64, entries)))
    // As many counters in a row as keys that are counted before it forgets, or nearly: shared by ten, one would say of what is new what is true of others.
    const width = size * 8
    // Two counters to a byte, four rows.
    this.#table = new Uint8Array(width * 2)
    this.#mask = width - 1
    this.#sample = size * 10
  }

  count(key: string): void {
    const hash = hashOf(key)
    const least = this.estimate(key)
    if (least === 15) return
    // Only the lowest: the others are too high already, for the sake of other keys (conservative update: Estan, Varghese, 2002).
    for (let row = 0; row < 4; row++) {
      const slot = this.#slot(hash, row)
      if (this.#read(slot) === least) this.#write(slot, least + 1)
    }
    if (++this.#counted >= this.#sample) this.#halve()
  }

  /** From 0 to 15. */
  estimate(key: string): number {
    const hash = hashOf(key)
    let least = 15
    for (let row = 0; row < 4; row++) least = Math.min(least, this.#read(this.#slot(hash, row)))
    return least
  }

  #slot(hash: number, row: number): number {
    const mixed = Math.imul(hash ^ (hash >>> 15), multipliers[row] as number) >>> 0
    return row * (this.#mask + 1) + ((mixed >>> 7) & this.#mask)
  }

  #read(slot: number): number {
    const byte = this.#table[slot >>> 1] as number
    return (slot & 1) === 0 ? byte & 15 : byte >>> 4
  }

  #write(slot: number, value: number): void {
    const byte = this.#table[slot >>> 1] as number
    this.#table[slot >>> 1] = (slot & 1) === 0 ? (byte & 0xf0) | value : (byte & 0x0f) | (value << 4)
  }

  #halve(): void {
    for (let i = 0; i < this.#table.length; i++) this.#table[i] = ((this.#table[i] as number) >>> 1) & 0x77
    this.#counted >>>= 1
  }
}

const multipliers = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f]

/** FNV-1a. */
function hashOf(key: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
