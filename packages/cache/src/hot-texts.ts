/**
 * Short bodies that are asked for again and again, as strings of one byte per character. A short answer leaves as one string together with its head; to make that
 * string anew for every hit is a tenth of what the hit costs (measured, in turns), since each is fresh memory that passes through the processor's caches. So a few
 * are kept, and with each the answer that was made of it last: bounded by bytes, and whose turn it is to go is decided by CLOCK, one bit per text that says whether
 * it was asked for since the hand came by last (Corbató 1968).
 */
import type { SentAnswer } from './answer.ts'
import type { HotBody } from './store.ts'

/** Above this, head and body are written as two pieces anyway. */
const longest = 8192
/** Nothing is kept before a body is asked for so often: most never are. */
const worthIt = 2
/** What a string takes besides its characters, what is kept with it, and the last answer. */
const overhead = 384
/** A name or a value in the list of the last answer's fields; the strings themselves are the entry's. */
const perField = 8

/** Of one body: its text, when there is one. */
export class HotText {
  text: string | undefined = undefined
  sent: SentAnswer | undefined = undefined
  uses = 0
  /** Asked for since the hand came by. */
  asked = false
  /** Bytes that it is counted as. */
  weight = 0
}

export class HotTexts {
  readonly #maxBytes: number
  /** In the order in which the hand comes to them. */
  readonly #kept = new Set<HotText>()
  bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** `hot`, with the text of `body` in it; undefined while it is not worth it. @param fields names and values that are sent with it */
  of(hot: HotText, body: Uint8Array, fields: number): HotBody | undefined {
    if (hot.text !== undefined) {
      hot.asked = true
      return hot as HotBody
    }
    if (body.length === 0 || body.length > longest) return undefined
    if (++hot.uses < worthIt) return undefined
    return this.#keep(hot, body, body.length + overhead + fields * perField)
  }

  /** Its body goes. */
  drop(hot: HotText): void {
    if (hot.text === undefined) return
    this.#kept.delete(hot)
    this.bytes -= hot.weight
    hot.text = undefined
    hot.sent = undefined
  }

  #keep(hot: HotText, body: Uint8Array, weight: number): HotBody | undefined {
    if (weight > this.#maxBytes) return undefined
    for (const other of this.#kept) {
      if (this.bytes + weight <= this.#maxBytes) break
      if (other.asked) {
        // To the end of the round.
        other.asked = false
        this.#kept.delete(other)
        this.#kept.add(other)
      } else this.drop(other)
    }
    hot.text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('latin1')
    hot.weight = weight
    this.#kept.add(hot)
    this.bytes += weight
    return hot as HotBody
  }
}
