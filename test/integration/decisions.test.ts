/** Decision records of a proxy that serves: one per try, each reason for an exclusion as it comes about, and none when nobody listens. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Decision, Exchange, HealthControl, HealthPolicy, Upstream } from '@weir/core'
import { faults, rawRequest, refusedPort, testUpstream } from '@weir/testing'
import { afterEach, expect, it } from 'vitest'
import { get } from './messages.ts'
import { gate, startProxy, until } from './observed.ts'

let stop = (): void => {}
afterEach(() => stop())

function listen(): Decision[] {
  const heard: Decision[] = []
  const listener = (message: unknown): void => void heard.push(message as Decision)
  subscribe('weir:decision', listener)
  stop = () => {
    unsubscribe('weir:decision', listener)
    stop = () => {}
  }
  return heard
}
const exclusions = (decision: Decision | undefined): Record<string, string | undefined> =>
  Object.fromEntries((decision?.candidates ?? []).map(({ id, excluded }) => [id, excluded]))

it('every reason for which somebody is left out is told, and who chose', async () => {
  let control: HealthControl | undefined
  const policy: HealthPolicy = {
    name: 'test',
    attach: (pool) => {
      control = pool
    },
  }
  const find = (id: string): Upstream => control?.upstreams.find((upstream) => upstream.id === id) as Upstream
  const { opened, open } = gate()
  await using good = await testUpstream({ '*': 'fine' }, { name: 'good' })
  await using slow = await testUpstream({
    '*': async (_req, res) => {
      await opened
      res.end('slow')
    },
  })
  await using broken = await testUpstream({ '*': faults.reset() })
  await using proxy = await startProxy({
    upstreams: [
      { url: good.url, id: 'good' },
      { url: slow.url, id: 'full', maxConcurrent: 1 },
      { url: broken.url, id: 'tried' },
      ...['weightless', 'down', 'draining', 'degraded'].map((id) => ({ url: good.url, id, weight: id === 'weightless' ? 0 : 1 })),
      { url: good.url, id: 'backup', backup: true },
    ],
    health: [policy],
    use: [
      (exchange: Exchange) => {
        exchange.affinity = exchange.headers.get('x-sticky')
      },
    ],
  })
  control?.setDown(find('down'), policy, 'ill')
  control?.setDraining(find('draining'), policy, true, 'leaving')
  control?.setDegraded(find('degraded'), policy, true, 'slow')
  const held = rawRequest(proxy.port, get('/', 'X-Sticky: full'))
  await slow.until((upstream) => upstream.active === 1)
  const heard = listen()
  expect((await rawRequest(proxy.port, get('/thing?x', 'X-Sticky: tried'))).header('x-upstream')).toBe('good')
  expect(heard.map(({ by, chosen, attempt }) => [by, chosen, attempt])).toEqual([
    ['affinity', 'tried', 1],
    ['balancer', 'good', 2],
  ])
  expect(exclusions(heard[1])).toEqual({
    good: undefined,
    full: 'full',
    tried: 'tried',
    weightless: 'weight',
    down: 'down',
    draining: 'draining',
    degraded: 'degraded',
    backup: 'tier',
  })
  expect(heard[1]).toMatchObject({ pool: 'default', request: { method: 'GET', url: '/thing?x', clientIp: '127.0.0.1', affinity: 'tried' } })
  expect(heard[1]?.request.headers).toContain('X-Sticky')
  expect(heard[1]?.exchange.url).toBe('/thing?x')
  expect(heard[1]?.candidates.find(({ id }) => id === 'full')?.inflight).toBe(1)
  open()
  expect((await held).text()).toBe('slow')
})

it('a retry with nobody else left is told as a last resort, and nobody at all as none', async () => {
  await using dead = await refusedPort()
  await using backup = await testUpstream({ '*': 'fine' })
  const heard = listen()
  await using proxy = await startProxy({
    upstreams: [
      { url: dead.url, id: 'a' },
      { url: backup.url, id: 'b', backup: true },
    ],
    health: [],
  })
  expect((await rawRequest(proxy.port, get())).status).toBe(200)
  void proxy.proxy.pool?.remove('a')
  void proxy.proxy.pool?.remove('b')
  expect((await rawRequest(proxy.port, get())).status).toBe(503)
  expect(heard.map(({ by, chosen }) => [by, chosen])).toEqual([
    ['balancer', 'a'],
    ['last-resort', 'b'],
    ['none', undefined],
  ])
})

// It counts whom the exchange may not go to again, which is nobody after everybody was tried.
it('the second try of the only upstream is attempt 2', async () => {
  await using upstream = await testUpstream({ '*': faults.reset() })
  const heard = listen()
  await using proxy = await startProxy({ upstreams: [upstream.url], health: [] })
  await rawRequest(proxy.port, get())
  expect(upstream.count()).toBe(2)
  expect(heard.filter(({ chosen }) => chosen !== undefined).map(({ attempt }) => attempt)).toEqual([1, 2])
})

it('a request that waits for a slot is recorded when it asks, and when it gets one', async () => {
  const { opened, open } = gate()
  await using upstream = await testUpstream({
    '*': async (_req, res) => {
      await opened
      res.end('fine')
    },
  })
  const heard = listen()
  await using proxy = await startProxy({ upstreams: [{ url: upstream.url, id: 'a', maxConcurrent: 1 }] })
  const answers = [rawRequest(proxy.port, get('/1')), rawRequest(proxy.port, get('/2'))]
  await until('one waits', () => proxy.proxy.stats().pools[0]?.waiting === 1)
  expect(heard.map(({ by, chosen, candidates }) => [by, chosen, candidates[0]?.excluded])).toEqual([
    ['balancer', 'a', undefined],
    ['none', undefined, 'full'],
  ])
  open()
  await Promise.all(answers)
  expect(heard.slice(2).map(({ by, chosen, candidates }) => [by, chosen, candidates[0]?.inflight])).toEqual([['balancer', 'a', 0]])
})

it('nobody listens: nothing is published, and requests go where they would', async () => {
  await using upstream = await testUpstream({ '*': 'fine' })
  await using proxy = await startProxy({ upstreams: [upstream.url] })
  const heard = listen()
  await rawRequest(proxy.port, get())
  expect(heard).toHaveLength(1)
  stop()
  expect((await rawRequest(proxy.port, get())).status).toBe(200)
  expect(heard).toHaveLength(1)
})
