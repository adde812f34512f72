/** Whatever is asked from outside gets a time to answer in, or a request would wait for ever. */
import type { Clock, MaybePromise } from '@weir/core'

/** Rejects after `ms`. A value that is there already takes no timer. */
export async function within<T>(value: MaybePromise<T>, clock: Clock, ms: number, what: string): Promise<T> {
  if (!(value instanceof Promise)) return value
  let timer: unknown
  const late = new Promise<never>((_resolve, reject) => {
    timer = clock.setTimeout(() => reject(new Error(`${what}: no answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([value, late])
  } finally {
    clock.clearTimeout(timer)
  }
}
