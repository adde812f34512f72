/**
 * A small store above a large one: what is read from where, what is kept above, and that neither an invalidation nor a failure gets lost
 * between them.
 */
import { OptionsError } from '@weir/core'
import { describe, expect, it } from 'vitest'
import type { CacheEntry } from './entry.ts'
import { freshFor } from './entry.ts'
import { bodyOf, bytesOf, entryOf } from './fixtures/entries.ts'
import { memoryStore } from './memory-store.ts'
import type { CacheStore } from './store.ts'
import { type TieredStoreOptions, tieredStore } from './tiered-store.ts'

/** A store whose calls are counted, and can be made to wait or to fail. */
function watched(maxSize = 10_000_000) {
  const inner = memoryStore({ maxSize })
  const calls: string[] = []
  const state = { failing: false, late: false }
  const waiting: (() => void)[] = []
  const store = new Proxy(inner, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown
      if (typeof value !== 'function') return value
      if (name === 'stats' || name === 'entries') return value.bind(target) as unknown
      return (...args: unknown[]) => {
        calls.push(String(name))
        if (state.failing) throw new Error('failing')
        // As a store that is not in memory has it: without the body, which a memory store finds in what another one gave.
        if (name === 'find') return (Reflect.apply(value, target, args) as CacheEntry[]).map((entry) => ({ ...entry, body: undefined }))
        // As on a disk: it knows at once what it has, and takes its time for the rest.
        if (state.late) return new Promise((resolve) => waiting.push(() => resolve(Reflect.apply(value, target, args))))
        return Reflect.apply(value, target, args) as unknown
      }
    },
  }) as CacheStore
  const proceed = async (): Promise<void> => {
    for (let resume = waiting.shift(); resume !== undefined; resume = waiting.shift()) {
      resume()
      await new Promise(setImmediate)
    }
  }
  return { store, inner, calls, state, proceed }
}

function rig(options: Partial<TieredStoreOptions> = {}, upperSize = 1_000_000) {
  const upper = watched(upperSize)
  const lower = watched()
  const errors: unknown[] = []
  const store = tieredStore({ upper: upper.store, lower: lower.store, onError: (error) => errors.push(error), ...options })
  return { store, upper, lower, errors }
}

function whole(store: CacheStore, entry: CacheEntry): unknown {
  return store.body(entry, 0, entry.size)
}

describe('reading', () => {
  it('what was just stored comes from above, without a question to the lower store or a promise', () => {
    const { store, lower } = rig()
    expect(store.find('a')).toEqual([])
    const entry = entryOf('a', 100)
    expect(store.put(entry, bodyOf(entry))).toBe(true)
    lower.calls.length = 0
    expect(store.find('a')).toMatchObject([entry])
    expect(whole(store, entry)).toEqual(bodyOf(entry))
    expect(lower.calls).toEqual([])
  })

  it('of what was stored in one millisecond the newest comes first, wherever it is', () => {
    const { store, upper, lower } = rig()
    const made = ['x', 'y', 'z'].map((value) => ({ ...entryOf('a', 100), id: value, vary: ['accept', value], storedAt: 1_000 }))
    for (const entry of made) void lower.inner.put(entry, bodyOf(entry))
    // The oldest and the middle one were read, and are above.
    for (const entry of made.slice(0, 2)) void upper.inner.put(entry, bodyOf(entry))
    expect((store.find('a') as CacheEntry[]).map(({ id }) => id)).toEqual(['z', 'y', 'x'])
  })

  it('what is only below is kept above once it was read, and comes from there then', () => {
    const { store, upper, lower } = rig()
    const entry = entryOf('a', 100)
    void lower.inner.put(entry, bodyOf(entry))
    const [found] = store.find('a') as CacheEntry[]
    expect(upper.inner.find('a')).toEqual([])
    expect(whole(store, found as CacheEntry)).toEqual(bodyOf(entry))
    expect(upper.inner.find('a')).toMatchObject([entry])
    lower.calls.length = 0
    expect(whole(store, (store.find('a') as CacheEntry[])[0] as CacheEntry)).toEqual(bodyOf(entry))
    expect(lower.calls).toEqual([])
  })

  it.each([
    ['a large one', { start: 0, end: 5000, size: 5000 }],
    ['a part', { start: 0, end: 50, size: 100 }],
    ['another part', { start: 50, end: 100, size: 100 }],
  ])('%s is not kept above', async (_name, { start, end, size }) => {
    const { store, upper, lower } = rig({ promoteUpTo: 4000 })
    const entry = entryOf('a', size)
    void lower.inner.put(entry, bodyOf(entry))
    expect(await bytesOf(await store.body(entry, start, end))).toEqual(bodyOf(entry).subarray(start, end))
    expect(upper.inner.stats().entries).toBe(0)
  })

  it('a variant that is only below is found beside those that are above, the newest first', () => {
    const { store, lower, upper } = rig()
    const [x, y, z] = ['x', 'y', 'z'].map((accept) => entryOf('a', 10, { vary: ['accept', accept] })) as [
      CacheEntry,
      CacheEntry,
      CacheEntry,
    ]
    for (const entry of [x, y, z]) void lower.inner.put(entry, bodyOf(entry))
    void upper.inner.put(y, bodyOf(y))
    expect((store.find('a') as CacheEntry[]).map(({ id }) => id)).toEqual([z.id, y.id, x.id])
    // Also when they came up in another order.
    for (const entry of [z, x]) whole(store, entry)
    lower.calls.length = 0
    expect((store.find('a') as CacheEntry[]).map(({ id }) => id)).toEqual([z.id, y.id, x.id])
    expect(lower.calls).toEqual([])
  })

  it('what the upper store let go of is found below', () => {
    const { store, upper } = rig({}, 4096)
    const entries = Array.from({ length: 10 }, (_, i) => entryOf(`k${i}`, 500))
    for (const entry of entries) void store.put(entry, bodyOf(entry))
    expect(upper.inner.stats().entries).toBeLessThan(4)
    for (const entry of entries) {
      expect(store.find(entry.key)).toMatchObject([{ id: entry.id }])
      expect(whole(store, entry)).toEqual(bodyOf(entry))
    }
    expect(store.stats().entries).toBe(10)
  })

  it('every entry is listed once', async () => {
    const { store, lower } = rig()
    const [a, b] = [entryOf('a', 10), entryOf('b', 10)]
    void store.put(a, bodyOf(a))
    void lower.inner.put(b, bodyOf(b))
    const listed = []
    for await (const { key } of store.entries()) listed.push(key)
    expect(listed.sort()).toEqual(['a', 'b'])
  })
})

describe('changing', () => {
  it('is done in both', () => {
    const { store, upper, lower } = rig()
    const entry = entryOf('a', 10, { tags: ['t'] })
    void store.put(entry, bodyOf(entry))
    expect(store.update({ ...entry, lifetime: 5 })).toBe(true)
    for (const { inner } of [upper, lower]) expect(inner.find('a')).toMatchObject([{ lifetime: 5 }])
    expect(store.invalidateTag('t', { kind: 'stale', now: entry.storedAt + 1 })).toBe(1)
    for (const { inner } of [upper, lower])
      expect(freshFor((inner.find('a') as CacheEntry[])[0] as CacheEntry, entry.storedAt + 5)).toBeLessThanOrEqual(0)
    expect(store.remove(entry)).toBe(true)
    for (const { inner } of [upper, lower]) expect(inner.stats().entries).toBe(0)
    void store.put(entry, bodyOf(entry))
    expect(store.invalidate('a', { kind: 'delete' })).toBe(1)
    expect(store.invalidate('a', { kind: 'delete' })).toBe(0)
    void store.put(entry, bodyOf(entry))
    void store.clear()
    for (const { inner } of [upper, lower]) expect(inner.stats().entries).toBe(0)
  })

  it('is complete when both are', async () => {
    const { store, lower, upper } = rig()
    const entry = entryOf('a', 10)
    void store.put(entry, bodyOf(entry))
    lower.state.late = true
    let done = false
    const work = Promise.resolve(store.invalidate('a', { kind: 'delete' })).then((count) => {
      done = true
      return count
    })
    await new Promise(setImmediate)
    expect(upper.inner.find('a')).toEqual([])
    expect(done).toBe(false)
    await lower.proceed()
    expect(await work).toBe(1)
  })

  const changes: [string, (store: CacheStore, entry: CacheEntry) => unknown][] = [
    ['invalidate', (store) => store.invalidate('a', { kind: 'delete' })],
    ['invalidate softly', (store, entry) => store.invalidate('a', { kind: 'stale', now: entry.storedAt })],
    ['invalidateTag', (store) => store.invalidateTag('t', { kind: 'delete' })],
    ['invalidateTag softly', (store, entry) => store.invalidateTag('t', { kind: 'stale', now: entry.storedAt })],
    ['remove', (store, entry) => store.remove(entry)],
    ['update', (store, entry) => store.update({ ...entry, lifetime: 0 })],
    ['clear', (store) => store.clear()],
  ]

  it.each(changes)('a body that is on its way up during %s is not kept as it was', async (_name, change) => {
    const { store, lower, upper } = rig()
    const entry = entryOf('a', 10, { tags: ['t'] })
    void lower.inner.put(entry, bodyOf(entry))
    const [found] = store.find('a') as CacheEntry[]
    lower.state.late = true
    const reading = whole(store, found as CacheEntry)
    const changing = change(store, entry)
    // A second one begins while the change goes on.
    const again = whole(store, found as CacheEntry)
    await lower.proceed()
    await Promise.all([reading, changing, again])
    for (const kept of upper.inner.find('a') as CacheEntry[]) expect(kept.lifetime).toBe(0)
  })

  it.each(changes)('a body that is read before %s has reached the lower store is not kept as it was', async (_name, change) => {
    const { store, lower, upper } = rig()
    const entry = entryOf('a', 10, { tags: ['t'] })
    void lower.inner.put(entry, bodyOf(entry))
    const [found] = store.find('a') as CacheEntry[]
    lower.state.late = true
    const changing = change(store, entry)
    lower.state.late = false
    expect(whole(store, found as CacheEntry)).toEqual(bodyOf(entry))
    expect(upper.inner.find('a')).toEqual([])
    await lower.proceed()
    await changing
    expect(upper.inner.find('a')).toEqual([])
  })

  it.each(changes)('a head that was found before %s does not come up after it', async (_name, change) => {
    const { store, lower, upper } = rig()
    const entry = entryOf('a', 10, { tags: ['t'] })
    void lower.inner.put(entry, bodyOf(entry))
    const [found] = store.find('a') as CacheEntry[]
    await change(store, entry)
    await whole(store, found as CacheEntry)
    for (const kept of upper.inner.find('a') as CacheEntry[]) expect(kept.lifetime).toBe(0)
  })

  it('a body that is replaced while it is on its way up does not replace the new one', async () => {
    const { store, lower, upper } = rig()
    const old = entryOf('a', 10)
    void lower.inner.put(old, bodyOf(old))
    lower.state.late = true
    const reading = whole(store, old)
    const fresh = entryOf('a', 20)
    const putting = store.put(fresh, bodyOf(fresh))
    await lower.proceed()
    await Promise.all([reading, putting])
    expect(upper.inner.find('a')).toMatchObject([{ id: fresh.id }])
  })

  it('two that are put at once are both found', async () => {
    const { store, lower } = rig()
    expect(store.find('a')).toEqual([])
    lower.state.late = true
    const entries = ['x', 'y'].map((accept) => entryOf('a', 10, { vary: ['accept', accept] }))
    const puts = entries.map(async (entry) => await store.put(entry, bodyOf(entry)))
    await lower.proceed()
    await Promise.all(puts)
    lower.state.late = false
    expect(store.find('a')).toHaveLength(2)
  })
})

describe('a lower store that fails', () => {
  it('leaves what is above, and is told', () => {
    const { store, lower, errors } = rig()
    lower.state.failing = true
    const entry = entryOf('a', 10)
    expect(store.put(entry, bodyOf(entry))).toBe(true)
    expect(store.find('a')).toMatchObject([entry])
    expect(whole(store, entry)).toEqual(bodyOf(entry))
    expect(store.update({ ...entry, lifetime: 5 })).toBe(true)
    expect(store.find('a')).toMatchObject([{ lifetime: 5 }])
    expect(errors.length).toBeGreaterThan(0)
  })

  it('fails what only it could have answered', () => {
    const { store, lower } = rig()
    lower.state.failing = true
    expect(() => store.find('a')).toThrow('failing')
    expect(() => whole(store, entryOf('a', 10))).toThrow('failing')
  })

  it('fails an invalidation, which is done above all the same', () => {
    const { store, lower, upper } = rig()
    const entry = entryOf('a', 10, { tags: ['t'] })
    for (const work of [
      () => store.invalidate('a', { kind: 'delete' }),
      () => store.invalidateTag('t', { kind: 'delete' }),
      () => store.remove(entry),
      () => store.clear(),
    ]) {
      lower.state.failing = false
      void store.put(entry, bodyOf(entry))
      lower.state.failing = true
      expect(work).toThrow('failing')
      expect(upper.inner.find('a')).toEqual([])
    }
  })

  it('is believed again afterwards', () => {
    const { store, lower } = rig()
    lower.state.failing = true
    const entry = entryOf('a', 10)
    void store.put(entry, bodyOf(entry))
    lower.state.failing = false
    const other = entryOf('a', 10, { vary: ['accept', 'x'] })
    void store.put(other, bodyOf(other))
    expect(store.find('a')).toMatchObject([{ id: other.id }, { id: entry.id }])
  })
})

it('what neither keeps is not kept', () => {
  const { store } = rig({}, 4096)
  const entry = entryOf('a', 20_000_000)
  expect(store.put(entry, Buffer.alloc(entry.size))).toBe(false)
  expect(store.find('a')).toEqual([])
})

it('wrong options are told all at once', () => {
  const same = memoryStore({ maxSize: 4096 })
  const problems = (options: unknown): string[] => {
    try {
      tieredStore(options as TieredStoreOptions)
    } catch (error) {
      if (OptionsError.is(error)) return error.problems.map(({ path }) => path).sort()
    }
    return []
  }
  expect(problems({ upper: {}, promoteUpTo: -1, more: 1 })).toEqual(['lower', 'more', 'promoteUpTo', 'upper'])
  expect(problems({ upper: same, lower: same })).toEqual(['lower'])
})
