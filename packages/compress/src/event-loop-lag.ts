/**
 * How late this process is. zlib works on threads of its own, but they share the processors with the event loop, so a proxy that compresses
 * with all its might answers late. A timer that measures its own lateness costs nothing and sees all of it, whoever is to blame.
 *
 * A single late turn is remembered for a while (it fades by a fifth per look), so that the answer does not flutter.
 */

const every = 100
const fade = 0.8

export class EventLoopLag {
  #ms = 0
  #due = 0
  #timer: NodeJS.Timeout | undefined
  /** A stage may serve several proxies. */
  #users = 0

  /** Milliseconds. */
  get ms(): number {
    return this.#ms
  }

  start(): void {
    this.#users++
    if (this.#timer !== undefined) return
    this.#due = performance.now() + every
    this.#timer = setInterval(() => this.#look(), every)
    // To measure is no reason to live.
    this.#timer.unref()
  }

  stop(): void {
    if (--this.#users > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#users = 0
    this.#ms = 0
  }

  #look(): void {
    const now = performance.now()
    const late = Math.max(0, now - this.#due)
    this.#ms = Math.max(late, this.#ms * fade)
    this.#due = now + every
  }
}
