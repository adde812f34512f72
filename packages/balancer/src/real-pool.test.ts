// With a real pool, real servers and real sockets: what strategies are told there, and that their answers are followed.
import { createPool, createProxy } from '@weir/core'
import { refusedPort, seededRandom, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { boundedLoad } from './bounded-load.ts'
import { hash } from './hash.ts'
import { ketama } from './ketama.ts'
import { peakEwma } from './peak-ewma.ts'
import { reportedLoad } from './reported-load.ts'
import { subsets } from './subsets.ts'
import { trafficSplit } from './traffic-split.ts'

describe('with a real pool', () => {
  it('a key stays with its server, has another one to go to when that fails, and comes back', async () => {
    await using a = await testUpstream({ '*': 'a' })
    await using b = await testUpstream({ '*': 'b' })
    await using c = await testUpstream({ '*': 'c' })
    const all = { a, b, c }
    for (const balancer of [hash({ key: 'cookie:uid' }), ketama({ key: 'cookie:uid' }), boundedLoad({ key: 'cookie:uid' })]) {
      await using proxy = createProxy({ upstreams: [a.url, b.url, c.url], balancer, health: [], retry: { on: [502] } })
      const ask = async (uid: string): Promise<string> => {
        const { status, body } = await proxy.inject({ url: '/', headers: { cookie: `x=y; uid=${uid}` } })
        expect(status).toBe(200)
        return body.toString()
      }
      const home = (await ask('ann')) as keyof typeof all
      for (let i = 0; i < 5; i++) expect(await ask('ann')).toBe(home)
      all[home].route('*', 502)
      const next = await ask('ann')
      expect(next).not.toBe(home)
      expect(await ask('ann')).toBe(next)
      all[home].route('*', home)
      expect(await ask('ann')).toBe(home)
    }
  })

  it('load that servers report in their heads is followed', async () => {
    const report = (utilization: number) => ({
      headers: { 'Endpoint-Load-Metrics': `TEXT cpu_utilization=${utilization}, rps_fractional=100` },
      body: 'ok',
    })
    await using busy = await testUpstream({ '*': report(0.9) })
    await using idle = await testUpstream({ '*': report(0.1) })
    let now = 0
    const balancer = reportedLoad({ blackout: 0, interval: 100, random: seededRandom(1), clock: { now: () => (now += 50) } })
    await using proxy = createProxy({ upstreams: [busy.url, idle.url], balancer })
    for (let i = 0; i < 100; i++) await proxy.inject({ url: '/' })
    expect(idle.count()).toBeGreaterThan(75)
    expect(busy.count()).toBeGreaterThan(0)
  })

  it('a server that refuses connections is not the quickest', async () => {
    await using dead = await refusedPort()
    await using alive = await testUpstream({ '*': 'ok' })
    let refused = 0
    const balancer = peakEwma({ random: seededRandom(1) })
    const release = balancer.release?.bind(balancer)
    balancer.release = (upstream, outcome) => {
      if (outcome.error?.code === 'ERR_CONNECT_REFUSED') refused++
      release?.(upstream, outcome)
    }
    await using proxy = createProxy({ upstreams: [dead.url, alive.url], balancer, health: [] })
    for (let i = 0; i < 50; i++) expect((await proxy.inject({ url: '/' })).status).toBe(200)
    expect(refused).toBeLessThanOrEqual(3)
    expect(refused).toBeGreaterThan(0)
  })

  it('labels and shares decide where a request goes', async () => {
    await using stable = await testUpstream({ '*': 'stable' })
    await using canary = await testUpstream({ '*': 'canary' })
    const traffic = trafficSplit({ key: 'query:user', arms: { stable: 1, canary: 1 } })
    await using proxy = createProxy({
      routes: [
        { match: traffic.is('canary'), pool: createPool({ upstreams: [canary.url] }) },
        {
          pool: createPool({
            upstreams: [
              { url: stable.url, meta: { version: 'stable' } },
              { url: canary.url, meta: { version: 'canary' } },
            ],
            balancer: subsets({ labels: { version: 'header:x-version' }, fallback: { version: 'stable' } }),
          }),
        },
      ],
    })
    const ask = async (user: number, version?: string): Promise<string> =>
      (await proxy.inject({ url: `/?user=${user}`, headers: version === undefined ? {} : { 'x-version': version } })).body.toString()
    const first = await Promise.all(Array.from({ length: 40 }, (_, user) => ask(user)))
    expect(new Set(first)).toEqual(new Set(['stable', 'canary']))
    expect(await Promise.all(first.map((_, user) => ask(user)))).toEqual(first)
    traffic.setWeights({ canary: 0 })
    expect(await ask(first.indexOf('canary'))).toBe('stable')
    expect(await ask(1, 'canary')).toBe('canary')
  })
})
