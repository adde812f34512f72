/**
 * The primary's side: stores in its memory, asked by workers. Everything is decided in one process, one call after the other, so that a memory store
 * there is as exact for all workers as it is for one.
 */
import cluster, { type Worker } from 'node:cluster'
import { type Answer, type Call, decode, encode, isCall } from './message.ts'

/** Stores by the names that workers ask for them. */
export type ServedStores = Readonly<Record<string, object>>

export interface StoreService extends Disposable {
  /** Answers no more. The stores stay yours. */
  close(): void
}

/** What is served now, by all services of this process. */
const served = new Map<string, object>()

/**
 * In the primary of a `node:cluster`, before or after workers are forked: answers calls of `fromPrimary`. A store is any object whose methods take and give
 * plain data, such as `memoryStore()` of `@weir/rate-limit`.
 *
 * @throws TypeError outside a primary, and for a name that is served already
 */
export function serveStores(stores: ServedStores): StoreService {
  if (!cluster.isPrimary) throw new TypeError('serveStores: only in the primary of a node:cluster; workers use fromPrimary')
  const entries = Object.entries(stores)
  for (const [name, store] of entries) {
    if (typeof store !== 'object' || store === null) throw new TypeError(`serveStores: ${name} is no store but ${typeof store}`)
    if (served.has(name)) throw new TypeError(`serveStores: a store named ${name} is served already`)
  }
  if (served.size === 0) cluster.on('message', onMessage)
  for (const [name, store] of entries) served.set(name, store)
  const close = (): void => {
    for (const [name, store] of entries) if (served.get(name) === store) served.delete(name)
    if (served.size === 0) cluster.off('message', onMessage)
  }
  return { close, [Symbol.dispose]: close }
}

function onMessage(worker: Worker, message: unknown): void {
  if (isCall(message)) void answer(worker, message)
}

async function answer(worker: Worker, { id, store: name, method, args }: Call): Promise<void> {
  let reply: Answer
  try {
    const store = served.get(name) as Record<string, unknown> | undefined
    if (store === undefined) throw new TypeError(`no store named ${name} is served`)
    const call = store[method]
    if (typeof call !== 'function') throw new TypeError(`the store ${name} has no method ${method}`)
    reply = { weir: 'answer', id, value: encode(await call.apply(store, decode(args) as unknown[])) }
  } catch (error) {
    reply = { weir: 'answer', id, error: error instanceof Error ? error.message : String(error) }
  }
  // A worker that died meanwhile has nobody left to tell.
  if (worker.isConnected()) worker.send(reply, () => {})
}
