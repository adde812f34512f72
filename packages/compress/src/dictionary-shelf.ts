/**
 * The bytes of dictionaries, by hash, within a number of bytes. What the operator has put in stays until he puts in more than there is room for; what was learnt has the
 * rest, and the least recently used goes first.
 */
import type { PathMatch } from './dictionary-match.ts'

export interface Dictionary {
  readonly content: Buffer
  /** SHA-256, base64. */
  readonly hash: string
}

interface Held extends Dictionary {
  /** By pattern. The same bytes may be a dictionary for several. */
  readonly matches: Map<string, PathMatch>
}

/** What an entry costs besides its bytes; rounded up, so that many small ones stay within the bound. */
const overhead = 512
const mostMatches = 8

export class DictionaryShelf {
  readonly #maxSize: number
  readonly #added = new Map<string, Held>()
  readonly #learnt = new Map<string, Held>()
  #taken = 0
  bytes = 0
  evicted = 0

  constructor(maxSize: number) {
    this.#maxSize = maxSize
  }

  get size(): number {
    return this.#added.size + this.#learnt.size
  }

  has(hash: string): boolean {
    return this.#added.has(hash) || this.#learnt.has(hash)
  }

  /** Counts as a use. */
  find(hash: string, path: string): Dictionary | undefined {
    const held = this.#touch(hash)
    if (held === undefined) return undefined
    for (const fits of held.matches.values()) if (fits(path)) return held
    return undefined
  }

  /** For this pattern, too; counts as a use. False when it is not there. */
  widen(hash: string, pattern: string, fits: PathMatch): boolean {
    const held = this.#touch(hash)
    if (held === undefined) return false
    held.matches.delete(pattern)
    held.matches.set(pattern, fits)
    if (held.matches.size > mostMatches) held.matches.delete(held.matches.keys().next().value as string)
    return true
  }

  /** @param content not copied @returns false when there is no room for it */
  put(hash: string, content: Buffer, pattern: string, fits: PathMatch, byOperator: boolean): boolean {
    if (byOperator && this.#learnt.has(hash)) this.delete(hash)
    if (this.widen(hash, pattern, fits)) return true
    const cost = content.length + overhead
    while (this.#taken + cost > this.#maxSize) {
      const oldest = this.#learnt.keys().next().value ?? (byOperator ? this.#added.keys().next().value : undefined)
      if (oldest === undefined) return false
      this.delete(oldest)
      this.evicted++
    }
    ;(byOperator ? this.#added : this.#learnt).set(hash, { content, hash, matches: new Map([[pattern, fits]]) })
    this.#taken += cost
    this.bytes += content.length
    return true
  }

  delete(hash: string): boolean {
    const held = this.#added.get(hash) ?? this.#learnt.get(hash)
    if (held === undefined) return false
    this.#added.delete(hash)
    this.#learnt.delete(hash)
    this.#taken -= held.content.length + overhead
    this.bytes -= held.content.length
    return true
  }

  #touch(hash: string): Held | undefined {
    const shelf = this.#added.has(hash) ? this.#added : this.#learnt
    const held = shelf.get(hash)
    if (held !== undefined) {
      shelf.delete(hash)
      shelf.set(hash, held)
    }
    return held
  }
}
