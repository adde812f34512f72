/**
 * What every store must do, as cases that run under any test runner. Written for stores with a clock that nobody can move as well: time is what the
 * factory says it is (`sleep`), windows are long where the passing of time is not the subject, and no case depends on a duration being exact.
 *
 * ```ts
 * for (const { name, run } of rateLimitStoreConformance('mine', () => ({ store: mine(), sleep, close }))) test(name, run)
 * ```
 */
import assert from 'node:assert/strict'
import type { MaybePromise } from '@weir/core'
import type { AlgorithmName, Limit, Verdict } from './limit.ts'
import type { Charge, RateLimitStore } from './store.ts'

/** A store to try, and the time that it lives in. */
export interface StoreUnderTest {
  readonly store: RateLimitStore
  /** Lets the store's clock go on by at least so much: real waiting, or a move of the virtual clock that the store was given. */
  sleep(ms: number): MaybePromise<void>
  /** Two stores for the same keys: another connection to the same server. Default: the store itself, which must then stand concurrent calls. */
  readonly second?: RateLimitStore
  close?(): MaybePromise<void>
}

export interface RateLimitStoreCase {
  readonly name: string
  run(): Promise<void>
}

type Check = (test: StoreUnderTest, limitOf: LimitMaker) => Promise<void>
type LimitMaker = (algorithm: AlgorithmName, options?: Partial<Limit>) => Limit

const hour = 3_600_000
const all: readonly AlgorithmName[] = ['gcra', 'token-bucket', 'fixed-window', 'sliding-window', 'leaky-bucket']
const settling: readonly AlgorithmName[] = all.filter((algorithm) => algorithm !== 'leaky-bucket')

async function ask(store: RateLimitStore, limit: Limit, cost = 1, key = 'k'): Promise<Verdict> {
  const [verdict] = await store.take([{ limit, key, cost }])
  assert.ok(verdict, 'a verdict for every charge')
  return verdict
}

/** `quota` per hour: with a leaky bucket so many places to wait, one more that goes at once. */
const admitted = (limit: Limit): number => (limit.algorithm === 'leaky-bucket' ? limit.quota + 1 : limit.quota)

/** Each check with the algorithms that it is about. */
const checks: readonly (readonly [title: string, algorithms: readonly AlgorithmName[], check: (algorithm: AlgorithmName) => Check])[] = [
  [
    'allows exactly the limit, and says what is left',
    all,
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 5 })
        const most = admitted(limit)
        for (let i = 1; i <= most; i++) {
          const verdict = await ask(store, limit)
          assert.equal(verdict.allowed, true, `request ${i} of ${most}`)
          assert.equal(verdict.remaining, most - i)
          assert.equal(verdict.retryAfterMs, 0)
        }
        const refused = await ask(store, limit)
        assert.equal(refused.allowed, false)
        assert.equal(refused.remaining, 0)
        assert.ok(refused.retryAfterMs > 0 && refused.retryAfterMs <= 2 * limit.windowMs, `retryAfterMs: ${refused.retryAfterMs}`)
      },
  ],
  [
    'allows exactly the limit when all ask at once, over both connections',
    all,
    (algorithm) =>
      async ({ store, second = store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 50 })
        const verdicts = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(i % 2 === 0 ? store : second, limit)))
        assert.equal(verdicts.filter(({ allowed }) => allowed).length, admitted(limit))
      },
  ],
  [
    'keeps keys and limits apart',
    all,
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 1, maxDelayMs: 0 })
        const other = limitOf(algorithm, { quota: 1, maxDelayMs: 0, id: `${limit.id}:other` })
        assert.equal((await ask(store, limit, 1, 'a')).allowed, true)
        assert.equal((await ask(store, limit, 1, 'a')).allowed, false)
        assert.equal((await ask(store, limit, 1, 'b')).allowed, true)
        assert.equal((await ask(store, other, 1, 'a')).allowed, true)
      },
  ],
  [
    'begins anew where a limit of its name had another algorithm',
    all,
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 4 })
        const others = all.filter((other) => other !== algorithm).map((other) => limitOf(other, { quota: 2 }))
        for (const other of others) for (let i = 0; i < admitted(other); i++) assert.equal((await ask(store, other)).allowed, true)
        const most = admitted(limit)
        for (let i = 1; i <= most; i++) assert.equal((await ask(store, limit)).allowed, true, `request ${i} of ${most}`)
        for (const each of [limit, ...others]) assert.equal((await ask(store, each)).allowed, false, each.algorithm)
      },
  ],
  [
    'takes any characters in a key',
    ['gcra'],
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 1 })
        for (const key of ['', ' ', '{a}', 'a:b', '*', '\0', 'é', '漢', '\u{1f600}', '\ud800', 'x'.repeat(64)]) {
          assert.equal((await ask(store, limit, 1, key)).allowed, true, JSON.stringify(key))
          assert.equal((await ask(store, limit, 1, key)).allowed, false, JSON.stringify(key))
        }
      },
  ],
  [
    'charges what a request costs, and nothing for a refused one',
    settling,
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 10 })
        assert.equal((await ask(store, limit, 7)).remaining, 3)
        const refused = await ask(store, limit, 4)
        assert.deepEqual([refused.allowed, refused.remaining], [false, 3])
        assert.deepEqual([(await ask(store, limit, 3)).allowed, (await ask(store, limit, 0)).allowed], [true, true])
        assert.equal((await ask(store, limit, 11)).retryAfterMs, Number.POSITIVE_INFINITY)
      },
  ],
  [
    'charges all limits or none',
    settling,
    (algorithm) =>
      async ({ store }, limitOf) => {
        const wide = limitOf(algorithm, { quota: 10, id: `${limitOf(algorithm).id}:wide` })
        const tight = limitOf(algorithm, { quota: 2, id: `${limitOf(algorithm).id}:tight` })
        const charges: readonly Charge[] = [
          { limit: wide, key: 'k', cost: 1 },
          { limit: tight, key: 'k', cost: 1 },
        ]
        for (const left of [9, 8])
          assert.deepEqual(
            (await store.take(charges)).map(({ remaining }) => remaining),
            [left, left - 8],
          )
        for (let i = 0; i < 3; i++) {
          const refused = await store.take(charges)
          assert.deepEqual(
            refused.map(({ allowed, remaining }) => [allowed, remaining]),
            [
              [true, 8],
              [false, 0],
            ],
          )
        }
        assert.equal((await ask(store, wide)).remaining, 7)
      },
  ],
  [
    'gives back, no more than was taken, and charges more',
    settling,
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 10 })
        const { at } = await ask(store, limit, 8)
        await store.adjust(limit, 'k', -5, at)
        assert.equal((await ask(store, limit, 1)).remaining, 6)
        await store.adjust(limit, 'k', -500, at)
        assert.equal((await ask(store, limit, 1)).remaining, 9)
        await store.adjust(limit, 'k', 20, at)
        const overdrawn = await ask(store, limit, 0)
        assert.deepEqual([overdrawn.allowed, overdrawn.remaining], [false, 0])
      },
  ],
  [
    'forgets when the time is up',
    all,
    (algorithm) =>
      async ({ store, sleep }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 2, windowMs: 300, maxDelayMs: 0 })
        const most = algorithm === 'leaky-bucket' ? 1 : 2
        for (let i = 0; i < most; i++) assert.equal((await ask(store, limit)).allowed, true)
        await sleep(700)
        const anew = await ask(store, limit)
        assert.deepEqual([anew.allowed, anew.remaining], [true, most - 1])
      },
  ],
  [
    'gives out turns in order, as far apart as the rate says',
    ['leaky-bucket'],
    (algorithm) =>
      async ({ store }, limitOf) => {
        const limit = limitOf(algorithm, { quota: 10, windowMs: hour, maxDelayMs: hour })
        const apart = limit.windowMs / limit.quota
        const delays: number[] = []
        for (let i = 0; i < 4; i++) delays.push((await ask(store, limit)).delayMs)
        // Real time may pass between the calls: it only makes the wait shorter.
        delays.forEach((delay, i) => void assert.ok(delay <= i * apart + 1 && delay > (i - 1) * apart, `turn ${i}: ${delay}`))
        const left = await ask(store, limit)
        await store.adjust(limit, 'k', -1, left.at)
        assert.ok((await ask(store, limit)).delayMs <= left.delayMs + 1, 'the place of who left is free')
      },
  ],
]

let runs = 0

/** @param make called once per case; keys of one case are not used by another */
export function rateLimitStoreConformance(name: string, make: () => MaybePromise<StoreUnderTest>): RateLimitStoreCase[] {
  return checks.flatMap(([title, algorithms, check]) =>
    algorithms.map((algorithm) => ({
      name: `${name}: ${algorithm} ${title}`,
      async run() {
        // A server that several runs share must not remember one of them in the next.
        const id = `conformance:${process.pid}:${Date.now()}:${runs++}`
        const test = await make()
        const limitOf: LimitMaker = (kind, options = {}) => {
          const quota = options.quota ?? 10
          const made: Limit = { id, name: 'test', algorithm: kind, quota, windowMs: hour, burst: quota, maxDelayMs: 0, ...options }
          return kind === 'leaky-bucket' && options.maxDelayMs === undefined ? { ...made, maxDelayMs: made.windowMs } : made
        }
        try {
          await check(algorithm)(test, limitOf)
        } finally {
          await test.close?.()
        }
      },
    })),
  )
}
