/** Records of picks: who was there, who could not be picked and why, who was chosen and by whom; nothing is made when nobody listens. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { fakeTransport, stubExchange } from '@weir/testing'
import { afterEach, describe, expect, it } from 'vitest'
import type { Balancer } from './balancer.ts'
import type { Decision } from './decision.ts'
import type { Exchange } from './exchange.ts'
import { HeaderList } from './headers.ts'
import type { HealthPolicy } from './health.ts'
import { createPool, type LivePool } from './pool.ts'
import type { PoolOptions } from './pool-options.ts'
import type { Upstream, UpstreamOptions } from './upstream.ts'

const up = (id: string, more: Partial<UpstreamOptions> = {}): UpstreamOptions => ({ url: `http://${id}.test`, id, ...more })
const check: HealthPolicy = { name: 'check', attach() {} }

let stop = (): void => {}
afterEach(() => stop())

function listen(): Decision[] {
  const heard: Decision[] = []
  const listener = (message: unknown): void => void heard.push(message as Decision)
  subscribe('weir:decision', listener)
  stop = () => void unsubscribe('weir:decision', listener)
  return heard
}

/** The first that may be. */
function first(): Balancer {
  let list: readonly Upstream[] = []
  return {
    name: 'first',
    update: (available) => {
      list = available
    },
    pick: ({ tried }) => list.find((upstream) => !upstream.full && !tried.includes(upstream)),
  }
}

function setup(upstreams: readonly UpstreamOptions[], options: Partial<PoolOptions> = {}) {
  const pool = createPool({ name: 'api', upstreams, balancer: first(), health: [], transport: fakeTransport(), ...options }) as LivePool
  const get = (id: string): Upstream => pool.get(id) as Upstream
  const pick = (more: Partial<Exchange> = {}, lastResort = true): Upstream | undefined =>
    pool.pick({ ...stubExchange(), ...more }, lastResort)
  return { pool, get, pick }
}
const exclusions = (decision: Decision | undefined): Record<string, string | undefined> =>
  Object.fromEntries((decision?.candidates ?? []).map(({ id, excluded }) => [id, excluded]))

describe('why somebody could not be picked', () => {
  it('each reason is told for those it holds for', () => {
    const heard = listen()
    const { pool, get, pick } = setup([
      up('tried'),
      up('full', { maxConcurrent: 1 }),
      up('free'),
      up('weightless', { weight: 0 }),
      up('down'),
      up('draining'),
      up('backup', { backup: true }),
      up('degraded'),
    ])
    pick({ affinity: 'full' })
    pool.policies.setDown(get('down'), check, 'ill')
    void pool.drain('draining')
    pool.policies.setDegraded(get('degraded'), check, true, 'slow')
    expect(pick({ tried: [get('tried')] })?.id).toBe('free')
    expect(exclusions(heard.at(-1))).toEqual({
      tried: 'tried',
      full: 'full',
      free: undefined,
      weightless: 'weight',
      down: 'down',
      draining: 'draining',
      backup: 'tier',
      degraded: 'degraded',
    })
    expect(heard.at(-1)?.candidates.map(({ reason }) => reason)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      'ill',
      expect.stringMatching(/./),
      undefined,
      undefined,
    ])
  })

  it('of several reasons the one that no other choice would have changed', () => {
    const heard = listen()
    const { pool, get, pick } = setup([up('a'), up('b', { weight: 0 }), up('c', { backup: true, maxConcurrent: 1 })])
    pool.policies.setDown(get('b'), check, 'ill')
    pick({ affinity: 'c' })
    pick({ tried: [get('a'), get('c')] }, false)
    expect(exclusions(heard.at(-1))).toEqual({ a: 'tried', b: 'weight', c: 'tier' })
  })

  it('one that is down and used all the same is not excluded: fail-open, and the last one that is spared', () => {
    const heard = listen()
    const open = setup([up('a'), up('b')])
    for (const id of ['a', 'b']) open.pool.policies.setDown(open.get(id), check, 'ill')
    open.pick()
    open.pool.policies.setFailOpen(check, true, 'all are ill')
    open.pick()
    const spared = setup([up('a'), up('b')])
    spared.pool.policies.setDown(spared.get('a'), check, 'slow', { keepLast: true })
    void spared.pool.remove('b')
    spared.pick()
    expect(heard.map(exclusions)).toEqual([{ a: 'down', b: 'down' }, { a: undefined, b: undefined }, { a: undefined }])
    expect(heard.map(({ chosen, candidates }) => [chosen, candidates[0]?.state])).toEqual([
      [undefined, 'down'],
      ['a', 'down'],
      ['a', 'down'],
    ])
  })

  // It is told as down, and would not have been picked if it were up.
  it('a better tier is the reason for one that fail-open would let be picked', () => {
    const heard = listen()
    const { pool, get, pick } = setup([up('a'), up('b', { backup: true })])
    pool.policies.setFailOpen(check, true, 'too few are up')
    pool.policies.setDown(get('b'), check, 'ill')
    pick()
    expect(exclusions(heard[0])).toEqual({ a: undefined, b: 'tier' })
  })

  it('degraded ones are not excluded while all are', () => {
    const heard = listen()
    const { pool, get, pick } = setup([up('a'), up('b', { backup: true })])
    for (const id of ['a', 'b']) pool.policies.setDegraded(get(id), check, true, 'slow')
    pick()
    expect(exclusions(heard[0])).toEqual({ a: undefined, b: 'degraded' })
  })
})

describe('who chose', () => {
  it('affinity, the strategy, a last resort, or nobody', () => {
    const heard = listen()
    const { get, pick } = setup([up('a'), up('b', { backup: true })])
    pick()
    pick({ affinity: 'b' })
    pick({ affinity: 'nobody' })
    pick({ tried: [get('a')] })
    pick({ tried: [get('a')] }, false)
    pick({ tried: [get('a'), get('b')] })
    expect(heard.map(({ by, chosen }) => [by, chosen])).toEqual([
      ['balancer', 'a'],
      ['affinity', 'b'],
      ['balancer', 'a'],
      ['last-resort', 'b'],
      ['none', undefined],
      ['none', undefined],
    ])
  })
})

describe('the record', () => {
  const exchange = {
    ...stubExchange({ method: 'PUT', url: '/a?b', clientIp: '192.0.2.9', hashKey: 'k' }),
    affinity: 'a',
    headers: new HeaderList(['Host', 'x.test', 'X-A', '1']),
  }

  it('tells the request and everybody as they were before the pick', () => {
    const heard = listen()
    const { pool, get } = setup([up('a', { weight: 2, maxConcurrent: 5, meta: { zone: 'z' } }), up('b', { priority: 3 })])
    pool.policies.setWeightFactor(get('a'), check, 0.5)
    pool.pick(exchange)
    pool.pick({ ...exchange, tried: [get('b')] })
    expect(heard[1]).toEqual({
      pool: 'api',
      balancer: 'first',
      at: expect.any(Number),
      attempt: 2,
      request: {
        method: 'PUT',
        url: '/a?b',
        clientIp: '192.0.2.9',
        hashKey: 'k',
        affinity: 'a',
        headers: ['Host', 'x.test', 'X-A', '1'],
      },
      candidates: [
        {
          id: 'a',
          url: 'http://a.test/',
          weight: 1,
          priority: 0,
          state: 'up',
          inflight: 1,
          maxConcurrent: 5,
          latencyMs: 0,
          meta: { zone: 'z' },
          excluded: undefined,
          reason: undefined,
        },
        {
          id: 'b',
          url: 'http://b.test/',
          weight: 1,
          priority: 3,
          state: 'up',
          inflight: 0,
          maxConcurrent: Number.POSITIVE_INFINITY,
          latencyMs: 0,
          meta: {},
          excluded: 'tier',
          reason: undefined,
        },
      ],
      chosen: 'a',
      by: 'affinity',
    })
    expect((heard[1]?.at as number) >= (heard[0]?.at as number)).toBe(true)
  })

  it('is data but for the exchange, which is there and is not written', () => {
    const heard = listen()
    const { pool } = setup([up('a')])
    pool.pick(exchange)
    const [decision] = heard
    expect(decision?.exchange).toBe(exchange)
    const read = JSON.parse(JSON.stringify(decision)) as Decision
    expect(Object.keys(read).toSorted()).toEqual(['at', 'attempt', 'balancer', 'by', 'candidates', 'chosen', 'pool', 'request'])
    expect(read.request).toEqual(decision?.request)
  })
})

it('nobody listens: nothing is published, and nothing of the exchange is looked at for it', () => {
  const { pool } = setup([up('a')])
  let looked = 0
  const watched: Exchange = {
    ...stubExchange(),
    get headers(): HeaderList {
      looked++
      return new HeaderList([])
    },
  }
  const heard = listen()
  pool.pick(watched)
  expect([heard.length, looked]).toEqual([1, 1])
  stop()
  pool.pick(watched)
  expect([heard.length, looked]).toEqual([1, 1])
})
