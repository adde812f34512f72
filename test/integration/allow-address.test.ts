/**
 * `allowAddress`: which addresses the proxy may connect to, whatever the configuration or the name service says at the moment. And `host`: the name of
 * a server whose URL holds an address only, on the wire and in TLS.
 */
import { createServer, type Server } from 'node:net'
import { shadow } from '@weir/balancer'
import {
  type AddressCheck,
  createPool,
  httpProxyTransport,
  type ProxyOptions,
  type Transport,
  type UpstreamTlsOptions,
  undiciTransport,
} from '@weir/core'
import { activeCheck, grpcProbe, httpProbe, type Probe, tcpProbe, tlsProbe } from '@weir/health'
import {
  certificateAuthority,
  rawConnect,
  rawRequest,
  rawUpstream,
  type TestUpstream,
  testUpstream,
  type UpstreamScript,
  wsUpstream,
} from '@weir/testing'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { get, head, ok, switching, upgradeHead } from './messages.ts'
import { listen, startProxy } from './observed.ts'

/** What names of `.test` resolve to; everything else is left to the system. */
const names = vi.hoisted(() => ({ addresses: new Map<string, string[]>(), asked: [] as string[] }))
vi.mock('node:dns', async (original) => {
  const dns = await original<typeof import('node:dns')>()
  const lookup = (hostname: string, options: { all?: boolean }, callback: (...args: unknown[]) => void): void => {
    const known = names.addresses.get(hostname)
    if (known === undefined) {
      dns.lookup(hostname, options, callback as never)
      return
    }
    names.asked.push(hostname)
    const found = known.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
    process.nextTick(() => (options.all === true ? callback(null, found) : callback(null, found[0]?.address, found[0]?.family)))
  }
  return { ...dns, lookup, default: { ...dns, lookup } }
})
beforeEach(() => {
  names.addresses.clear()
  names.asked.length = 0
})

interface TransportOptions {
  readonly allowAddress?: AddressCheck
  readonly tls?: UpstreamTlsOptions
}
const transports: readonly (readonly [string, (options: TransportOptions) => Transport])[] = [
  ['undici', undiciTransport],
  ['http-proxy', httpProxyTransport],
]

const details = (response: { header(name: string): string | undefined }): string | undefined =>
  /details="(.*)"/.exec(response.header('proxy-status') ?? '')?.[1]
const denied = [502, 'ERR_ADDRESS_DENIED']

/** Every kind of request that takes a way of its own through a transport. */
const kinds: readonly (readonly [string, string])[] = [
  ['GET', get()],
  ['POST with a body', `${head('POST', '/', 'Content-Length: 2')}ok`],
  ['a body with trailers', `${head('POST', '/', 'Transfer-Encoding: chunked', 'Trailer: X-Sum')}2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n`],
  ['OPTIONS *', head('OPTIONS', '*')],
  ['an upgrade', upgradeHead()],
]

/** Answers requests and upgrades, once per connection. */
const answering =
  (body: string): UpstreamScript =>
  async (connection) => {
    const request = await connection.readRequest()
    if (request.header('upgrade') !== undefined) {
      await connection.send(switching())
      await connection.stall()
    } else await connection.send(ok(body, 'Connection: close'))
  }

const servers: Server[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

/** Counts connections, on the same port of another address. */
async function trap(address: string, port: number): Promise<{ readonly connections: number }> {
  const seen = { connections: 0 }
  const server = createServer((socket) => {
    seen.connections++
    socket.destroy()
  })
  await new Promise<void>((resolve, reject) => void server.once('error', reject).listen(port, address, resolve))
  servers.push(server)
  return seen
}

describe.each(transports)('allowAddress over %s', (_name, make) => {
  const retry = false
  const proxyTo = (upstreams: ProxyOptions['upstreams'], allowAddress: AddressCheck, more: Partial<ProxyOptions> = {}) =>
    startProxy({ upstreams: upstreams as NonNullable<typeof upstreams>, health: [], ...more }, { transport: () => make({ allowAddress }) })

  describe.each(kinds)('%s', (_kind, request) => {
    const wanted = request.includes('Upgrade') ? 101 : 200

    it('does not reach a literal IPv4 address that is refused, and reaches one that is not', async () => {
      await using upstream = await rawUpstream(answering('fine'))
      const asked: string[] = []
      let answer = false
      await using proxy = await proxyTo(
        [upstream.url],
        (address) => {
          asked.push(address)
          return answer
        },
        { retry },
      )
      const refused = await rawRequest(proxy.port, request)
      expect([refused.status, details(refused)]).toEqual(denied)
      expect(refused.raw.toString('latin1')).not.toContain('127.0.0.1')
      expect(upstream.connections).toHaveLength(0)
      answer = true
      await using client = await rawConnect(proxy.port)
      void client.write(request)
      expect((await client.readResponse()).status).toBe(wanted)
      expect(new Set(asked)).toEqual(new Set(['127.0.0.1']))
    })

    it('does not reach a literal IPv6 address that is refused', async () => {
      const six = await listen(createServer((socket) => socket.end(ok('six', 'Connection: close'))) as never, '::1')
      const asked: string[] = []
      await using proxy = await proxyTo(
        [`http://[::1]:${six.port}`],
        (address) => {
          asked.push(address)
          return false
        },
        { retry },
      )
      expect(details(await rawRequest(proxy.port, request))).toBe('ERR_ADDRESS_DENIED')
      expect([asked, six.sockets.size]).toEqual([['::1'], 0])
      await six.close()
    })

    it('does not reach a name when no address of it is allowed', async () => {
      await using upstream = await rawUpstream(answering('fine'))
      names.addresses.set('app.test', ['127.0.0.1', '::1'])
      const asked: string[] = []
      await using proxy = await proxyTo(
        [`http://app.test:${upstream.port}`],
        (address) => {
          asked.push(address)
          return false
        },
        { retry },
      )
      const refused = await rawRequest(proxy.port, request)
      expect([refused.status, details(refused)]).toEqual(denied)
      expect(asked).toEqual(['127.0.0.1', '::1'])
      expect(upstream.connections).toHaveLength(0)
    })

    it('reaches only the allowed address of a name that has several', async () => {
      await using upstream = await rawUpstream(answering('fine'))
      const inside = await trap('127.0.0.2', upstream.port)
      names.addresses.set('app.test', ['127.0.0.2', '127.0.0.1'])
      await using proxy = await proxyTo([`http://app.test:${upstream.port}`], (address) => address !== '127.0.0.2', { retry })
      await using client = await rawConnect(proxy.port)
      void client.write(request)
      expect((await client.readResponse()).status).toBe(wanted)
      expect([upstream.connections.length, inside.connections]).toEqual([1, 0])
    })

    it('is tried at another upstream when one is refused, whatever its method', async () => {
      await using bad = await rawUpstream(answering('bad'))
      await using good = await rawUpstream(answering('good'))
      names.addresses.set('bad.test', ['127.0.0.1'])
      names.addresses.set('good.test', ['127.0.0.1'])
      let refusals = 1
      await using proxy = await proxyTo(
        [`http://bad.test:${bad.port}`, { url: `http://good.test:${good.port}`, backup: true }],
        () => refusals-- <= 0,
      )
      await using client = await rawConnect(proxy.port)
      void client.write(request)
      expect((await client.readResponse()).status).toBe(wanted)
      expect([bad.connections.length, good.connections.length]).toEqual([0, 1])
      client.destroy()
      const outcome = await proxy.outcome()
      expect(outcome.attempts.map(({ error, upstream }) => [error?.code, error?.source, upstream.url.hostname])).toEqual([
        ['ERR_ADDRESS_DENIED', 'upstream', 'bad.test'],
        [outcome.attempts[1]?.error?.code, outcome.attempts[1]?.error?.source, 'good.test'],
      ])
      expect(proxy.proxy.stats().pools[0]?.upstreams[0]?.inflight).toBe(0)
    })
  })

  it('is asked again at every connection: a name that is moved inside later is not followed (DNS rebinding)', async () => {
    await using upstream = await testUpstream({ '*': 'outside' })
    const inside = await trap('127.0.0.2', upstream.port)
    names.addresses.set('rebound.test', ['127.0.0.1'])
    await using proxy = await proxyTo([`http://rebound.test:${upstream.port}`], (address) => address === '127.0.0.1', { retry })
    expect((await rawRequest(proxy.port, get())).text()).toBe('outside')
    names.addresses.set('rebound.test', ['127.0.0.2'])
    // A connection that is open goes on: it leads where it was allowed to lead.
    expect((await rawRequest(proxy.port, get())).text()).toBe('outside')
    expect(names.asked).toHaveLength(1)
    await upstream.kill()
    await upstream.restart()
    const refused = await rawRequest(proxy.port, get())
    const again = refused.status === 502 && details(refused) === 'ERR_UPSTREAM_RESET' ? await rawRequest(proxy.port, get()) : refused
    expect([again.status, details(again)]).toEqual(denied)
    expect(inside.connections).toBe(0)
    names.addresses.set('rebound.test', ['127.0.0.1'])
    expect((await rawRequest(proxy.port, get())).text()).toBe('outside')
  })

  it('resolves a name of the system, and refuses every address of it', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    const asked: string[] = []
    await using proxy = await proxyTo(
      [`http://localhost:${upstream.port}`],
      (address) => {
        asked.push(address)
        return false
      },
      { retry },
    )
    expect(details(await rawRequest(proxy.port, get()))).toBe('ERR_ADDRESS_DENIED')
    expect(asked).toContain('127.0.0.1')
    for (const address of asked) expect(['127.0.0.1', '::1']).toContain(address)
    expect(upstream.accepted).toBe(0)
  })

  it('does not concern Unix sockets', async () => {
    await using upstream = await testUpstream({ '*': 'fine' }, { unix: true })
    await using proxy = await proxyTo([upstream.url], () => false, { retry })
    expect((await rawRequest(proxy.port, get())).text()).toBe('fine')
  })

  describe('over TLS', () => {
    const authority = certificateAuthority()
    const tls = { ca: authority.ca }

    it('an address and a name are refused before a handshake', async () => {
      await using upstream = await testUpstream({ '*': 'fine' }, { tls: authority.issue(['app.test', '127.0.0.1']) })
      names.addresses.set('app.test', ['127.0.0.1'])
      let answer = false
      await using proxy = await startProxy(
        {
          upstreams: [
            { url: `https://127.0.0.1:${upstream.port}`, id: 'ip' },
            { url: `https://app.test:${upstream.port}`, id: 'name' },
          ],
          health: [],
        },
        { transport: () => make({ tls, allowAddress: () => answer }) },
      )
      expect(details(await rawRequest(proxy.port, get()))).toBe('ERR_ADDRESS_DENIED')
      expect((await proxy.outcome()).attempts.map(({ error }) => error?.code)).toEqual(['ERR_ADDRESS_DENIED', 'ERR_ADDRESS_DENIED'])
      expect(upstream.accepted).toBe(0)
      answer = true
      for (let i = 0; i < 2; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.accepted).toBe(2)
    })
  })
})

it('`allowAddress` of the pool reaches the default transport', async () => {
  await using upstream = await testUpstream({ '*': 'fine' })
  await using sockets = await wsUpstream()
  const asked: string[] = []
  const allowAddress: AddressCheck = (address) => {
    asked.push(address)
    return false
  }
  await using proxy = await startProxy({ upstreams: [upstream.url], allowAddress, retry: false })
  expect(details(await rawRequest(proxy.port, get()))).toBe('ERR_ADDRESS_DENIED')
  await using routed = await startProxy({
    routes: [{ pool: { upstreams: [`http://127.0.0.1:${sockets.port}`], allowAddress } }],
    retry: false,
  })
  expect(details(await rawRequest(routed.port, upgradeHead()))).toBe('ERR_ADDRESS_DENIED')
  expect(asked).toEqual(['127.0.0.1', '127.0.0.1'])
})

describe.each(transports)('`host` over %s', (_name, make) => {
  const authority = certificateAuthority()
  const tls = { ca: authority.ca }
  const hostSeen = (upstream: TestUpstream): (string | undefined)[] => upstream.requests.map(({ req }) => req.headers.host)

  it.each(kinds.filter(([kind]) => kind !== 'OPTIONS *'))(
    '%s asks for the name of the server, and its certificate must have it',
    async (_kind, request) => {
      await using upstream = await rawUpstream(answering('fine'), { tls: authority.issue(['app.internal']) })
      await using proxy = await startProxy(
        { upstreams: [{ url: `https://127.0.0.1:${upstream.port}`, host: 'app.internal:8443' }], retry: false },
        { transport: () => make({ tls }) },
      )
      await using client = await rawConnect(proxy.port)
      void client.write(request)
      expect((await client.readResponse()).status).toBe(request.includes('Upgrade') ? 101 : 200)
      expect(upstream.connections.map(({ servername }) => servername)).toEqual(['app.internal'])
      // The client's Host is the client's, unless the proxy says otherwise.
      expect(upstream.requests[0]?.header('host')).toBe('localhost')
    },
  )

  it.each([
    ['client', 'client.test'],
    ['upstream', 'app.internal:8443'],
    [{ fixed: 'fixed.test' }, 'fixed.test'],
  ] as const)('with hostHeader %j the Host is %s', async (hostHeader, expected) => {
    await using upstream = await testUpstream({ '*': 'fine' }, { tls: authority.issue(['app.internal']) })
    await using proxy = await startProxy(
      { upstreams: [{ url: `https://127.0.0.1:${upstream.port}`, host: 'app.internal:8443' }], hostHeader },
      { transport: () => make({ tls }) },
    )
    expect((await rawRequest(proxy.port, 'GET / HTTP/1.1\r\nHost: client.test\r\n\r\n')).status).toBe(200)
    expect(hostSeen(upstream)).toEqual([expected])
  })

  it('without TLS it is the Host only', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    await using proxy = await startProxy(
      { upstreams: [{ url: upstream.url, host: 'app.internal' }], hostHeader: 'upstream' },
      { transport: () => make({}) },
    )
    await rawRequest(proxy.port, get())
    expect(hostSeen(upstream)).toEqual(['app.internal'])
  })

  it.each([
    ['the address alone', ['127.0.0.1']],
    ['another name', ['other.internal']],
  ])('a certificate for %s is not one for it', async (_case, certified) => {
    await using upstream = await testUpstream({ '*': 'fine' }, { tls: authority.issue(certified) })
    await using proxy = await startProxy(
      { upstreams: [{ url: `https://127.0.0.1:${upstream.port}`, host: 'app.internal' }], retry: false },
      { transport: () => make({ tls }) },
    )
    for (const request of [get(), upgradeHead()]) expect(details(await rawRequest(proxy.port, request))).toBe('ERR_TLS_CERTIFICATE')
    expect(upstream.requests).toEqual([])
  })

  it('two servers at one address are kept apart by their names', async () => {
    await using upstream = await rawUpstream(answering('fine'), { tls: authority.issue(['app.one', 'app.two']) })
    await using proxy = await startProxy(
      {
        upstreams: ['one', 'two'].map((id) => ({ url: `https://127.0.0.1:${upstream.port}`, id, host: `app.${id}` })),
        hostHeader: 'upstream',
      },
      { transport: () => make({ tls }) },
    )
    for (let i = 0; i < 4; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
    const pairs = upstream.requests.map((request, index) => `${upstream.connections[index]?.servername} ${request.header('host')}`)
    expect(pairs.toSorted()).toEqual(['app.one app.one', 'app.one app.one', 'app.two app.two', 'app.two app.two'])
  })

  it('a redirect to that name is one to the server itself', async () => {
    await using upstream = await testUpstream({ '*': { status: 302, headers: { Location: 'http://app.internal:8080/next' } } })
    await using proxy = await startProxy(
      { upstreams: [{ url: upstream.url, host: 'app.internal:8080' }], hostHeader: 'upstream' },
      { transport: () => make({}) },
    )
    expect((await rawRequest(proxy.port, get())).header('location')).toBe('http://localhost/next')
  })

  // Only the name is known as the server's own.
  it('a redirect to its address is one to the server itself too', async () => {
    await using upstream = await testUpstream({ '*': (_req, res) => void res.writeHead(302, { Location: `${upstream.url}/next` }).end() })
    await using proxy = await startProxy({ upstreams: [{ url: upstream.url, host: 'app.internal:8080' }] }, { transport: () => make({}) })
    expect((await rawRequest(proxy.port, get())).header('location')).toBe('http://localhost/next')
  })
})

describe('whoever else connects to upstreams asks it too', () => {
  const never: AddressCheck = (address) => address !== '127.0.0.1'

  /** Counts connections, and says nothing. */
  async function listener(): Promise<AsyncDisposable & { readonly port: number; readonly connections: () => number }> {
    let connections = 0
    const server: Server = createServer((socket) => {
      connections++
      socket.destroy()
    })
    const { port, [Symbol.asyncDispose]: dispose } = await listen(server as never)
    return { port, connections: () => connections, [Symbol.asyncDispose]: dispose }
  }

  const probes: readonly (readonly [string, Probe])[] = [
    ['HTTP', httpProbe()],
    ['HTTP over TLS', httpProbe({ secure: true })],
    ['TCP', tcpProbe()],
    ['TLS', tlsProbe()],
    ['gRPC', grpcProbe()],
  ]
  describe.each(probes)('%s probes', (_name, probe) => {
    it.each([
      ['an address', '127.0.0.1'],
      ['a name that leads there', 'rebound.test'],
    ])('%s', async (_case, host) => {
      await using server = await listener()
      names.addresses.set('rebound.test', ['127.0.0.1'])
      const pool = createPool({
        upstreams: [`http://${host}:${server.port}`],
        health: [activeCheck({ probe, fall: 1, initial: 'pending' })],
        allowAddress: never,
      })
      await pool.start()
      const [upstream] = pool.health().upstreams
      expect(upstream).toMatchObject({ state: 'down', error: { code: 'ERR_PROBE_CONNECTION', cause: { code: 'ERR_ADDRESS_DENIED' } } })
      await pool.close()
      expect(server.connections()).toBe(0)
    })
  })

  it.each([
    ['an address', '127.0.0.1'],
    ['an address in another spelling', '127.1'],
    ['a name that leads there', 'rebound.test'],
  ])('probes that `meta.health` of an upstream sends to %s', async (_case, address) => {
    await using server = await listener()
    names.addresses.set('rebound.test', ['127.0.0.1'])
    const pool = createPool({
      upstreams: [{ url: 'http://10.255.255.1', id: 'a', meta: { health: { address, port: server.port } } }],
      health: [activeCheck({ fall: 1, initial: 'pending' })],
      allowAddress: never,
    })
    await pool.start()
    const [upstream] = pool.health().upstreams
    expect(upstream).toMatchObject({ state: 'down', error: { code: 'ERR_PROBE_CONNECTION', cause: { code: 'ERR_ADDRESS_DENIED' } } })
    await pool.close()
    expect(server.connections()).toBe(0)
  })

  it('probes of a pool whose transport was told', async () => {
    await using server = await listener()
    for (const make of [undiciTransport, httpProxyTransport]) {
      const transport = make({ allowAddress: never })
      const pool = createPool({
        upstreams: [`http://127.0.0.1:${server.port}`],
        health: [activeCheck({ fall: 1, initial: 'pending' })],
        transport,
      })
      await pool.start()
      expect(pool.health().upstreams[0]?.state).toBe('down')
      await pool.close()
      await transport.close?.()
    }
    expect(server.connections()).toBe(0)
  })

  it('an address that is allowed is probed', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    names.addresses.set('app.test', ['10.255.255.1', '127.0.0.1'])
    const pool = createPool({
      upstreams: [`http://app.test:${upstream.port}`],
      health: [activeCheck({ fall: 1, initial: 'pending' })],
      allowAddress: (address) => address === '127.0.0.1',
    })
    await pool.start()
    expect(pool.health().upstreams[0]?.state).toBe('up')
    await pool.close()
  })

  it('shadow traffic', async () => {
    await using server = await listener()
    await using upstream = await testUpstream({ '*': 'fine' })
    const { promise, resolve } = Promise.withResolvers<unknown>()
    const copies = shadow({
      upstreams: [`http://127.0.0.1:${server.port}`],
      allowAddress: never,
      onResult: ({ shadow: answer }) => resolve(answer),
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [copies] })
    expect((await rawRequest(proxy.port, get())).status).toBe(200)
    expect(await promise).toMatchObject({ code: 'ERR_ADDRESS_DENIED' })
    expect(server.connections()).toBe(0)
  })
})
