/** A service that decides: what it is asked, what becomes of its answers, and what when there is none. Over real sockets. */
import { createProxy, type InjectedResponse } from '@weir/core'
import { certificates, type FakeTransport, fakeTransport, faults, refusedPort, testUpstream, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { forwardAuth } from './forward-auth.ts'
import type { ForwardAuthOptions } from './forward-auth-options.ts'
import { SharedLookups } from './shared-lookup.ts'

function through(options: ForwardAuthOptions): {
  stage: ReturnType<typeof forwardAuth>
  transport: FakeTransport
  proxy: ReturnType<typeof createProxy>
} {
  const stage = forwardAuth(options)
  const transport = fakeTransport()
  return { stage, transport, proxy: createProxy({ upstreams: ['http://a.test'], transport, use: [stage] }) }
}

const fieldsOf = (raw: readonly string[]): Record<string, string> =>
  Object.fromEntries(raw.flatMap((name, i) => (i % 2 === 0 ? [[name.toLowerCase(), raw[i + 1] as string]] : [])))

describe('the service', () => {
  it('is told what is asked, by us and not by the client', async () => {
    await using service = await testUpstream({ '*': 'yes' })
    const { proxy } = through({ url: `${service.url}/check?x`, requestHeaders: ['Cookie', 'X-Forwarded-Uri', 'X-Team'] })
    await proxy.inject({
      method: 'DELETE',
      url: '/a?b=%20',
      headers: { Host: 'shop.test', Cookie: ['a=1', 'b=2'], Authorization: 'secret', 'X-Forwarded-Uri': '/public', 'X-Team': ['x', 'y'] },
      remoteAddress: '192.0.2.9',
    })
    const [asked] = service.requests
    expect([asked?.method, asked?.url]).toEqual(['GET', '/check?x'])
    const fields = fieldsOf(asked?.rawHeaders ?? [])
    expect(fields).toMatchObject({
      cookie: 'a=1; b=2',
      'x-forwarded-method': 'DELETE',
      'x-forwarded-uri': '/a?b=%20',
      'x-forwarded-host': 'shop.test',
      'x-forwarded-proto': 'http',
      'x-forwarded-for': '192.0.2.9',
    })
    expect(fields.authorization).toBeUndefined()
    await proxy.close()
  })

  it('is told how the client came, which a trusted proxy knows and nobody else', async () => {
    await using service = await testUpstream({ '*': 'yes' })
    const proxy = createProxy({
      upstreams: ['http://a.test'],
      transport: fakeTransport(),
      trustedProxies: ['10.0.0.0/8'],
      use: [forwardAuth({ url: service.url, requestHeaders: ['X-Forwarded-Proto'] })],
    })
    for (const remoteAddress of ['10.0.0.1', '192.0.2.1'])
      await proxy.inject({ remoteAddress, headers: { Host: 'a', 'X-Forwarded-Proto': 'https' } })
    expect(service.requests.map(({ rawHeaders }) => fieldsOf(rawHeaders)['x-forwarded-proto'])).toEqual(['https', 'http'])
    await proxy.close()
  })

  it('that says yes lets the request go on, with fields that only it can set', async () => {
    await using service = await testUpstream({ '*': { headers: { 'X-User': 'ada', 'X-Other': 'no' } } })
    let auth: unknown
    const { proxy, transport } = through({ url: service.url, responseHeaders: ['X-User', 'X-Groups'], subjectHeader: 'X-User' })
    const spy = createProxy({
      upstreams: ['http://a.test'],
      transport,
      use: [
        forwardAuth({ url: service.url, subjectHeader: 'X-User' }),
        ({ locals }) => {
          auth = locals.auth
        },
      ],
    })
    await spy.inject({})
    expect(auth).toEqual({ scheme: 'forward', subject: 'ada' })
    await proxy.inject({ headers: { 'X-User': 'root', X_Groups: 'wheel', 'X-Groups': 'wheel', Connection: 'close, X-User' } })
    const headers = transport.requests.at(-1)?.headers
    expect(['x-user', 'x-groups', 'x_groups', 'x-other'].map((name) => headers?.get(name))).toEqual([
      'ada',
      undefined,
      undefined,
      undefined,
    ])
    await spy.close()
    await proxy.close()
  })

  it('that says no is repeated, with the fields that may be', async () => {
    await using service = await testUpstream({
      '/401': { status: 401, headers: { 'WWW-Authenticate': 'Bearer', 'Set-Cookie': ['a=1', 'b=2'], 'X-Inner': 'x' }, body: 'inside' },
      '/403': { status: 403, body: 'inside' },
    })
    const { proxy, transport } = through({ url: `${service.url}/401`, relayHeaders: ['WWW-Authenticate', 'Set-Cookie'] })
    const refused = await proxy.inject({})
    expect([
      refused.status,
      refused.text(),
      refused.headers.get('www-authenticate'),
      refused.headers.getAll('set-cookie'),
      refused.headers.has('x-inner'),
    ]).toEqual([401, '401 Unauthorized\n', 'Bearer', ['a=1', 'b=2'], false])
    const other = through({ url: `${service.url}/403` })
    expect((await other.proxy.inject({})).status).toBe(403)
    expect(transport.requests.length + other.transport.requests.length).toBe(0)
    await proxy.close()
    await other.proxy.close()
  })

  it('that redirects is relayed only where that is wanted', async () => {
    await using service = await testUpstream({
      '*': { status: 302, headers: { Location: 'https://login.test/', 'Set-Cookie': 'state=1' } },
    })
    const closed = through({ url: service.url })
    expect((await closed.proxy.inject({})).status).toBe(502)
    const { proxy } = through({ url: service.url, redirects: true })
    const answer = await proxy.inject({})
    expect([answer.status, answer.headers.get('location'), answer.headers.get('set-cookie')]).toEqual([
      302,
      'https://login.test/',
      'state=1',
    ])
    await closed.proxy.close()
    await proxy.close()
  })

  it('with a certificate is judged by it', async () => {
    await using service = await testUpstream({ '*': 'yes' }, { tls: true })
    const trusted = through({ url: service.url, tls: { ca: certificates().ca } })
    const untrusted = through({ url: service.url })
    expect([(await trusted.proxy.inject({})).status, (await untrusted.proxy.inject({})).status]).toEqual([200, 503])
    await trusted.proxy.close()
    await untrusted.proxy.close()
  })
})

describe('a service that fails', () => {
  it.each(['deny', 'allow'] as const)('keeps everybody out, or lets them in: %s', async (onError) => {
    await using service = await testUpstream({ '/500': { status: 500 }, '/404': { status: 404 }, '/reset': faults.reset() })
    await using nobody = await refusedPort()
    const found: number[] = []
    for (const url of [`${service.url}/500`, `${service.url}/404`, `${service.url}/reset`, `http://127.0.0.1:${nobody.port}/`]) {
      const { proxy, stage } = through({ url, onError })
      found.push((await proxy.inject({})).status)
      expect(stage.stats()).toMatchObject({ failed: 1, allowed: 0 })
      await proxy.close()
    }
    expect(found).toEqual(onError === 'allow' ? [200, 200, 200, 200] : [502, 502, 503, 503])
  })

  it('by saying nothing has its time', async () => {
    await using service = await testUpstream({ '*': faults.stall(60_000) })
    const clock = virtualClock()
    const { proxy } = through({ url: service.url, timeout: '3s', clock })
    const sent = proxy.inject({})
    await service.until(({ active }) => active === 1)
    await clock.advance(3000)
    expect((await sent).status).toBe(503)
    expect(clock.pending).toBe(0)
    await proxy.close()
  })

  it('on a dry run keeps nobody out', async () => {
    await using service = await testUpstream({ '*': { status: 403 } })
    const { proxy, stage } = through({ url: service.url, dryRun: true })
    expect((await proxy.inject({})).status).toBe(200)
    expect(stage.stats()).toMatchObject({ dry: 1, refused: 0 })
    await proxy.close()
  })
})

describe('many questions', () => {
  it('that are the same are one, and beyond what may wait there is no room', async () => {
    let release = (): void => {}
    await using service = await testUpstream({
      '*': (_req, res) => {
        release = () => res.end('yes')
      },
    })
    const { proxy, stage } = through({ url: service.url, concurrency: 1, maxWaiting: 0 })
    const cookie = (value: string): Promise<InjectedResponse> => proxy.inject({ headers: { Cookie: value } })
    const same = [cookie('a'), cookie('a'), cookie('a')]
    await service.until(({ active }) => active === 1)
    expect((await cookie('b')).status).toBe(503)
    release()
    expect((await Promise.all(same)).map(({ status }) => status)).toEqual([200, 200, 200])
    expect([service.count(), stage.stats().asked, stage.stats().pending]).toEqual([1, 1, 0])
    await proxy.close()
  })

  it('go over connections that are kept', async () => {
    await using service = await testUpstream({ '*': 'yes' })
    const { proxy } = through({ url: service.url })
    for (let i = 0; i < 3; i++) expect((await proxy.inject({ headers: { Cookie: `a=${i}` } })).status).toBe(200)
    expect([service.count(), service.accepted]).toEqual([3, 1])
    await proxy.close()
    await service.until(({ sockets }) => sockets === 0)
  })
})

describe('a kept connection', () => {
  it('that the service closes just then costs a second try, and nobody an error', async () => {
    const seen = new WeakSet<object>()
    await using service = await testUpstream((req, res, wire) => {
      if (seen.has(req.socket)) wire.reset()
      else {
        seen.add(req.socket)
        res.end('yes')
      }
    })
    const { proxy } = through({ url: service.url })
    for (let i = 0; i < 3; i++) expect((await proxy.inject({ headers: { Cookie: `a=${i}` } })).status).toBe(200)
    expect([service.count(), service.accepted]).toEqual([5, 3])
    await proxy.close()
  })
})

describe('the cache', () => {
  const cached = async (
    cache: ForwardAuthOptions['cache'],
    answer: Parameters<typeof testUpstream>[0],
    run: (
      ask: (request?: Parameters<ReturnType<typeof createProxy>['inject']>[0]) => Promise<number>,
      count: () => number,
      clock: ReturnType<typeof virtualClock>,
    ) => Promise<void>,
  ): Promise<void> => {
    await using service = await testUpstream(answer)
    const clock = virtualClock()
    const { proxy } = through({ url: service.url, cache: cache as never, clock })
    await run(
      async (request = {}) => (await proxy.inject(request)).status,
      () => service.count(),
      clock,
    )
    await proxy.close()
  }

  it('holds a yes and a no for its time, and no error', async () => {
    for (const [status, times] of [
      [200, 2],
      [401, 2],
      [403, 2],
      [500, 3],
    ] as const)
      await cached({ ttl: '1m' }, { '*': { status } }, async (ask, count, clock) => {
        const seen = [await ask(), await ask()]
        await clock.advance(60_000)
        seen.push(await ask())
        expect(seen).toEqual(Array.from({ length: 3 }, () => (status === 500 ? 502 : status)))
        expect(count(), `${status}`).toBe(times)
      })
  })

  it('differs by all that the service is told, or by what was chosen', async () => {
    const requests = [
      {},
      { url: '/b' },
      { method: 'HEAD' },
      { remoteAddress: '192.0.2.1' },
      { headers: { Cookie: 'a=1' } },
      { headers: { Host: 'b.test' } },
      { headers: { 'X-Other': '1' } },
    ]
    await cached({ ttl: '1m' }, { '*': 'yes' }, async (ask, count) => {
      for (const request of requests) await ask(request)
      expect(count()).toBe(6)
    })
    await cached({ ttl: '1m', key: ['X-Other'], vary: [] }, { '*': 'yes' }, async (ask, count) => {
      for (const request of requests) await ask(request)
      expect(count()).toBe(2)
    })
  })

  it('does not hold what is for one client only, nor what the service says must not be kept', async () => {
    for (const headers of [{ 'Set-Cookie': 'a=1' }, { 'Cache-Control': 'private, no-store' }])
      await cached({ ttl: '1m' }, { '*': { headers: headers as Record<string, string> } }, async (ask, count) => {
        await ask()
        await ask()
        expect(count()).toBe(2)
      })
  })

  it('holds no more than it may', async () => {
    await cached({ ttl: '1m', max: 1 }, { '*': 'yes' }, async (ask, count) => {
      for (const url of ['/a', '/b', '/a']) await ask({ url })
      expect(count()).toBe(3)
    })
  })
})

describe('a shared look-up', () => {
  it('is given up when the last who waits has left, and not before', async () => {
    const lookups = new SharedLookups<string>()
    const clients = [new AbortController(), new AbortController()]
    let given: AbortSignal | undefined
    let begun = 0
    const begin = (signal: AbortSignal): Promise<string> => {
      given = signal
      begun++
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
    const waits = clients.map(({ signal }) => lookups.join('k', signal, begin))
    clients[0]?.abort(new Error('left'))
    await expect(waits[0]).rejects.toThrow('left')
    expect([begun, given?.aborted]).toEqual([1, false])
    clients[1]?.abort(new Error('left too'))
    await expect(waits[1]).rejects.toThrow('left too')
    expect([given?.aborted, lookups.size]).toEqual([true, 0])
  })
})
