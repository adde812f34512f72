/** The suite that stores of others run: on the memory, on the same one turn later, and on stores that each break one rule. */
import { describe, expect, it } from 'vitest'
import { type CacheStoreRig, type CacheStoreSubject, cacheStoreConformance } from './cache-store-conformance.ts'
import { memoryStore } from './memory-store.ts'
import type { CacheStore } from './store.ts'

const facts = { tooLarge: 20 << 20, maxVariants: 12 } as const

type Change = (store: CacheStore) => Partial<CacheStore>

/** Methods are bound, so that a change can take one of them for its own. */
function memory(change: Change = () => ({})): CacheStore {
  const store = memoryStore({ maxSize: '16MiB', maxVariants: facts.maxVariants })
  const bound: CacheStore = {
    name: store.name,
    find: (key) => store.find(key),
    body: (...call) => store.body(...call),
    put: (...call) => store.put(...call),
    update: (entry) => store.update(entry),
    remove: (entry) => store.remove(entry),
    invalidate: (...call) => store.invalidate(...call),
    invalidateTag: (...call) => store.invalidateTag(...call),
    entries: () => store.entries(),
    clear: () => store.clear(),
    stats: () => store.stats(),
  }
  return { ...bound, ...change(bound) }
}

/** The same, but every answer comes a turn later, and heads as plain data, as from any store outside of the process. */
const later: Change = (store) => {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return {
    find: (key) =>
      turn().then(async () => JSON.parse(JSON.stringify(await store.find(key), (name, value) => (name === 'body' ? undefined : value)))),
    body: (...call) => turn().then(() => store.body(...call)),
    put: (...call) => turn().then(() => store.put(...call)),
    update: (entry) => turn().then(() => store.update(entry)),
    remove: (entry) => turn().then(() => store.remove(entry)),
    invalidate: (...call) => turn().then(() => store.invalidate(...call)),
    invalidateTag: (...call) => turn().then(() => store.invalidateTag(...call)),
    async *entries() {
      await turn()
      yield* store.entries()
    },
    clear: () => turn().then(() => store.clear()),
  }
}

const subject = (name: string, make: () => CacheStoreRig, more: Partial<CacheStoreSubject> = {}): CacheStoreSubject => ({
  name,
  make,
  ...facts,
  ...more,
})

for (const { name, run } of cacheStoreConformance(subject('memory', () => ({ store: memory() })))) it(name, run)
for (const { name, run } of cacheStoreConformance(subject('a store of promises', () => ({ store: memory(later) })))) it(name, run)

describe('finds a store that', () => {
  const broken: readonly (readonly [string, string, Change])[] = [
    [
      'keeps one variant only',
      'keeps variants apart',
      ({ put, invalidate }) => ({ put: (...call) => [invalidate(call[0].key, { kind: 'delete' }), put(...call)][1] as boolean }),
    ],
    ['mixes routes', 'keeps variants apart', ({ put }) => ({ put: (entry, body) => put({ ...entry, route: '' }, body) })],
    ['gives the oldest first', 'newest first', ({ find }) => ({ find: (key) => [...(find(key) as [])].reverse() })],
    ['replaces nothing', 'replaces the variant', ({ put }) => ({ put: (entry, body) => put({ ...entry, vary: ['id', entry.id] }, body) })],
    [
      'takes keys without their case',
      'any characters',
      ({ put, find }) => ({
        put: (entry, body) => put({ ...entry, key: entry.key.toLowerCase() }, body),
        find: (key) => find(key.toLowerCase()),
      }),
    ],
    ['takes bytes for text', 'every byte', ({ put }) => ({ put: (entry, body) => put(entry, Buffer.from(Buffer.from(body).toString())) })],
    ['keeps the memory of a view', 'every byte', ({ put }) => ({ put: (entry, body) => put(entry, new Uint8Array(body.buffer)) })],
    [
      'gives the end of a range inclusive',
      'whole and in parts',
      ({ body }) => ({ body: (entry, start, end) => body(entry, start, end + 1) }),
    ],
    [
      'takes an empty body for none',
      'empty body',
      ({ body }) => ({ body: (...call) => ((body(...call) as Buffer | undefined)?.length ? body(...call) : undefined) }),
    ],
    [
      'forgets what it does not know of',
      'every part of it',
      ({ put }) => ({ put: ({ language: _, ...entry }, body) => put({ ...entry, language: undefined }, body) }),
    ],
    [
      'keeps the old one when the new one is refused',
      'too large',
      ({ put }) => ({ put: (entry, body) => body.length < facts.tooLarge && put(entry, body) }),
    ],
    [
      'updates what has gone',
      'no head for a body that has gone',
      ({ put }) => ({ update: (entry) => put(entry, Buffer.alloc(entry.size)) }),
    ],
    [
      'removes what has replaced it',
      'nothing that has replaced it',
      ({ remove, find }) => ({ remove: (entry) => remove((find(entry.key) as [never])[0] ?? entry) }),
    ],
    ['takes stale for gone', 'makes stale', ({ invalidate }) => ({ invalidate: (key) => invalidate(key, { kind: 'delete' }) })],
    ['does nothing with tags', 'by tag what has it', () => ({ invalidateTag: () => 0 })],
    [
      'forgets no tags',
      'forgets the tags',
      ({ update, find, put }) => ({ put: (entry, body) => put({ ...entry, tags: ['old', ...entry.tags] }, body), update, find }),
    ],
    [
      'counts keys',
      'by tag what has it',
      ({ invalidateTag }) => ({ invalidateTag: (...call) => Math.min(1, invalidateTag(...call) as number) }),
    ],
    ['lists the first only', 'lists everything', ({ entries }) => ({ entries: () => [...(entries() as Iterable<never>)].slice(0, 1) })],
    ['clears nothing', 'clears everything', () => ({ clear: () => {} })],
    [
      'reads first and writes later',
      'at once',
      ({ put, find }) => ({
        put: async (...call) => {
          const before = [...(await find(call[0].key))]
          await new Promise(setImmediate)
          return before.length === 0 ? put({ ...call[0], vary: [call[0].id] }, call[1]) : put(...call)
        },
      }),
    ],
  ]
  it.each(broken)('%s', async (_, title, change) => {
    const cases = cacheStoreConformance(subject('broken', () => ({ store: memory(change) }))).filter(({ name }) => name.includes(title))
    const results = await Promise.allSettled(cases.map(({ run }) => run()))
    expect(results.filter(({ status }) => status === 'rejected').length).toBeGreaterThan(0)
  })

  it('has no bound of variants', async () => {
    const wide = subject('broken', () => ({ store: memoryStore({ maxSize: '16MiB', maxVariants: 100 }) }))
    const [bounded] = cacheStoreConformance(wide).filter(({ name }) => name.includes('no more variants'))
    await expect(bounded?.run()).rejects.toThrow()
  })

  it('is shared and keeps what another process has invalidated meanwhile', async () => {
    const cases = cacheStoreConformance(
      subject(
        'memory of two',
        () => {
          const store = memory()
          return { store, second: store }
        },
        { shared: true },
      ),
    ).filter(({ name }) => name.includes('before the other invalidated it'))
    expect(cases).toHaveLength(2)
    for (const { run } of cases) await expect(run()).rejects.toThrow()
  })
})
