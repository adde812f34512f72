/**
 * Every option of `createProxy` and `createPool`, wrong in some way. A wrong configuration is an `OptionsError` at once, when the factory is
 * called; it names all that is wrong, by its path from the factory's argument, with what was given and what is allowed. Paths are asserted,
 * messages are not.
 */

import { inspect } from 'node:util'
import {
  createPool,
  createProxy,
  failureMemory,
  httpProxyTransport,
  type OptionProblem,
  OptionsError,
  type Pool,
  type ProxyOptions,
  roundRobin,
  undiciTransport,
} from '@weir/core'
import { testUpstream } from '@weir/testing'
import { afterAll, describe, expect, it } from 'vitest'

const fine = 'http://127.0.0.1:3000'
/** Has the form; what it says is found out when it is used. */
const pem = '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n'

/** The problems of a factory call; fails when it does not throw an OptionsError. */
function problems(call: () => unknown): readonly OptionProblem[] {
  try {
    call()
  } catch (error) {
    if (!OptionsError.is(error)) throw error
    expect([error.name, error.code]).toEqual(['OptionsError', 'ERR_OPTIONS'])
    for (const { path, given, expected } of error.problems) {
      expect(path).not.toBe('')
      expect(typeof given).toBe('string')
      expect(expected.length).toBeGreaterThan(3)
      // The text for people holds all of it.
      for (const part of [path, given, expected]) expect(error.message).toContain(part)
    }
    return error.problems
  }
  throw new Error('it was accepted')
}

const pathsOf = (call: () => unknown): string[] => problems(call).map((problem) => problem.path)

type Case = readonly [path: string, values: readonly unknown[]]

const sometimes = (...more: unknown[]): unknown[] => [null, true, {}, [], () => {}, Symbol('s'), 1n, ...more]
const badDurations = ['5', '5 s', '-1s', 's', '', -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 40, '1e3', ...sometimes()]
const badSizes = ['5', '5 KiB', '5KB', '5kib', '', -1, Number.NaN, Number.POSITIVE_INFINITY, ...sometimes()]
const badBooleans = [0, 1, 'true', '', null, {}]
const badCounts = [-1, 1.5, '3', Number.NaN, ...sometimes()]
const badObjects = [null, 1, 'x', [], true, () => {}]

/** Options of a pool; the path is the one below the pool's own. */
const poolCases: readonly Case[] = [
  ['upstreams', [null, 'http://a', {}, 5, new Set(['http://a'])]],
  [
    'upstreams[0]',
    [
      null,
      5,
      '',
      'a',
      '10.0.0.1:3000',
      '/path',
      'ftp://a',
      'ws://a',
      'http://',
      'unix:',
      'unix://host/path',
      'http://a?q=1',
      'http://a#f',
      'http://a b',
      'mailto:x',
      [],
      true,
    ],
  ],
  ['upstreams[0].url', [undefined, null, 5, 'ftp://a', 'http://user@a', {}].map((url) => ({ url }))],
  ['upstreams[0].id', ['', 5, null, {}].map((id) => ({ url: fine, id }))],
  ['upstreams[0].weight', [-1, 1.5, 65_536, '2', Number.NaN, null, {}].map((weight) => ({ url: fine, weight }))],
  ['upstreams[0].priority', [-1, 1.5, 1001, '2', null].map((priority) => ({ url: fine, priority }))],
  ['upstreams[0].backup', badBooleans.map((backup) => ({ url: fine, backup }))],
  ['upstreams[0].maxConcurrent', [0, -1, '5', Number.NaN, null].map((maxConcurrent) => ({ url: fine, maxConcurrent }))],
  ['upstreams[0].meta', [5, 'x', null, true].map((meta) => ({ url: fine, meta }))],
  ['upstreams[0].wieght', [{ url: fine, wieght: 2 }]],
  ['balancer', [roundRobin, 'round-robin', 5, null, {}, { update() {} }, { pick() {} }, true]],
  ['health', [failureMemory(), 'x', 5, null, {}, [null], [failureMemory], [{ name: 'x' }], true]],
  ['maxConcurrent', [0, -1, '5', Number.NaN, null, {}, true]],
  ['queue', [null, 5, 'x', [], true]],
  ['queue.limit', badCounts.map((limit) => ({ limit }))],
  ['queue.timeout', [0, ...badDurations].map((timeout) => ({ timeout }))],
  ['queue.size', [{ size: 5 }]],
  ['transport', [null, 5, 'undici', {}, undiciTransport, true]],
  ['tls', [null, 5, 'x', [], true]],
  ['tls.insecure', badBooleans.map((insecure) => ({ insecure }))],
  ['tls.cert', [{ key: pem }, { cert: pem }, { cert: 'c', key: pem }, { cert: 5, key: pem }, { cert: null, key: pem }]],
  ['tls.key', ['k', 5, null, {}].map((key) => ({ cert: pem, key }))],
  ['tls.servername', [5, '', null, {}].map((servername) => ({ servername }))],
  ['tls.ca', [5, null, {}, [5], 'not a certificate'].map((ca) => ({ ca }))],
  ['tls.rejectUnauthorized', [{ rejectUnauthorized: false }]],
]

/** Options that a proxy and a route have in common. */
const forwardCases: readonly Case[] = [
  ['timeouts', badObjects],
  ['timeouts.connect', [0, ...badDurations].map((connect) => ({ connect }))],
  ['timeouts.head', badDurations.map((head) => ({ head }))],
  ['timeouts.idle', badDurations.map((idle) => ({ idle }))],
  ['timeouts.total', badDurations.map((total) => ({ total }))],
  ['timeouts.tunnelIdle', badDurations.map((tunnelIdle) => ({ tunnelIdle }))],
  ['timeouts.headers', [{ headers: '5s' }]],
  ['retry', [null, 5, 'x', [], true]],
  ['retry.attempts', [0, 101, ...badCounts].map((attempts) => ({ attempts }))],
  ['retry.on', ['connect', 5, null, {}, true].map((on) => ({ on }))],
  ['retry.on[1]', ['conect', 200, 399, 600, 503.5, '503', null, {}].map((condition) => ({ on: ['connect', condition] }))],
  ['retry.methods', ['GET', 5, null, {}, [5], [null]].map((methods) => ({ methods }))],
  ['retry.idempotencyKey', badBooleans.map((idempotencyKey) => ({ idempotencyKey }))],
  ['retry.perTryTimeout', badDurations.map((perTryTimeout) => ({ perTryTimeout }))],
  ['retry.budget', [null, 0.2, 'x', [], true].map((budget) => ({ budget }))],
  ['retry.budget.ratio', [-0.1, 1.1, '0.2', Number.NaN, null].map((ratio) => ({ budget: { ratio } }))],
  ['retry.budget.minPerSecond', [-1, '5', Number.NaN, null].map((minPerSecond) => ({ budget: { minPerSecond } }))],
  ['retry.budget.percent', [{ budget: { percent: 20 } }]],
  ['retry.backoff', badObjects.map((backoff) => ({ backoff }))],
  ['retry.backoff.base', badDurations.map((base) => ({ backoff: { base } }))],
  ['retry.backoff.max', badDurations.map((max) => ({ backoff: { max } }))],
  ['retry.maxRetryAfter', badDurations.map((maxRetryAfter) => ({ maxRetryAfter }))],
  ['retry.replayBuffer', badSizes.map((replayBuffer) => ({ replayBuffer }))],
  ['retry.tries', [{ tries: 2 }]],
  ['headers', badObjects],
  ['headers.request', badObjects.map((request) => ({ request }))],
  ['headers.response', badObjects.map((response) => ({ response }))],
  [
    'headers.request.remove',
    ['x-a', 5, null, [5], ['x a'], [''], ['connection'], ['Content-Length']].map((remove) => ({ request: { remove } })),
  ],
  [
    'headers.request.rename',
    [{ 'x-a': 5 }, { 'x-a': 'x b' }, { 'x a': 'x-b' }, { 'x-a': 'Transfer-Encoding' }, { te: 'x-b' }, 'x', null].map((rename) => ({
      request: { rename },
    })),
  ],
  [
    'headers.response.set',
    [
      { 'x-a': 5 },
      { 'x-a': null },
      { 'x a': '1' },
      { 'x-a': 'a\r\nb' },
      { 'x-a': 'snow ☃' },
      { Connection: 'close' },
      { 'transfer-encoding': () => 'x' },
      'x',
      null,
    ].map((set) => ({ response: { set } })),
  ],
  ['headers.response.add', [{ 'x-a': ['1'] }, { '': '1' }, { upgrade: 'x' }].map((add) => ({ response: { add } }))],
  [
    'headers.request.setIfMissing',
    [{ 'x-a': {} }, { 'x:a': '1' }, { trailer: 'x' }].map((setIfMissing) => ({ request: { setIfMissing } })),
  ],
  ['headers.request.delete', [{ request: { delete: ['x-a'] } }]],
  ['headers.both', [{ both: {} }]],
  [
    'hostHeader',
    ['server', '', 5, null, {}, [], { fixed: '' }, { fixed: 5 }, { fixed: 'a b' }, { fixed: 'a/b' }, { fixed: 'a\r\nb' }, { name: 'a' }],
  ],
  ['rewriteRedirects', badBooleans],
  ['maxBodySize', badSizes],
]

const proxyCases: readonly Case[] = [
  ['use', ['x', 5, null, {}, () => {}]],
  [
    'use[1]',
    [5, 'stage', true, {}, { name: 'x' }, { handle() {} }, { name: 5, handle() {} }, { name: 'x', handle: 5 }].map((stage) => [
      () => undefined,
      stage,
    ]),
  ],
  ['trustedProxies', ['loopback', 5, null, {}, true]],
  [
    'trustedProxies[1]',
    [
      'lopback',
      '10.0.0.0/33',
      '::/129',
      '10.0.0.0/',
      '10.0.0.0/8/8',
      '10.0.0',
      'example.com',
      '',
      5,
      null,
      '10.0.0.0/-1',
      '10.0.0.0/x',
    ].map((entry) => ['loopback', entry]),
  ],
  ['forwarding', badObjects],
  ['forwarding.xForwarded', badBooleans.map((xForwarded) => ({ xForwarded }))],
  ['forwarding.forwarded', badBooleans.map((forwarded) => ({ forwarded }))],
  ['forwarding.by', ['', 'a b', 'a\r\nb', 5, null, 'ü'].map((by) => ({ by }))],
  ['forwarding.host', [{ host: true }]],
  ['via', ['', 'a b', 'a,b', 5, null, 'ü', 'a\r\nb']],
  ['name', ['', 'a b', '"', 5, null, 'a\r\nb']],
  ['random', [0.5, null, 'x', {}]],
  ['clock', [null, 5, {}, { now: () => 0 }, { now: () => 0, setTimeout() {} }]],
  ['routes', ['x', 5, null, {}]],
  ['routes[0]', [[null], [5], ['/api'], [[]]]],
  ['upstream', [fine]],
]

const routeCases: readonly Case[] = [
  ['name', ['', 5, null, {}]],
  ['match', [null, '/api', 5, [], true]],
  ['match.host', [5, '', null, [''], [5], [], 'a b', 'http://a', 'a/b', 'a.*.b', '*a', '*'].map((host) => ({ host }))],
  ['match.path', [5, '', null, 'api', ['/a', 'b'], [], '/a?b', '/a#b', '/a b'].map((path) => ({ path }))],
  ['match.method', [5, '', null, [5], []].map((method) => ({ method }))],
  ['match.header', [5, null, 'x', { 'x-a': 5 }, { 'x-a': false }, { 'x-a': null }].map((header) => ({ header }))],
  ['match.query', [{ query: 'x' }]],
  ['pool', [null, 5, 'pool', [], {}, { url: fine }, true]],
  ['use', ['x', 5, null, {}]],
  ['use[0]', [[5], [{}], ['x']]],
  ['stripPrefix', ['api', '/a?b', '/a b', '/a/../b', '/%2e%2e', 5, null, false, {}]],
  ['addPrefix', ['api', '/a?b', '/a b', '/..', 5, null, true]],
  ['rewrite', ['/x', 5, null, {}]],
  ['upstreams', [[fine]]],
]

/** Says what was given when a value that should be refused is not. */
function expectRefused(call: () => unknown, path: string, value: unknown): void {
  let paths: string[]
  try {
    paths = pathsOf(call)
  } catch (error) {
    throw new Error(`${path}: ${inspect(value)}: ${(error as Error).message}`, { cause: error })
  }
  // This path, or one within: an entry of a list, a name of an object.
  const within = paths.filter((each) => each === path || each.startsWith(`${path}.`) || each.startsWith(`${path}[`))
  expect([path, inspect(value), within]).toEqual([path, inspect(value), paths])
  expect(paths.length).toBeGreaterThan(0)
}

/** `{ a: { b: value } }` for `a.b`, where the table gives the value of the first name. */
const first = (path: string): string => path.split(/[.[]/, 1)[0] as string

describe('wrong options', () => {
  it.each(poolCases)('createPool: %s', (path, values) => {
    for (const value of values) {
      const given = path.startsWith('upstreams[') ? { upstreams: [value] } : { upstreams: [fine], [first(path)]: value }
      expectRefused(() => createPool(given as never), path, value)
    }
  })

  it.each(poolCases)('createProxy, for its default pool: %s', (path, values) => {
    for (const value of values) {
      const given = path.startsWith('upstreams[') ? { upstreams: [value] } : { upstreams: [fine], [first(path)]: value }
      // Without a value there is no `upstreams` at all, which is another mistake.
      if (value !== null || path !== 'upstreams') expectRefused(() => createProxy(given as never), path, value)
    }
  })

  it.each(poolCases)('createProxy, for the pool of a route: %s', (path, values) => {
    for (const value of values) {
      const pool = path.startsWith('upstreams[') ? { upstreams: [value] } : { upstreams: [fine], [first(path)]: value }
      expectRefused(() => createProxy({ routes: [{ pool }] } as never), `routes[0].pool.${path}`, value)
    }
  })

  it.each([...forwardCases, ...proxyCases])('createProxy: %s', (path, values) => {
    for (const value of values) expectRefused(() => createProxy({ upstreams: [fine], [first(path)]: value } as never), path, value)
  })

  it.each([...forwardCases, ...routeCases])('createProxy, in a route: %s', (path, values) => {
    for (const value of values) {
      const route = { pool: { upstreams: [fine] }, [first(path)]: value }
      expectRefused(() => createProxy({ routes: [{ pool: { upstreams: [] } }, route] } as never), `routes[1].${path}`, value)
    }
  })

  it.each([undefined, null, 5, 'http://127.0.0.1:3000', [fine], true, () => {}])('no options at all: %s', (value) => {
    expect(pathsOf(() => createProxy(value as never))[0]).toBe('options')
    if (value !== undefined) expect(pathsOf(() => createPool(value as never))[0]).toBe('options')
  })

  it('nothing to send to', () => {
    expect(pathsOf(() => createProxy({} as never))).toEqual(['upstreams'])
    expect(pathsOf(() => createPool({} as never))).toEqual(['upstreams'])
  })
})

describe('options that contradict each other', () => {
  const pool: Pool = createPool({ upstreams: [] })
  afterAll(() => pool.close())

  it.each([
    [{ upstreams: [{ url: fine, backup: true, priority: 2 }] }, ['upstreams[0].backup']],
    [{ upstreams: [fine, fine] }, ['upstreams[1].id']],
    [{ upstreams: [fine, `${fine}/`] }, ['upstreams[1].id']],
    [
      {
        upstreams: [
          { url: 'http://a', id: 'x' },
          { url: 'http://b', id: 'x' },
        ],
      },
      ['upstreams[1].id'],
    ],
    [{ upstreams: [], transport: undiciTransport(), tls: {} }, ['tls']],
  ] as const)('in a pool: %j', (options, paths) => {
    expect(pathsOf(() => createPool(options as never))).toEqual(paths)
    expect(pathsOf(() => createProxy(options as never))).toEqual(paths)
  })

  it.each(['upstreams', 'balancer', 'health', 'maxConcurrent', 'queue', 'transport', 'tls'] as const)('`pool` and `%s`', (key) => {
    const values = {
      upstreams: [fine],
      balancer: roundRobin(),
      health: [],
      maxConcurrent: 5,
      queue: false,
      transport: undiciTransport(),
      tls: {},
    }
    expect(pathsOf(() => createProxy({ pool, [key]: values[key] } as never))).toEqual([key])
  })

  it('`stripPrefix: true` without exactly one path to strip', () => {
    for (const match of [undefined, {}, { host: 'a' }, { path: ['/a', '/b'] }, () => true])
      expect(pathsOf(() => createProxy({ routes: [{ pool, stripPrefix: true, ...(match === undefined ? {} : { match }) }] }))).toEqual([
        'routes[0].stripPrefix',
      ])
  })

  it('stages in an order that one of them refuses', () => {
    const stage = (name: string, order?: object): object => ({ name, handle() {}, ...(order === undefined ? {} : { order }) })
    const cases = [
      [stage('cache', { after: ['sticky'] }), stage('sticky')],
      [stage('sticky'), stage('cache', { before: ['sticky'] })],
    ]
    for (const use of cases) expect(pathsOf(() => createProxy({ upstreams: [], use } as never))).toEqual(['use'])
    // Across the proxy's list and a route's, the route is where it can be mended.
    const [before, after] = cases[0] as [object, object]
    expect(pathsOf(() => createProxy({ use: [before], routes: [{ pool, use: [after] }] } as never))).toEqual(['routes[0].use'])
    // Wishes about stages that are not there are no mistakes.
    expect(() => createProxy({ upstreams: [], use: [stage('cache', { after: ['sticky'], before: ['compress'] })] } as never)).not.toThrow()
  })

  it('one balancer for two pools', async () => {
    const balancer = roundRobin()
    const own = createPool({ upstreams: [], balancer })
    expect(pathsOf(() => createPool({ upstreams: [], balancer }))).toEqual(['balancer'])
    expect(pathsOf(() => createProxy({ upstreams: [], balancer }))).toEqual(['balancer'])
    const fresh = roundRobin()
    const routes = [{ pool: { upstreams: [], balancer: fresh } }, { pool: { upstreams: [], balancer: fresh } }]
    expect(pathsOf(() => createProxy({ routes }))).toEqual(['routes[1].pool.balancer'])
    await own.close()
  })
})

describe('a wrong configuration', () => {
  it('is reported whole, at once', () => {
    const paths = pathsOf(() =>
      createProxy({
        upstreams: ['nowhere', { url: fine, weight: -1, wait: 5 }],
        balancer: 'fastest',
        health: [5],
        queue: { limit: -1, timeout: 'soon' },
        tls: { insecure: 'yes' },
        timeouts: { connect: '5 sec', head: -1 },
        retry: { attempts: 0, on: ['conect', 200], budget: { ratio: 2 } },
        headers: { request: { set: { 'bad name': '1' } } },
        hostHeader: 'server',
        trustedProxies: ['lopback'],
        forwarding: { by: '' },
        use: [5],
        via: 'a b',
        name: '',
        random: 4,
        maxBodySize: '1 GB',
        routes: [{ match: { path: 'api' }, pool: { upstreams: ['ftp://a'] }, stripPrefix: 'x', timeouts: { idle: 'long' } }],
        balance: 'typo',
      } as never),
    )
    expect(paths.toSorted()).toEqual(
      [
        'upstreams[0]',
        'upstreams[1].weight',
        'upstreams[1].wait',
        'balancer',
        'health',
        'queue.limit',
        'queue.timeout',
        'tls.insecure',
        'timeouts.connect',
        'timeouts.head',
        'retry.attempts',
        'retry.on[0]',
        'retry.on[1]',
        'retry.budget.ratio',
        'headers.request.set',
        'hostHeader',
        'trustedProxies[0]',
        'forwarding.by',
        'use[0]',
        'via',
        'name',
        'random',
        'maxBodySize',
        'routes[0].match.path',
        'routes[0].pool.upstreams[0]',
        'routes[0].stripPrefix',
        'routes[0].timeouts.idle',
        'balance',
      ].toSorted(),
    )
  })

  it('opens nothing and spoils nothing: what was given can be given again', async () => {
    await using upstream = await testUpstream()
    const balancer = roundRobin()
    const attached: unknown[] = []
    const policy = { name: 'policy', attach: (control: unknown) => void attached.push(control) }
    const started: string[] = []
    const stage = { name: 'stage', handle: () => undefined, start: () => void started.push('start') }
    const options: ProxyOptions = { upstreams: [upstream.url], balancer, health: [policy], use: [stage] }
    expect(pathsOf(() => createProxy({ ...options, via: '' }))).toEqual(['via'])
    expect(pathsOf(() => createPool({ upstreams: [upstream.url, 'nowhere'], balancer, health: [policy] }))).toEqual(['upstreams[1]'])
    expect([upstream.accepted, attached, started]).toEqual([0, [], []])
    const proxy = createProxy(options)
    expect((await proxy.inject({})).status).toBe(200)
    expect(attached).toHaveLength(1)
    await proxy.close()
  })

  it('never repeats a secret', () => {
    const cases: unknown[] = [
      { upstreams: ['http://user:hunter2@10.0.0.1'] },
      { upstreams: [new URL('http://user:hunter2@10.0.0.1')] },
      { upstreams: [{ url: 'http://user:hunter2@10.0.0.1' }] },
      { upstreams: [fine], tls: { key: 'hunter2' } },
      { upstreams: [fine], tls: { cert: 'x', key: 'hunter2', insecure: 5 } },
    ]
    for (const options of cases) {
      const found = problems(() => createProxy(options as never))
      expect(found.length).toBeGreaterThan(0)
      expect(JSON.stringify(found)).not.toContain('hunter2')
    }
  })

  it('is found later, too: on a running pool and a running proxy', async () => {
    const proxy = createProxy({ upstreams: [fine] })
    const pool = proxy.pool as Pool
    expect(pathsOf(() => pool.add('nowhere'))).toEqual(['options'])
    expect(pathsOf(() => pool.add({ url: fine }))).toEqual(['id'])
    expect(pathsOf(() => pool.add({ url: 'http://b', weight: -1, meta: 5 } as never)).toSorted()).toEqual(['meta', 'weight'])
    expect(pathsOf(() => pool.setWeight('nobody', 1))).toEqual(['id'])
    expect(pathsOf(() => pool.setWeight(fine, 1.5))).toEqual(['weight'])
    for (const leave of [
      () => pool.remove(fine, { deadline: 'soon' } as never),
      () => pool.drain(fine, { deadline: -1 }),
      () => proxy.close({ deadline: 'x' } as never),
    ])
      expect(pathsOf(leave)).toEqual(['deadline'])
    expect(pathsOf(() => proxy.close({ dedline: 5 } as never))).toEqual(['dedline'])
    // None of these has changed anything.
    expect(pool.stats().upstreams.map(({ id, state, weight }) => [id, state, weight])).toEqual([[fine, 'up', 1]])
    await proxy.close()
  })
})

describe('the other factories', () => {
  it.each([
    ['keepAliveTimeout', [...badDurations]],
    ['maxIdle', badCounts],
    ['maxRequests', badCounts],
    ['maxAge', [...badDurations]],
    ['maxHeaderSize', [1023, ...badSizes]],
    ['localAddress', ['localhost', '', 5, null, '10.0.0.1:80']],
    ['tls', [null, 5, 'x']],
    ['pipelining', [5]],
  ] as const)('undiciTransport: %s', (path, values) => {
    for (const value of values) expectRefused(() => undiciTransport({ [path]: value } as never), path, value)
  })

  it.each([
    ['keepAliveTimeout', [...badDurations]],
    ['maxConnections', [0, 65_536, ...badCounts]],
    ['maxRequests', badCounts],
    ['maxAge', [...badDurations]],
    ['maxHeaderSize', [1023, ...badSizes]],
    ['localAddress', ['localhost', '', 5, null]],
    ['tls', [null, 5, 'x']],
    ['agent', [{}]],
  ] as const)('httpProxyTransport: %s', (path, values) => {
    for (const value of values) expectRefused(() => httpProxyTransport({ [path]: value } as never), path, value)
  })

  it.each([
    ['failures', [0, ...badCounts]],
    ['penalty', [0, ...badDurations]],
    ['window', [5]],
  ] as const)('failureMemory: %s', (path, values) => {
    for (const value of values) expectRefused(() => failureMemory({ [path]: value } as never), path, value)
  })

  it('roundRobin: random', () => {
    for (const value of [5, null, 'x']) expectRefused(() => roundRobin({ random: value } as never), 'random', value)
  })
})
