/**
 * So much at once, so much waiting, and no more. Checking a password takes memory and a thread, and asking another server a connection: whoever can
 * make us do it by sending a request could have us do nothing else.
 */
export class WorkQueue {
  readonly #most: number
  readonly #longest: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(most: number, longest: number) {
    this.#most = most
    this.#longest = longest
  }

  get running(): number {
    return this.#running
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /** Undefined when there is no room; nothing was begun then. */
  run<T>(work: () => Promise<T>): Promise<T> | undefined {
    if (this.#running < this.#most) return this.#begin(work)
    if (this.#waiting.length >= this.#longest) return undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.push(resolve)
    return promise.then(() => this.#go(work))
  }

  #begin<T>(work: () => Promise<T>): Promise<T> {
    this.#running++
    return this.#go(work)
  }

  /** The place is taken; at the end it goes to whoever waits longest, or is free. */
  async #go<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}
