/**
 * Holding an answer back costs whoever asks more than it costs us, but it does cost: a held request is a socket and some memory. So there is a bound
 * on how many are held at once, beyond which the answer comes at once, and on how long. A client that leaves frees its place.
 */
import type { Clock, Exchange } from '@weir/core'

export class Tarpit {
  readonly #clock: Clock
  readonly #most: number
  readonly #letGo = new Set<() => void>()

  constructor(clock: Clock, most: number) {
    this.#clock = clock
    this.#most = most
  }

  get held(): number {
    return this.#letGo.size
  }

  get full(): boolean {
    return this.#letGo.size >= this.#most
  }

  /** Resolves when the time is over, the client has left, or the tarpit is closed. */
  hold(exchange: Exchange, ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const { signal } = exchange
    const done = (): void => {
      this.#clock.clearTimeout(timer)
      signal.removeEventListener('abort', done)
      this.#letGo.delete(done)
      resolve()
    }
    const timer = this.#clock.setTimeout(done, ms)
    this.#letGo.add(done)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
    return promise
  }

  close(): void {
    for (const done of [...this.#letGo]) done()
  }
}
