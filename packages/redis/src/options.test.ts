/** Wrong options are told all at once, by their names; and in the editor. */
import { OptionsError } from '@weir/core'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { redisCacheStore } from './cache-store.ts'
import { type BinaryRedisClient, fromIoredis, fromNodeRedis, type RedisClient } from './client.ts'
import { redisRateLimitStore } from './rate-limit-store.ts'
import { redisSessionStore } from './session-store.ts'

const client: RedisClient = { name: 'fake', cluster: false, ready: true, evalSha: async () => [], eval: async () => [] }
const binaryClient: BinaryRedisClient = { ...client, binary: client }

function problemsOf(make: () => unknown): string[] {
  try {
    make()
  } catch (error) {
    expect(error).toBeInstanceOf(OptionsError)
    return (error as OptionsError).problems.map(({ path }) => path)
  }
  return []
}

describe.each([
  ['redisRateLimitStore', redisRateLimitStore],
  ['redisSessionStore', redisSessionStore],
  ['redisCacheStore', redisCacheStore as (options: never) => unknown],
] as const)('%s', (_name, make: (options: never) => unknown) => {
  it('names everything that is wrong', () => {
    const wrong = { client: {}, prefix: 'a{b}', timeout: 0, maxPending: 0.5, failures: 0, retryAfter: '-1s', clock: 1, color: 'red' }
    expect(problemsOf(() => make(wrong as never)).toSorted()).toEqual(
      ['client', 'clock', 'color', 'failures', 'maxPending', 'prefix', 'retryAfter', 'timeout'].toSorted(),
    )
  })

  it('needs a client, and one that was adapted', () => {
    expect(problemsOf(() => make(undefined as never))).toEqual(['client'])
    expect(problemsOf(() => make({ client: { status: 'ready', evalsha() {} } } as never))).toEqual(['client'])
    expect(problemsOf(() => make({ client: binaryClient } as never))).toEqual([])
  })
})

it('shards by what it knows', () => {
  expect(problemsOf(() => redisRateLimitStore({ client, shardBy: 'node' as never }))).toEqual(['shardBy'])
})

it('a cache is bounded, and needs bytes', () => {
  const wrong = { client: binaryClient, maxObjectSize: 0, maxVariants: 0, keepStale: '-1s', shards: 0.5 }
  expect(problemsOf(() => redisCacheStore(wrong as never)).toSorted()).toEqual(['keepStale', 'maxObjectSize', 'maxVariants', 'shards'])
  expect(problemsOf(() => redisCacheStore({ client } as never))).toEqual(['client'])
})

describe('on a cluster', () => {
  const cluster: RedisClient = { ...client, cluster: true }
  const limit = { name: 'l', algorithm: 'gcra', quota: 1, windowMs: 1000, burst: 1, maxDelayMs: 0 } as const
  const charges = ['a', 'b'].map((key) => ({ limit: { ...limit, id: key }, key, cost: 1 }))

  it('one decision about keys that may live apart is refused, with what to do about it', async () => {
    await expect(redisRateLimitStore({ client: cluster }).take(charges)).rejects.toMatchObject({ code: 'ERR_REDIS_CROSS_SLOT' })
  })

  it('unless they are kept together', async () => {
    const seen: (readonly string[])[] = []
    const answering: RedisClient = {
      ...cluster,
      evalSha: async (_sha, keys) => {
        seen.push(keys)
        return ['1', '0', '0', '0', '0', '1', '0', '0', '0', '0', '5']
      },
    }
    await redisRateLimitStore({ client: answering, shardBy: 'prefix' }).take(charges)
    await redisRateLimitStore({ client: answering }).take(charges.map((charge) => ({ ...charge, key: 'same' })))
    for (const keys of seen) expect(new Set(keys.map((key) => /\{([^}]*)\}/.exec(key)?.[1])).size).toBe(1)
  })
})

it('an answer that is none is an error, not a verdict', async () => {
  const limit = { id: 'l', name: 'l', algorithm: 'gcra', quota: 1, windowMs: 1000, burst: 1, maxDelayMs: 0 } as const
  for (const answer of [undefined, 'OK', [], ['1'], ['x', '0', '0', '0', '0', '5']]) {
    const store = redisRateLimitStore({ client: { ...client, evalSha: async () => answer } })
    await expect(store.take([{ limit, key: 'k', cost: 1 }]), JSON.stringify(answer)).rejects.toMatchObject({ code: 'ERR_REDIS_REPLY' })
  }
  const sessions = redisSessionStore({ client: { ...client, evalSha: async () => 7 } })
  await expect(sessions.get('k')).rejects.toMatchObject({ code: 'ERR_REDIS_REPLY' })
  for (const answer of [undefined, 'OK', [], ['x'], [null], [['1']]]) {
    const cache = redisCacheStore({ client: { ...binaryClient, evalSha: async () => answer } })
    for (const call of [cache.find('k'), cache.invalidate('k', { kind: 'delete' }), cache.invalidateTag('t', { kind: 'delete' })])
      await expect(call, JSON.stringify(answer)).rejects.toMatchObject({ code: 'ERR_REDIS_REPLY' })
  }
})

it('types: the client has to be adapted, and options are known', () => {
  expectTypeOf(fromIoredis).returns.toEqualTypeOf<BinaryRedisClient>()
  expectTypeOf(fromNodeRedis).returns.toEqualTypeOf<BinaryRedisClient>()
  // @ts-expect-error a client
  expect(() => redisRateLimitStore({})).toThrow()
  // @ts-expect-error not adapted
  expect(() => redisSessionStore({ client: { status: 'ready' } })).toThrow()
  // @ts-expect-error one that gives text only
  expect(() => redisCacheStore({ client })).toThrow()
  // @ts-expect-error a unit
  expect(() => redisSessionStore({ client, timeout: '80' })).toThrow()
})
