/**
 * Slow start holds for every strategy, since it is the weight that grows: a server that comes back gets a tenth of its share at first, and all of
 * it at the end of the window. Driven by a virtual clock through whole proxies; the upstreams are invented.
 */

import {
  boundedLoad,
  fallback,
  hash,
  ipHash,
  ketama,
  leastConnections,
  leastTime,
  locality,
  maglev,
  peakEwma,
  powerOfTwo,
  random,
  reportedLoad,
  split,
  subsets,
} from '@weir/balancer'
import { type Balancer, createProxy, type HealthControl, type HealthPolicy, roundRobin } from '@weir/core'
import { slowStart } from '@weir/health'
import { fakeTransport, seededRandom, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'

const key = { header: 'x-user' } as const
const strategies: readonly (readonly [name: string, make: (random: () => number) => Balancer])[] = [
  ['roundRobin', (r) => roundRobin({ random: r })],
  ['leastConnections', (r) => leastConnections({ random: r })],
  ['random', (r) => random({ random: r })],
  ['powerOfTwo', (r) => powerOfTwo({ random: r })],
  ['ipHash', (r) => ipHash({ random: r })],
  ['hash', (r) => hash({ key, random: r })],
  ['ketama', (r) => ketama({ key, random: r })],
  ['maglev', (r) => maglev({ key, random: r })],
  ['boundedLoad of hash', (r) => boundedLoad(hash({ key, random: r }))],
  ['peakEwma', (r) => peakEwma({ random: r })],
  ['leastTime', (r) => leastTime({ random: r })],
  ['reportedLoad', (r) => reportedLoad({ random: r })],
  ['fallback', (r) => fallback(hash({ key: { header: 'x-none' }, missing: 'none' }), roundRobin({ random: r }))],
  ['subsets', (r) => subsets({ labels: { tier: () => 'all' }, balancer: () => roundRobin({ random: r }) })],
  [
    'split',
    (r) =>
      split({
        arms: [
          { weight: 1, labels: { tier: 'all' } },
          { weight: 1, labels: { zone: 'z' } },
        ],
        key,
        balancer: () => roundRobin({ random: r }),
      }),
  ],
  ['locality', (r) => locality({ zone: 'z', minUpstreams: 1, balancer: () => roundRobin({ random: r }) })],
]

describe.each(strategies)('slow start under %s', (_name, make) => {
  it('a server that comes back gets little at first and its share at the end', async () => {
    const clock = virtualClock()
    const draw = seededRandom(7)
    let control = undefined as unknown as HealthControl
    const voice: HealthPolicy = {
      name: 'voice',
      attach: (pool) => {
        control = pool
      },
    }
    const transport = fakeTransport({ body: 'ok' })
    const proxy = createProxy({
      upstreams: ['a', 'b', 'c'].map((id) => ({ url: `http://${id}.test`, id, meta: { tier: 'all', zone: 'z' } })),
      balancer: make(draw),
      health: [voice, slowStart({ window: '10s' })],
      transport,
      clock,
      random: draw,
      trustedProxies: () => true,
    })
    let user = 0
    const share = async (): Promise<number> => {
      const before = transport.requests.length
      const asked = 500
      for (let i = 0; i < asked; i++) {
        user++
        const headers = { 'x-user': `user-${user}`, 'x-forwarded-for': `198.51.${(user >> 8) & 255}.${user & 255}` }
        await proxy.inject({ headers })
      }
      return transport.requests.slice(before).filter(({ upstream }) => upstream.id === 'c').length / asked
    }
    const find = (id: string) => control.upstreams.find((upstream) => upstream.id === id) as HealthControl['upstreams'][number]

    expect(await share()).toBeGreaterThan(0.25)
    control.setDown(find('c'), voice, 'ill')
    expect(await share()).toBe(0)
    control.setUp(find('c'), voice, 'well')
    // By weight a tenth of a third and a little: 0.1 / 2.1.
    expect(await share()).toBeLessThan(0.12)
    await clock.advance(5000)
    const half = await share()
    expect(half).toBeGreaterThan(0.11)
    expect(half).toBeLessThan(0.3)
    await clock.advance(5000)
    expect(await share()).toBeGreaterThan(0.26)
    await proxy.close()
  })
})
