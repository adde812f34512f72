/**
 * What every cache store must do, as cases for any test runner: in memory or on disk, at once or later, alone or shared with other processes. Times are those
 * of a wall clock, lifetimes are long, and nothing here waits for something to expire. One file, long as it is: a list of cases that do not know of each other.
 *
 * ```ts
 * for (const { name, run } of cacheStoreConformance({ name: 'mine', tooLarge: 1 << 24, make: () => ({ store: mine() }) })) test(name, run)
 * ```
 */
import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import type { MaybePromise } from '@weir/core'
import { ageOf, type CacheEntry } from './entry.ts'
import type { CacheStore, Invalidation } from './store.ts'

export interface CacheStoreRig {
  /** Empty, with room for 8 MiB, and for a body of 3 MiB. */
  readonly store: CacheStore
  /** What another process would have in its hands: the same entries through a store of its own. For stores that are `shared`. */
  readonly second?: CacheStore
  /** Called at the end of each case. */
  close?(): MaybePromise<void>
}

export interface CacheStoreSubject {
  /** Begins the names of the cases. */
  readonly name: string
  /** Called for each case. */
  make(): MaybePromise<CacheStoreRig>
  /** Bytes of a body that it refuses. */
  readonly tooLarge: number
  /** Variants of one key that it keeps, where it has a bound: ten or more. */
  readonly maxVariants?: number
  /** Several processes see the same entries, so that there are more cases, about `second`. Default false. */
  readonly shared?: boolean
  /** Whether `stats` knows, without asking anybody, what there is. Default true. */
  readonly counts?: boolean
  /** The wall clock that it lives by, milliseconds of the epoch. Default: the real one. */
  now?(): number
  /** Lets some time pass on that clock. Default: a real wait. */
  wait?(ms: number): MaybePromise<void>
}

/** A test of any runner: it passes when `run` resolves. */
export interface CacheStoreCase {
  readonly name: string
  run(): Promise<void>
}

interface Bench extends CacheStoreRig {
  readonly subject: CacheStoreSubject
  now(): number
  /** What was asked for in the moment of an invalidation may count as asked for before it. */
  later(): Promise<void>
  /** Asks as the cache does, looking first; then makes an entry of the answer. */
  ask(part?: Partial<CacheEntry>, store?: CacheStore): Promise<CacheEntry>
  /** Asks, and keeps what came. */
  keep(part?: Partial<CacheEntry>, body?: Uint8Array, store?: CacheStore): Promise<CacheEntry>
}

type Check = (bench: Bench) => Promise<void>

const hour = 3_600_000
const gone: Invalidation = { kind: 'delete' }

/** Everything that an entry is. A store may hand out more than that. */
const parts = [
  'id',
  'key',
  'url',
  'status',
  'fields',
  'route',
  'vary',
  'requestedAt',
  'storedAt',
  'initialAge',
  'lifetime',
  'staleWhileRevalidate',
  'staleIfError',
  'noCache',
  'mustRevalidate',
  'forAuthorized',
  'etag',
  'lastModified',
  'language',
  'tags',
  'size',
] as const satisfies readonly (keyof CacheEntry)[]

function plain(entry: CacheEntry): unknown {
  return Object.fromEntries(parts.map((part) => [part, entry[part]]))
}

async function found(store: CacheStore, key: string): Promise<unknown[]> {
  return (await store.find(key)).map(plain)
}

async function idsOf(store: CacheStore, key: string): Promise<string[]> {
  return (await store.find(key)).map(({ id }) => id)
}

async function bytes(body: Uint8Array | Readable | undefined): Promise<Buffer | undefined> {
  if (!(body instanceof Readable)) return body === undefined ? undefined : Buffer.from(body)
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk as Uint8Array)
  return Buffer.concat(chunks)
}

/** The stored bytes are these: compared by one test and not by an assertion that would print megabytes. */
async function hasBody(store: CacheStore, entry: CacheEntry, body: Uint8Array, start = 0, end: number = body.length): Promise<void> {
  const got = await bytes(await store.body(entry, start, end))
  assert.ok(got !== undefined, `a body for ${entry.id}`)
  assert.ok(got.equals(body.subarray(start, end)), `bytes ${start} to ${end} of ${entry.id}: ${got.length} bytes that are others`)
  if (store.hot === undefined || end - start !== body.length) return
  // Perhaps only from some time on.
  for (let times = 0; times < 3; times++) {
    const text = store.hot(entry)?.text
    assert.ok(text === undefined || Buffer.from(text, 'latin1').equals(body), `a text of ${entry.id} that is not its body`)
  }
}

async function everything(store: CacheStore): Promise<CacheEntry[]> {
  const entries: CacheEntry[] = []
  for await (const entry of store.entries()) entries.push(entry)
  return entries
}

/** The same bytes for the same number, all values among them. */
function noise(length: number, seed = 1): Buffer {
  const buffer = Buffer.allocUnsafe(length)
  let state = seed
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    buffer[i] = state >>> 24
  }
  return buffer
}

const text = Buffer.from('hello')
const variantOf = (value: string): Partial<CacheEntry> => ({ vary: ['accept', value] })

const always: readonly (readonly [title: string, check: Check])[] = [
  [
    'knows nothing of what was never stored',
    async ({ store, ask }) => {
      const entry = await ask({ tags: ['t'] })
      assert.deepEqual(await found(store, 'k'), [])
      assert.equal(await store.body(entry, 0, entry.size), undefined)
      assert.equal(await store.update(entry), false)
      assert.equal(await store.remove(entry), false)
      assert.equal(await store.invalidate('k', gone), 0)
      assert.equal(await store.invalidateTag('t', gone), 0)
      assert.deepEqual(await found(store, 'k'), [])
      assert.deepEqual(await everything(store), [])
    },
  ],
  [
    'gives back what was put, every part of it',
    async ({ store, ask, now }) => {
      const entry = await ask({
        url: 'https://shop.example/a?b=1&c=%20',
        status: 404,
        fields: ['Content-Type', 'text/html', 'Link', '<a>', 'Link', '<b>', 'X-Empty', ''],
        route: 'shop',
        vary: ['accept', 'text/html', 'cookie', '\0'],
        storedAt: now() - 1500,
        initialAge: 1234.5,
        lifetime: 2 * hour,
        staleWhileRevalidate: 10_000,
        staleIfError: 86_400_000,
        noCache: true,
        mustRevalidate: true,
        forAuthorized: true,
        etag: 'W/"a\\b"',
        lastModified: 'Sun, 06 Nov 1994 08:49:37 GMT',
        language: 'de-at',
        tags: ['one', 'two'],
      })
      assert.equal(await store.put(entry, text), true)
      assert.deepEqual(await found(store, 'k'), [plain(entry)])
    },
  ],
  [
    'keeps what an entry does not have apart from what is empty',
    async ({ store, keep }) => {
      const without = await keep({ key: 'without', etag: undefined, lastModified: undefined, language: undefined, route: '' })
      const empty = await keep({ key: 'empty', etag: '', lastModified: '', language: '' })
      assert.deepEqual(await found(store, 'without'), [plain(without)])
      assert.deepEqual(await found(store, 'empty'), [plain(empty)])
    },
  ],
  [
    'takes any characters',
    async ({ store, keep }) => {
      const keys = [
        '',
        ' ',
        'a b',
        'https://shop.example/ä?q=漢',
        '\u{1f600}',
        '{a}',
        '{}',
        '*',
        'a:b',
        '%7Ba%7D',
        '../../a',
        'a\nb\r\n',
        '\0',
        '__proto__',
      ]
      keys.push('x'.repeat(4000), 'X'.repeat(4000))
      const fields = ['X-Latin', '\u00e9\u00ff\u0080', 'X-Quoted', '"\\"\t\'']
      const made: CacheEntry[] = []
      for (const key of keys)
        made.push(await keep({ key, fields, route: key, vary: ['cookie', `${key}\u00ff`], tags: key === '' ? ['none'] : [key] }))
      for (const entry of made) {
        assert.deepEqual(await found(store, entry.key), [plain(entry)], JSON.stringify(entry.key.slice(0, 20)))
        await hasBody(store, entry, text)
      }
      for (const entry of made) {
        assert.equal(await store.invalidateTag(entry.tags[0] as string, gone), 1, `by tag ${JSON.stringify(entry.key.slice(0, 20))}`)
        assert.deepEqual(await found(store, entry.key), [])
      }
    },
  ],
  [
    'gives the body whole and in parts',
    async ({ store, keep }) => {
      const entry = await keep({}, text)
      for (const [start, end] of [
        [0, 5],
        [0, 1],
        [4, 5],
        [1, 4],
        [2, 2],
        [5, 5],
      ] as const)
        await hasBody(store, entry, text, start, end)
    },
  ],
  [
    'gives the body to what `find` gave, and to what is only equal to it',
    async ({ store, keep }) => {
      const entry = await keep({}, text)
      const [stored] = await store.find('k')
      assert.ok(stored)
      await hasBody(store, stored, text)
      await hasBody(store, JSON.parse(JSON.stringify(entry)) as CacheEntry, text)
    },
  ],
  [
    'keeps an empty body',
    async ({ store, keep }) => {
      const entry = await keep({ status: 204 }, Buffer.alloc(0))
      await hasBody(store, entry, Buffer.alloc(0))
      await store.remove(entry)
      assert.equal(await store.body(JSON.parse(JSON.stringify(entry)) as CacheEntry, 0, 0), undefined)
    },
  ],
  [
    'keeps every byte as it is',
    async ({ store, keep }) => {
      const body = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => i)), Buffer.from('\r\n$5\r\n\0'), noise(999)])
      const entry = await keep({}, body)
      await hasBody(store, entry, body)
      await hasBody(store, entry, body, 127, 131)
      // A view of something larger: what is kept is the view.
      const view = await keep({ key: 'view' }, noise(4096).subarray(1000, 1300))
      await hasBody(store, view, noise(4096).subarray(1000, 1300))
    },
  ],
  [
    'keeps a body of some megabytes',
    async ({ store, keep }) => {
      const body = noise(3 << 20)
      const entry = await keep({}, body)
      await hasBody(store, entry, body)
      await hasBody(store, entry, body, 0, 10)
      await hasBody(store, entry, body, (3 << 20) - 10, 3 << 20)
      await hasBody(store, entry, body, 1_000_001, 2_500_003)
    },
  ],
  [
    'stands a reader that leaves early, and several at once',
    async ({ store, keep }) => {
      const body = noise(1 << 20)
      const entry = await keep({}, body)
      const first = await store.body(entry, 0, body.length)
      if (first instanceof Readable) first.destroy()
      await Promise.all([hasBody(store, entry, body), hasBody(store, entry, body, 500_000, 600_000), hasBody(store, entry, body)])
    },
  ],
  [
    'replaces the variant of the same route and selecting fields, and its body',
    async ({ store, keep }) => {
      await keep(variantOf('a'), Buffer.from('old'))
      const next = await keep({ ...variantOf('a'), status: 203 }, Buffer.from('new one'))
      assert.deepEqual(await found(store, 'k'), [plain(next)])
      await hasBody(store, next, Buffer.from('new one'))
    },
  ],
  [
    'keeps variants apart, the newest first',
    async ({ store, keep }) => {
      const made: CacheEntry[] = []
      const variants: readonly Partial<CacheEntry>[] = [
        {},
        { route: 'other' },
        variantOf('a'),
        variantOf('b'),
        { vary: ['accept', 'a', 'cookie', ''] },
        { vary: ['accepta', ''] },
      ]
      for (const [i, variant] of variants.entries()) made.unshift(await keep(variant, Buffer.from(`body ${i}`)))
      assert.deepEqual(await found(store, 'k'), made.map(plain))
      for (const [i, entry] of made.entries()) await hasBody(store, entry, Buffer.from(`body ${made.length - 1 - i}`))
      // What is put again is the newest again.
      const again = await keep(variants[2])
      assert.deepEqual(await idsOf(store, 'k'), [again.id, ...made.filter((_, i) => i !== 3).map(({ id }) => id)])
    },
  ],
  [
    'leaves other keys alone',
    async ({ store, keep, later }) => {
      const other = await keep({ key: 'l' })
      const prefix = await keep({ key: 'kk' })
      await keep()
      await keep()
      await store.remove(await keep())
      await keep()
      await store.invalidate('k', gone)
      await later()
      assert.deepEqual([await found(store, 'k'), await found(store, 'l'), await found(store, 'kk')], [[], [plain(other)], [plain(prefix)]])
      await hasBody(store, other, text)
    },
  ],
  [
    'refuses what is too large for it, and drops the variant that it was to replace',
    async ({ store, keep, ask, subject }) => {
      const kept = await keep(variantOf('b'))
      await keep(variantOf('a'))
      const large = await ask({ ...variantOf('a'), size: subject.tooLarge })
      assert.equal(await store.put(large, Buffer.alloc(subject.tooLarge)), false)
      assert.deepEqual(await found(store, 'k'), [plain(kept)])
      assert.equal(await store.body(large, 0, large.size), undefined)
    },
  ],
  [
    'takes another head for a body that it has',
    async ({ store, ask, keep, now }) => {
      const other = await keep(variantOf('b'))
      const entry = await keep({ ...variantOf('a'), tags: ['old', 'both'] })
      const asked = await ask(variantOf('a'))
      const next = {
        ...asked,
        id: entry.id,
        size: entry.size,
        storedAt: now(),
        fields: ['ETag', '"v2"'],
        lifetime: 7,
        tags: ['new', 'both'],
      }
      assert.equal(await store.update(next), true)
      assert.deepEqual(new Set((await found(store, 'k')).map((each) => JSON.stringify(each))), new Set([next, other].map(asText)))
      await hasBody(store, next, text)
      assert.equal(await store.invalidateTag('old', gone), 0)
      assert.equal(await store.invalidateTag('new', gone), 1)
      assert.deepEqual(await idsOf(store, 'k'), [other.id])
    },
  ],
  [
    'takes no head for a body that has gone or was replaced',
    async ({ store, keep }) => {
      const removed = await keep({ key: 'removed' })
      await store.remove(removed)
      assert.equal(await store.update(removed), false)
      assert.deepEqual(await found(store, 'removed'), [])
      const replaced = await keep()
      const next = await keep()
      assert.equal(await store.update(replaced), false)
      assert.deepEqual(await found(store, 'k'), [plain(next)])
    },
  ],
  [
    'removes one variant, once, and nothing that has replaced it',
    async ({ store, keep }) => {
      const only = await keep({ key: 'only' })
      assert.equal(await store.remove(only), true)
      assert.equal(await store.remove(only), false)
      assert.deepEqual(await found(store, 'only'), [])
      const kept = await keep(variantOf('b'))
      const entry = await keep(variantOf('a'))
      assert.equal(await store.remove(entry), true)
      assert.equal(await store.remove(entry), false)
      assert.deepEqual(await found(store, 'k'), [plain(kept)])
      const replaced = await keep(variantOf('a'))
      const next = await keep(variantOf('a'))
      assert.equal(await store.remove(replaced), false)
      assert.deepEqual(await idsOf(store, 'k'), [next.id, kept.id])
    },
  ],
  [
    'invalidates every variant of a key',
    async ({ store, keep, later }) => {
      for (const value of ['a', 'b', 'c']) await keep({ ...variantOf(value), tags: ['t'] })
      assert.equal(await store.invalidate('k', gone), 3)
      assert.equal(await store.invalidate('k', gone), 0)
      assert.deepEqual(await found(store, 'k'), [])
      assert.equal(await store.invalidateTag('t', gone), 0)
      await later()
      const next = await keep(variantOf('a'))
      assert.deepEqual(await found(store, 'k'), [plain(next)])
    },
  ],
  [
    'makes stale what can still be revalidated',
    async ({ store, keep, ask, later, now }) => {
      const entry = await keep({ ...variantOf('a'), tags: ['t'] })
      const other = await keep({ key: 'l' })
      for (const make of [(how: Invalidation) => store.invalidate('k', how), (how: Invalidation) => store.invalidateTag('t', how)]) {
        const at = now()
        assert.equal(await make({ kind: 'stale', now: at }), 1)
        const [stale] = await store.find('k')
        assert.ok(stale)
        assert.deepEqual(plain({ ...stale, lifetime: entry.lifetime }), plain(entry))
        assert.ok(stale.lifetime <= ageOf(stale, now()) && stale.lifetime >= 0, `a lifetime that is over: ${stale.lifetime}`)
        await hasBody(store, stale, text)
        await later()
        const confirmed = { ...(await ask(variantOf('a'))), id: entry.id, size: entry.size, tags: ['t'] }
        assert.equal(await store.update(confirmed), true)
        assert.deepEqual(await found(store, 'k'), [plain(confirmed)])
        Object.assign(entry, confirmed)
        await hasBody(store, confirmed, text)
      }
      assert.deepEqual(await found(store, 'l'), [plain(other)])
    },
  ],
  [
    'leaves what is stale already as stale as it is',
    async ({ store, keep, now }) => {
      const entry = await keep({ initialAge: hour, lifetime: 1000, staleIfError: hour })
      assert.equal(await store.invalidate('k', { kind: 'stale', now: now() }), 1)
      assert.deepEqual(await found(store, 'k'), [plain(entry)])
    },
  ],
  [
    'invalidates by tag what has it, and nothing else',
    async ({ store, keep, later }) => {
      const made: CacheEntry[] = []
      for (let i = 0; i < 30; i++) {
        const tags = ['all', i % 2 === 0 ? 'even' : 'odd', `number ${i}`]
        made.push(await keep({ key: `k${i % 20}`, ...variantOf(String(i)), tags: i % 10 === 0 ? [] : tags }))
      }
      const left = async (): Promise<Set<string>> => new Set((await everything(store)).map(({ id }) => id))
      const expected = (keeps: (i: number) => boolean): Set<string> => new Set(made.filter((_, i) => keeps(i)).map(({ id }) => id))
      assert.equal(await store.invalidateTag('al', gone), 0)
      assert.equal(await store.invalidateTag('number 7', gone), 1)
      assert.deepEqual(
        await left(),
        expected((i) => i !== 7),
      )
      assert.equal(await store.invalidateTag('odd', gone), 14)
      assert.deepEqual(
        await left(),
        expected((i) => i % 2 === 0),
      )
      assert.equal(await store.invalidateTag('all', gone), 12)
      assert.deepEqual(
        await left(),
        expected((i) => i % 10 === 0),
      )
      for (const tag of ['all', 'even', 'odd', 'number 3']) assert.equal(await store.invalidateTag(tag, gone), 0)
      await later()
      await keep({ key: 'k1', ...variantOf('1'), tags: ['all'] })
      assert.equal(await store.invalidateTag('all', gone), 1)
    },
  ],
  [
    'invalidates by tag thousands of entries',
    async ({ store, ask }) => {
      const made: CacheEntry[] = []
      const first = await ask()
      for (let i = 0; i < 2000; i++) made.push({ ...first, id: `${first.id}-${i}`, key: `k${i}`, tags: ['all', `of ${i % 7}`] })
      for (let i = 0; i < made.length; i += 100) await Promise.all(made.slice(i, i + 100).map(async (entry) => store.put(entry, text)))
      const stale = await store.invalidateTag('of 3', { kind: 'stale', now: first.storedAt })
      assert.equal(stale, made.filter((_, i) => i % 7 === 3).length)
      assert.equal(await store.invalidateTag('of 5', gone), made.filter((_, i) => i % 7 === 5).length)
      assert.equal(await store.invalidateTag('all', gone), made.filter((_, i) => i % 7 !== 5).length)
      assert.deepEqual(await everything(store), [])
    },
  ],
  [
    'forgets the tags of what was replaced, removed or invalidated',
    async ({ store, keep, later }) => {
      await keep({ tags: ['old', 'both'] })
      const next = await keep({ tags: ['new', 'both'] })
      assert.equal(await store.invalidateTag('old', gone), 0)
      assert.deepEqual(await found(store, 'k'), [plain(next)])
      await store.remove(next)
      assert.equal(await store.invalidateTag('both', gone), 0)
      await later()
      await keep({ tags: ['both'] })
      await store.invalidate('k', gone)
      await later()
      const plainOne = await keep({ tags: [] })
      assert.equal(await store.invalidateTag('both', gone), 0)
      assert.deepEqual(await found(store, 'k'), [plain(plainOne)])
    },
  ],
  [
    'lists everything',
    async ({ store, keep }) => {
      const made: CacheEntry[] = []
      for (let i = 0; i < 25; i++) made.push(await keep({ key: `k${i % 15}`, ...variantOf(String(i)) }))
      assert.deepEqual(new Set((await everything(store)).map(asText)), new Set(made.map(asText)))
    },
  ],
  [
    'clears everything, and goes on',
    async ({ store, keep, later }) => {
      const made = [await keep({ tags: ['t'] }), await keep({ key: 'l', ...variantOf('a') })]
      await store.clear()
      for (const entry of made) {
        assert.deepEqual(await found(store, entry.key), [])
        assert.equal(await store.body(JSON.parse(JSON.stringify(entry)) as CacheEntry, 0, entry.size), undefined)
      }
      assert.deepEqual(await everything(store), [])
      assert.equal(await store.invalidateTag('t', gone), 0)
      await later()
      const next = await keep()
      assert.deepEqual(await found(store, 'k'), [plain(next)])
    },
  ],
  [
    'has one winner of many that are put at once, and its own body',
    async ({ store, ask }) => {
      const entries = await Promise.all(Array.from({ length: 20 }, (_, i) => ask({ size: 1000 + i, tags: [`t${i}`] })))
      const bodies = entries.map(({ size }, i) => noise(size, i))
      await Promise.all(entries.map(async (entry, i) => store.put(entry, bodies[i] as Buffer)))
      const [winner, ...others] = await store.find('k')
      assert.ok(winner)
      assert.deepEqual(others, [])
      const index = entries.findIndex(({ id }) => id === winner.id)
      await hasBody(store, winner, bodies[index] as Buffer)
      for (let i = 0; i < entries.length; i++) assert.equal(await store.invalidateTag(`t${i}`, gone), i === index ? 1 : 0)
      assert.deepEqual(await found(store, 'k'), [])
    },
  ],
  [
    'keeps all variants that are put at once',
    async ({ store, ask }) => {
      const entries = await Promise.all(Array.from({ length: 10 }, (_, i) => ask(variantOf(String(i)))))
      await Promise.all(entries.map(async (entry) => store.put(entry, text)))
      assert.deepEqual(new Set(await idsOf(store, 'k')), new Set(entries.map(({ id }) => id)))
    },
  ],
  [
    'never gives one body for another, whatever happens at once',
    async ({ store, ask }) => {
      const bodyOf = ({ size }: CacheEntry): Buffer => noise(size, size)
      let wrong = 0
      const work = Array.from({ length: 120 }, async (_, i) => {
        const key = `k${i % 3}`
        const entry = await ask({ key, ...variantOf(String(i % 2)), size: 2000 + i, tags: [`t${i % 4}`] })
        await store.put(entry, bodyOf(entry))
        if (i % 10 === 0) await store.invalidateTag(`t${i % 4}`, gone)
        if (i % 7 === 0) await store.remove(entry)
        for (const each of await store.find(key)) {
          const got = await bytes(await store.body(each, 0, each.size))
          if (got !== undefined && !got.equals(bodyOf(each))) wrong++
        }
      })
      await Promise.all(work)
      assert.equal(wrong, 0)
      for (let i = 0; i < 3; i++) {
        const entries = await store.find(`k${i}`)
        assert.ok(entries.length <= 2)
        for (const entry of entries) await hasBody(store, entry, bodyOf(entry))
      }
    },
  ],
  ['agrees with a list, over a long history', history],
]

const bounded: readonly (readonly [title: string, check: Check])[] = [
  [
    'keeps no more variants of a key than it says, and the newest of them',
    async ({ store, keep, subject: { maxVariants: most = 0 } }) => {
      const made: CacheEntry[] = []
      for (let i = 0; i < most + 3; i++) made.unshift(await keep({ ...variantOf(String(i)), tags: ['t'] }))
      assert.deepEqual(
        await idsOf(store, 'k'),
        made.slice(0, most).map(({ id }) => id),
      )
      assert.equal(await store.invalidateTag('t', gone), most)
    },
  ],
]

const counting: readonly (readonly [title: string, check: Check])[] = [
  [
    'counts what it holds',
    async ({ store, keep }) => {
      assert.equal(store.stats().entries, 0)
      const empty = store.stats().bytes
      await keep(variantOf('a'), noise(10_000))
      const first = await keep(variantOf('b'), noise(20_000))
      assert.equal(store.stats().entries, 2)
      assert.ok(store.stats().bytes >= empty + 30_000, `bytes of two: ${store.stats().bytes}`)
      await keep(variantOf('a'), noise(10))
      assert.equal(store.stats().entries, 2)
      await store.remove(first)
      assert.equal(store.stats().entries, 1)
      assert.ok(store.stats().bytes < empty + 20_000, `bytes of one: ${store.stats().bytes}`)
      await store.clear()
      assert.equal(store.stats().entries, 0)
    },
  ],
]

const shared: readonly (readonly [title: string, check: (bench: Bench, second: CacheStore) => Promise<void>])[] = [
  [
    'shows each what the other has put, changed and removed',
    async ({ store, keep, ask }, second) => {
      const entry = await keep({ tags: ['t'] }, noise(3000))
      assert.deepEqual(await found(second, 'k'), [plain(entry)])
      await hasBody(second, entry, noise(3000))
      const next = { ...(await ask({}, second)), id: entry.id, size: entry.size, fields: ['A', 'b'] }
      assert.equal(await second.update(next), true)
      assert.deepEqual(await found(store, 'k'), [plain(next)])
      assert.equal(await second.remove(next), true)
      assert.deepEqual([await found(store, 'k'), await found(second, 'k')], [[], []])
    },
  ],
  [
    'invalidates for each what the other has put',
    async ({ store, keep, later, now }, second) => {
      for (const invalidate of [
        () => second.invalidate('k', gone),
        () => second.invalidateTag('t', gone),
        () => Promise.resolve(second.clear()).then(() => 1),
      ]) {
        const entry = await keep({ tags: ['t'] })
        assert.equal(await invalidate(), 1)
        assert.deepEqual(await found(store, 'k'), [])
        assert.equal(await store.body(entry, 0, entry.size), undefined)
        await later()
      }
      await keep({ tags: ['t'] })
      assert.equal(await second.invalidateTag('t', { kind: 'stale', now: now() }), 1)
      const [stale] = await store.find('k')
      assert.ok(stale && stale.lifetime <= ageOf(stale, now()))
    },
  ],
  [
    'does not keep what was asked for before the other invalidated it',
    async ({ store, ask, keep, later, now }, second) => {
      const stale: Invalidation = { kind: 'stale', now: now() }
      const ways: readonly (readonly [name: string, invalidate: () => unknown])[] = [
        ['key', () => second.invalidate('k', gone)],
        ['key, softly', () => second.invalidate('k', stale)],
        ['tag', () => second.invalidateTag('b', gone)],
        ['tag, softly', () => second.invalidateTag('b', stale)],
        ['everything', () => second.clear()],
      ]
      for (const [name, invalidate] of ways) {
        const asked = await ask({ tags: ['a', 'b'] })
        const other = await ask({ key: 'l', tags: ['c'] })
        await later()
        await invalidate()
        await later()
        // Later responses have been stored since; that says nothing about this one.
        const since = await keep({ ...variantOf('since'), tags: ['b'] }, text, second)
        assert.equal(await store.put(asked, text), false, name)
        assert.deepEqual(await found(store, 'k'), [plain(since)])
        assert.equal(await store.put(other, text), name !== 'everything', `another one, ${name}`)
        await later()
        const next = await keep({ tags: ['a', 'b'] })
        assert.deepEqual(await found(second, 'k'), [next, since].map(plain))
        await second.clear()
        await later()
      }
    },
  ],
  [
    'does not confirm what was asked about before the other invalidated it',
    async ({ store, ask, keep, later, now }, second) => {
      const entry = await keep({ tags: ['t'] })
      const asked = { ...(await ask({ tags: ['t'] })), id: entry.id, size: entry.size }
      await later()
      assert.equal(await second.invalidateTag('t', { kind: 'stale', now: now() }), 1)
      assert.equal(await store.update(asked), false)
      const [stale] = await store.find('k')
      assert.ok(stale && stale.lifetime <= ageOf(stale, now()))
    },
  ],
  [
    'lets nothing survive that is put while the other invalidates',
    async ({ store, ask, later }, second) => {
      for (let round = 0; round < 20; round++) {
        const entries = await Promise.all(Array.from({ length: 10 }, (_, i) => ask({ key: `k${i}`, tags: ['t'] })))
        await later()
        const puts = entries.map((entry, i) => Promise.resolve(i < round / 2 ? undefined : store.put(entry, text)))
        const invalidated = second.invalidateTag('t', gone)
        const late = entries.map((entry, i) => Promise.resolve(i < round / 2 ? store.put(entry, text) : undefined))
        await Promise.all([invalidated, ...puts, ...late])
        for (const { key } of entries) assert.deepEqual(await idsOf(second, key), [])
        await later()
      }
    },
  ],
]

/** Random steps, the same in every run, against the plainest model there is. */
async function history({ store, ask, later }: Bench): Promise<void> {
  let state = 7
  const pick = (count: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return (state >>> 8) % count
  }
  let model: CacheEntry[] = []
  const drop = async (which: (entry: CacheEntry) => boolean, count: MaybePromise<number>): Promise<void> => {
    const before = model.length
    model = model.filter((entry) => !which(entry))
    assert.equal(await count, before - model.length)
    await later()
  }
  for (let step = 0; step < 150; step++) {
    const key = `k${pick(3)}`
    const value = String(pick(2))
    const tags = [...new Set([`t${pick(3)}`, `t${pick(3)}`])]
    const same = model.find((entry) => entry.key === key && entry.vary[1] === value)
    switch (pick(8)) {
      case 0:
        await drop((entry) => entry === same, Number(same !== undefined && (await store.remove(same))))
        break
      case 1:
        await drop((entry) => entry.key === key, store.invalidate(key, gone))
        break
      case 2: {
        const tag = `t${pick(3)}`
        await drop((entry) => entry.tags.includes(tag), store.invalidateTag(tag, gone))
        break
      }
      case 3: {
        if (same === undefined) break
        const next = { ...(await ask({ key, ...variantOf(value), tags, status: 300 + step })), id: same.id, size: same.size }
        assert.equal(await store.update(next), true)
        model = [next, ...model.filter((entry) => entry !== same)]
        break
      }
      default: {
        const entry = await ask({ key, ...variantOf(value), tags, size: 10 + step })
        assert.equal(await store.put(entry, noise(entry.size, step)), true)
        model = [entry, ...model.filter((other) => other !== same)]
      }
    }
    for (let i = 0; i < 3; i++)
      assert.deepEqual(
        new Set((await store.find(`k${i}`)).map(asText)),
        new Set(model.filter((entry) => entry.key === `k${i}`).map(asText)),
        `after step ${step}`,
      )
  }
  assert.deepEqual(new Set((await everything(store)).map(asText)), new Set(model.map(asText)))
}

function asText(entry: CacheEntry): string {
  return JSON.stringify(plain(entry))
}

let ids = 0

function benchOf(subject: CacheStoreSubject, rig: CacheStoreRig): Bench {
  const now = subject.now ?? Date.now
  const wait = subject.wait ?? ((ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms)))
  const ask: Bench['ask'] = async (part = {}, store = rig.store) => {
    const key = part.key ?? 'k'
    await store.find(key)
    const at = now()
    return {
      id: `conformance-${process.pid}-${(ids++).toString(36)}`,
      key,
      url: 'https://shop.example/',
      status: 200,
      fields: ['Content-Type', 'text/plain', 'ETag', '"v1"'],
      route: 'main',
      vary: [],
      requestedAt: at,
      storedAt: at,
      initialAge: 0,
      lifetime: hour,
      staleWhileRevalidate: 0,
      staleIfError: 60_000,
      noCache: false,
      mustRevalidate: false,
      forAuthorized: false,
      etag: '"v1"',
      lastModified: undefined,
      language: undefined,
      tags: [],
      size: text.length,
      ...part,
    }
  }
  return {
    ...rig,
    subject,
    now,
    later: async () => wait(5),
    ask,
    async keep(part = {}, body = text, store = rig.store) {
      const entry = await ask({ ...part, size: body.length }, store)
      assert.equal(await store.put(entry, body), true, `kept: ${entry.key.slice(0, 20)}`)
      return entry
    },
  }
}

export function cacheStoreConformance(subject: CacheStoreSubject): readonly CacheStoreCase[] {
  const test = (title: string, check: (bench: Bench) => Promise<void>): CacheStoreCase => ({
    name: `${subject.name}: ${title}`,
    async run() {
      const rig = await subject.make()
      try {
        await rig.store.start?.()
        await rig.second?.start?.()
        const bench = benchOf(subject, rig)
        await bench.later()
        await check(bench)
      } finally {
        await rig.close?.()
      }
    },
  })
  const alone = [...always, ...(subject.maxVariants === undefined ? [] : bounded), ...(subject.counts === false ? [] : counting)]
  const together = subject.shared === true ? shared : []
  return [
    ...alone.map(([title, check]) => test(title, check)),
    ...together.map(([title, check]) =>
      test(title, async (bench) => {
        assert.ok(bench.second, 'a second store for what is shared')
        await check(bench, bench.second)
      }),
    ),
  ]
}
