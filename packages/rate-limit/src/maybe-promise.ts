/** Goes on now when the value is there, later when it is a promise: nothing is asynchronous that need not be. */
import type { MaybePromise } from '@weir/core'

export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return typeof value === 'object' && value !== null && typeof (value as unknown as Promise<T>).then === 'function'
}

/** Not called `then`: a module with an export of that name is taken for a promise by `import()`. */
export function whenThere<T, R>(value: MaybePromise<T>, go: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return isPromise(value) ? value.then(go) : go(value)
}
