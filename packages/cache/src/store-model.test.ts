/**
 * The stores that outlive a process beside a list of entries: whatever is done with them, one thing after the other or several at once,
 * with restarts in between, they have what the list has, whole, in its order, and no file more.
 */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { diskStore } from './disk-store.ts'
import { type CacheEntry, staled } from './entry.ts'
import { bodyOf, bytesOf, entryOf, filesIn, temporaryDirectory } from './fixtures/entries.ts'
import { memoryStore } from './memory-store.ts'
import { type CacheStore, type Invalidation, isSameVariant } from './store.ts'
import { tieredStore } from './tiered-store.ts'

const keys = ['a', 'b', 'c', 'd']
const tags = ['red', 'green', 'blue']
let time = 1_700_000_000_000

/** What a store should be. Each method does it, and says what the store should answer. */
class Model {
  entries: CacheEntry[] = []

  under(key: string): CacheEntry[] {
    return this.entries.filter((entry) => entry.key === key)
  }

  put(entry: CacheEntry): boolean {
    this.entries = [entry, ...this.entries.filter((other) => other.key !== entry.key || !isSameVariant(other, entry))]
    return true
  }

  update(entry: CacheEntry): boolean {
    if (!this.entries.some(({ id }) => id === entry.id)) return false
    return this.put(entry)
  }

  remove(entry: CacheEntry): boolean {
    const before = this.entries.length
    this.entries = this.entries.filter(({ id }) => id !== entry.id)
    return this.entries.length < before
  }

  invalidate(concerns: (entry: CacheEntry) => boolean, how: Invalidation): number {
    const count = this.entries.filter(concerns).length
    this.entries =
      how.kind === 'delete'
        ? this.entries.filter((entry) => !concerns(entry))
        : this.entries.map((entry) => (concerns(entry) ? staled(entry, how.now) : entry))
    return count
  }
}

const key = fc.constantFrom(...keys)
const tagList = fc.uniqueArray(fc.constantFrom(...tags), { maxLength: 2 })
const soft = fc.boolean()
const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      key,
      vary: fc.constantFrom([], ['accept', 'x'], ['accept', 'y']),
      size: fc.constantFrom(0, 1, 900, 3000, 70_000, 140_000),
      tags: tagList,
    }),
  },
  // `at`: which of those that are there, or were.
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('update' as const), at: fc.nat(20), tags: tagList, extra: fc.constantFrom(0, 50, 3000) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('read' as const), at: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), at: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('invalidate' as const), key, soft }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('invalidateTag' as const), tag: fc.constantFrom(...tags), soft }) },
)
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never
const story = fc.array(fc.record({ restart: fc.boolean(), atOnce: fc.array(operation, { minLength: 1, maxLength: 6 }) }), {
  minLength: 1,
  maxLength: 8,
})

interface Rig {
  readonly store: CacheStore
  close(): Promise<void>
}

async function disk(directory: string): Promise<Rig> {
  const store = diskStore({ directory, maxSize: '64MiB' })
  await store.start()
  return { store, close: () => store.close() }
}

async function tiered(directory: string): Promise<Rig> {
  const lower = diskStore({ directory, maxSize: '64MiB' })
  // So small that it has to let go all the time.
  const store = tieredStore({ upper: memoryStore({ maxSize: 12_000 }), lower, promoteUpTo: 2000 })
  await store.start?.()
  return { store, close: () => lower.close() }
}

/** Begins it; what it comes to is checked when the returned promise resolves. */
async function act(store: CacheStore, model: Model, known: CacheEntry[], op: Operation): Promise<void> {
  const how: Invalidation = 'soft' in op && op.soft ? { kind: 'stale', now: time } : { kind: 'delete' }
  switch (op.kind) {
    case 'put': {
      const entry = entryOf(op.key, op.size, { vary: op.vary, tags: op.tags, storedAt: time++ })
      known.push(entry)
      const expected = model.put(entry)
      expect(await store.put(entry, bodyOf(entry))).toBe(expected)
      return
    }
    case 'update': {
      const entry = known[op.at % (known.length || 1)]
      if (entry === undefined) return
      const fresh = { ...entry, tags: op.tags, storedAt: time++, fields: ['X-Extra', 'x'.repeat(op.extra)] }
      const expected = model.update(fresh)
      expect(await store.update(fresh)).toBe(expected)
      return
    }
    case 'read': {
      const entry = known[op.at % (known.length || 1)]
      if (entry === undefined) return
      const bytes = await bytesOf(await store.body(entry, 0, entry.size))
      // It may go while it is being read, or just before.
      if (bytes !== undefined) expect(bytes.equals(bodyOf(entry))).toBe(true)
      return
    }
    case 'remove': {
      const entry = known[op.at % (known.length || 1)]
      if (entry === undefined) return
      const expected = model.remove(entry)
      expect(await store.remove(entry)).toBe(expected)
      return
    }
    case 'invalidate': {
      const expected = model.invalidate((entry) => entry.key === op.key, how)
      expect(await store.invalidate(op.key, how)).toBe(expected)
      return
    }
    case 'invalidateTag': {
      const expected = model.invalidate((entry) => entry.tags.includes(op.tag), how)
      expect(await store.invalidateTag(op.tag, how)).toBe(expected)
      return
    }
  }
}

async function compare(store: CacheStore, model: Model): Promise<void> {
  for (const name of keys) {
    const found = await store.find(name)
    expect(found.map(({ id, lifetime, fields, tags: of }) => ({ id, lifetime, fields, of }))).toEqual(
      model.under(name).map(({ id, lifetime, fields, tags: of }) => ({ id, lifetime, fields, of })),
    )
    for (const entry of found) {
      const bytes = await bytesOf(await store.body(entry, 0, entry.size))
      expect(bytes?.equals(bodyOf(entry))).toBe(true)
    }
  }
}

it.each([
  ['disk', disk],
  ['tiered', tiered],
])(
  '%s',
  async (_name, make) => {
    await fc.assert(
      fc.asyncProperty(story, async (steps) => {
        const { path, remove } = await temporaryDirectory()
        let rig = await make(path)
        const model = new Model()
        const known: CacheEntry[] = []
        try {
          for (const { restart, atOnce } of steps) {
            if (restart) {
              await rig.close()
              rig = await make(path)
            }
            // What is tagged cannot be told before the directory is read, and so what comes meanwhile is invalidated, too: no mistake, but
            // not what the list does.
            if (atOnce.length > 1 && atOnce.some(({ kind }) => kind === 'invalidateTag')) for await (const _ of rig.store.entries());
            await Promise.all(atOnce.map((op) => act(rig.store, model, known, op)))
            await compare(rig.store, model)
          }
          expect((await filesIn(path)).entries).toHaveLength(model.entries.length)
        } finally {
          await rig.close()
          await remove()
        }
      }),
      { numRuns: 60 },
    )
  },
  60_000,
)
