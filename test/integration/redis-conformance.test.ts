/** The stores of @weir/redis do what stores must, with every client, on Redis and on Valkey, on a single server and on a cluster of three. */
import { setTimeout as pause } from 'node:timers/promises'
import { cacheStoreConformance } from '@weir/cache'
import { rateLimitStoreConformance } from '@weir/rate-limit'
import { redisCacheStore, redisRateLimitStore, redisSessionStore } from '@weir/redis'
import { sessionStoreConformance } from '@weir/sticky'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Connected, clients } from './redis-clients.ts'
import { missingPrograms, type RedisCluster, type RedisServer, redisCluster, redisPrograms, redisServer } from './redis-server.ts'

let runs = 0
const patient = { timeout: 5000 } as const

function suite(ports: () => readonly number[]): void {
  for (const [name, single, cluster] of clients)
    describe(name, () => {
      let one: Connected
      let two: Connected
      beforeAll(async () => {
        const open = ports().length > 1 ? cluster : single
        one = await open(ports())
        two = await open(ports())
      })
      afterAll(async () => {
        await one[Symbol.asyncDispose]()
        await two[Symbol.asyncDispose]()
      })

      for (const { name: title, run } of rateLimitStoreConformance('rate-limit', () => {
        const prefix = `test-${process.pid}-${runs++}`
        return {
          store: redisRateLimitStore({ client: one.client, prefix, ...patient }),
          second: redisRateLimitStore({ client: two.client, prefix, ...patient }),
          sleep: (ms) => pause(ms),
        }
      }))
        it.concurrent(title, run)

      for (const { name: title, run } of sessionStoreConformance(
        () => ({
          store: redisSessionStore({ client: one.client, prefix: `test-${process.pid}-${runs++}`, ...patient }),
          now: Date.now,
          wait: (ms) => pause(ms),
        }),
        { unit: 400 },
      ))
        it.concurrent(`sessions: ${title}`, run)

      for (const { name: title, run } of cacheStoreConformance({
        name: 'cache',
        tooLarge: (4 << 20) + 1,
        maxVariants: 12,
        shared: true,
        counts: false,
        make: () => {
          const options = { prefix: `test-${process.pid}-${runs++}`, maxObjectSize: '4MiB', maxVariants: 12, ...patient } as const
          return { store: redisCacheStore({ client: one.client, ...options }), second: redisCacheStore({ client: two.client, ...options }) }
        },
      }))
        it.concurrent(title, run)
    })
}

for (const program of missingPrograms) {
  if (process.env.WEIR_REQUIRE_ALL === '1') it(`needs ${program}`, () => expect.unreachable(`${program} is not installed`))
  else it.skip(`${program} is not installed`, () => {})
}

for (const program of redisPrograms) {
  describe(`on a single ${program}`, () => {
    let server: RedisServer
    beforeAll(async () => {
      server = await redisServer(program)
    })
    afterAll(() => server[Symbol.asyncDispose]())
    suite(() => [server.port])
  })

  describe(`on a cluster of ${program}`, () => {
    let cluster: RedisCluster
    beforeAll(async () => {
      cluster = await redisCluster(program)
    }, 60_000)
    afterAll(() => cluster[Symbol.asyncDispose]())
    suite(() => cluster?.nodes.map(({ port }) => port) ?? [0, 0])
  })
}
