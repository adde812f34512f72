/**
 * A worker's side: an object with the methods of a store, each of which asks the primary. A call costs a message there and one back, some tens of
 * microseconds; the features of Weir put a deadline on it, since a primary that is busy answers nobody.
 */
import cluster from 'node:cluster'
import { OptionReader } from '@weir/core'
import { decode, encode, isAnswer } from './message.ts'

export interface FromPrimaryOptions {
  /** Calls that may wait for an answer; beyond it they fail at once. Default 1,000. */
  readonly maxPending?: number
}

interface Pending {
  resolve(value: unknown): void
  reject(error: Error): void
}

/** Calls of all stores of this worker. */
const pending = new Map<number, Pending>()
let calls = 0
/** Stores that were not closed: while there are any, this process listens to its channel. */
let users = 0

function onMessage(message: unknown): void {
  if (!isAnswer(message)) return
  const waiting = pending.get(message.id)
  pending.delete(message.id)
  if (message.error !== undefined) waiting?.reject(new Error(`the store in the primary: ${message.error}`))
  else waiting?.resolve(decode(message.value as string))
}

function onDisconnect(): void {
  for (const waiting of pending.values()) waiting.reject(new Error('the primary has gone'))
  pending.clear()
}

function use(): void {
  if (users++ > 0) return
  process.on('message', onMessage)
  process.on('disconnect', onDisconnect)
}

function leave(): void {
  if (--users > 0) return
  process.off('message', onMessage)
  process.off('disconnect', onDisconnect)
}

/**
 * The store that the primary serves under `name`, as a worker sees it: `fromPrimary<RateLimitStore>('limits', ['take', 'adjust'])`.
 *
 * @param methods those of the store that are to be called; each returns a promise here. Besides them it has `name`, and `close`, which lets go of the channel
 * @throws OptionsError for wrong options @throws TypeError outside a worker
 */
export function fromPrimary<T extends object>(name: string, methods: readonly (keyof T & string)[], options?: FromPrimaryOptions): T {
  const read = new OptionReader('fromPrimary')
  const given = read.object<FromPrimaryOptions>(options, ['maxPending'])
  const maxPending = read.number('maxPending', given.maxPending, 1000, { min: 1, integer: true })
  if (typeof name !== 'string' || name === '') read.problem('name', name, 'the name under which the primary serves the store')
  if (!Array.isArray(methods) || methods.length === 0) read.problem('methods', methods, "the store's methods, such as ['take', 'adjust']")
  read.check()
  if (!cluster.isWorker || process.send === undefined) throw new TypeError('fromPrimary: only in a worker of a node:cluster')
  use()
  let open = true
  let own = 0
  const call = (method: string, args: unknown[]): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (own >= maxPending) {
        reject(new Error(`${maxPending} calls wait for the primary already`))
        return
      }
      if (!process.connected) {
        reject(new Error('the primary has gone'))
        return
      }
      const id = calls++
      own++
      const end =
        <V>(settle: (value: V) => void) =>
        (value: V): void => {
          own--
          settle(value)
        }
      pending.set(id, { resolve: end(resolve), reject: end(reject) })
      process.send?.({ weir: 'call', id, store: name, method, args: encode(args) }, undefined, undefined, (error: Error | null) => {
        if (error === null) return
        pending.get(id)?.reject(error)
        pending.delete(id)
      })
    })
  const store: Record<string, unknown> = {
    name: `primary (${name})`,
    close() {
      if (open) leave()
      open = false
    },
  }
  for (const method of methods) store[method] = (...args: unknown[]): Promise<unknown> => call(method, args)
  return store as T
}
