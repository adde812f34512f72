/** A call of two stores, synchronous when both are. */
import type { MaybePromise } from '@weir/core'

/** What `call` gives or throws, now or later, through `done` or `failed`. */
export function settled<T, R>(
  call: () => MaybePromise<T>,
  done: (value: T) => MaybePromise<R>,
  failed: (error: unknown) => MaybePromise<R>,
): MaybePromise<R> {
  let value: MaybePromise<T>
  try {
    value = call()
  } catch (error) {
    return failed(error)
  }
  return value instanceof Promise ? value.then(done, failed) : done(value)
}

type Outcome<T> = { readonly value: T } | { readonly error: unknown }

/**
 * Both calls are made, the upper one first, whatever becomes of it. Fails when one of them did.
 * @param forgive is told what the lower one failed with, where the upper one has done it and that is enough
 */
export function both<T>(
  upper: () => MaybePromise<T>,
  lower: () => MaybePromise<T>,
  join: (upper: T, lower: T) => T,
  forgive?: (error: unknown) => void,
): MaybePromise<T> {
  const joined = (above: Outcome<T>, below: Outcome<T>): T => {
    if ('error' in above) throw above.error
    if (!('error' in below)) return join(above.value, below.value)
    if (forgive === undefined || above.value !== true) throw below.error
    forgive(below.error)
    return above.value
  }
  const above = outcome(upper)
  const below = outcome(lower)
  if (above instanceof Promise || below instanceof Promise) return Promise.all([above, below]).then(([one, other]) => joined(one, other))
  return joined(above, below)
}

function outcome<T>(call: () => MaybePromise<T>): MaybePromise<Outcome<T>> {
  return settled<T, Outcome<T>>(
    call,
    (value) => ({ value }),
    (error) => ({ error }),
  )
}
