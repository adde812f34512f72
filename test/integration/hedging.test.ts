/**
 * A second try beside a slow first one: the first head wins, the loser is cancelled at its server, nothing is held against it, and there is a
 * budget. Requests that must not be processed twice are never hedged.
 */
import { leastTime, peakEwma } from '@weir/balancer'
import {
  type AttemptOutcome,
  type Balancer,
  type Exchange,
  type HealthPolicy,
  type HedgeOptions,
  isPickable,
  type ProxyOptions,
  type Upstream,
} from '@weir/core'
import { faults, rawConnect, rawRequest, seededRandom, type TestUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { get, head } from './messages.ts'
import { type ObservedProxy, startProxy, transports, until } from './observed.ts'

const never = faults.stall(60_000)

/** Always the first that is free and has not been tried. */
class InOrder implements Balancer {
  readonly name = 'in-order'
  #list: readonly Upstream[] = []
  update(available: readonly Upstream[]): void {
    this.#list = available
  }
  pick(exchange: Exchange): Upstream | undefined {
    return this.#list.find((upstream) => isPickable(upstream, exchange))
  }
}

function witness(): HealthPolicy & { readonly ended: AttemptOutcome[] } {
  const ended: AttemptOutcome[] = []
  return { name: 'witness', attach: () => {}, onAttempt: (outcome) => void ended.push(outcome), ended }
}

describe.each(transports)('hedging over %s', (_name, transport) => {
  async function pair(
    slow: Parameters<typeof testUpstream>[0],
    quick: Parameters<typeof testUpstream>[0],
    hedge: HedgeOptions,
    more: Partial<ProxyOptions> = {},
  ): Promise<AsyncDisposable & { slow: TestUpstream; quick: TestUpstream; proxy: ObservedProxy; policy: ReturnType<typeof witness> }> {
    const upstreams = [await testUpstream(slow, { name: 'slow' }), await testUpstream(quick, { name: 'quick' })] as const
    const policy = witness()
    const proxy = await startProxy(
      {
        upstreams: upstreams.map(({ url }) => url),
        balancer: new InOrder(),
        health: [policy],
        retry: { hedge },
        ...more,
      },
      { transport },
    )
    const [first, second] = upstreams
    return {
      slow: first,
      quick: second,
      proxy,
      policy,
      [Symbol.asyncDispose]: async () => {
        await proxy[Symbol.asyncDispose]()
        for (const upstream of upstreams) await upstream.close()
      },
    }
  }

  it('the second try answers, the first is cancelled at its server and counts against nobody', async () => {
    await using on = await pair({ '*': never }, { '*': 'quick' }, { after: 30 })
    const { status, body } = await rawRequest(on.proxy.port, get())
    expect([status, body.toString()]).toEqual([200, 'quick'])
    await on.slow.until((upstream) => upstream.active === 0)
    const outcome = await on.proxy.outcome()
    expect(outcome.reason).toBe('completed')
    expect(outcome.attempts.map(({ upstream, error, status }) => [upstream.url.port, error?.code, status])).toEqual([
      [String(on.slow.port), 'ERR_HEDGE_LOST', undefined],
      [String(on.quick.port), undefined, 200],
    ])
    expect(on.policy.ended.map(({ error }) => error?.source)).toEqual(['proxy', undefined])
    expect(on.proxy.proxy.stats().pools[0]?.upstreams.map(({ inflight }) => inflight)).toEqual([0, 0])
  })

  it('the first try answers after all: the second is the one that is cancelled', async () => {
    let answer = (): void => {}
    await using on = await pair(
      {
        '*': (_req, res) => {
          answer = () => void res.end('first')
        },
      },
      { '*': never },
      { after: 20 },
    )
    const reply = rawRequest(on.proxy.port, get())
    await on.quick.until((upstream) => upstream.active === 1)
    answer()
    expect((await reply).body.toString()).toBe('first')
    await on.quick.until((upstream) => upstream.active === 0)
    expect((await on.proxy.outcome()).attempts.map(({ error }) => error?.code)).toEqual([undefined, 'ERR_HEDGE_LOST'])
  })

  it('a quick answer starts no second try', async () => {
    await using on = await pair({ '*': 'first' }, { '*': 'second' }, { after: 50 })
    for (let i = 0; i < 20; i++) expect((await rawRequest(on.proxy.port, get())).body.toString()).toBe('first')
    expect(on.quick.count()).toBe(0)
  })

  it('only what may be processed twice, and has no body', async () => {
    await using on = await pair({ '*': never }, { '*': 'quick' }, { after: 10 }, { timeouts: { head: 200 } })
    const requests = [head('POST', '/', 'Content-Length: 0'), `${head('PUT', '/', 'Content-Length: 2')}ok`, head('PATCH', '/')]
    for (const request of requests) expect((await rawRequest(on.proxy.port, request)).status).toBe(504)
    expect(on.quick.count()).toBe(0)
  })

  it('one of the two fails: the other goes on alone, and no retry is spent', async () => {
    await using on = await pair({ '*': faults.stall(200, 'late') }, { '*': faults.reset() }, { after: 20 })
    expect((await rawRequest(on.proxy.port, get())).body.toString()).toBe('late')
    expect((await on.proxy.outcome()).attempts.map(({ error }) => error?.code)).toEqual([undefined, 'ERR_UPSTREAM_RESET'])
    expect(on.slow.count()).toBe(1)
  })

  it('both fail: the error of the last', async () => {
    await using on = await pair(
      { '*': (_req, _res, wire) => void setTimeout(() => wire.reset(), 150) },
      { '*': faults.reset() },
      { after: 20 },
      { retry: { attempts: 2, hedge: { after: 20 } } },
    )
    expect((await rawRequest(on.proxy.port, get())).status).toBe(502)
    expect((await on.proxy.outcome()).attempts).toHaveLength(2)
  })

  it('a status that is retried loses against a better answer, and wins against none', async () => {
    const retry = { on: ['connect', 'reset', 503] as const, hedge: { after: 20 } }
    await using good = await pair({ '*': faults.stall(150, 'late') }, { '*': { status: 503, body: 'busy' } }, { after: 20 }, { retry })
    expect((await rawRequest(good.proxy.port, get())).body.toString()).toBe('late')
    await using bad = await pair(
      { '*': (_req, _res, wire) => void setTimeout(() => wire.reset(), 150) },
      { '*': { status: 503, body: 'busy' } },
      { after: 20 },
      { retry },
    )
    const { status, body } = await rawRequest(bad.proxy.port, get())
    expect([status, body.toString()]).toEqual([503, 'busy'])
  })

  it('its budget bounds it', async () => {
    await using on = await pair(
      { '*': faults.stall(100, 'late') },
      { '*': 'quick' },
      { after: 10, budget: { ratio: 0, minPerSecond: 0.2 } },
    )
    // 0.2 a second over ten seconds: two.
    for (let i = 0; i < 5; i++) await rawRequest(on.proxy.port, get())
    expect(on.quick.count()).toBe(2)
  })

  it('its budget is not spent where nobody else is free', async () => {
    await using on = await pair(
      { '*': faults.stall(60, 'late') },
      { '/long': never, '*': 'quick' },
      { after: 10, budget: { ratio: 0, minPerSecond: 0.1 } },
      { maxConcurrent: 1 },
    )
    // 0.1 a second over ten seconds: one. The other server has its hands full.
    const pool = on.proxy.proxy.pool
    pool?.setWeight(on.slow.url, 0)
    await using busy = await rawConnect(on.proxy.port)
    await busy.write(head('POST', '/long', 'Content-Length: 0'))
    await on.quick.until(({ active }) => active === 1)
    pool?.setWeight(on.slow.url, 1)
    for (let i = 0; i < 3; i++) expect((await rawRequest(on.proxy.port, get())).text()).toBe('late')
    busy.reset()
    await on.quick.until(({ active }) => active === 0)
    expect((await rawRequest(on.proxy.port, get())).text()).toBe('quick')
    expect((await rawRequest(on.proxy.port, get())).text()).toBe('late')
  })

  it.each([
    ['peakEwma', peakEwma],
    ['leastTime', leastTime],
  ])('a server that loses its races is found out: %s', async (_strategy, strategy) => {
    await using slow = await testUpstream({ '*': faults.stall(300, 'late') })
    await using quick = await testUpstream({ '*': 'quick' })
    await using third = await testUpstream({ '*': 'quick' })
    const upstreams = [slow.url, quick.url, third.url]
    const balancer = strategy({ random: seededRandom(1) })
    await using proxy = await startProxy(
      { upstreams, balancer, retry: { hedge: { after: 60, budget: { ratio: 1, minPerSecond: 100 } } } },
      { transport },
    )
    for (let i = 0; i < 40; i++) expect((await rawRequest(proxy.port, get())).text()).toBe('quick')
    // By what it is not known for, it would get a third and more.
    expect(slow.count()).toBeLessThanOrEqual(8)
  })

  it('a client that leaves takes both tries with it', async () => {
    await using on = await pair({ '*': never }, { '*': never }, { after: 20 })
    const client = await rawConnect(on.proxy.port)
    await client.write(get())
    await on.quick.until((upstream) => upstream.active === 1)
    client.destroy()
    await on.slow.until((upstream) => upstream.active === 0)
    await on.quick.until((upstream) => upstream.active === 0)
    expect((await on.proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
  })

  it('the total deadline ends both', async () => {
    await using on = await pair({ '*': never }, { '*': never }, { after: 20 }, { timeouts: { total: 150 } })
    expect((await rawRequest(on.proxy.port, get())).status).toBe(504)
    await until('both are cancelled', () => on.slow.active === 0 && on.quick.active === 0)
    expect((await on.proxy.outcome()).reason).toBe('ERR_DEADLINE')
    expect(on.proxy.proxy.stats().pools[0]?.upstreams.map(({ inflight }) => inflight)).toEqual([0, 0])
  })

  it('further tries when asked for, each after the one before it', async () => {
    await using third = await testUpstream({ '*': 'third' })
    await using on = await pair({ '*': never }, { '*': never }, { after: 20, attempts: 2 })
    on.proxy.proxy.pool?.add(third.url)
    expect((await rawRequest(on.proxy.port, get())).body.toString()).toBe('third')
    expect((await on.proxy.outcome()).attempts.map(({ error }) => error?.code)).toEqual(['ERR_HEDGE_LOST', 'ERR_HEDGE_LOST', undefined])
  })
})
