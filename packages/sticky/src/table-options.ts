/** The options of stages that keep a table of sessions. */
import { createHash } from 'node:crypto'
import { type Clock, type Duration, type Exchange, type OptionReader, type Reply, readClock } from '@weir/core'
import { GuardedStore } from './guarded-store.ts'
import { memorySessionStore } from './memory-session-store.ts'
import type { SessionStore } from './session-store.ts'
import { readStageOptions, type StageSettings, type StickyStageOptions, stageKeys } from './stage-options.ts'

export interface SessionTableOptions extends StickyStageOptions {
  /** Most sessions in memory, about 250 bytes each; the one used longest ago is forgotten. Default 100 000. Not together with `store`. */
  readonly max?: number
  /** Where sessions are kept instead of this process, so that proxies share them. It stays yours to close. */
  readonly store?: SessionStore
  /** How long after its last request a session ends; `false`: only `absolute` ends it. Default 10 min. */
  readonly idle?: Duration | false
  /** How long after its beginning a session ends. Default 1 d. */
  readonly absolute?: Duration
  /** Longest wait for each call of the store, milliseconds. Default 100 ms. */
  readonly timeout?: Duration
  /** When the store fails: `balance`, no affinity this time; or `refuse`, 503. Default `balance`. `refuse` makes the store's outage yours. */
  readonly onStoreError?: 'balance' | 'refuse'
  /** Wall clock, milliseconds of the epoch. Default `Date.now`. */
  readonly now?: () => number
  /** For `timeout`. Default: real time. */
  readonly clock?: Clock
}

export const tableKeys: readonly string[] = ['max', 'store', 'idle', 'absolute', 'timeout', 'onStoreError', 'now', 'clock', ...stageKeys]

export interface TableSettings extends StageSettings {
  readonly store: GuardedStore
  readonly idleMs: number
  readonly absoluteMs: number
  readonly refusesOnError: boolean
  readonly now: () => number
  /** What a session's name is in the table. */
  readonly keyOf: (session: string) => string
}

const day = 86_400_000

export function readTableOptions(read: OptionReader, given: SessionTableOptions, fallbackName: string): TableSettings {
  const stage = readStageOptions(read, given, fallbackName)
  const now = read.function('now', given.now, Date.now)
  const absoluteMs = read.duration('absolute', given.absolute, day, { min: 1000, max: 400 * day })
  const max = read.number('max', given.max, 100_000, { min: 1, max: 10_000_000, integer: true })
  const { store } = given
  if (store !== undefined && given.max !== undefined)
    read.problem('max', given.max, 'either `max` or a `store`, which has a bound of its own')
  const fine =
    store === undefined ||
    (typeof store === 'object' && store !== null && (['get', 'set', 'delete'] as const).every((name) => typeof store[name] === 'function'))
  if (!fine) read.problem('store', store, 'an object with get, set and delete, such as memorySessionStore({ max: 100_000 })')
  return {
    ...stage,
    store: new GuardedStore(
      store !== undefined && fine ? store : memorySessionStore({ max, now }),
      read.duration('timeout', given.timeout, 100, { min: 1 }),
      readClock(given.clock, read),
      stage.journal,
    ),
    idleMs:
      given.idle === false
        ? Number.POSITIVE_INFINITY
        : read.duration('idle', given.idle, Math.min(600_000, absoluteMs), { min: 1, max: absoluteMs }),
    absoluteMs,
    refusesOnError: read.oneOf('onStoreError', given.onStoreError, ['balance', 'refuse'] as const, 'balance') === 'refuse',
    now,
    // A digest: keys have one length whatever clients send, and whoever reads the store learns no session id. The name keeps stages apart.
    keyOf: (session) => createHash('sha256').update(`${stage.name}\0${session}`, 'utf8').digest('base64url'),
  }
}

/** The store has failed: a reply when that refuses the exchange. */
export function refusalOf({ refusesOnError, journal, refusal }: TableSettings, exchange: Exchange): Reply | undefined {
  if (!refusesOnError) return undefined
  journal.tell('refused', exchange, undefined, undefined, 'store')
  return refusal
}
