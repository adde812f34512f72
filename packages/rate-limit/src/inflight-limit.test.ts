/** So many at once per key; a place is free again exactly once, however an exchange ends. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createProxy, type StageLike } from '@weir/core'
import { type FakeResponse, fakeTransport } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { RateLimitDecision } from './events.ts'
import { type InflightLimitOptions, inflightLimit } from './index.ts'

function rig(options: InflightLimitOptions, inner: readonly StageLike[] = []) {
  const held: ((answer: FakeResponse) => void)[] = []
  const transport = fakeTransport(() => {
    const { promise, resolve } = Promise.withResolvers<FakeResponse>()
    held.push(resolve)
    return promise
  })
  const stage = inflightLimit(options)
  const proxy = createProxy({ upstreams: ['http://a.test'], transport, use: [stage, ...inner], retry: false })
  onTestFinished(async () => {
    for (const resolve of held) resolve({})
    await proxy.close()
  })
  return {
    stage,
    ask: (remoteAddress = '192.0.2.1') =>
      proxy.inject({ remoteAddress }).then(({ status, headers }) => [status, headers.get('retry-after')]),
    answer: (answer: FakeResponse = {}) => held.shift()?.(answer),
    turn: () => new Promise<void>((resolve) => setImmediate(resolve)),
  }
}

it('refuses one more than the limit, per key, and lets the next in when one has ended', async () => {
  const { ask, answer, stage, turn } = rig({ limit: 2 })
  const running = [ask(), ask(), ask('192.0.2.2')]
  await turn()
  expect(await ask()).toEqual([429, '1'])
  expect(stage.stats()).toEqual({ allowed: 3, refused: 1, dryRefused: 0, exempt: 0, inflight: 3, keys: 2 })
  answer()
  expect(await Promise.race(running)).toEqual([200, undefined])
  const next = ask()
  await turn()
  expect(await ask()).toEqual([429, '1'])
  for (let i = 0; i < 3; i++) answer()
  await Promise.all([...running, next])
  expect(stage.stats()).toMatchObject({ allowed: 4, refused: 2, inflight: 0, keys: 0 })
})

it('a refused one takes no place, and gives none back', async () => {
  const { ask, answer, stage, turn } = rig({ limit: 1 })
  const running = ask()
  await turn()
  for (let i = 0; i < 3; i++) expect(await ask()).toEqual([429, '1'])
  expect(stage.stats().inflight).toBe(1)
  answer()
  await running
  expect(stage.stats()).toMatchObject({ inflight: 0, keys: 0 })
})

describe('a place is free again', () => {
  it('when the upstream failed', async () => {
    const { ask, answer, stage, turn } = rig({ limit: 1 })
    const running = ask()
    await turn()
    answer({ error: 'ERR_CONNECT_REFUSED' })
    expect((await running)[0]).toBe(502)
    expect(stage.stats()).toMatchObject({ inflight: 0, keys: 0 })
  })

  it('when a stage further in answered, or threw', async () => {
    const answers = [
      () => ({ status: 418 }),
      () => {
        throw new Error('no')
      },
    ]
    const { ask, stage } = rig({ limit: 1 }, [() => answers.shift()?.()])
    expect([(await ask())[0], (await ask())[0]]).toEqual([418, 500])
    expect(stage.stats()).toMatchObject({ allowed: 2, inflight: 0, keys: 0 })
  })

  it('once: an end that is told twice frees one', async () => {
    const { stage } = rig({ limit: 3, key: () => 'k' })
    const exchange = {} as Parameters<typeof stage.handle>[0]
    const hooks = [await stage.handle(exchange), await stage.handle(exchange)]
    const [first] = hooks as { onFinish(): void }[]
    first?.onFinish()
    first?.onFinish()
    expect(stage.stats().inflight).toBe(1)
  })
})

it('a late key counts as well; without one nobody is counted', async () => {
  const keys = ['a', 'a', undefined]
  const { ask, answer, stage, turn } = rig({ limit: 1, key: async () => keys.shift() })
  const running = ask()
  await turn()
  expect((await ask())[0]).toBe(429)
  const free = ask()
  await turn()
  expect(stage.stats()).toMatchObject({ inflight: 1, exempt: 1 })
  answer()
  answer()
  await Promise.all([running, free])
})

it('exempt clients are not counted', async () => {
  const { ask, answer, stage, turn } = rig({ limit: 1, exempt: ['192.0.2.0/24'] })
  const running = [ask(), ask()]
  await turn()
  expect(stage.stats()).toMatchObject({ inflight: 0, exempt: 2 })
  answer()
  answer()
  await Promise.all(running)
})

it('a dry run counts and publishes, and lets everybody in', async () => {
  const seen: RateLimitDecision[] = []
  const listen = (message: unknown): void => void seen.push(message as RateLimitDecision)
  subscribe('weir:rate-limit:decision', listen)
  onTestFinished(() => void unsubscribe('weir:rate-limit:decision', listen))
  const { ask, answer, stage, turn } = rig({ limit: 1, dryRun: true })
  const running = [ask(), ask()]
  await turn()
  expect(stage.stats()).toMatchObject({ allowed: 1, refused: 0, dryRefused: 1, inflight: 2 })
  expect(seen.map(({ verdict, remaining }) => [verdict, remaining])).toEqual([
    ['allowed', 0],
    ['dry', 0],
  ])
  answer()
  answer()
  expect(await Promise.all(running)).toEqual([
    [200, undefined],
    [200, undefined],
  ])
  expect(stage.stats()).toMatchObject({ inflight: 0, keys: 0 })
})
