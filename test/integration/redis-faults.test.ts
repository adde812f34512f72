/**
 * Shared stores when things go wrong, against real servers: Redis that dies, hangs, forgets its scripts, or is replaced by its replica; and, when nothing
 * goes wrong, the exact count over several processes.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { createProxy, type ReverseProxy } from '@weir/core'
import {
  algorithms,
  type Limit,
  type LimitState,
  type RateLimitOptions,
  type RateLimitStore,
  rateLimit,
  type Verdict,
} from '@weir/rate-limit'
import { fromIoredis, type RedisCircuitMessage, type RedisClient, redisRateLimitStore, redisSessionStore } from '@weir/redis'
import { learnSession } from '@weir/sticky'
import { fakeTransport } from '@weir/testing'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runChild } from './children/run.ts'
import { until } from './observed.ts'
import { clients, sentinelClients } from './redis-clients.ts'
import { missingPrograms, type RedisServer, redisPrograms, redisSentinel, redisServer } from './redis-server.ts'

let runs = 0
const prefix = (): string => `test-${process.pid}-${runs++}`
const hour = 3_600_000

function limitedProxy(
  store: RateLimitStore,
  options: Partial<RateLimitOptions> = {},
): { proxy: ReverseProxy; stage: ReturnType<typeof rateLimit> } {
  const stage = rateLimit({ limit: 1000, window: '1h', key: () => 'everybody', store, ...options } as RateLimitOptions)
  return { stage, proxy: createProxy({ upstreams: ['http://app.test'], transport: fakeTransport(), use: [stage] }) }
}

/**
 * Counts calls that the server may have done although they failed here: it had been asked, and its answer came too late or never. The client sends such a
 * call again when it is connected. (Refused at once, by a client without a connection or an open circuit, is a call that nobody has seen.)
 */
function doubtfulCalls(): { readonly count: number } & Disposable {
  let count = 0
  const listener = (message: unknown): void => {
    const { error } = message as { error: { code?: string } }
    if (error?.code !== 'ERR_REDIS_NOT_READY' && error?.code !== 'ERR_REDIS_CIRCUIT_OPEN') count++
  }
  subscribe('weir:rate-limit:store', listener)
  return {
    get count() {
      return count
    },
    [Symbol.dispose]: () => void unsubscribe('weir:rate-limit:store', listener),
  }
}

/** `until` for what has to be asked. */
async function eventually(what: string, look: () => Promise<boolean>, deadline = 10_000): Promise<void> {
  const end = performance.now() + deadline
  while (!(await look())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${deadline} ms`)
    await pause(5)
  }
}

/** Takes six of ten, kills the primary, lets `promote` put the replica in its place, and takes the rest. */
async function countThroughPromotion(client: RedisClient, primary: RedisServer, replica: RedisServer, promote: () => void): Promise<void> {
  using doubtful = doubtfulCalls()
  const { proxy } = limitedProxy(redisRateLimitStore({ client, prefix: prefix(), retryAfter: '50ms' }), {
    limit: 10,
    algorithm: 'fixed-window',
    onStoreError: 'deny',
  })
  for (let i = 0; i < 6; i++) expect(await ask(proxy)).toBe(200)
  const offset = (server: RedisServer): string | undefined => /master_repl_offset:(\d+)/.exec(server.command('INFO', 'replication'))?.[1]
  await until('all of it at the replica', () => offset(primary) === offset(replica))
  await primary.kill()
  promote()
  // Until it is promoted the replica refuses to be written to, and that is a failure of the store like any other.
  await eventually('a decision of the new primary', async () => (await ask(proxy)) === 200, 30_000)
  let admitted = 7
  for (let i = 0; i < 6; i++) if ((await ask(proxy)) === 200) admitted++
  // Never more than the limit; less only by what was refused here and charged there all the same.
  expect(admitted).toBeLessThanOrEqual(10)
  expect(10 - admitted).toBeLessThanOrEqual(doubtful.count)
  await proxy.close()
}

const ask = async (proxy: ReverseProxy): Promise<number> => (await proxy.inject({ url: '/' })).status

/** A client without patience in what it does by itself, so that the stores' own limits are what is seen. */
async function impatient(port: number): Promise<Redis> {
  const redis = new Redis({ host: '127.0.0.1', port, retryStrategy: () => 20 })
  redis.on('error', () => {})
  await once(redis, 'ready')
  return redis
}

/** Passes connections on to one server, and later to another: an address that moves, as with Sentinel or a managed service. */
async function movingAddress(first: number): Promise<{ readonly port: number; moveTo(port: number): void } & AsyncDisposable> {
  let target = first
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    const onward = connect(target, '127.0.0.1')
    for (const each of [socket, onward]) {
      sockets.add(each)
      each.on('error', () => {})
      each.on('close', () => sockets.delete(each))
    }
    socket.pipe(onward).pipe(socket)
    socket.on('close', () => onward.destroy())
    onward.on('close', () => socket.destroy())
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as { port: number }).port,
    moveTo(port) {
      target = port
      cut()
    },
    async [Symbol.asyncDispose]() {
      cut()
      server.close()
      await once(server, 'close')
    },
  }
}

function circuitMessages(): { readonly states: string[] } & Disposable {
  const states: string[] = []
  const listener = (message: unknown): void => void states.push((message as RedisCircuitMessage).state)
  subscribe('weir:redis:circuit', listener)
  return { states, [Symbol.dispose]: () => void unsubscribe('weir:redis:circuit', listener) }
}

for (const program of missingPrograms) {
  if (process.env.WEIR_REQUIRE_ALL === '1') it(`needs ${program}`, () => expect.unreachable(`${program} is not installed`))
  else it.skip(`${program} is not installed`, () => {})
}

for (const program of redisPrograms) {
  describe(`several processes, one limit, on ${program}`, () => {
    it('admit exactly the limit together', async () => {
      await using server = await redisServer(program)
      const shared = prefix()
      const results = await Promise.all(
        [1, 2, 3].map(() =>
          runChild<{ admitted: number; refused: number; failed: number }>('shared-limit', [String(server.port), shared, '500', '400'], {
            deadline: 30_000,
          }),
        ),
      )
      const sum = (what: 'admitted' | 'refused' | 'failed'): number => results.reduce((total, result) => total + result[what], 0)
      expect({ admitted: sum('admitted'), refused: sum('refused'), failed: sum('failed') }).toEqual({
        admitted: 500,
        refused: 700,
        failed: 0,
      })
    })
  })

  describe(`the arithmetic in ${program}`, () => {
    let server: RedisServer
    let redis: Redis
    beforeAll(async () => {
      server = await redisServer(program)
      redis = await impatient(server.port)
    })
    afterAll(async () => {
      redis.disconnect()
      await server[Symbol.asyncDispose]()
    })

    const kinds = Object.keys(algorithms) as (keyof typeof algorithms)[]
    const step = fc.record({ cost: fc.oneof(fc.nat({ max: 4 }), fc.double({ min: 0, max: 3, noNaN: true })), wait: fc.nat({ max: 6 }) })
    for (const kind of kinds)
      it(`${kind}: every number of every verdict is that of the algorithm`, async () => {
        await fc.assert(
          fc.asyncProperty(
            fc.integer({ min: 1, max: 20 }),
            fc.integer({ min: 20, max: 400 }),
            fc.nat({ max: 100 }),
            fc.array(step, { minLength: 1, maxLength: 12 }),
            async (quota, windowMs, maxDelayMs, steps) => {
              const limit: Limit = {
                id: 'l',
                name: 'l',
                algorithm: kind,
                quota,
                windowMs,
                burst: quota,
                maxDelayMs: kind === 'leaky-bucket' ? maxDelayMs : 0,
              }
              const store = redisRateLimitStore({ client: fromIoredis(redis), prefix: prefix(), timeout: '5s' })
              let state: LimitState = { a: 0, b: 0, c: 0 }
              for (const { cost, wait } of steps) {
                if (wait > 3) await pause(wait)
                const [verdict] = (await store.take([{ limit, key: 'k', cost }])) as [Verdict]
                const before = algorithms[kind].expiresAt(state, limit) <= verdict.at ? { a: 0, b: 0, c: 0 } : state
                const expected = algorithms[kind].take(before, verdict.at, cost, limit)
                const { allowed, remaining } = expected
                expect({ allowed: verdict.allowed, remaining: verdict.remaining }).toEqual({ allowed, remaining })
                for (const field of ['retryAfterMs', 'resetMs', 'delayMs'] as const)
                  if (expected[field] === Number.POSITIVE_INFINITY) expect(verdict[field]).toBe(expected[field])
                  else expect(verdict[field]).toBeCloseTo(expected[field], 3)
                if (allowed && cost > 0) state = expected
              }
            },
          ),
          { numRuns: 40 },
        )
      })

    it.each(kinds)('%s: a correction lies where the algorithm puts it', async (kind) => {
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 2, max: 20 }),
          fc.integer({ min: 1, max: 10 }),
          fc.integer({ min: -12, max: 12 }),
          async (quota, cost, difference) => {
            const limit: Limit = {
              id: 'l',
              name: 'l',
              algorithm: kind,
              quota,
              windowMs: hour,
              burst: quota,
              maxDelayMs: kind === 'leaky-bucket' ? hour : 0,
            }
            const name = prefix()
            const store = redisRateLimitStore({ client: fromIoredis(redis), prefix: name, timeout: '5s' })
            const [taken] = (await store.take([{ limit, key: 'k', cost }])) as [Verdict]
            const nothing = { a: 0, b: 0, c: 0 }
            const step = algorithms[kind].take(nothing, taken.at, cost, limit)
            await store.adjust(limit, 'k', difference, taken.at)
            const [after] = (await store.take([{ limit, key: 'k', cost: 0 }])) as [Verdict]
            const known = step.allowed && algorithms[kind].expiresAt(step, limit) > taken.at
            const at = (now: number): number => {
              const adjusted =
                known || difference > 0 ? algorithms[kind].adjust(known ? step : nothing, now, difference, taken.at, limit) : nothing
              return algorithms[kind].take(adjusted, after.at, 0, limit).remaining
            }
            // It was made at some moment between the two.
            expect([at(taken.at), at(after.at)]).toContain(after.remaining)
          },
        ),
        { numRuns: 30 },
      )
    })
  })

  describe.each(clients)(`a ${program} that fails, through %s`, (_name, single) => {
    it('dies and comes back under load: nobody hangs, nobody sees an error, and the limit is shared again', async () => {
      await using server = await redisServer(program)
      await using connected = await single([server.port])
      using circuit = circuitMessages()
      const store = redisRateLimitStore({ client: connected.client, prefix: prefix(), retryAfter: '100ms' })
      const { proxy, stage } = limitedProxy(store, { limit: 100_000, onStoreError: 'local' })
      const statuses = new Set<number>()
      let sent = 0
      let running = true
      const load = async (): Promise<void> => {
        while (running) {
          statuses.add(await ask(proxy))
          sent++
          if (sent % 50 === 0) await pause(1)
        }
      }
      const loads = Promise.all(Array.from({ length: 8 }, load))
      await until('the first requests', () => sent > 200)
      await server.kill()
      const atDeath = sent
      await until('requests without a server', () => sent > atDeath + 400)
      await server.restart()
      const probe: Limit = { id: 'probe', name: 'probe', algorithm: 'gcra', quota: 1e6, windowMs: hour, burst: 1e6, maxDelayMs: 0 }
      const answered = (): Promise<boolean> =>
        Promise.resolve(store.take([{ limit: probe, key: 'k', cost: 1 }])).then(
          () => true,
          () => false,
        )
      await eventually('an answer of the server again', answered)
      const answeredAt = sent
      await until('the end of what was on its way', () => sent > answeredAt + 50)
      const failures = (): number => stage.stats().storeErrors + stage.stats().storeTimeouts
      const [failed, before] = [failures(), sent]
      expect(failed).toBeGreaterThan(0)
      await until('requests with the server back', () => sent > before + 200)
      running = false
      await loads
      expect([...statuses]).toEqual([200])
      // From its first answer on it decides everything again.
      expect(failures()).toBe(failed)
      expect(circuit.states.at(-1)).not.toBe('open')
      await proxy.close()
    })

    it('dies and comes back empty while two proxies are at the limit: they admit no more than the page says', async () => {
      await using server = await redisServer(program)
      await using first = await single([server.port])
      await using second = await single([server.port])
      const limit = 150
      const shared = prefix()
      const proxies = [first, second].map(
        ({ client }) =>
          limitedProxy(redisRateLimitStore({ client, prefix: shared, retryAfter: '50ms' }), {
            limit,
            algorithm: 'fixed-window',
            onStoreError: 'local',
          }).proxy,
      )
      let running = true
      const seen = proxies.map(() => ({ admitted: 0, refused: 0, other: 0 }))
      const load = async (at: number): Promise<void> => {
        for (let i = 1; running; i++) {
          const status = await ask(proxies[at] as ReverseProxy)
          const count = seen[at] as (typeof seen)[0]
          if (status === 200) count.admitted++
          else if (status === 429) count.refused++
          else count.other++
          if (i % 20 === 0) await pause(1)
        }
      }
      const loads = Promise.all([0, 0, 0, 1, 1, 1].map(load))
      const admitted = (): number => seen.reduce((sum, one) => sum + one.admitted, 0)
      const full = async (what: string): Promise<void> => {
        const before = seen.map(({ refused }) => refused)
        await until(what, () => seen.every(({ refused }, i) => refused > (before[i] as number) + 100), 15_000)
      }
      await full('both at the shared limit')
      expect(admitted()).toBe(limit)
      await server.kill()
      // Each on its own: what it admits is refused at some time, too.
      await until('each at its own limit', () => seen.every(({ admitted: own }) => own >= limit), 15_000)
      await full('each refusing by itself')
      expect(admitted()).toBeLessThanOrEqual(limit + proxies.length * limit)
      await server.restart()
      await until('the empty server has been asked', () => admitted() > limit + proxies.length * limit, 15_000)
      await full('both at the shared limit again')
      running = false
      await loads
      // What it was asked when it died, and never answered, it may have counted, and they decided anew: never more than this.
      expect(admitted()).toBeLessThanOrEqual(limit + proxies.length * limit + limit)
      expect(seen.map(({ other }) => other)).toEqual([0, 0])
      for (const proxy of proxies) await proxy.close()
    }, 60_000)

    it('refuses when that is what was asked for, at once, and lets through again afterwards', async () => {
      await using server = await redisServer(program)
      await using connected = await single([server.port])
      const store = redisRateLimitStore({ client: connected.client, prefix: prefix(), retryAfter: '50ms' })
      const { proxy } = limitedProxy(store, { onStoreError: 'deny' })
      expect(await ask(proxy)).toBe(200)
      await server.kill()
      await eventually('a refusal', async () => (await ask(proxy)) === 503)
      await server.restart()
      await eventually('a way through', async () => (await ask(proxy)) === 200)
      await proxy.close()
    })

    it('forgets its scripts: the next decision brings them along', async () => {
      await using server = await redisServer(program)
      await using connected = await single([server.port])
      const { proxy } = limitedProxy(redisRateLimitStore({ client: connected.client, prefix: prefix(), timeout: '5s' }), {
        limit: 3,
        onStoreError: 'deny',
      })
      expect(await ask(proxy)).toBe(200)
      server.command('SCRIPT', 'FLUSH')
      expect([await ask(proxy), await ask(proxy), await ask(proxy)]).toEqual([200, 200, 429])
      await proxy.close()
    })

    it('a replica that is promoted goes on counting where its primary was', async () => {
      await using primary = await redisServer(program)
      await using replica = await redisServer(program, ['--replicaof', '127.0.0.1', String(primary.port)])
      await until('a replica in step', () => replica.command('INFO', 'replication').includes('master_link_status:up'), 15_000)
      await using address = await movingAddress(primary.port)
      await using connected = await single([address.port])
      await countThroughPromotion(connected.client, primary, replica, () => {
        replica.command('REPLICAOF', 'NO', 'ONE')
        address.moveTo(replica.port)
      })
    })
  })

  it(`a server that hangs costs a few requests the deadline and the others nothing, and its queue stays small (${program})`, async () => {
    await using server = await redisServer(program)
    const redis = await impatient(server.port)
    const client = fromIoredis(redis)
    const calls: string[] = []
    const counted = {
      ...client,
      name: 'counted',
      get ready() {
        return client.ready
      },
      evalSha: (...args: Parameters<typeof client.evalSha>) => {
        calls.push('sent')
        return client.evalSha(...args)
      },
    }
    const store = redisRateLimitStore({ client: counted, prefix: prefix(), timeout: '50ms', failures: 5, retryAfter: '1h', maxPending: 20 })
    const limit: Limit = { id: 'l', name: 'l', algorithm: 'gcra', quota: 10, windowMs: hour, burst: 10, maxDelayMs: 0 }
    const codeOf = (taken: unknown): Promise<string> =>
      Promise.resolve(taken).then(
        () => 'answered',
        (error: { code: string }) => error.code,
      )
    server.freeze()
    const burst = await Promise.all(Array.from({ length: 100 }, () => codeOf(store.take([{ limit, key: 'k', cost: 1 }]))))
    expect(burst.filter((code) => code === 'ERR_REDIS_TIMEOUT')).toHaveLength(20)
    expect(burst.filter((code) => code === 'ERR_REDIS_OVERLOADED')).toHaveLength(80)
    const later = await Promise.all(Array.from({ length: 1000 }, () => codeOf(store.take([{ limit, key: 'k', cost: 1 }]))))
    expect(new Set(later)).toEqual(new Set(['ERR_REDIS_CIRCUIT_OPEN']))
    expect(calls).toHaveLength(20)
    server.thaw()
    redis.disconnect()
  })

  it(`a client that is not connected is not given anything to queue (${program})`, async () => {
    await using server = await redisServer(program)
    const redis = await impatient(server.port)
    const store = redisRateLimitStore({ client: fromIoredis(redis), prefix: prefix() })
    const limit: Limit = { id: 'l', name: 'l', algorithm: 'gcra', quota: 10, windowMs: hour, burst: 10, maxDelayMs: 0 }
    await server.kill()
    await until('a client that noticed', () => redis.status !== 'ready')
    await expect(store.take([{ limit, key: 'k', cost: 1 }])).rejects.toMatchObject({ code: 'ERR_REDIS_NOT_READY' })
    redis.disconnect()
  })

  it.each(sentinelClients)(
    `a sentinel that promotes the replica is followed, and counting goes on (${program}, %s)`,
    async (_name, open) => {
      await using primary = await redisServer(program)
      await using replica = await redisServer(program, ['--replicaof', '127.0.0.1', String(primary.port)])
      await until('a replica in step', () => replica.command('INFO', 'replication').includes('master_link_status:up'), 15_000)
      await using sentinel = await redisSentinel(program, primary)
      await using connected = await open(sentinel.port)
      await countThroughPromotion(connected.client, primary, replica, () => {})
      expect(replica.command('ROLE')).toMatch(/^master/)
    },
    60_000,
  )

  it(`a session that one proxy learned is known to the other, and a server that dies costs affinity, not requests (${program})`, async () => {
    await using server = await redisServer(program)
    const name = prefix()
    const made: { proxy: ReverseProxy; redis: Redis }[] = []
    for (let i = 0; i < 2; i++) {
      const redis = await impatient(server.port)
      const store = redisSessionStore({ client: fromIoredis(redis), prefix: name, retryAfter: '50ms' })
      const transport = fakeTransport(({ headers }, upstream) => ({
        headers: headers.has('cookie') ? { 'X-From': upstream.id } : { 'X-From': upstream.id, 'Set-Cookie': `sid=of-${upstream.id}` },
      }))
      const upstreams = ['a', 'b', 'c', 'd', 'e'].map((id) => ({ url: `http://${id}.test`, id }))
      made.push({ redis, proxy: createProxy({ upstreams, transport, use: [learnSession({ cookie: 'sid', store })] }) })
    }
    const [one, two] = made.map(({ proxy }) => proxy) as [ReverseProxy, ReverseProxy]
    for (let i = 0; i < 10; i++) {
      const begun = await one.inject({ url: '/' })
      const cookie = (begun.headers.get('set-cookie') as string).split(';')[0] as string
      for (const proxy of [two, one, two]) {
        const { headers, status } = await proxy.inject({ url: '/', headers: { Cookie: cookie } })
        expect([status, headers.get('x-from')]).toEqual([200, begun.headers.get('x-from')])
      }
    }
    await server.kill()
    for (let i = 0; i < 50; i++) expect((await two.inject({ url: '/', headers: { Cookie: 'sid=of-a' } })).status).toBe(200)
    for (const { proxy, redis } of made) {
      await proxy.close()
      redis.disconnect()
    }
  })
}
