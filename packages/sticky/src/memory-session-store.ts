/**
 * Sessions in this process, bounded in number: beyond it the one that was used longest ago is forgotten, and its next request is balanced. Ends are
 * checked when an entry is looked at; nothing sweeps, since the bound holds without it.
 */
import { OptionReader } from '@weir/core'
import { LRUCache } from 'lru-cache'
import type { SessionStore, SessionWrite } from './session-store.ts'

export interface MemorySessionStoreOptions {
  /** Most sessions; about 250 bytes each. */
  readonly max: number
  /** Wall clock, milliseconds of the epoch. Default `Date.now`. */
  readonly now?: () => number
}

export interface MemorySessionStore extends SessionStore {
  get(key: string): string | undefined
  set(key: string, upstreamId: string, write: SessionWrite): string
  delete(key: string): void
  /** Sessions in it, those included that have ended and were not looked at since. */
  readonly size: number
}

interface Entry {
  readonly upstreamId: string
  readonly idleMs: number
  readonly absolute: number
  ends: number
}

/** @throws OptionsError */
export function memorySessionStore(options: MemorySessionStoreOptions): MemorySessionStore {
  const read = new OptionReader('memorySessionStore')
  const given = read.object<MemorySessionStoreOptions>(options ?? {}, ['max', 'now'])
  const max = read.number('max', given.max, 1, { min: 1, max: 10_000_000, integer: true })
  if (given.max === undefined) read.problem('max', undefined, 'the most sessions to remember, such as 100_000')
  const now = read.function('now', given.now, Date.now)
  read.check()
  const entries = new LRUCache<string, Entry>({ max })

  const current = (key: string, at: number): Entry | undefined => {
    const entry = entries.get(key)
    if (entry === undefined || at < entry.ends) return entry
    entries.delete(key)
    return undefined
  }
  const touch = (entry: Entry, at: number): void => {
    entry.ends = Math.min(at + entry.idleMs, entry.absolute)
  }

  return {
    get(key) {
      const at = now()
      const entry = current(key, at)
      if (entry !== undefined) touch(entry, at)
      return entry?.upstreamId
    },
    set(key, upstreamId, { idleMs, absolute, replaces }) {
      const at = now()
      const entry = current(key, at)
      if (entry !== undefined && (entry.upstreamId === upstreamId || entry.upstreamId !== replaces)) {
        if (entry.upstreamId === upstreamId) touch(entry, at)
        return entry.upstreamId
      }
      if (absolute > at) entries.set(key, { upstreamId, idleMs, absolute, ends: Math.min(at + idleMs, absolute) })
      return upstreamId
    },
    delete: (key) => void entries.delete(key),
    get size() {
      return entries.size
    },
  }
}
