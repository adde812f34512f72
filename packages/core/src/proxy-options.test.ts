/** What `createProxy` makes of its options: every mistake at the path where it was written, once, and what a route inherits. */
import { fakeTransport } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { OptionsError } from './options.ts'
import { createPool } from './pool.ts'
import { type ProxyOptions, type RouteOptions, readProxyOptions, type Settings } from './proxy-options.ts'
import type { CompiledRoute } from './route.ts'
import type { Stage } from './stage.ts'

const transport = fakeTransport()
const upstreams = ['http://a.test']
const pool = { upstreams, transport }

function paths(options: unknown): string[] {
  try {
    readProxyOptions(options as ProxyOptions)
  } catch (error) {
    return (error as OptionsError).problems.map(({ path }) => path)
  }
  return []
}
const settings = (options: ProxyOptions): Settings => readProxyOptions(options)
const only = (route: Partial<RouteOptions>, outer: Partial<ProxyOptions> = {}): CompiledRoute =>
  settings({ ...outer, routes: [{ pool, ...route }] }).routes[0] as CompiledRoute
const stage = (name: string, order?: NonNullable<Stage['order']>): Stage => ({ name, handle: () => {}, ...(order && { order }) })

describe('mistakes', () => {
  const rows: [what: string, options: unknown, paths: string[]][] = [
    ['no options', undefined, ['options']],
    ['nobody to send to', {}, ['upstreams']],
    [
      'a pool and the options of one',
      { pool: createPool(pool), upstreams, balancer: {}, transport },
      ['upstreams', 'balancer', 'transport'],
    ],
    ['names that are none', { ...pool, name: 'a b', via: '1.1 a' }, ['name', 'via']],
    [
      'names that would split a field',
      { ...pool, name: 'a\r\nb', via: '', forwarding: { by: 'a\r\nb' } },
      ['name', 'via', 'forwarding.by'],
    ],
    ['randomness that is a number', { ...pool, random: 4 }, ['random']],
    ['prefixes', { routes: [{ pool, stripPrefix: 'api', addPrefix: '/v1?x' }] }, ['routes[0].stripPrefix', 'routes[0].addPrefix']],
    [
      'prefixes that climb',
      { routes: [{ pool, stripPrefix: '/a/..', addPrefix: '/%2e%2e' }] },
      ['routes[0].stripPrefix', 'routes[0].addPrefix'],
    ],
    [
      'stripPrefix: true without one path',
      {
        routes: [
          { pool, stripPrefix: true },
          { pool, match: { path: ['/a', '/b'] }, stripPrefix: true },
        ],
      },
      ['routes[0].stripPrefix', 'routes[1].stripPrefix'],
    ],
    ['Host rules', { ...pool, hostHeader: { fixed: 'a b' } }, ['hostHeader']],
    [
      'in a pool of a route',
      { routes: [{ pool: { ...pool, upstreams: ['x'], queue: { limit: -1 } } }] },
      ['routes[0].pool.queue.limit', 'routes[0].pool.upstreams[0]'],
    ],
    [
      'an order that does not fit, across proxy and route',
      { use: [stage('cache', { after: ['sticky'] })], routes: [{ pool, use: [stage('sticky')] }] },
      ['routes[0].use'],
    ],
    [
      'all at once',
      {
        upstreams: [{ url: 'x', weight: -1 }],
        transport,
        timeouts: { head: 'soon' },
        retry: { attempts: 0 },
        headers: { request: { set: { TE: 'x' } } },
        use: [5],
        trustedProxies: ['x'],
        maxBodySize: -1,
        bogus: 1,
      },
      [
        'bogus',
        'use[0]',
        'upstreams[0].weight',
        'upstreams[0].url',
        'timeouts.head',
        'retry.attempts',
        'headers.request.set',
        'maxBodySize',
        'trustedProxies[0]',
      ],
    ],
    [
      'all of a route, also when its pool is wrong',
      { routes: [{ pool: 5, match: { path: 'a' }, use: [5], retry: { attempts: 0 }, stripPrefix: 'x' }] },
      ['routes[0].pool', 'routes[0].match.path', 'routes[0].use[0]', 'routes[0].retry.attempts', 'routes[0].stripPrefix'],
    ],
  ]
  for (const [what, options, expected] of rows) it(what, () => expect(paths(options).toSorted()).toEqual(expected.toSorted()))

  const more: [what: string, options: unknown, paths: string[]][] = [
    ['an address check that is none', { upstreams, allowAddress: '10.0.0.0/8' }, ['allowAddress']],
    ['an address check beside a transport that has its own', { ...pool, allowAddress: () => true }, ['allowAddress']],
    ['TLS beside a transport that has its own', { ...pool, tls: {} }, ['tls']],
    [
      'TLS and an address check of a route',
      { routes: [{ pool: { ...pool, tls: {}, allowAddress: () => true } }] },
      ['routes[0].pool.tls', 'routes[0].pool.allowAddress'],
    ],
    ['an address check of a route that is none', { routes: [{ pool: { upstreams, allowAddress: 5 } }] }, ['routes[0].pool.allowAddress']],
    ['upstreams that are neither a list nor a source', { upstreams: 'http://a.test', transport }, ['upstreams']],
    ['health that is no list', { ...pool, health: { attach() {} } }, ['health']],
    ['health that is no policy', { ...pool, health: [{ name: 'x' }] }, ['health']],
    ['a host that is none', { upstreams: [{ url: 'https://10.0.0.1', host: 'https://app.internal' }], transport }, ['upstreams[0].host']],
    ['randomness of a pool', { routes: [{ pool: { ...pool, random: 0.5 } }] }, ['routes[0].pool.random']],
    ['the options of a pool beside one', { pool: createPool(pool), tls: {}, allowAddress: () => true }, ['tls', 'allowAddress']],
  ]
  for (const [what, options, expected] of more) it(what, () => expect(paths(options).toSorted()).toEqual(expected.toSorted()))

  // It is shown by the transport, and then once more as a text.
  it('in the default transport show what was given as it was given', () => {
    let problems: OptionsError['problems'] = []
    try {
      readProxyOptions({ upstreams, allowAddress: 5 } as never)
    } catch (error) {
      problems = (error as OptionsError).problems
    }
    expect(problems).toMatchObject([{ path: 'allowAddress', given: '5' }])
  })

  it('of the whole proxy are told where they stand, and once, however many routes inherit them', () => {
    const outer = {
      timeouts: { head: 'soon' },
      retry: { attempts: 0 },
      headers: { response: { remove: ['TE'] } },
      hostHeader: 'x',
      rewriteRedirects: 1,
      maxBodySize: 'x',
    }
    const use = [stage('cache', { after: ['sticky'] }), stage('sticky')]
    expect(paths({ ...outer, use, routes: [{ pool }, { pool }], ...pool }).toSorted()).toEqual(
      ['timeouts.head', 'retry.attempts', 'headers.response.remove', 'hostHeader', 'rewriteRedirects', 'maxBodySize', 'use'].toSorted(),
    )
  })
})

describe('a route', () => {
  it('has defaults', () => {
    expect(only({})).toMatchObject({
      name: 'route0',
      timeouts: { connect: 5000, head: 60_000, idle: 60_000, total: 0, tunnelIdle: 600_000 },
      limits: { connect: 5000, head: 60_000, idle: 60_000 },
      stages: undefined,
      stripPrefix: '',
      addPrefix: '',
      requestEdit: undefined,
      responseEdit: undefined,
      hostHeader: 'client',
      rewriteRedirects: true,
      maxBodySize: Number.POSITIVE_INFINITY,
    })
  })

  it('inherits timeouts one by one; undefined is not given', () => {
    const timeouts = only(
      { timeouts: { head: '1s', idle: undefined } as never },
      { timeouts: { head: '9s', connect: '2s', idle: '3s' } },
    ).timeouts
    expect(timeouts).toMatchObject({ head: 1000, connect: 2000, idle: 3000 })
  })

  it('inherits the rest whole, or has its own', () => {
    const outer: Partial<ProxyOptions> = { retry: false, hostHeader: 'upstream', maxBodySize: '1KiB', rewriteRedirects: false }
    expect(only({}, outer)).toMatchObject({ retry: { attempts: 1 }, hostHeader: 'upstream', maxBodySize: 1024, rewriteRedirects: false })
    const own: Partial<RouteOptions> = {
      retry: { attempts: 5 },
      hostHeader: { fixed: 'a.test:80' },
      maxBodySize: 0,
      rewriteRedirects: true,
    }
    expect(only(own, outer)).toMatchObject({
      retry: { attempts: 5 },
      hostHeader: { fixed: 'a.test:80' },
      maxBodySize: 0,
      rewriteRedirects: true,
    })
  })

  it('waits for a head no longer than for a try', () => {
    expect(only({ retry: { perTryTimeout: '2s' } }).limits.head).toBe(2000)
    expect(only({ retry: { perTryTimeout: '2s' }, timeouts: { head: '1s' } }).limits.head).toBe(1000)
    expect(only({ retry: { perTryTimeout: '2s' }, timeouts: { head: 0 } }).limits.head).toBe(2000)
  })

  it('has the stages of the proxy around its own', () => {
    const [outer, inner] = [stage('outer'), stage('inner')]
    expect(only({ use: [inner] }, { use: [outer] }).stages).toEqual([outer, inner])
    expect(only({}, { use: [outer] }).stages).toEqual([outer])
  })

  it('takes off the path that it matched', () => {
    expect(only({ match: { path: '/api/' }, stripPrefix: true, addPrefix: '/v1/' })).toMatchObject({
      stripPrefix: '/api',
      addPrefix: '/v1',
    })
    expect(only({ match: { path: '/' }, stripPrefix: true }).stripPrefix).toBe('')
  })
})

describe('the whole', () => {
  it('starts every stage once, outermost first, however many routes it is in', () => {
    const [a, b, c] = [stage('a'), stage('b'), stage('c')]
    const { stages } = settings({
      use: [a],
      routes: [
        { pool, use: [b, c] },
        { pool, use: [b] },
      ],
      ...pool,
    })
    expect(stages).toEqual([a, b, c])
  })

  it('serves with its own upstreams what no route takes', () => {
    const { routes, defaultPool, ownPools } = settings({ routes: [{ match: { path: '/x' }, pool }], ...pool })
    expect(routes.map(({ name }) => name)).toEqual(['route0', 'default'])
    expect(routes[1]?.pool).toBe(defaultPool)
    expect(ownPools).toHaveLength(2)
  })

  it('lists every pool that a route may use, once, and gives its own chance and time to those it makes', () => {
    const shared = createPool(pool)
    const random = (): number => 0.5
    const clock = { now: () => 5, setTimeout: () => 0, clearTimeout: () => {} }
    const { pools, ownPools, defaultPool } = settings({
      ...pool,
      random,
      clock,
      routes: [
        { match: { path: '/a' }, pool: shared },
        { match: { path: '/b' }, pool: shared },
        { match: { path: '/c' }, pool },
      ],
    })
    expect(pools).toHaveLength(3)
    expect(pools).toContain(shared)
    expect(pools).toContain(defaultPool)
    for (const own of ownPools) expect([own.random, own.clock]).toEqual([random, clock])
    expect((shared as (typeof pools)[0]).random).not.toBe(random)
  })

  it('takes a source in place of a list, of its own and of a route', () => {
    const source = { async *[Symbol.asyncIterator]() {} }
    const { pools } = settings({
      upstreams: source,
      transport,
      routes: [{ match: { path: '/a' }, pool: { upstreams: source, transport } }],
    })
    expect(pools.map(({ startable, upstreams: members }) => [startable, members])).toEqual([
      [true, []],
      [true, []],
    ])
    expect(settings(pool).pools.map(({ startable }) => startable)).toEqual([false])
  })

  it('does not own a pool that was made outside', () => {
    const shared = createPool(pool)
    const { ownPools, defaultPool } = settings({ pool: shared, routes: [{ pool: shared }] })
    expect(ownPools).toEqual([])
    expect(defaultPool).toBe(shared)
  })
})
