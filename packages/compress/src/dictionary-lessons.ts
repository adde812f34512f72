/**
 * Bodies that are kept while they pass, to be dictionaries when they have. How long that takes is up to whoever reads them, and the memory is bounded: of a crowd
 * that fetches the same one is kept, few are at a time, and one that takes long makes room for the next.
 */
import type { BodyTap, Clock, Exchange } from '@weir/core'

/** At the same time, each up to the longest dictionary. */
const mostLessons = 8
/** Milliseconds, after which a lesson makes room. */
const patience = 2000

export class DictionaryLessons {
  readonly #clock: Clock
  readonly #byPlace = new Map<string, Lesson>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @param place where it comes from @returns what has to see the body; undefined when it passes unseen */
  begin(
    place: string,
    exchange: Exchange,
    longest: number,
    length: number | undefined,
    done: (content: Buffer) => void,
  ): BodyTap | undefined {
    const now = this.#clock.now()
    const present = this.#byPlace.get(place) ?? (this.#byPlace.size >= mostLessons ? this.#byPlace.values().next().value : undefined)
    if (present !== undefined && now - present.began < patience) return undefined
    present?.end()
    const lesson = new Lesson(exchange, now, longest, length, done, () => {
      if (this.#byPlace.get(place) === lesson) this.#byPlace.delete(place)
    })
    this.#byPlace.set(place, lesson)
    return lesson
  }

  /** The exchange is over, whatever became of the body. */
  release(exchange: Exchange): void {
    for (const lesson of this.#byPlace.values()) if (lesson.exchange === exchange) lesson.end()
  }
}

class Lesson implements BodyTap {
  readonly exchange: Exchange
  readonly began: number
  readonly #longest: number
  readonly #done: (content: Buffer) => void
  readonly #over: () => void
  #buffer: Buffer | undefined
  #length = 0

  constructor(
    exchange: Exchange,
    began: number,
    longest: number,
    length: number | undefined,
    done: (content: Buffer) => void,
    over: () => void,
  ) {
    this.exchange = exchange
    this.began = began
    this.#longest = longest
    this.#done = done
    this.#over = over
    this.#buffer = Buffer.allocUnsafeSlow(length ?? Math.min(longest, 65_536))
  }

  onChunk(chunk: Uint8Array): void {
    if (this.#buffer === undefined) return
    const length = this.#length + chunk.length
    if (length > this.#longest) {
      this.end()
      return
    }
    if (length > this.#buffer.length) this.#grow(length)
    // A copy: the bytes may lie in memory that is read into again.
    this.#buffer.set(chunk, this.#length)
    this.#length = length
  }

  onEnd(complete: boolean): void {
    const buffer = this.#buffer
    const length = this.#length
    this.end()
    if (!complete || buffer === undefined || length === 0) return
    if (length === buffer.length) this.#done(buffer)
    else {
      const exact = Buffer.allocUnsafeSlow(length)
      exact.set(buffer.subarray(0, length))
      this.#done(exact)
    }
  }

  end(): void {
    this.#buffer = undefined
    this.#over()
  }

  #grow(length: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.min(this.#longest, Math.max(length, 2 * (this.#buffer as Buffer).length)))
    larger.set((this.#buffer as Buffer).subarray(0, this.#length))
    this.#buffer = larger
  }
}
