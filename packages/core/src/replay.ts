/**
 * The replay buffer: what makes a request with a body retryable. It fills while the body streams through (nothing waits for it) and gives
 * up beyond its cap: from then on the request goes on but can no longer be retried. A cap per request is what keeps an upload of a gigabyte
 * from becoming a gigabyte of memory.
 */
export class ReplayBuffer {
  readonly #limit: number
  #chunks: Buffer[] = []
  #bytes = 0
  #overflowed = false

  /** @param limit most bytes kept, per request */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** False when it was not kept. */
  push(chunk: Buffer): boolean {
    if (this.#overflowed) return false
    this.#bytes += chunk.length
    if (this.#bytes > this.#limit) {
      this.#overflowed = true
      this.#chunks = []
      return false
    }
    this.#chunks.push(chunk)
    return true
  }

  /** Everything that passed so far, or undefined when it no longer fits. */
  get chunks(): readonly Buffer[] | undefined {
    return this.#overflowed ? undefined : this.#chunks
  }

  /** No retry can follow any more: let the memory go. */
  release(): void {
    this.#overflowed = true
    this.#chunks = []
  }
}
