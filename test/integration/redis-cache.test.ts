/**
 * Responses that several proxies keep on one Redis or Valkey, on real servers: what they share and forget together, and what becomes of requests when the server
 * dies, hangs, is full, evicts, or holds something else where our keys should be. What any cache store must do is in redis-conformance.test.ts.
 */

import { setTimeout as pause } from 'node:timers/promises'
import { type CacheEntry, type CacheStore, type ResponseCache, responseCache } from '@weir/cache'
import { type BinaryRedisClient, type RedisCacheOptions, redisCacheStore } from '@weir/redis'
import { type TestUpstream, testUpstream } from '@weir/testing'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask } from './caching.ts'
import { type ObservedProxy, startProxy, until } from './observed.ts'
import { type Connected, clients } from './redis-clients.ts'
import { missingPrograms, type RedisServer, redisPrograms, redisServer } from './redis-server.ts'

let runs = 0
const newPrefix = (): string => `test-${process.pid}-${runs++}`
const gone = { kind: 'delete' } as const
const text = Buffer.from('hello')

let ids = 0
/** Asks as the cache does, looking first. */
async function asked(store: CacheStore, part: Partial<CacheEntry> = {}): Promise<CacheEntry> {
  await store.find(part.key ?? 'k')
  const now = Date.now()
  return {
    id: `e${ids++}`,
    key: 'k',
    url: 'http://shop.example/',
    status: 200,
    fields: ['ETag', '"1"'],
    route: 'r',
    vary: [],
    requestedAt: now,
    storedAt: now,
    initialAge: 0,
    lifetime: 600_000,
    staleWhileRevalidate: 0,
    staleIfError: 0,
    noCache: false,
    mustRevalidate: false,
    forAuthorized: false,
    etag: '"1"',
    lastModified: undefined,
    language: undefined,
    tags: ['t'],
    size: text.length,
    ...part,
  }
}

async function keep(store: CacheStore, part: Partial<CacheEntry> = {}): Promise<CacheEntry> {
  const entry = await asked(store, part)
  expect(await store.put(entry, text)).toBe(true)
  return entry
}

const idsOf = async (store: CacheStore, key = 'k'): Promise<string[]> => (await store.find(key)).map(({ id }) => id)

/** As a proxy does before its first request, and long enough before it. */
async function started(store: CacheStore): Promise<CacheStore> {
  await store.start?.()
  await pause(5)
  return store
}

/** `until` for what has to be asked. */
async function eventually(what: string, look: () => Promise<boolean>, deadline = 15_000): Promise<void> {
  const end = performance.now() + deadline
  while (!(await look())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${deadline} ms`)
    await pause(10)
  }
}

const codeOf = (call: unknown): Promise<string> =>
  Promise.resolve(call).then(
    () => 'answered',
    (error: { code: string }) => error.code,
  )

interface Site extends AsyncDisposable {
  readonly upstream: TestUpstream
  readonly caches: readonly ResponseCache[]
  readonly seen: number
  /** What the nth proxy answers, and whether it had it already. */
  get(which: number, path?: string): Promise<{ readonly status: number; readonly body: string; readonly hit: boolean }>
}

/** Two proxies in front of one origin, each with a client of its own. */
async function site(connect: (typeof clients)[number][1], port: number, options: Partial<RedisCacheOptions> = {}): Promise<Site> {
  let seen = 0
  const upstream = await testUpstream({
    '*': (_req, res) => {
      seen++
      res.writeHead(200, { 'Cache-Control': 'max-age=600', 'Cache-Tag': 'all, shop', ETag: `"${seen}"` })
      res.end(`answer ${seen}`)
    },
  })
  const prefix = newPrefix()
  const connected: Connected[] = []
  const proxies: ObservedProxy[] = []
  const caches: ResponseCache[] = []
  for (let i = 0; i < 2; i++) {
    const client = await connect([port])
    const cache = responseCache({ store: redisCacheStore({ client: client.client, prefix, retryAfter: '50ms', ...options }) })
    connected.push(client)
    caches.push(cache)
    proxies.push(await startProxy({ upstreams: [upstream.url], use: [cache] }))
  }
  return {
    upstream,
    caches,
    get seen() {
      return seen
    },
    async get(which, path = '/') {
      const { status, body, headers } = await ask((proxies[which] as ObservedProxy).port, path)
      return { status, body, hit: /\bhit\b/.test(String(headers['cache-status'])) }
    },
    async [Symbol.asyncDispose]() {
      for (const proxy of proxies) await proxy[Symbol.asyncDispose]()
      for (const client of connected) await client[Symbol.asyncDispose]()
      await upstream[Symbol.asyncDispose]()
    },
  }
}

for (const program of missingPrograms) {
  if (process.env.WEIR_REQUIRE_ALL === '1') it(`needs ${program}`, () => expect.unreachable(`${program} is not installed`))
  else it.skip(`${program} is not installed`, () => {})
}

for (const program of redisPrograms) {
  describe.each(clients)(`two proxies on one ${program}, through %s`, (_name, single) => {
    it('share what either has fetched, and forget together what either invalidates', async () => {
      await using server = await redisServer(program)
      await using two = await site(single, server.port, { timeout: '5s' })
      const first = await two.get(0)
      expect(first).toEqual({ status: 200, body: 'answer 1', hit: false })
      await eventually('a hit at the other one', async () => (await two.get(1)).hit)
      const { seen } = two
      expect(await two.get(0)).toEqual(await two.get(1))
      expect(two.seen).toBe(seen)
      for (const [i, cache] of two.caches.entries()) {
        expect(await cache.invalidateTag('shop')).toBe(1)
        const other = await two.get(1 - i)
        expect(other).toEqual({ status: 200, body: `answer ${two.seen}`, hit: false })
        await eventually('shared again', async () => (await two.get(i)).hit && (await two.get(1 - i)).hit)
        expect((await two.get(i)).body).toBe((await two.get(1 - i)).body)
      }
    })

    it('answer from the upstream when the server dies, and share again when it is back', async () => {
      await using server = await redisServer(program)
      await using two = await site(single, server.port)
      await two.get(0)
      await eventually('a hit at the other one', async () => (await two.get(1)).hit)
      await server.kill()
      for (let i = 0; i < 40; i++) expect(await two.get(i % 2)).toEqual({ status: 200, body: `answer ${two.seen}`, hit: false })
      for (const cache of two.caches) expect(cache.stats().storeErrors).toBeGreaterThan(0)
      await expect(two.caches[0]?.invalidateTag('shop')).rejects.toThrow()
      await server.restart()
      await eventually('shared again', async () => {
        const one = await two.get(0)
        const other = await two.get(1)
        expect([one.status, other.status]).toEqual([200, 200])
        return one.hit && other.hit && one.body === other.body
      })
    })

    it('answer from the upstream while the server hangs', async () => {
      await using server = await redisServer(program)
      await using two = await site(single, server.port, { timeout: '50ms', maxPending: 20 })
      await two.get(0)
      await eventually('a hit', async () => (await two.get(1)).hit)
      server.freeze()
      const answers = await Promise.all(Array.from({ length: 60 }, (_, i) => two.get(i % 2, `/${i}`)))
      expect(answers.filter(({ status, hit }) => status !== 200 || hit)).toEqual([])
      server.thaw()
      await eventually('hits again', async () => (await two.get(0)).hit && (await two.get(1)).hit)
    })
  })

  describe(`a ${program} that fails`, () => {
    const [, connect] = clients[0] as (typeof clients)[number]

    it('costs a few calls the deadline and the others nothing, and is given no more than it may be', async () => {
      await using server = await redisServer(program)
      await using connected = await connect([server.port])
      const { client, sent } = counted(connected.client)
      const store = redisCacheStore({ client, prefix: newPrefix(), timeout: '50ms', maxPending: 20, failures: 5, retryAfter: '1h' })
      server.freeze()
      const burst = await Promise.all(Array.from({ length: 100 }, () => codeOf(store.find('k'))))
      expect(burst.filter((code) => code === 'ERR_REDIS_TIMEOUT')).toHaveLength(20)
      expect(burst.filter((code) => code === 'ERR_REDIS_OVERLOADED')).toHaveLength(80)
      const later = await Promise.all(Array.from({ length: 200 }, () => codeOf(store.find('k'))))
      expect(new Set(later)).toEqual(new Set(['ERR_REDIS_CIRCUIT_OPEN']))
      expect(sent).toHaveLength(20)
      server.thaw()
    })

    it('is given nothing to queue while it is away, and nobody waits for it', async () => {
      await using server = await redisServer(program)
      await using connected = await connect([server.port])
      const { client, sent } = counted(connected.client)
      const store = await started(redisCacheStore({ client, prefix: newPrefix(), timeout: '5s' }))
      const entry = await keep(store)
      const before = sent.length
      await server.kill()
      await until('a client that noticed', () => !client.ready)
      const calls = [
        store.find('k'),
        store.body(entry, 0, 5),
        store.put(entry, text),
        store.update(entry),
        store.remove(entry),
        store.invalidate('k', gone),
        store.invalidateTag('t', gone),
        store.clear(),
      ]
      expect(new Set(await Promise.all(calls.map(codeOf)))).toEqual(new Set(['ERR_REDIS_NOT_READY']))
      expect(sent).toHaveLength(before)
    })

    it('is full: nothing more is kept, what is there is served, and what is invalidated is gone', async () => {
      await using server = await redisServer(program)
      await using connected = await connect([server.port])
      const options = { prefix: newPrefix(), timeout: '5s', failures: 2, retryAfter: '1h' } as const
      const store = await started(redisCacheStore({ client: connected.client, ...options }))
      const entry = await keep(store)
      await keep(store, { key: 'l' })
      server.command('CONFIG', 'SET', 'maxmemory', '1')
      const early = await asked(store, { key: 'early', tags: ['nothing has this'] })
      for (let i = 0; i < 5; i++) expect(await codeOf(store.put({ ...early, key: 'new' }, text))).not.toBe('answered')
      expect(await idsOf(store)).toEqual([entry.id])
      expect(await store.body(entry, 0, 5)).toEqual(text)
      expect(await store.invalidateTag('nothing has this', gone)).toBe(0)
      expect(await store.invalidateTag('t', gone)).toBe(2)
      expect([await idsOf(store), await idsOf(store, 'l')]).toEqual([[], []])
      // There is room again: what was invalidated meanwhile has been written down.
      server.command('CONFIG', 'SET', 'maxmemory', '0')
      const fresh = redisCacheStore({ client: connected.client, ...options })
      expect(await fresh.put(early, text)).toBe(false)
      await pause(5)
      await keep(fresh, { key: 'early' })
    })

    it('leaves to the replica that is promoted what had reached it, and that can be invalidated there', async () => {
      await using primary = await redisServer(program)
      await using replica = await redisServer(program, ['--replicaof', '127.0.0.1', String(primary.port)])
      await until('a replica in step', () => replica.command('INFO', 'replication').includes('master_link_status:up'), 15_000)
      const options = { prefix: newPrefix(), timeout: '5s' } as const
      await using one = await connect([primary.port])
      const before = await started(redisCacheStore({ client: one.client, ...options }))
      const entry = await keep(before, { tags: ['a', 'b'] })
      const lost = await asked(before, { key: 'l', tags: ['c'] })
      await pause(5)
      await before.invalidateTag('c', gone)
      const offset = (server: RedisServer): string | undefined =>
        /master_repl_offset:(\d+)/.exec(server.command('INFO', 'replication'))?.[1]
      await until('all of it at the replica', () => offset(primary) === offset(replica))
      await primary.kill()
      replica.command('REPLICAOF', 'NO', 'ONE')
      await using two = await connect([replica.port])
      const after = redisCacheStore({ client: two.client, ...options })
      expect(await after.find('k')).toEqual([entry])
      expect(await after.body(entry, 0, 5)).toEqual(text)
      expect(await after.put(lost, text)).toBe(false)
      expect(await after.invalidateTag('b', gone)).toBe(1)
      expect(await after.find('k')).toEqual([])
    })

    it('was emptied between a request and its answer: what was invalidated before that is not kept', async () => {
      await using server = await redisServer(program)
      await using one = await connect([server.port])
      await using two = await connect([server.port])
      const options = { prefix: newPrefix(), timeout: '5s' } as const
      const store = redisCacheStore({ client: one.client, ...options })
      const entry = await asked(store)
      await redisCacheStore({ client: two.client, ...options }).invalidateTag('t', gone)
      server.command('FLUSHALL')
      expect(await store.put(entry, text)).toBe(false)
      expect(await idsOf(store)).toEqual([])
      await pause(5)
      await keep(store)
    })
  })

  describe(`what is stored on ${program}`, () => {
    let server: RedisServer
    let redis: Redis
    let connected: Connected
    let store: CacheStore
    let prefix: string
    beforeAll(async () => {
      server = await redisServer(program)
      redis = new Redis({ port: server.port, host: '127.0.0.1' })
      connected = await (clients[0] as (typeof clients)[number])[1]([server.port])
    })
    afterAll(async () => {
      redis.disconnect()
      await connected[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    })
    const begin = async (options: Partial<RedisCacheOptions> = {}): Promise<void> => {
      prefix = newPrefix()
      store = await started(redisCacheStore({ client: connected.client, prefix, timeout: '5s', ...options }))
    }
    const keys = async (): Promise<string[]> => (await redis.keys(`${prefix}:*`)).toSorted()
    const keyOf = (part: string): string => `${prefix}:cache:{1.0}:${part}`

    it('lies under the prefix, in one slot, and ends by itself', async () => {
      await begin()
      await keep(store, { etag: undefined, tags: ['a', 'b'] })
      expect((await keys()).map((key) => key.slice(`${prefix}:cache:`.length).replace(/b:e\d+/, 'b:id'))).toEqual([
        '{1.0}:b:id',
        '{1.0}:index',
        '{1.0}:ledger',
        '{1.0}:r:k',
        '{1.0}:t:a',
        '{1.0}:t:b',
      ])
      const lives = async (): Promise<number[]> => {
        const mortal = (await keys()).filter((key) => !key.endsWith('ledger'))
        return Promise.all(mortal.map((key) => redis.pttl(key)))
      }
      for (const ttl of await lives()) expect(ttl > 0 && ttl <= 600_000, String(ttl)).toBe(true)
      // With a validator it is of use beyond its lifetime.
      await keep(store, { tags: ['a', 'b'] })
      for (const ttl of await lives()) expect(ttl > 600_000 && ttl <= 4_200_000, String(ttl)).toBe(true)
      await keep(store, { etag: undefined, tags: [], staleIfError: 7_200_000 })
      expect(await redis.pttl(keyOf('r:k'))).toBeGreaterThan(4_200_000)
    })

    it('is gone when it is of no use any more, with all that belongs to it', async () => {
      await begin()
      for (let i = 0; i < 5; i++) await keep(store, { key: `k${i}`, etag: undefined, lifetime: 1000, tags: [`t${i}`] })
      await eventually('nothing but the ledger', async () => (await keys()).length === 1)
      expect(await idsOf(store, 'k1')).toEqual([])
      const useless = await asked(store, { etag: undefined, lifetime: 1000, initialAge: 1000 })
      expect(await store.put(useless, text)).toBe(false)
      await pause(5)
      await keep(store, { key: 'other', lifetime: 1000 })
      expect(await store.put({ ...(await asked(store)), etag: undefined, lifetime: 0 }, text)).toBe(false)
      expect(await idsOf(store, 'other')).toHaveLength(1)
    })

    it('leaves nothing behind that it replaced, removed or invalidated', async () => {
      await begin({ maxVariants: 3 })
      for (let i = 0; i < 10; i++) await keep(store, { vary: ['a', String(i)], tags: [`t${i}`, 'all'] })
      expect((await keys()).filter((key) => key.includes('}:b:'))).toHaveLength(3)
      expect((await keys()).filter((key) => key.includes('}:t:'))).toHaveLength(4)
      await store.invalidateTag('all', gone)
      expect((await keys()).filter((key) => !/\}:(ledger|index)$/.test(key))).toEqual([])
      await pause(5)
      await keep(store)
      await keep(store)
      await store.clear()
      expect((await keys()).filter((key) => !key.endsWith('}:ledger'))).toEqual([])
    })

    it('takes one round trip, whatever is done with one key', async () => {
      await begin()
      const { client, sent } = counted(connected.client)
      const watched = redisCacheStore({ client, prefix, timeout: '5s' })
      const cost = async (act: () => unknown): Promise<number> => {
        const before = sent.length
        await act()
        return sent.length - before
      }
      await cost(() => watched.find('k'))
      const entry = await asked(watched, { tags: ['a', 'b', 'c'] })
      expect(await cost(() => watched.put(entry, text))).toBe(1)
      expect(await cost(() => watched.find('k'))).toBe(1)
      expect(await cost(() => watched.body(entry, 0, 5))).toBe(1)
      expect(await cost(() => watched.update(entry))).toBe(1)
      expect(await cost(() => watched.invalidate('k', { kind: 'stale', now: Date.now() }))).toBe(1)
      expect(await cost(() => watched.invalidateTag('a', gone))).toBe(1)
      expect(await cost(() => watched.remove(entry))).toBe(1)
      expect(await cost(() => watched.find('k'))).toBe(1)
    })

    it('is stale for a proxy whose clock is behind, too', async () => {
      await begin()
      const entry = await keep(store)
      // Whoever invalidates it is an hour ahead.
      await store.invalidate('k', { kind: 'stale', now: entry.storedAt + 3_600_000 })
      const now = Date.now()
      const [stale] = await store.find('k')
      expect(stale?.lifetime).toBeLessThanOrEqual(Date.now() - entry.storedAt)
      expect(stale?.lifetime).toBeGreaterThanOrEqual(now - entry.storedAt)
    })

    describe('and was evicted:', () => {
      it('without a ledger nothing counts that was kept before', async () => {
        await begin()
        await keep(store)
        await redis.del(keyOf('ledger'))
        expect(await idsOf(store)).toEqual([])
        await pause(5)
        const next = await keep(store)
        expect(await idsOf(store)).toEqual([next.id])
      })

      it('what could not be found by its tag is not served', async () => {
        await begin()
        await keep(store, { vary: ['a', '1'], tags: ['lost', 'left'] })
        const other = await keep(store, { vary: ['a', '2'], tags: ['left'] })
        await redis.del(keyOf('t:lost'))
        expect(await idsOf(store)).toEqual([other.id])
        expect(await store.invalidateTag('left', gone)).toBe(1)
      })

      it('a head without a body goes', async () => {
        await begin()
        const entry = await keep(store)
        await redis.del(keyOf(`b:${entry.id}`))
        expect(await store.update(entry)).toBe(false)
        await keep(store)
        const [present] = await store.find('k')
        await redis.del(keyOf(`b:${present?.id}`))
        expect(await store.body(present as CacheEntry, 0, 5)).toBeUndefined()
        expect(await idsOf(store)).toEqual([])
      })

      it('what is not in the index is cleared all the same', async () => {
        await begin()
        const entry = await keep(store)
        await redis.del(keyOf('index'))
        expect(await idsOf(store)).toEqual([entry.id])
        await store.clear()
        expect(await idsOf(store)).toEqual([])
      })
    })

    const spoilt: readonly (readonly [what: string, spoil: (key: string) => Promise<unknown>])[] = [
      ['a string', (key) => redis.set(key, 'garbage')],
      ['a list', (key) => redis.rpush(key, 'a', 'b')],
      ['a hash', (key) => redis.hset(key, 'field', 'garbage', 'other', 'w1 1 x 3\n\n{')],
      ['a sorted set', (key) => redis.zadd(key, 'inf', '=x', 1, 'one', 2, 'no such')],
      ['nothing', async () => {}],
    ]
    const parts: readonly (readonly [part: string, name: (entry: CacheEntry) => string])[] = [
      ['the ledger', () => 'ledger'],
      ['the index', () => 'index'],
      ['the heads', () => 'r:k'],
      ['the body', ({ id }) => `b:${id}`],
      ['the set of a tag', () => 't:t'],
    ]

    describe.each(spoilt)('where %s stands instead', (_what, spoil) => {
      it.each(parts)('of %s: a miss, never an error, and well again with the next response', async (_part, name) => {
        for (const first of ['find', 'body', 'put', 'update', 'remove', 'invalidate', 'invalidateTag', 'entries', 'clear'] as const) {
          await begin()
          const entry = await keep(store)
          await redis.del(keyOf(name(entry)))
          await spoil(keyOf(name(entry)))
          switch (first) {
            case 'find':
              for (const each of await store.find('k')) expect(each).toEqual(entry)
              break
            case 'body':
              expect([undefined, 'hello']).toContain((await store.body(entry, 0, 5))?.toString())
              break
            case 'put':
              await store.put({ ...entry, id: `${entry.id}x` }, text)
              break
            case 'update':
            case 'remove':
              await store[first](entry)
              break
            case 'invalidate':
              await store.invalidate('k', gone)
              break
            case 'invalidateTag':
              await store.invalidateTag('t', gone)
              break
            case 'entries':
              for await (const each of store.entries()) expect(each).toEqual(entry)
              break
            case 'clear':
              await store.clear()
          }
          if (first === 'invalidate' || first === 'invalidateTag' || first === 'clear') expect(await idsOf(store), first).toEqual([])
          await idsOf(store)
          await pause(5)
          const next = await keep(store)
          expect(await store.find('k'), first).toEqual([next])
          expect((await store.body(next, 0, 5))?.toString()).toBe('hello')
          expect(await store.invalidateTag('t', gone), first).toBe(1)
          expect(await idsOf(store)).toEqual([])
        }
      })
    })

    it.each([
      ['no JSON', (head: string) => head.slice(0, -2)],
      ['JSON of something else', (head: string) => `${head.split('\n', 2).join('\n')}\n[1]`],
      ['an entry without its fields', (head: string) => head.replace('"fields"', '"felder"')],
      ['fields that are no texts', (head: string) => head.replace('"ETag"', '7')],
      ['an entry of another key', (head: string) => head.replace('"key":"k"', '"key":"l"')],
      ['numbers that are none', (head: string) => head.replace(/^w1 \S+ \S+/, 'w1 1 inf')],
      ['another layout', (head: string) => head.replace('w1', 'w2')],
    ])('a head that is %s is none, and the next one takes its place', async (_what, spoil) => {
      await begin()
      await keep(store)
      const [[field, head] = ['', '']] = Object.entries(await redis.hgetall(keyOf('r:k')))
      expect(spoil(head)).not.toBe(head)
      await redis.hset(keyOf('r:k'), field, spoil(head))
      expect(await store.find('k')).toEqual([])
      const listed: CacheEntry[] = []
      for await (const entry of store.entries()) listed.push(entry)
      for (const entry of listed) expect(entry.key).toBe('l')
      const next = await keep(store)
      expect(await store.find('k')).toEqual([next])
      expect(await store.invalidate('k', gone)).toBe(1)
    })
  })
}

/** A client that writes down what it sends. */
function counted(client: BinaryRedisClient): { readonly client: BinaryRedisClient; readonly sent: string[] } {
  const sent: string[] = []
  const watch = (of: Pick<BinaryRedisClient, 'evalSha' | 'eval'>): Pick<BinaryRedisClient, 'evalSha' | 'eval'> => ({
    evalSha: (sha, keys, args) => {
      sent.push(sha)
      return of.evalSha(sha, keys, args)
    },
    eval: (source, keys, args) => of.eval(source, keys, args),
  })
  return {
    sent,
    client: {
      name: 'counted',
      cluster: client.cluster,
      get ready() {
        return client.ready
      },
      ...watch(client),
      binary: watch(client.binary),
    },
  }
}
