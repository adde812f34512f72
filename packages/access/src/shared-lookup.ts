/**
 * One question that several wait for. Fifty requests of one page with one cookie are one question to the service; it is given up when the last of
 * those who wait has left, and not when the first has.
 */
export class SharedLookups<T> {
  readonly #running = new Map<string, Lookup<T>>()

  get size(): number {
    return this.#running.size
  }

  /**
   * Joins the look-up under `key`, or begins one. Rejects with the signal's reason as soon as this one's signal aborts.
   * @param begin undefined when it cannot be begun; then so is the result
   */
  join(key: string, signal: AbortSignal, begin: (signal: AbortSignal) => Promise<T> | undefined): Promise<T> | undefined {
    let lookup = this.#running.get(key)
    if (lookup === undefined) {
      const abort = new AbortController()
      const result = begin(abort.signal)
      if (result === undefined) return undefined
      const made: Lookup<T> = { abort, result, waiting: 0 }
      lookup = made
      this.#running.set(key, made)
      const done = (): void => {
        if (this.#running.get(key) === made) this.#running.delete(key)
      }
      result.then(done, done)
    }
    return this.#wait(key, lookup, signal)
  }

  #wait(key: string, lookup: Lookup<T>, signal: AbortSignal): Promise<T> {
    lookup.waiting++
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const left = (): void => {
      lookup.waiting--
      if (lookup.waiting === 0) {
        // Whoever comes now must not join what is being given up.
        if (this.#running.get(key) === lookup) this.#running.delete(key)
        lookup.abort.abort(signal.reason)
      }
      reject(signal.reason)
    }
    if (signal.aborted) left()
    else {
      signal.addEventListener('abort', left, { once: true })
      lookup.result.then(resolve, reject).finally(() => signal.removeEventListener('abort', left))
    }
    return promise
  }
}

interface Lookup<T> {
  readonly abort: AbortController
  readonly result: Promise<T>
  waiting: number
}
