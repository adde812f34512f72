/** Tasks of one key run one after the other, in the order in which they came; those of different keys do not wait for each other. */
export class KeyedQueue {
  readonly #tails = new Map<string, Promise<unknown>>()

  /** The task begins at once when nothing else of this key is running. */
  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key)
    const result = before === undefined ? task() : before.then(task)
    const tail = result.then(ignore, ignore).then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    })
    this.#tails.set(key, tail)
    return result
  }

  has(key: string): boolean {
    return this.#tails.has(key)
  }

  /** When everything that is there now, and what comes meanwhile, is over. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values())
  }
}

function ignore(): void {}
