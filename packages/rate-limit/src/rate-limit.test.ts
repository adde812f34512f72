/** The stage in a real proxy without a network, under a clock that the test moves. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { InjectedRequest } from '@weir/core'
import { type FakeResponse, runStage, stageRunner, virtualClock } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { RateLimitDecision } from './events.ts'
import { memoryStore, type RateLimitOptions, type RateLimitStore, rateLimit } from './index.ts'

function rig(options: RateLimitOptions, response: FakeResponse = {}) {
  const clock = virtualClock(5000)
  const stage = rateLimit({ clock, ...options })
  const runner = stageRunner(stage, { response })
  onTestFinished(() => runner.close())
  const ask = async (request: InjectedRequest = {}, answer?: FakeResponse) => {
    const { response: got } = await runner.send(request, answer === undefined ? undefined : { response: answer })
    return { status: got.status, headers: got.headers, policy: got.headers.get('RateLimit-Policy'), left: got.headers.get('RateLimit') }
  }
  const statuses = async (count: number, request?: InjectedRequest): Promise<number[]> => {
    const seen: number[] = []
    for (let i = 0; i < count; i++) seen.push((await ask(request)).status)
    return seen
  }
  return { clock, stage, ask, statuses }
}

function decisions(): RateLimitDecision[] {
  const seen: RateLimitDecision[] = []
  const listen = (message: unknown): void => void seen.push(message as RateLimitDecision)
  subscribe('weir:rate-limit:decision', listen)
  onTestFinished(() => void unsubscribe('weir:rate-limit:decision', listen))
  return seen
}

describe('the quick form', () => {
  it('lets the limit through, refuses the next, and lets it through when it has waited as it was told', async () => {
    const { ask, clock, stage } = rig({ limit: 3, window: '30s' })
    expect((await ask()).left).toBe('"default";r=2;t=10')
    expect((await ask()).left).toBe('"default";r=1;t=10')
    expect((await ask()).left).toBe('"default";r=0;t=10')
    const refused = await ask()
    expect([refused.status, refused.policy, refused.left]).toEqual([429, '"default";q=3;w=30', '"default";r=0;t=10'])
    expect(refused.headers.get('Retry-After')).toBe('10')
    await clock.advance(9990)
    expect((await ask()).status).toBe(429)
    await clock.advance(10)
    expect((await ask()).status).toBe(200)
    expect(stage.stats()).toMatchObject({ allowed: 4, refused: 2, dryRefused: 0, exempt: 0, entries: 1, evictions: 0 })
  })

  it('rounds Retry-After up and never says 0', async () => {
    const { ask, clock } = rig({ limit: 1, window: 1500 })
    await ask()
    expect((await ask()).headers.get('Retry-After')).toBe('2')
    await clock.advance(1499)
    const refused = await ask()
    expect([refused.headers.get('Retry-After'), refused.policy]).toEqual(['1', '"default";q=1;w=2'])
  })

  it('has another status where one is wanted, and says nothing where the limit is a secret', async () => {
    const { ask } = rig({ limit: 1, window: '1s', status: 503, headers: false })
    const [first, second] = [await ask(), await ask()]
    expect([first.status, first.left, first.policy]).toEqual([200, undefined, undefined])
    expect([second.status, second.left, second.headers.get('Retry-After')]).toEqual([503, undefined, '1'])
  })

  it('no request that was refused reaches the upstream', async () => {
    const stage = rateLimit({ limit: 1, window: '1h' })
    await runStage(stage)
    expect((await runStage(stage)).upstreamRequests).toHaveLength(0)
  })
})

describe('fields that the upstream set', () => {
  const own = { headers: { RateLimit: '"theirs";r=7', 'RateLimit-Policy': '"theirs";q=9' } }

  it('are replaced', async () => {
    const { ask } = rig({ limit: 5, window: '5s' }, own)
    expect(await ask()).toMatchObject({ policy: '"default";q=5;w=5', left: '"default";r=4;t=1' })
  })

  it('survive alone where that is wanted', async () => {
    const { ask } = rig({ limit: 5, window: '5s', upstreamHeaders: 'keep' }, own)
    expect(await ask()).toMatchObject({ policy: '"theirs";q=9', left: '"theirs";r=7' })
    expect(await ask({}, {})).toMatchObject({ policy: '"default";q=5;w=5', left: '"default";r=3;t=1' })
    expect(await ask({}, { headers: { 'RateLimit-Policy': '"theirs";q=9' } })).toMatchObject({ policy: '"theirs";q=9', left: undefined })
  })

  it('two stages list theirs side by side, also when the inner one refuses', async () => {
    const stages = [rateLimit({ name: 'outer', limit: 5, window: '5s' }), rateLimit({ name: 'inner', limit: 1, window: '3s' })]
    const runner = stageRunner(stages, { response: own })
    onTestFinished(() => runner.close())
    const first = (await runner.send()).response.headers
    expect([first.get('RateLimit-Policy'), first.get('RateLimit')]).toEqual([
      '"inner";q=1;w=3, "outer";q=5;w=5',
      '"inner";r=0;t=3, "outer";r=4;t=1',
    ])
    const second = (await runner.send()).response
    expect([second.status, second.headers.get('RateLimit-Policy')]).toEqual([429, '"inner";q=1;w=3, "outer";q=5;w=5'])
  })
})

describe('several limits', () => {
  const limits = [
    { name: 'burst', limit: 2, window: '1s' },
    { name: 'daily', limit: 5, window: '1d', algorithm: 'fixed-window' },
  ] as const

  it('list all in a response, and in a refusal those that refused', async () => {
    const { ask } = rig({ limits })
    expect(await ask()).toMatchObject({ policy: '"burst";q=2;w=1, "daily";q=5;w=86400', left: '"burst";r=1;t=1, "daily";r=4;t=86400' })
    await ask()
    const refused = await ask()
    expect([refused.status, refused.left, refused.headers.get('Retry-After')]).toEqual([429, '"burst";r=0;t=1', '1'])
    expect(refused.policy).toBe('"burst";q=2;w=1, "daily";q=5;w=86400')
  })

  it('charge nothing for a request that one of them refused', async () => {
    const { ask, statuses, clock } = rig({ limits })
    expect(await statuses(10)).toEqual([200, 200, ...Array(8).fill(429)])
    await clock.advance(1000)
    expect((await ask()).left).toBe('"burst";r=1;t=1, "daily";r=2;t=86399')
    await clock.advance(1000)
    expect(await statuses(3)).toEqual([200, 200, 429])
    await clock.advance(10_000)
    const refused = await ask()
    expect([refused.status, refused.left, refused.headers.get('Retry-After')]).toEqual([429, '"daily";r=0;t=86388', '86388'])
  })

  it('that refuse together tell the longer wait, whichever comes first', async () => {
    const both = [
      { name: 'long', limit: 1, window: '1h' },
      { name: 'short', limit: 1, window: '1s' },
    ] as const
    for (const limits of [both, both.toReversed()]) {
      const { ask } = rig({ limits })
      await ask()
      expect((await ask()).headers.get('Retry-After')).toBe('3600')
    }
  })

  it('have their own keys and costs, and leave out those that a request does not concern', async () => {
    const { ask } = rig({
      key: { header: 'x-user', missing: 'exempt' },
      limits: [
        { name: 'user', limit: 10, window: '10s', cost: ({ method }) => (method === 'POST' ? 5 : 1) },
        { name: 'all', limit: 100, window: '100s', key: () => 'everybody' },
      ],
    })
    expect((await ask({ method: 'POST', headers: { Host: 'a', 'X-User': 'ann' } })).left).toBe('"user";r=5;t=1, "all";r=99;t=1')
    expect((await ask({ headers: { Host: 'a', 'X-User': 'bob' } })).left).toBe('"user";r=9;t=1, "all";r=98;t=1')
    expect(await ask()).toMatchObject({ left: '"all";r=97;t=1', policy: '"all";q=100;w=100' })
  })
})

describe('costs', () => {
  it('that can never be paid are refused without a time to come back', async () => {
    const { ask } = rig({ limit: 5, window: '1s', cost: () => 6 })
    const refused = await ask()
    expect([refused.status, refused.headers.has('Retry-After')]).toEqual([429, false])
  })

  it('that are no numbers end the exchange and charge nothing', async () => {
    for (const wrong of [Number.NaN, -1, Number.POSITIVE_INFINITY, '3' as unknown as number]) {
      const costs = [wrong, 1]
      const { ask } = rig({ limit: 5, window: '5s', cost: () => costs.shift() as number })
      expect((await ask()).status).toBe(500)
      expect((await ask()).left).toBe('"default";r=4;t=1')
    }
  })

  it('settle after the response: more is charged, less is given back', async () => {
    const { ask, stage } = rig({
      limit: 100,
      window: '100s',
      cost: 10,
      settle: (_outcome, _exchange, headers) => (headers?.has('x-tokens') ? Number(headers.get('x-tokens')) : undefined),
    })
    const used = (tokens: string): FakeResponse => ({ headers: { 'X-Tokens': tokens } })
    expect((await ask({}, used('4'))).left).toBe('"default";r=90;t=1')
    expect((await ask({}, used('30'))).left).toBe('"default";r=86;t=1')
    expect((await ask({}, {})).left).toBe('"default";r=56;t=1')
    expect((await ask({}, used('0'))).left).toBe('"default";r=46;t=1')
    expect((await ask({}, used('1000'))).left).toBe('"default";r=46;t=1')
    const overdrawn = await ask()
    expect([overdrawn.status, overdrawn.left]).toEqual([429, '"default";r=0;t=945'])
    expect(stage.stats().settled).toBe(4)
  })

  it('settle by the outcome, also when the upstream failed', async () => {
    const { ask } = rig({ limit: 10, window: '10s', cost: 2, settle: ({ status }) => (status >= 500 ? 0 : undefined) })
    expect((await ask({}, { error: 'ERR_CONNECT_REFUSED' })).status).toBe(502)
    expect((await ask({}, {})).left).toBe('"default";r=8;t=1')
  })

  it('a settlement that is no number becomes a warning, and the charge stands', async () => {
    const { ask } = rig({ limit: 10, window: '10s', settle: () => Number.NaN })
    const warnings: string[] = []
    const listen = ({ message }: Error): void => void warnings.push(message)
    process.on('warning', listen)
    onTestFinished(() => void process.off('warning', listen))
    expect((await ask()).status).toBe(200)
    expect((await ask()).left).toBe('"default";r=8;t=1')
    expect(warnings[0]).toContain('NaN')
  })
})

describe('keys', () => {
  const from = (remoteAddress: string, headers: Readonly<Record<string, string>> = {}): InjectedRequest => ({
    remoteAddress,
    headers: { Host: 'a', ...headers },
  })

  it('by default are addresses: IPv4 as they are, IPv6 by /64', async () => {
    const { statuses } = rig({ limit: 1, window: '1h' })
    expect(await statuses(2, from('192.0.2.1'))).toEqual([200, 429])
    expect(await statuses(1, from('192.0.2.2'))).toEqual([200])
    expect(await statuses(1, from('::ffff:192.0.2.1'))).toEqual([429])
    expect(await statuses(1, from('2001:db8:0:1::1'))).toEqual([200])
    expect(await statuses(1, from('2001:db8:0:1:ffff::2'))).toEqual([429])
    expect(await statuses(1, from('2001:db8:0:2::1'))).toEqual([200])
  })

  it('a header; who leaves it out is counted by address, and nobody can send an address as a key', async () => {
    const { statuses } = rig({ limit: 1, window: '1h', key: { header: 'X-API-Key' } })
    expect(await statuses(2, from('192.0.2.1', { 'X-API-Key': 'a' }))).toEqual([200, 429])
    expect(await statuses(1, from('192.0.2.9', { 'X-API-Key': 'a' }))).toEqual([429])
    expect(await statuses(1, from('192.0.2.9', { 'X-API-Key': '192.0.2.1' }))).toEqual([200])
    expect(await statuses(2, from('192.0.2.1'))).toEqual([200, 429])
  })

  it('a function, late or not; who gets none is not limited', async () => {
    const { statuses, stage } = rig({ limit: 1, window: '1h', key: async ({ url }) => (url === '/free' ? undefined : url) })
    expect(await statuses(2, { url: '/a' })).toEqual([200, 429])
    expect(await statuses(3, { url: '/free' })).toEqual([200, 200, 200])
    expect(stage.stats()).toMatchObject({ exempt: 3, entries: 1 })
  })

  it('a list of parts, none of which runs into the next', async () => {
    const { statuses } = rig({ limit: 1, window: '1h', key: [{ header: 'a' }, async ({ headers }) => headers.get('b')] })
    expect(await statuses(2, from('192.0.2.1', { A: '1', B: '23' }))).toEqual([200, 429])
    expect(await statuses(2, from('192.0.2.1', { A: '12', B: '3' }))).toEqual([200, 429])
    expect(await statuses(2, from('192.0.2.1', { A: '12' }))).toEqual([200, 200])
  })

  it.each([
    ['at once', (part: string | undefined) => part],
    ['late', async (part: string | undefined) => part],
  ])('a list of parts that are there %s', async (_, given) => {
    const part =
      (i: number) =>
      ({ url }: { url: string }) =>
        given(url.split('/')[i])
    const { statuses } = rig({ limit: 1, window: '1h', key: [part(1), part(2)] })
    expect(await statuses(2, { url: '/1/23' })).toEqual([200, 429])
    expect(await statuses(2, { url: '/12/3' })).toEqual([200, 429])
    expect(await statuses(2, { url: '/12' })).toEqual([200, 200])
  })

  it('that are long reach no store', async () => {
    const keys: string[] = []
    const memory = memoryStore()
    const store: RateLimitStore = {
      name: 'curious',
      take: (charges) => {
        keys.push(...charges.map(({ key }) => key))
        return memory.take(charges)
      },
      adjust: () => {},
    }
    const { statuses } = rig({ limit: 1, window: '1h', key: { header: 'x-user' }, store })
    for (const last of ['a', 'b'])
      expect(await statuses(2, from('192.0.2.1', { 'X-User': `${'x'.repeat(4000)}${last}` }))).toEqual([200, 429])
    expect(keys.map(({ length }) => length <= 64)).toEqual([true, true, true, true])
  })

  it('exempt addresses and ranges are not limited', async () => {
    const { statuses, stage } = rig({ limit: 1, window: '1h', exempt: ['10.0.0.0/8', '2001:db8::1'] })
    expect(await statuses(2, from('10.1.2.3'))).toEqual([200, 200])
    expect(await statuses(2, from('2001:db8::1'))).toEqual([200, 200])
    expect(await statuses(2, from('2001:db8::2'))).toEqual([200, 429])
    expect(stage.stats().exempt).toBe(4)
  })
})

describe('a dry run', () => {
  it('counts and publishes what it would do, and does nothing', async () => {
    const seen = decisions()
    const refusals: unknown[] = []
    const { ask, statuses, stage } = rig({ limit: 2, window: '1h', dryRun: true, onRefused: (...args) => void refusals.push(args) })
    expect(await ask()).toMatchObject({ status: 200, left: undefined, policy: undefined })
    expect(await statuses(4)).toEqual([200, 200, 200, 200])
    expect(seen.map(({ verdict }) => verdict)).toEqual(['allowed', 'allowed', 'dry', 'dry', 'dry'])
    expect(stage.stats()).toMatchObject({ allowed: 2, refused: 0, dryRefused: 3 })
    expect(refusals).toEqual([])
  })

  it('delays nobody', async () => {
    const { statuses, stage } = rig({ limit: 1, window: '1s', algorithm: 'leaky-bucket', maxDelay: '2s', dryRun: true })
    expect(await statuses(4)).toEqual([200, 200, 200, 200])
    expect(stage.stats()).toMatchObject({ allowed: 3, dryRefused: 1, delayed: 0 })
  })
})

it('publishes each decision, without the key', async () => {
  const seen = decisions()
  const { ask } = rig({ name: 'api', limit: 1, window: '10s', key: { header: 'authorization' } })
  for (const token of ['secret', 'secret', 'other']) await ask({ headers: { Host: 'a', Authorization: token } })
  expect(
    seen.map(({ stage, limit, verdict, remaining, retryAfterMs, cost, store }) => [
      stage,
      limit,
      verdict,
      remaining,
      retryAfterMs,
      cost,
      store,
    ]),
  ).toEqual([
    ['api', 'api', 'allowed', 0, 0, 1, 'memory'],
    ['api', 'api', 'refused', 0, 10_000, 1, 'memory'],
    ['api', 'api', 'allowed', 0, 0, 1, 'memory'],
  ])
  expect(seen[0]?.keyHash).toBe(seen[1]?.keyHash)
  expect(seen[2]?.keyHash).not.toBe(seen[1]?.keyHash)
  expect(JSON.stringify(seen.map(({ exchange: _, ...rest }) => rest))).not.toContain('secret')
})

it('tells of a refusal which limits refused, and for how long', async () => {
  const seen: unknown[] = []
  const { statuses } = rig({
    limits: [
      { name: 'a', limit: 1, window: '10s' },
      { name: 'b', limit: 9, window: '1s' },
    ],
    onRefused: ({ clientIp }, refusal) => void seen.push([clientIp, refusal]),
  })
  await statuses(2)
  expect(seen).toEqual([['127.0.0.1', { limits: ['a'], retryAfterMs: 10_000 }]])
})
