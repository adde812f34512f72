/** A store that throws, hangs, or talks nonsense neither hangs a request nor ends it with a 500. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createProxy } from '@weir/core'
import { fakeTransport, virtualClock } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { RateLimitStoreFailure } from './events.ts'
import { memoryStore, type RateLimitOptions, type RateLimitStore, rateLimit, type Verdict } from './index.ts'

type Take = RateLimitStore['take']

function rig(store: Partial<RateLimitStore>, options: Partial<RateLimitOptions> = {}) {
  const clock = virtualClock(5000)
  const memory = memoryStore({ clock })
  const stage = rateLimit({
    limit: 2,
    window: '1h',
    clock,
    ...options,
    store: { name: 'far', take: (charges) => memory.take(charges), adjust: (...call) => memory.adjust(...call), ...store },
  } as RateLimitOptions)
  const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(() => ({})), use: [stage], retry: false })
  const failures: RateLimitStoreFailure[] = []
  const listen = (message: unknown): void => void failures.push(message as RateLimitStoreFailure)
  subscribe('weir:rate-limit:store', listen)
  onTestFinished(async () => {
    unsubscribe('weir:rate-limit:store', listen)
    await proxy.close()
  })
  return { clock, stage, proxy, failures, ask: () => proxy.inject({ url: '/' }) }
}

const nonsense: readonly (readonly [string, Take])[] = [
  [
    'throws',
    () => {
      throw new Error('gone')
    },
  ],
  ['rejects', () => Promise.reject(new Error('gone'))],
  ['answers nothing', () => undefined as unknown as Verdict[]],
  ['answers too few', async () => []],
]

describe.each(nonsense)('a store that %s', (_, take) => {
  it('local: the own memory decides meanwhile', async () => {
    const { ask, stage, failures } = rig({ take })
    expect([(await ask()).status, (await ask()).status, (await ask()).status]).toEqual([200, 200, 429])
    expect(stage.stats()).toMatchObject({ allowed: 2, refused: 1, storeErrors: 3, storeTimeouts: 0, entries: 1 })
    expect(failures.map(({ store, call, timeout, action }) => [store, call, timeout, action])).toEqual(
      Array(3).fill(['far', 'take', false, 'local']),
    )
  })

  it('allow: everybody passes', async () => {
    const { ask, stage } = rig({ take }, { onStoreError: 'allow' })
    expect([(await ask()).status, (await ask()).status, (await ask()).status]).toEqual([200, 200, 200])
    expect(stage.stats()).toMatchObject({ allowed: 3, storeErrors: 3 })
  })

  it('deny: nobody passes, and it is our fault', async () => {
    const { ask, stage } = rig({ take }, { onStoreError: 'deny' })
    const { status, headers } = await ask()
    expect([status, headers.get('Retry-After')]).toEqual([503, '1'])
    expect(stage.stats()).toMatchObject({ refused: 1, storeErrors: 1 })
  })

  it('deny in a dry run: everybody passes', async () => {
    const { ask, stage } = rig({ take }, { onStoreError: 'deny', dryRun: true })
    expect((await ask()).status).toBe(200)
    expect(stage.stats()).toMatchObject({ dryRefused: 1 })
  })
})

describe('a store that hangs', () => {
  it('is waited for so long and no longer', async () => {
    const { ask, stage, clock, failures } = rig({ take: () => new Promise(() => {}) }, { storeTimeout: 250 })
    let answered = false
    const asked = ask().finally(() => {
      answered = true
    })
    await clock.advance(249)
    expect(answered).toBe(false)
    await clock.advance(1)
    expect((await asked).status).toBe(200)
    expect(stage.stats()).toMatchObject({ allowed: 1, storeErrors: 0, storeTimeouts: 1 })
    expect(failures[0]).toMatchObject({ timeout: true, action: 'local' })
    expect(clock.pending).toBe(0)
  })

  it('and answers or fails too late changes nothing more', async () => {
    const { promise, reject } = Promise.withResolvers<Verdict[]>()
    const { ask, stage, clock } = rig({ take: () => promise }, { onStoreError: 'deny' })
    const asked = ask()
    await clock.advance(100)
    expect((await asked).status).toBe(503)
    reject(new Error('late'))
    await clock.advance(1000)
    expect(stage.stats()).toMatchObject({ refused: 1, storeErrors: 0, storeTimeouts: 1 })
  })
})

it('a slow store that answers in time decides, and leaves no timer', async () => {
  const { ask, clock, stage } = rig({})
  const slow = rig({ take: async (charges) => memoryStore().take(charges) })
  expect([(await ask()).status, (await slow.ask()).status]).toEqual([200, 200])
  expect([clock.pending, slow.clock.pending, stage.stats().storeErrors]).toEqual([0, 0, 0])
})

describe('settling on a store that fails', () => {
  const settle = (): number => 2
  it.each([
    [
      'throws',
      () => {
        throw new Error('gone')
      },
      { storeErrors: 1, storeTimeouts: 0 },
    ],
    ['rejects', () => Promise.reject(new Error('gone')), { storeErrors: 1, storeTimeouts: 0 }],
    ['hangs', () => new Promise<void>(() => {}), { storeErrors: 0, storeTimeouts: 1 }],
  ] as const)('%s: it is counted', async (_, adjust, expected) => {
    const { ask, stage, clock, failures } = rig({ adjust }, { settle })
    expect((await ask()).status).toBe(200)
    await clock.advance(100)
    expect(stage.stats()).toMatchObject(expected)
    expect(failures[0]).toMatchObject({ call: 'adjust', action: 'none' })
  })

  it('what the own memory charged is settled there', async () => {
    const { ask } = rig(
      {
        take: () => {
          throw new Error('gone')
        },
        adjust: () => {
          throw new Error('not this one')
        },
      },
      { settle },
    )
    expect([(await ask()).status, (await ask()).status]).toEqual([200, 429])
  })
})
