/**
 * Wrong options that an editor refuses. Every entry is wrong for the compiler (the line below `@ts-expect-error` must fail to compile, or the
 * type check of the tests does) and for the factory (JavaScript has no compiler), and the paths say that both see the same mistake.
 */
import { fakeTransport } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { HeaderFields, PoolOptions, ProxyOptions, RouteMatch, Stage, StageLike, UpstreamOptions } from './index.ts'
import { createPool, createProxy, failureMemory, type OptionsError, ReplyFields, roundRobin } from './index.ts'

const transport = fakeTransport()
const upstreams = ['http://a.test']

function paths(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    return (error as OptionsError).problems.map(({ path }) => path)
  }
  return []
}
type Row = readonly [what: string, run: () => unknown, paths: readonly string[]]
const table = (rows: readonly Row[]): void => {
  for (const [what, run, expected] of rows) it(what, () => expect(paths(run).toSorted()).toEqual(expected.toSorted()))
}

describe('createProxy', () => {
  const proxy = (options: Omit<ProxyOptions, 'upstreams' | 'transport'>): unknown => createProxy({ upstreams, transport, ...options })
  table([
    // @ts-expect-error no options
    ['nothing', () => createProxy(), ['options']],
    // @ts-expect-error an address is no list
    ['one upstream', () => createProxy({ upstreams: 'http://a.test', transport }), ['upstreams']],
    // @ts-expect-error a number is no upstream
    ['a port', () => createProxy({ upstreams: [3000], transport }), ['upstreams[0]', 'upstreams[0].url']],
    // @ts-expect-error the URL is missing
    ['an upstream without a URL', () => createProxy({ upstreams: [{ weight: 1 }], transport }), ['upstreams[0].url']],
    // @ts-expect-error misspelt
    ['a misspelt option', () => proxy({ balancers: roundRobin() }), ['balancers']],
    // @ts-expect-error the factory, not what it makes
    ['a balancer that was not called', () => proxy({ balancer: roundRobin }), ['balancer']],
    // @ts-expect-error a name is no balancer
    ['a balancer by name', () => proxy({ balancer: 'round-robin' }), ['balancer']],
    // @ts-expect-error one policy is no list
    ['one health policy', () => proxy({ health: failureMemory() }), ['health']],
    // @ts-expect-error a duration needs its unit
    ['a duration without unit', () => proxy({ timeouts: { connect: '5' } }), ['timeouts.connect']],
    // @ts-expect-error no such unit
    ['a duration in weeks', () => proxy({ timeouts: { total: '2w' } }), ['timeouts.total']],
    // @ts-expect-error no such timeout
    ['an unknown timeout', () => proxy({ timeouts: { read: '5s' } }), ['timeouts.read']],
    // @ts-expect-error a size is no duration
    ['a size with a unit of time', () => proxy({ maxBodySize: '5s' }), ['maxBodySize']],
    // @ts-expect-error KB is ambiguous
    ['a decimal size', () => proxy({ maxBodySize: '64KB' }), ['maxBodySize']],
    // @ts-expect-error true says nothing
    ['retry: true', () => proxy({ retry: true }), ['retry']],
    // @ts-expect-error no such condition
    ['a retry condition that does not exist', () => proxy({ retry: { on: ['5xx'] } }), ['retry.on[0]']],
    // @ts-expect-error neither
    ['a Host rule that does not exist', () => proxy({ hostHeader: 'original' }), ['hostHeader']],
    // @ts-expect-error a name is no list
    ['trust in a string', () => proxy({ trustedProxies: 'loopback' }), ['trustedProxies']],
    // @ts-expect-error a boolean is no list
    ['trust in everybody', () => proxy({ trustedProxies: true }), ['trustedProxies']],
    // @ts-expect-error a string is no rule
    ['header rules by name', () => proxy({ headers: { request: { remove: 'cookie' } } }), ['headers.request.remove']],
    // @ts-expect-error numbers are no field values
    ['a header value that is a number', () => proxy({ headers: { response: { set: { Age: 0 } } } }), ['headers.response.set']],
    // @ts-expect-error true says nothing
    ['queue: true', () => proxy({ queue: true }), ['queue']],
    // @ts-expect-error a pool is made by createPool
    ['a list as pool', () => createProxy({ pool: upstreams }), ['pool']],
    // @ts-expect-error a flag is no text
    ['rewriteRedirects as text', () => proxy({ rewriteRedirects: 'yes' }), ['rewriteRedirects']],
    // @ts-expect-error a flag is no text
    ['forwarding that is no flag', () => proxy({ forwarding: { xForwarded: 'yes' } }), ['forwarding.xForwarded']],
    // @ts-expect-error no such field
    ['forwarding that does not exist', () => proxy({ forwarding: { realIp: true } }), ['forwarding.realIp']],
    // @ts-expect-error a number is no name
    ['a name that is none', () => proxy({ name: 5 }), ['name']],
  ])
})

describe('createPool', () => {
  const pooled = (options: Omit<PoolOptions, 'upstreams' | 'transport'>): unknown => createPool({ upstreams, transport, ...options })
  const upstream = (options: UpstreamOptions): unknown => createPool({ upstreams: [options], transport })
  table([
    // @ts-expect-error no upstreams
    ['nothing in it', () => createPool({ transport }), ['upstreams']],
    // @ts-expect-error misspelt
    ['a misspelt setting of an upstream', () => upstream({ url: 'http://a.test', wieght: 2 }), ['upstreams[0].wieght']],
    // @ts-expect-error a numeral is no number
    ['a weight that is text', () => upstream({ url: 'http://a.test', weight: '2' }), ['upstreams[0].weight']],
    // @ts-expect-error a flag is no number
    ['backup that is a number', () => upstream({ url: 'http://a.test', backup: 1 }), ['upstreams[0].backup']],
    // @ts-expect-error routes belong to a proxy
    ['routes', () => pooled({ routes: [] }), ['routes']],
    // @ts-expect-error a name is no transport
    ['a transport by name', () => createPool({ upstreams, transport: 'undici' }), ['transport']],
    // @ts-expect-error no such setting
    ['an unknown queue setting', () => pooled({ queue: { size: 5 } }), ['queue.size']],
    // @ts-expect-error a number is no name
    ['a name that is none', () => pooled({ name: 5 }), ['name']],
    // @ts-expect-error a moment is no clock
    ['a clock that is none', () => pooled({ clock: Date.now }), ['clock']],
  ])

  const pool = createPool({ upstreams, transport })
  table([
    // @ts-expect-error a numeral is no number
    ['setWeight with text', () => pool.setWeight('http://a.test', '2'), ['weight']],
    // @ts-expect-error a duration needs its unit
    ['a deadline without unit', () => pool.drain('http://a.test', { deadline: '5' }), ['deadline']],
    // @ts-expect-error the URL is missing
    ['add of nothing', () => pool.add({}), ['url']],
  ])
})

describe('routes', () => {
  const route = (given: NonNullable<ProxyOptions['routes']>[number]): unknown => createProxy({ routes: [given] })
  const pool = { upstreams, transport }
  table([
    // @ts-expect-error a route leads somewhere
    ['no pool', () => route({ match: { path: '/a' } }), ['routes[0].pool']],
    // @ts-expect-error a pool is no address
    ['an address as pool', () => route({ pool: 'http://a.test' }), ['routes[0].pool']],
    // @ts-expect-error a path is a part of a match
    ['a path as match', () => route({ match: '/a', pool }), ['routes[0].match']],
    // @ts-expect-error plural
    ['a misspelt part of a match', () => route({ match: { paths: ['/a'] }, pool }), ['routes[0].match.paths']],
    // @ts-expect-error patterns are functions
    ['a pattern as path', () => route({ match: { path: /a/ }, pool }), ['routes[0].match.path']],
    // @ts-expect-error absence is a function
    ['a header that must be absent', () => route({ match: { header: { 'x-a': false } }, pool }), ['routes[0].match.header']],
    // @ts-expect-error false says nothing
    ['stripPrefix: false', () => route({ match: { path: '/a' }, stripPrefix: false, pool }), ['routes[0].stripPrefix']],
    // @ts-expect-error a map is no function
    ['a rewrite that is a map', () => route({ rewrite: { '/a': '/b' }, pool }), ['routes[0].rewrite']],
    // @ts-expect-error a list
    ['one stage', () => route({ use: () => {}, pool }), ['routes[0].use']],
    // @ts-expect-error balancers belong to a pool
    ['a balancer', () => route({ balancer: roundRobin(), pool }), ['routes[0].balancer']],
    // @ts-expect-error a number is no name
    ['a name that is none', () => route({ name: 5, pool }), ['routes[0].name']],
  ])

  it('one that is no object', () => {
    // @ts-expect-error an address is no route
    expect(paths(() => createProxy({ routes: ['http://a.test'] })).length).toBeGreaterThan(0)
  })
})

describe('stages', () => {
  const using = (...use: readonly StageLike[]): unknown => createProxy({ upstreams, transport, use })
  table([
    // @ts-expect-error a name is no stage
    ['by name', () => using('compress'), ['use[0]']],
    // @ts-expect-error true is not "switched on"
    ['true', () => using(true), ['use[0]']],
    // @ts-expect-error handle is missing
    ['without handle', () => using({ name: 'x' }), ['use[0]']],
    // @ts-expect-error the name is missing
    ['without a name', () => using({ handle: () => {} }), ['use[0]']],
    // @ts-expect-error a list of names
    ['with an order that is text', () => using({ name: 'x', handle: () => {}, order: { after: 'cache' } }), ['use[0].order']],
  ])

  it('what they return is a reply, hooks, or nothing', () => {
    const fine: StageLike[] = [
      false,
      null,
      undefined,
      () => {},
      () => ({ status: 200, headers: { A: ['1', '2'] }, body: 'x' }),
      () => ({ status: 200, fields: ['A', '1', 'A', '2'], body: new Uint8Array(1) }),
      () => ({ status: 200, fields: new ReplyFields(['A', '1']), body: new Uint8Array(1), latin1: '\0' }),
      async () => ({ onFinish() {} }),
      ({ clientIp }) => (clientIp === '' ? { status: 403 } : undefined),
    ]
    const wrong: StageLike[] = [
      // @ts-expect-error a status alone is a number
      () => 403,
      // @ts-expect-error a numeral is no status
      () => ({ status: '403' }),
      // @ts-expect-error an object is no body
      () => ({ status: 200, body: { a: 1 } }),
      // @ts-expect-error a hook that does not exist
      () => ({ onRequest() {} }),
      // @ts-expect-error a field value is text
      () => ({ status: 200, headers: { A: 1 } }),
      // @ts-expect-error a list of fields is flat
      () => ({ status: 200, fields: [['A', '1']] }),
      // @ts-expect-error what is sent often is made by its class
      () => ({ status: 200, fields: { list: ['A', '1'], length: 0 } as const }),
    ]
    expect([fine.length, wrong.length]).toEqual([9, 7])
  })

  it('what they see cannot be written where it is not theirs', () => {
    const stage: Stage = {
      name: 'writer',
      handle(exchange) {
        exchange.url = '/x'
        exchange.affinity = 'a'
        exchange.hashKey = 'k'
        // @ts-expect-error the method is the client's
        exchange.method = 'POST'
        // @ts-expect-error as is the address
        exchange.clientIp = '192.0.2.1'
        // @ts-expect-error upstreams are the pool's
        if (exchange.upstream !== undefined) exchange.upstream.weight = 0
        // @ts-expect-error unknown until declared
        exchange.locals.user = 'me'
      },
    }
    const match: RouteMatch = { host: 'a' }
    const fields: HeaderFields = { A: '1' }
    // @ts-expect-error options are read once
    match.host = 'b'
    // @ts-expect-error as are replies
    fields.A = '2'
    expect(stage.name).toBe('writer')
  })
})
