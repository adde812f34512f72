/**
 * Those who want to see a request's body, told together. What one of them throws, or rejects with, is the mistake of whoever wrote it and ends the exchange; the
 * others are told all the same that there is no more to come, since they hold something until then.
 */
import { isPromise } from './pipeline.ts'
import type { RequestTap } from './stage.ts'

export class RequestTaps {
  readonly #taps: RequestTap[]
  readonly #onBroken: (cause: unknown) => void
  #over = false
  #broken = false

  /** @param onBroken what one of them threw; called once, when all have been told of the end */
  constructor(taps: readonly RequestTap[], onBroken: (cause: unknown) => void) {
    this.#taps = [...taps]
    this.#onBroken = onBroken
  }

  add(tap: RequestTap): void {
    this.#taps.push(tap)
  }

  chunk(chunk: Uint8Array): void {
    this.#tell((tap) => tap.onChunk?.(chunk))
  }

  flow(reading: boolean): void {
    this.#tell((tap) => tap.onFlow?.(reading))
  }

  end(complete: boolean): void {
    if (this.#over) return
    this.#over = true
    const thrown: unknown[] = []
    for (const tap of this.#taps) {
      try {
        const result: unknown = tap.onEnd?.(complete)
        if (isPromise(result)) result.then(undefined, (cause) => this.#break(cause))
      } catch (cause) {
        thrown.push(cause)
      }
    }
    if (thrown.length > 0) this.#break(thrown[0])
  }

  #tell(what: (tap: RequestTap) => unknown): void {
    for (const tap of this.#taps) {
      // One of them has ended the exchange, and all have been told of that.
      if (this.#over) return
      try {
        const result = what(tap)
        if (isPromise(result)) result.then(undefined, (cause) => this.#break(cause))
      } catch (cause) {
        this.#break(cause)
      }
    }
  }

  #break(cause: unknown): void {
    // The first mistake is the one that is told.
    if (this.#broken) return
    this.#broken = true
    this.end(false)
    this.#onBroken(cause)
  }
}
