/**
 * What a health policy of your own can do to a pool that serves, seen from the client and the servers: keep somebody from the first request on,
 * weigh, drain, degrade, limit, cut, refuse, and open the pool when too few are left.
 */
import type { AttemptOutcome, Balancer, HealthControl, HealthPolicy, ProxyOptions, Upstream, UpstreamChange } from '@weir/core'
import { createPool, createProxy, ProxyError, roundRobin } from '@weir/core'
import { faults, rawConnect, rawRequest, rawUpstream, type TestUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { manualClock } from './manual-clock.ts'
import { get, head, ok, switching, upgradeHead } from './messages.ts'
import { gate, type ObservedProxy, startProxy, transports, until } from './observed.ts'
import { startProxy as startPlain } from './setup.ts'

interface Voice extends HealthPolicy {
  readonly control: HealthControl
  /** By the name that the upstream was given as its id. */
  find(id: string): Upstream
  readonly ended: readonly AttemptOutcome[]
}

/** A policy through which the test speaks. */
function voice(more: Partial<HealthPolicy> = {}): Voice {
  let control: HealthControl | undefined
  const ended: AttemptOutcome[] = []
  return {
    name: 'voice',
    onAttempt: (outcome) => void ended.push(outcome),
    ...more,
    attach(pool) {
      control = pool
      more.attach?.(pool)
    },
    get control() {
      return control as HealthControl
    },
    find: (id) => control?.upstreams.find((upstream) => upstream.id === id) as Upstream,
    ended,
  }
}

/** Who answered, in order. */
async function ask(port: number, times = 1, ...lines: readonly string[]): Promise<(string | undefined)[]> {
  const names: (string | undefined)[] = []
  for (let i = 0; i < times; i++) names.push((await rawRequest(port, get('/', ...lines))).header('x-upstream'))
  return names
}
const count = (names: readonly unknown[], name: string): number => names.filter((each) => each === name).length
const code = (response: { header(name: string): string | undefined }): string | undefined =>
  /details="(.*)"/.exec(response.header('proxy-status') ?? '')?.[1]

interface Rig extends AsyncDisposable {
  readonly port: number
  readonly proxy: ObservedProxy
  readonly a: TestUpstream
  readonly b: TestUpstream
}

describe.each(transports)('a health policy over %s', (_name, transport) => {
  /** A proxy over `a` and `b`, and the policy. */
  async function rig(
    policy: HealthPolicy,
    options: Partial<ProxyOptions> & { routesOfA?: Parameters<typeof testUpstream>[0] } = {},
  ): Promise<Rig> {
    const { routesOfA = { '*': 'fine' }, ...rest } = options
    const [a, b] = [await testUpstream(routesOfA, { name: 'a' }), await testUpstream({ '*': 'fine' }, { name: 'b' })]
    const proxy = await startProxy(
      {
        upstreams: [
          { url: a.url, id: 'a' },
          { url: b.url, id: 'b' },
        ],
        health: [policy],
        ...rest,
      },
      { transport },
    )
    return {
      port: proxy.port,
      proxy,
      a,
      b,
      [Symbol.asyncDispose]: async () => {
        await proxy[Symbol.asyncDispose]()
        for (const upstream of [a, b]) await upstream.close()
      },
    }
  }

  it('a pending vote keeps an upstream from its very first request, until it is taken back', async () => {
    const policy = voice({
      attach: (control) => {
        for (const upstream of control.upstreams) if (upstream.id === 'a') control.setDown(upstream, policy, 'not checked yet')
      },
    })
    await using on = await rig(policy)
    expect(await ask(on.port, 5)).toEqual(['b', 'b', 'b', 'b', 'b'])
    expect(on.a.accepted).toBe(0)
    policy.control.setUp(policy.find('a'), policy, 'checked')
    expect(count(await ask(on.port, 6), 'a')).toBe(3)
  })

  it('a pending vote keeps a newcomer from its first request', async () => {
    const policy = voice({
      onUpstream: ({ upstream, from }) => {
        if (from === undefined) policy.control.setDown(upstream, policy, 'not checked yet')
      },
    })
    await using c = await testUpstream({ '*': 'fine' }, { name: 'c' })
    await using on = await rig(policy)
    on.proxy.proxy.pool?.add({ url: c.url, id: 'c' })
    expect(count(await ask(on.port, 6), 'c')).toBe(0)
    policy.control.setUp(policy.find('c'), policy, 'checked')
    expect(count(await ask(on.port, 6), 'c')).toBe(2)
  })

  it('the promise of `start` is waited for by the first requests, and by nobody after them', async () => {
    const { opened, open } = gate()
    let started = 0
    const policy = voice({
      start: () => {
        started++
        policy.control.setDown(policy.find('a'), policy, 'being checked')
        return opened
      },
    })
    await using on = await rig(policy)
    expect(started).toBe(0)
    const first = [rawRequest(on.port, get('/1')), rawRequest(on.port, get('/2'))]
    await until('both wait', () => on.proxy.proxy.stats().inflight === 2)
    await until('the policy is started', () => started > 0)
    expect([on.a.count(), on.b.count()]).toEqual([0, 0])
    open()
    for (const response of first) expect((await response).header('x-upstream')).toBe('b')
    expect(await ask(on.port)).toEqual(['b'])
    expect(started).toBe(1)
  })

  it('a client that leaves while it waits for `start` is sent to nobody', async () => {
    const { opened, open } = gate()
    await using upstream = await testUpstream({ '*': 'fine' })
    // Without stages: what they pass on is looked at once more.
    await using on = await startPlain({ upstreams: [upstream.url], health: [voice({ start: () => opened })] }, { transport })
    const client = await rawConnect(on.port)
    void client.write(get('/left'))
    await until('it waits', () => on.proxy.stats().inflight === 1)
    client.reset()
    await until('it has left', () => on.proxy.stats().inflight === 0)
    open()
    expect((await rawRequest(on.port, get('/stayed'))).status).toBe(200)
    expect(upstream.requests.map(({ path }) => path)).toEqual(['/stayed'])
    expect(on.proxy.stats().pools[0]?.upstreams.map(({ inflight }) => inflight)).toEqual([0])
  })

  it('draining gives nothing new but to those with affinity, and lets the rest end', async () => {
    const { opened, open } = gate()
    const policy = voice()
    await using on = await rig(policy, {
      routesOfA: {
        '/slow': async (_req, res) => {
          await opened
          res.end('slow')
        },
        '*': 'fine',
      },
      use: [
        (exchange) => {
          exchange.affinity = exchange.headers.get('x-sticky')
        },
      ],
    })
    const slow = rawRequest(on.port, get('/slow', 'X-Sticky: a'))
    await on.a.until((upstream) => upstream.active === 1)
    policy.control.setDraining(policy.find('a'), policy, true, 'asked to leave')
    expect(policy.find('a').state).toBe('draining')
    expect(await ask(on.port, 4)).toEqual(['b', 'b', 'b', 'b'])
    expect(await ask(on.port, 3, 'X-Sticky: a')).toEqual(['a', 'a', 'a'])
    open()
    expect((await slow).text()).toBe('slow')
    // Down ends affinity too.
    policy.control.setDown(policy.find('a'), policy, 'gone')
    expect(await ask(on.port, 2, 'X-Sticky: a')).toEqual(['b', 'b'])
    policy.control.setUp(policy.find('a'), policy, 'back')
    policy.control.setDraining(policy.find('a'), policy, false, 'stays')
    expect(count(await ask(on.port, 4), 'a')).toBe(2)
  })

  it('degraded upstreams are used only while there is nobody else, of any tier', async () => {
    const policy = voice()
    await using backup = await testUpstream({ '*': 'fine' }, { name: 'backup' })
    await using on = await rig(policy)
    on.proxy.proxy.pool?.add({ url: backup.url, id: 'backup', backup: true })
    const names = async (): Promise<string> => [...new Set((await ask(on.port, 6)).map(String))].toSorted().join()
    expect(await names()).toBe('a,b')
    policy.control.setDegraded(policy.find('a'), policy, true, 'slow')
    expect(await names()).toBe('b')
    policy.control.setDegraded(policy.find('b'), policy, true, 'slow')
    expect(await names()).toBe('backup')
    policy.control.setDown(policy.find('backup'), policy, 'ill')
    expect(await names()).toBe('a,b')
    policy.control.setDegraded(policy.find('b'), policy, false, 'quick')
    expect(await names()).toBe('b')
  })

  it('a degraded one is where a retry goes when nobody else is left', async () => {
    const policy = voice()
    await using on = await rig(policy, { routesOfA: faults.reset() as never })
    policy.control.setDegraded(policy.find('b'), policy, true, 'slow')
    expect(await ask(on.port)).toEqual(['b'])
    expect((await on.proxy.outcome()).attempts.map(({ upstream }) => upstream.id)).toEqual(['a', 'b'])
  })

  it('fail-open uses those who are down rather than answer 503', async () => {
    const policy = voice()
    await using on = await rig(policy)
    for (const id of ['a', 'b']) policy.control.setDown(policy.find(id), policy, 'ill')
    const closed = await rawRequest(on.port, get())
    expect([closed.status, code(closed)]).toEqual([503, 'ERR_NO_UPSTREAM'])
    expect(on.proxy.proxy.health().status).toBe('down')
    policy.control.setFailOpen(policy, true, 'all are ill')
    expect(new Set(await ask(on.port, 4))).toEqual(new Set(['a', 'b']))
    expect(on.proxy.proxy.health()).toMatchObject({ status: 'degraded', pools: [{ failOpen: true }] })
    policy.control.setFailOpen(policy, false, 'enough')
    expect((await rawRequest(on.port, get())).status).toBe(503)
  })

  describe('cut', () => {
    const never = faults.stall(60_000)

    // ERR_UPSTREAM_DOWN counts as a timeout where retries are decided.
    it('`all` ends what runs: a GET that has no answer yet is tried elsewhere', async () => {
      const policy = voice()
      await using on = await rig(policy, { routesOfA: { '*': never } })
      policy.control.setDown(policy.find('b'), policy, 'later')
      const answers = Array.from({ length: 3 }, () => rawRequest(on.port, get()))
      await on.a.until((upstream) => upstream.active === 3)
      policy.control.setUp(policy.find('b'), policy, 'now')
      policy.control.setDown(policy.find('a'), policy, 'dead', { cut: 'all' })
      expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200])
      await on.a.until((upstream) => upstream.active === 0)
      expect(on.b.count()).toBe(3)
      expect(policy.ended.filter(({ upstream }) => upstream.id === 'a').map(({ error }) => error?.code)).toEqual(
        Array.from({ length: 3 }, () => 'ERR_UPSTREAM_DOWN'),
      )
      expect(on.proxy.proxy.stats().pools[0]?.upstreams.map(({ inflight }) => inflight)).toEqual([0, 0])
    })

    it('`all` answers a request that must not be sent twice, and breaks off a response that has begun', async () => {
      const policy = voice()
      await using on = await rig(policy, {
        routesOfA: {
          'POST /': never,
          '/stream': (_req, res) => {
            res.writeHead(200, { 'Content-Length': '1000' })
            res.write('begun')
          },
        },
      })
      policy.control.setDown(policy.find('b'), policy, 'later')
      const post = rawRequest(on.port, `${head('POST', '/', 'Content-Length: 2')}ok`)
      const stream = await rawConnect(on.port)
      void stream.write(get('/stream'))
      await stream.sees('begun')
      await on.a.until((upstream) => upstream.active === 2)
      policy.control.setUp(policy.find('b'), policy, 'now')
      policy.control.setDown(policy.find('a'), policy, 'dead', { cut: 'all' })
      const answer = await post
      expect([answer.status, code(answer)]).toEqual([502, 'ERR_UPSTREAM_DOWN'])
      expect(await stream.closed).toBe('reset')
      await on.a.until((upstream) => upstream.active === 0)
      expect(on.b.count()).toBe(0)
    })

    it('`tunnels` ends tunnels and leaves requests alone', async () => {
      const policy = voice()
      const { opened, open } = gate()
      await using upstream = await rawUpstream(async (connection) => {
        const request = await connection.readRequest()
        if (request.header('upgrade') === undefined) {
          await opened
          await connection.send(ok('late'))
        } else {
          await connection.send(switching())
          await connection.stall()
        }
      })
      await using proxy = await startProxy({ upstreams: [{ url: upstream.url, id: 'a' }], health: [policy] }, { transport })
      const clients = [await rawConnect(proxy.port), await rawConnect(proxy.port)]
      for (const client of clients) {
        void client.write(upgradeHead())
        expect((await client.readResponse()).status).toBe(101)
      }
      const request = rawRequest(proxy.port, get())
      await until('all are there', () => upstream.requests.length === 3 && policy.find('a').inflight === 3)
      policy.control.setDown(policy.find('a'), policy, 'restarts', { cut: 'tunnels' })
      for (const client of clients) expect(['fin', 'reset']).toContain(await client.closed)
      await until('they are gone', () => policy.find('a').inflight === 1)
      expect(proxy.proxy.stats().tunnels).toBe(0)
      open()
      expect((await request).text()).toBe('late')
      expect(policy.ended.map(({ error }) => error?.code)).toEqual(['ERR_UPSTREAM_DOWN', 'ERR_UPSTREAM_DOWN', undefined])
      for (const client of clients) client.destroy()
    })
  })

  it('a weight factor moves the share of traffic, and is taken back', async () => {
    const policy = voice()
    const clock = manualClock()
    await using on = await rig(policy, { clock })
    const weigh = (factor: number): void => {
      policy.control.setWeightFactor(policy.find('a'), policy, factor)
      // The balancer may be told a moment later, with whatever else has changed until then.
      clock.advance(100)
    }
    weigh(0.25)
    expect(policy.find('a')).toMatchObject({ weight: 0.25, configuredWeight: 1 })
    // 1 : 4. A change of weights may leave a fraction of a turn over.
    expect(Math.abs(count(await ask(on.port, 50), 'a') - 10)).toBeLessThanOrEqual(1)
    weigh(1)
    expect(Math.abs(count(await ask(on.port, 20), 'a') - 10)).toBeLessThanOrEqual(1)
  })

  it('a limit holds requests back, in the queue and not at the server', async () => {
    const waiting: (() => void)[] = []
    const policy = voice()
    await using on = await rig(policy, { routesOfA: { '*': (_req, res) => void waiting.push(() => res.end('done')) } })
    policy.control.setDown(policy.find('b'), policy, 'not in this test')
    policy.control.setLimit(policy.find('a'), policy, 1)
    const answers = Array.from({ length: 3 }, () => rawRequest(on.port, get()))
    await until('one is there and two wait', () => on.a.active === 1 && policy.control.waiting === 2)
    expect(policy.control.inflight).toBe(1)
    policy.control.setLimit(policy.find('a'), policy, 2)
    await on.a.until((upstream) => upstream.active === 2)
    expect(policy.control.waiting).toBe(1)
    policy.control.setLimit(policy.find('a'), policy, Number.POSITIVE_INFINITY)
    await on.a.until((upstream) => upstream.active === 3)
    for (const answer of waiting) answer()
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200])
  })

  it.each([
    ['ERR_CIRCUIT_OPEN', 503],
    ['ERR_OVERLOADED', 503],
    ['ERR_QUEUE_TIMEOUT', 504],
  ] as const)('a refusal by `admit` with %s is answered %i, and nobody is asked', async (refusal, status) => {
    const policy = voice({ admit: (exchange) => (exchange.url === '/no' ? new ProxyError(refusal) : undefined) })
    await using on = await rig(policy)
    const refused = await rawRequest(on.port, get('/no'))
    expect([refused.status, code(refused)]).toEqual([status, refusal])
    expect([on.a.count(), on.b.count(), policy.ended.length]).toEqual([0, 0, 0])
    expect((await on.proxy.outcome()).attempts).toEqual([])
    expect((await rawRequest(on.port, get('/yes'))).status).toBe(200)
  })

  it('a refusal by `admit` ends retries too: the client gets what the try before met, an error or a response', async () => {
    let open = false
    const policy = voice({
      admit: () => (open ? new ProxyError('ERR_CIRCUIT_OPEN') : undefined),
      onAcquire: () => {
        open = true
      },
    })
    await using on = await rig(policy, {
      routesOfA: { '/busy': { status: 503, body: 'busy' }, '*': faults.reset() },
      retry: { on: ['connect', 'reset', 503] },
    })
    policy.control.setDegraded(policy.find('b'), policy, true, 'second')
    expect(code(await rawRequest(on.port, get('/')))).toBe('ERR_UPSTREAM_RESET')
    open = false
    expect((await rawRequest(on.port, get('/busy'))).text()).toBe('busy')
    expect(on.b.count()).toBe(0)
  })

  it('`onHead` sees each final head before the client, `onAcquire` each try before its end', async () => {
    const log: string[] = []
    const policy = voice({
      onAcquire: (upstream, exchange) => void log.push(`try ${upstream.id} ${exchange.url}`),
      onHead: (upstream, status, headers) => void log.push(`head ${upstream.id} ${status} ${headers[headers.indexOf('X-Load') + 1]}`),
      onAttempt: ({ upstream, status }) => void log.push(`end ${upstream.id} ${status}`),
    })
    await using on = await rig(policy, {
      routesOfA: {
        '*': (_req, res) => {
          res.writeEarlyHints({ link: '</a>' })
          res.writeHead(503, { 'X-Load': '0.9' })
          res.end()
        },
      },
      retry: { on: [503] },
      use: [() => ({ onResponse: (response) => void log.push(`hook ${response.status}`) })],
    })
    on.b.route('*', { status: 200, headers: { 'X-Load': '0.1' } })
    policy.control.setDegraded(policy.find('b'), policy, true, 'second')
    await ask(on.port)
    await on.proxy.outcome()
    const order = log.filter((line) => !line.startsWith('end a'))
    expect(order).toEqual(['try a /', 'head a 503 0.9', 'try b /', 'head b 200 0.1', 'hook 200', 'end b 200'])
    expect(log).toContain('end a 503')
  })

  it('is told of a change before the balancer, and never of one that did not happen', async () => {
    const log: string[] = []
    const inner = roundRobin()
    const balancer: Balancer = {
      name: 'told',
      update: (available) => {
        log.push(`balancer ${available.map(({ id }) => id).join()}`)
        inner.update(available)
      },
      pick: (exchange) => inner.pick(exchange),
    }
    const policy = voice({
      onUpstream: ({ upstream, from, to, reason }: UpstreamChange) => void log.push(`${upstream.id} ${from}>${to} ${reason}`),
    })
    await using on = await rig(policy, { balancer })
    await ask(on.port, 2)
    log.length = 0
    const pool = on.proxy.proxy.pool
    policy.control.setDown(policy.find('a'), policy, 'ill')
    policy.control.setDown(policy.find('a'), policy, 'still ill')
    policy.control.setUp(policy.find('a'), policy, 'well')
    policy.control.setUp(policy.find('a'), policy, 'still well')
    await pool?.drain('b')
    // Whoever is offered from now on, the news of it came first.
    expect(log.filter((line, index) => line !== log[index - 1])).toEqual([
      'a up>down ill',
      'balancer b',
      'a down>up well',
      'balancer a,b',
      expect.stringMatching(/^b up>draining /),
      'balancer a',
    ])
  })
})

describe('health()', () => {
  const check = (): Voice => voice()

  it('is the worst of the pools that routes use', async () => {
    const [one, two] = [check(), check()]
    const first = createPool({
      name: 'one',
      upstreams: [
        { url: 'http://a.test', id: 'a' },
        { url: 'http://b.test', id: 'b' },
      ],
      health: [one],
    })
    const second = createPool({
      name: 'two',
      upstreams: [
        { url: 'http://c.test', id: 'c' },
        { url: 'http://d.test', id: 'd', weight: 0 },
      ],
      health: [two],
    })
    const unused = createPool({ name: 'unused', upstreams: [] })
    const proxy = createProxy({
      routes: [{ match: { path: '/one' }, pool: first }, { match: { path: '/also' }, pool: first }, { pool: second }],
    })
    const status = (): string => proxy.health().status
    expect(proxy.health()).toMatchObject({ status: 'up', pools: [{ name: 'one' }, { name: 'two' }] })
    one.control.setDown(one.find('a'), one, 'ill')
    expect(status()).toBe('up')
    one.control.setDegraded(one.find('b'), one, true, 'slow')
    expect(status()).toBe('degraded')
    one.control.setUp(one.find('a'), one, 'well')
    expect(status()).toBe('up')
    // Somebody of weight 0 is nobody to send to.
    two.control.setDown(two.find('c'), two, 'ill')
    expect(status()).toBe('down')
    two.control.setFailOpen(two, true, 'all are ill')
    expect(status()).toBe('degraded')
    two.control.setFailOpen(two, false, 'some are well')
    // Spared as the last one: it serves, on suspicion.
    two.control.setUp(two.find('c'), two, 'well')
    second.add({ url: 'http://e.test', id: 'e' })
    two.control.setDown(two.find('c'), two, 'slow', { keepLast: true })
    void second.remove('e')
    expect(status()).toBe('degraded')
    two.control.setUp(two.find('c'), two, 'well')
    two.control.setDraining(two.find('c'), two, true, 'leaves')
    expect(status()).toBe('down')
    two.control.setDraining(two.find('c'), two, false, 'stays')
    expect(status()).toBe('up')
    await proxy.close()
    expect(status()).toBe('draining')
    for (const pool of [first, second, unused]) await pool.close()
  })

  it('tells who is in which state, why, and with what error', async () => {
    const policy = check()
    await using proxy = createProxy({
      upstreams: [
        { url: 'http://a.test', id: 'a' },
        { url: 'http://b.test', id: 'b' },
      ],
      health: [policy],
    })
    const error = new ProxyError('ERR_CONNECT_REFUSED')
    policy.control.setDown(policy.find('a'), policy, 'refused', { error })
    policy.control.setWeightFactor(policy.find('b'), policy, 0.5)
    expect(proxy.health()).toMatchObject({
      status: 'up',
      pools: [
        {
          name: 'default',
          failOpen: false,
          upstreams: [
            { id: 'a', state: 'down', degraded: false, weight: 1, inflight: 0, reason: 'refused', error },
            { id: 'b', state: 'up', degraded: false, weight: 0.5, inflight: 0, reason: undefined, error: undefined },
          ],
        },
      ],
    })
  })

  it('is draining from the first moment of `close`, while the last exchange still runs', async () => {
    const { opened, open } = gate()
    await using upstream = await testUpstream({
      '*': async (_req, res) => {
        await opened
        res.end('late')
      },
    })
    await using on = await startProxy({ upstreams: [upstream.url] })
    const answer = rawRequest(on.port, get())
    await upstream.until(({ active }) => active === 1)
    expect(on.proxy.health().status).toBe('up')
    const closed = on.proxy.close()
    expect(on.proxy.health().status).toBe('draining')
    open()
    expect((await answer).text()).toBe('late')
    await closed
  })
})
