/**
 * Short bodies that are asked for again and again, as strings of one byte per character. A short answer leaves as one string together with its head; to make that string
 * anew for every hit is a tenth of what the hit costs (measured, in turns), since each is fresh memory that passes through the processor's caches. So a few are kept: bounded by bytes, and whose turn it is to go is decided by CLOCK, one bit per text that says whether it was asked for
 * since the hand came by last (Corbató 1968).
 */

/** Above this, head and body are written as two pieces anyway. */
const longest = 8192
/** Nothing is kept before a body is asked for so often: most never are. */
const worthIt = 2
/** What a string takes besides its characters, and what is kept with it. */
const overhead = 96

/** Of one body: its text, when there is one. */
export class HotText {
  value: string | undefined = undefined
  uses = 0
  /** Asked for since the hand came by. */
  asked = false
}

export class HotTexts {
  readonly #maxBytes: number
  /** In the order in which the hand comes to them. */
  readonly #kept = new Set<HotText>()
  bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** The text of `body`; undefined while it is not worth it. */
  of(hot: HotText, body: Uint8Array): string | undefined {
    if (hot.value !== undefined) {
      hot.asked = true
      return hot.value
    }
    if (body.length === 0 || body.length > longest || body.length + overhead > this.#maxBytes) return undefined
    if (++hot.uses < worthIt) return undefined
    return this.#keep(hot, body)
  }

  /** Its body goes. */
  drop(hot: HotText): void {
    if (hot.value === undefined) return
    this.#kept.delete(hot)
    this.bytes -= hot.value.length + overhead
    hot.value = undefined
  }

  #keep(hot: HotText, body: Uint8Array): string {
    const needed = body.length + overhead
    for (const other of this.#kept) {
      if (this.bytes + needed <= this.#maxBytes) break
      if (other.asked) {
        // To the end of the round.
        other.asked = false
        this.#kept.delete(other)
        this.#kept.add(other)
      } else this.drop(other)
    }
    const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('latin1')
    hot.value = text
    this.#kept.add(hot)
    this.bytes += needed
    return text
  }
}
