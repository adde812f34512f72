/**
 * The sources of `@weir/discovery` in front of real servers: a deployment that replaces every server under load, changes while exchanges are in flight, and
 * sources that fail.
 */
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { createPool, httpProxyTransport, type Pool, type Transport, type UpstreamSource, undiciTransport } from '@weir/core'
import { addressGuard, type DiscoveryError, dnsSource, fileSource, httpSource, srvSource } from '@weir/discovery'
import { activeCheck } from '@weir/health'
import { certificates, rawConnect, rawRequest, type TestUpstream, testUpstream, wsConnect, wsUpstream } from '@weir/testing'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { a, dnsServer, srv, type Zone, zoneOf } from '../../packages/discovery/src/fixtures/dns-server.ts'
import { runChild } from './children/run.ts'
import { load } from './load.ts'
import { get } from './messages.ts'
import { gate, listen, startProxy, transports, until } from './observed.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-discovery-'))
  path = join(folder, 'upstreams.json')
})
afterEach(() => rm(folder, { recursive: true }))

/** As a deployment tool does it: whole or not at all. */
async function publish(list: readonly unknown[]): Promise<void> {
  await writeFile(`${path}.new`, JSON.stringify(list))
  await rename(`${path}.new`, path)
}

const loopback = addressGuard({ allow: ['loopback'] })
const service = '_http._tcp.app.test'
const records = (...ports: number[]): Zone =>
  zoneOf(...ports.map((port) => srv(service, 'host.test', port, 1, 1, 0)), a('host.test', '127.0.0.1', 0))

function poolOf(source: UpstreamSource, make: () => Transport, disposing: AsyncDisposableStack): Pool {
  const transport = make()
  disposing.defer(async () => transport.close?.())
  const pool = createPool({ upstreams: source, transport })
  disposing.defer(() => pool.close())
  return pool
}

describe.each(transports)('over %s', (_name, transport) => {
  it('a rolling deployment of ten servers under load costs no request, and not even a second try', async () => {
    await using disposing = new AsyncDisposableStack()
    const body = 'x'.repeat(2000)
    const start = async (): Promise<TestUpstream> => disposing.use(await testUpstream({ '/': body }))
    const running = await Promise.all(Array.from({ length: 10 }, start))
    await publish(running.map(({ url }) => url))
    const pool = poolOf(fileSource(path, { debounce: 5, interval: '1h' }), transport, disposing)
    await using proxy = await startProxy({ pool })
    const traffic = load(proxy.port, body.length, 20)
    const more = async (count: number): Promise<void> => {
      const before = traffic.answered
      await until('traffic', () => traffic.answered >= before + count, 10_000)
    }
    await more(100)
    for (let i = 0; i < 10; i++) {
      const [old, next] = [running[i] as TestUpstream, await start()]
      running.push(next)
      await publish(running.slice(i).map(({ url }) => url))
      await until('the new server is a member', () => pool.get(next.url))
      await next.until((upstream) => upstream.count() > 0)
      const leaving = pool.get(old.url)
      await publish(running.slice(i + 1).map(({ url }) => url))
      await until('the old server is none', () => pool.get(old.url) === undefined)
      await until('its exchanges have ended', () => leaving?.inflight === 0)
      const served = old.count()
      await old.close()
      await more(50)
      expect(old.count()).toBe(served)
    }
    await more(100)
    await traffic.stop()
    expect(traffic.failures).toEqual([])
    expect(pool.upstreams.map(({ id }) => id).toSorted()).toEqual(
      running
        .slice(10)
        .map(({ url }) => url)
        .toSorted(),
    )
    const tries = proxy.outcomes.map(({ attempts }) => attempts.length)
    expect([tries.length, tries.filter((count) => count !== 1)]).toEqual([traffic.answered, []])
  })

  it('a server that leaves the DNS finishes what it has: a slow response and a WebSocket', async () => {
    await using disposing = new AsyncDisposableStack()
    const { opened, open } = gate()
    await using slow = await testUpstream({
      '*': async (_req, res) => {
        res.writeHead(200, { 'Content-Length': '10' })
        res.write('begun')
        await opened
        res.end('ended')
      },
    })
    await using sockets = await wsUpstream()
    await using next = await testUpstream({ '/': 'next' })
    await using dns = await dnsServer(records(sockets.port))
    const source = srvSource({ service, servers: [dns.address], family: 4, minTtl: 20, jitter: 0, guard: loopback })
    const pool = poolOf(source, transport, disposing)
    await using proxy = await startProxy({ pool })
    const only = (port: number): Promise<unknown> =>
      until(`${port} is the only member`, () => pool.upstreams.length === 1 && pool.upstreams[0]?.url.port === String(port))

    await using peer = await wsConnect(proxy.port)
    dns.zone = records(slow.port)
    await only(slow.port)
    const client = await rawConnect(proxy.port)
    void client.write(get())
    await client.sees('begun')
    dns.zone = records(next.port)
    await only(next.port)
    expect((await rawRequest(proxy.port, get())).text()).toBe('next')

    await peer.send('still there?')
    expect((await peer.next()).text).toBe('still there?')
    open()
    const response = await client.readResponse()
    expect([response.text(), response.complete]).toEqual(['begunended', true])
    client.destroy()
    // The pool has no more of it: its connections are not kept for anybody.
    await slow.until((upstream) => upstream.sockets === 0)
    await peer.send('and now?')
    expect((await peer.next()).text).toBe('and now?')
  })
})

it.each([
  ['undici', undiciTransport],
  ['http-proxy', httpProxyTransport],
] as const)('an https upstream that was found by address is asked for, and proves, the name, over %s', async (_name, make) => {
  await using disposing = new AsyncDisposableStack()
  await using right = await testUpstream({ '/': 'right' }, { tls: true })
  await using wrong = await testUpstream({ '/': 'wrong' }, { tls: certificates().wrongName })
  await using dns = await dnsServer(zoneOf(a('localhost', '127.0.0.1')))
  const over = async (port: number) => {
    const source = dnsSource({ host: 'localhost', port, protocol: 'https', family: 4, servers: [dns.address], guard: loopback })
    const pool = poolOf(source, () => make({ tls: { ca: certificates().ca } }), disposing)
    await using proxy = await startProxy({ pool, hostHeader: 'upstream' })
    return await rawRequest(proxy.port, get())
  }
  expect((await over(right.port)).text()).toBe('right')
  expect(right.requests[0]?.req.headers.host).toBe(`localhost:${right.port}`)
  expect((right.requests[0]?.req.socket as TLSSocket | undefined)?.servername).toBe('localhost')
  expect((await over(wrong.port)).status).toBe(502)
  expect(wrong.count()).toBe(0)
})

describe('a source that fails leaves the pool as it was', () => {
  it('a file: wrong, half-written, gone', async () => {
    await using disposing = new AsyncDisposableStack()
    await using server = await testUpstream({ '/': 'here' })
    await publish([server.url])
    const errors: string[] = []
    const onError = (error: { readonly code: string }): void => void errors.push(error.code)
    const pool = poolOf(fileSource(path, { debounce: 5, interval: '1h', onError }), transports[0]?.[1] as () => Transport, disposing)
    await using proxy = await startProxy({ pool })
    const member = async (): Promise<unknown> => {
      expect((await rawRequest(proxy.port, get())).text()).toBe('here')
      return pool.get(server.url)
    }
    const before = await member()
    for (const [content, code] of [
      ['[{"url":"http://127.0.0.1:1","weight":"heavy"}]', 'ERR_DISCOVERY_LIST'],
      [`["${server.url}`, 'ERR_DISCOVERY_SYNTAX'],
      [undefined, 'ERR_DISCOVERY_FILE'],
    ] as const) {
      if (content === undefined) await rm(path)
      else await writeFile(path, content)
      await until('it is reported', () => errors.at(-1) === code)
      expect(await member()).toBe(before)
    }
    await publish([server.url, 'http://127.0.0.1:1'])
    await until('a good file is taken', () => pool.upstreams.length === 2)
    expect(pool.get(server.url)).toBe(before)
  })

  it('the DNS: SERVFAIL, nothing, silence', async () => {
    await using disposing = new AsyncDisposableStack()
    await using server = await testUpstream({ '/': 'here' })
    await using dns = await dnsServer(records(server.port))
    const errors: string[] = []
    const source = srvSource({
      service,
      servers: [dns.address],
      family: 4,
      minTtl: 20,
      retry: { min: 20, max: 20 },
      timeout: 50,
      tries: 1,
      guard: loopback,
      onError: ({ cause }) => void errors.push(String((cause as NodeJS.ErrnoException).code)),
    })
    const pool = poolOf(source, transports[0]?.[1] as () => Transport, disposing)
    await using proxy = await startProxy({ pool })
    expect((await rawRequest(proxy.port, get())).text()).toBe('here')
    const [before] = pool.upstreams
    for (const [zone, code] of [
      [{ [`SRV ${service}`]: 'SERVFAIL' }, 'ESERVFAIL'],
      [{}, 'ENOTFOUND'],
      [{ [`SRV ${service}`]: 'hang' }, 'ETIMEOUT'],
    ] as const) {
      dns.zone = zone
      await until('it is reported', () => errors.at(-1) === code)
      expect([(await rawRequest(proxy.port, get())).text(), pool.upstreams[0] === before]).toEqual(['here', true])
    }
  })

  it('an endpoint that never had an answer: 503 at once, and traffic when it has one', async () => {
    await using disposing = new AsyncDisposableStack()
    await using server = await testUpstream({ '/': 'here' })
    await using registry = await testUpstream({ '/list': (_req, res) => void res.writeHead(500).end() })
    const source = httpSource({ url: `${registry.url}/list`, interval: '1h', guard: loopback })
    const pool = poolOf(source, transports[0]?.[1] as () => Transport, disposing)
    await using proxy = await startProxy({ pool })
    const refused = await rawRequest(proxy.port, get())
    expect([refused.status, refused.header('proxy-status')]).toEqual([503, expect.stringContaining('destination_unavailable')])
    registry.route('/list', (_req, res) => void res.end(JSON.stringify([server.url])))
    await until('the source is opened again', () => pool.upstreams.length === 1)
    expect((await rawRequest(proxy.port, get())).text()).toBe('here')
  })
})

it('the guard of a source and the check of a pool are the same function', async () => {
  await using server = await testUpstream({ '/': 'here' })
  const disguised = `http://[::ffff:127.0.0.1]:${server.port}`
  for (const [upstream, guard, status] of [
    [server.url, addressGuard(), 502],
    [disguised, addressGuard(), 502],
    [`http://localhost:${server.port}`, addressGuard(), 502],
    [server.url, loopback, 200],
    [disguised, loopback, 200],
    [`http://localhost:${server.port}`, loopback, 200],
  ] as const) {
    await using proxy = await startProxy({ upstreams: [upstream], allowAddress: guard })
    expect([upstream, (await rawRequest(proxy.port, get())).status]).toEqual([upstream, status])
  }
  expect(server.count()).toBe(3)
})

it('a list that is fetched says how its servers are asked for their health, and sends no probe elsewhere', async () => {
  await using server = await testUpstream({ '/': 'here', '/up': 500 })
  await using health = await testUpstream({ '/ready': {}, '*': 500 })
  await using inside = await testUpstream({ '*': {} })
  let said: object = { path: '/up' }
  await using registry = await testUpstream({
    '/list': (_req, res) => void res.end(JSON.stringify([{ url: server.url, meta: { health: said } }])),
  })
  const errors: DiscoveryError[] = []
  const onError = (error: DiscoveryError): void => void errors.push(error)
  const source = httpSource({ url: `${registry.url}/list`, interval: 10, minInterval: 1, retry: { min: 10 }, guard: loopback, onError })
  const check = activeCheck({ interval: 10, rise: 1, fall: 1, initial: 'pending' })
  await using proxy = await startProxy({ upstreams: source, health: [check] })
  const state = (): string | undefined => proxy.proxy.health().pools[0]?.upstreams[0]?.state
  expect((await rawRequest(proxy.port, get())).status).toBe(503)
  said = { address: '127.0.0.2', port: inside.port }
  await until('it is refused', () => errors.length > 0)
  expect([errors[0]?.code, errors[0]?.problems.map(({ path: at }) => at)]).toEqual(['ERR_DISCOVERY_LIST', ['$[0].meta.health.address']])
  expect([state(), inside.accepted]).toEqual(['down', 0])
  said = { port: health.port, path: '/ready' }
  await until('it is asked there', () => state() === 'up')
  expect((await rawRequest(proxy.port, get())).text()).toBe('here')
  expect(inside.accepted).toBe(0)
})

it('two pools on one source look for themselves', async () => {
  await using server = await testUpstream({ '/': 'here' })
  await publish([server.url])
  const source = fileSource(path, { debounce: 5, interval: '1h' })
  await using one = await startProxy({ upstreams: source })
  await using two = await startProxy({ upstreams: source })
  expect((await rawRequest(one.port, get())).text()).toBe('here')
  expect((await rawRequest(two.port, get())).text()).toBe('here')
  await one.proxy.close()
  await publish([server.url, 'http://127.0.0.1:1'])
  await until('the other goes on', () => two.proxy.stats().pools[0]?.upstreams.length === 2)
  expect(one.proxy.stats().pools[0]?.upstreams).toHaveLength(1)
})

it('no source keeps a process alive', async () => {
  await publish(['http://127.0.0.1:1'])
  await using dns = await dnsServer(zoneOf(a('app.test', '127.0.0.1', 3600)))
  await using endpoint = await listen(createServer((req, res) => void (req.url === '/fine' && res.end('["http://127.0.0.1:1"]'))))
  const url = `http://127.0.0.1:${endpoint.port}`
  expect(await runChild('sources-let-go', [dns.address, path, `${url}/fine`, `${url}/silent`])).toBe(4)
})
