/**
 * Waiting for a state instead of for a time. Whoever owns some state calls `changed()` when it did; whoever waits gives a look at it, which
 * returns undefined for "not yet". There is always a deadline, because a test that hangs tells nothing.
 */

/** Milliseconds that any wait of the kit may take when the test gives no other number. */
export const defaultDeadline = 5000

/** For waits that end when the connection does: the largest delay that `setTimeout` takes. */
export const noDeadline = 2_147_483_647

export class Watch {
  readonly #checks = new Set<() => void>()

  changed(): void {
    for (const check of [...this.#checks]) check()
  }

  /** Resolves with the first thing that `look` returns, rejects with what it throws, or with `late()` at the deadline. */
  until<T>(look: () => T | undefined, deadline: number, late: () => Error): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        clearTimeout(timer)
        this.#checks.delete(check)
        act()
      }
      const check = (): void => {
        try {
          const found = look()
          if (found !== undefined) settle(() => resolve(found))
        } catch (error) {
          settle(() => reject(error))
        }
      }
      const timer = setTimeout(() => settle(() => reject(late())), deadline)
      this.#checks.add(check)
      check()
    })
  }
}
