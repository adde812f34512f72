/** The HTTP probe against servers on real sockets. */
import type { Upstream } from '@weir/core'
import { certificateAuthority, certificates, rawUpstream, refusedPort, stubUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type HttpProbeOptions, httpProbe } from './http-probe.ts'
import type { ProbeOverrides } from './overrides.ts'
import type { OpenProbe, ProbeResult } from './probe.ts'

const target = (url: string, overrides: ProbeOverrides = {}) => ({
  upstream: Object.assign(stubUpstream(), { url: new URL(url) }) as Upstream,
  overrides,
  tls: undefined as { ca?: string; servername?: string; insecure?: boolean } | undefined,
})

const ask = (probe: OpenProbe): Promise<ProbeResult | undefined> =>
  (probe.run(AbortSignal.timeout(5000)) as Promise<ProbeResult | undefined>).finally(() => probe.close?.())

/** The code of the failure, or what it passed with. */
async function outcome(url: string, options?: HttpProbeOptions, overrides?: ProbeOverrides): Promise<unknown> {
  try {
    return await ask(httpProbe(options).open(target(url, overrides)))
  } catch (error) {
    return (error as { code?: string }).code
  }
}

const passed = { degraded: false, draining: false }

describe('the request', () => {
  it('is GET / below the base path, with the upstream as Host, and closes', async () => {
    await using server = await testUpstream({ 'GET /base/': { status: 204 } })
    expect(await outcome(`${server.url}/base/`)).toEqual(passed)
    const { rawHeaders } = server.requests[0] ?? { rawHeaders: [] }
    expect(rawHeaders).toEqual(['Host', `127.0.0.1:${server.port}`, 'User-Agent', 'weir-health', 'Connection', 'close'])
  })

  it('is what the options say, and one upstream may differ', async () => {
    await using server = await testUpstream({ 'HEAD /live?x=1': {}, '*': { status: 200 } })
    const options = { path: '/live?x=1', method: 'HEAD', host: 'app.test', headers: { 'user-agent': 'me', 'X-A': ['1', '2'] } } as const
    expect(await outcome(server.url, options)).toEqual(passed)
    expect(server.requests[0]?.method).toBe('HEAD')
    expect(server.requests[0]?.url).toBe('/live?x=1')
    expect(server.requests[0]?.rawHeaders.join(' ')).toContain('Host app.test user-agent me X-A 1 X-A 2')
    expect(await outcome(server.url, options, { method: 'OPTIONS', path: '/other' })).toEqual(passed)
    expect(server.requests[1]?.method).toBe('OPTIONS')
    expect(server.requests[1]?.url).toBe('/other')
  })

  it('goes to another address and port', async () => {
    await using server = await testUpstream({ '*': {} })
    expect(await outcome('http://nowhere.invalid:1/', { address: '127.0.0.1', port: server.port })).toEqual(passed)
    expect(await outcome('http://127.0.0.1:1/', {}, { port: server.port })).toEqual(passed)
    expect(server.requests[0]?.rawHeaders[1]).toBe('nowhere.invalid:1')
  })

  it('goes to a Unix socket', async () => {
    await using server = await testUpstream({ 'GET /up': {} }, { unix: true })
    expect(await outcome(server.url, { path: '/up' })).toEqual(passed)
  })
})

describe('the status', () => {
  const cases: [options: HttpProbeOptions, status: number, passes: boolean][] = [
    [{}, 200, true],
    [{}, 399, true],
    [{}, 404, false],
    [{}, 500, false],
    [{ status: 204 }, 204, true],
    [{ status: 204 }, 200, false],
    [{ status: ['2xx', 404] }, 404, true],
    [{ status: ['2xx', 404] }, 304, false],
    [{ status: '200-202' }, 202, true],
    [{ status: '200-202' }, 203, false],
    [{ status: [200, 399] }, 201, false],
  ]
  for (const [options, status, passes] of cases)
    it(`${status} with ${JSON.stringify(options)} ${passes ? 'passes' : 'fails'}`, async () => {
      await using server = await testUpstream({ '*': { status } })
      expect(await outcome(server.url, options)).toEqual(passes ? passed : 'ERR_PROBE_STATUS')
    })

  it('redirects are not followed', async () => {
    await using server = await testUpstream({ '/a': { status: 302, headers: { Location: '/b' } }, '/b': { status: 500 } })
    expect(await outcome(server.url, { path: '/a' })).toEqual(passed)
    expect(server.count()).toBe(1)
  })

  it('101 fails', async () => {
    await using server = await rawUpstream('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
    expect(await outcome(server.url)).toBe('ERR_PROBE_STATUS')
  })
})

it('fields must be there, be equal or match', async () => {
  await using server = await testUpstream({ '*': { headers: { 'X-Ready': 'yes', Vary: ['a', 'b'] } } })
  expect(await outcome(server.url, { expectHeaders: { 'x-ready': true } })).toEqual(passed)
  expect(await outcome(server.url, { expectHeaders: { 'X-READY': 'yes', vary: 'b' } })).toEqual(passed)
  expect(await outcome(server.url, { expectHeaders: { 'x-ready': /^y/ } })).toEqual(passed)
  expect(await outcome(server.url, { expectHeaders: { 'x-ready': 'ye' } })).toBe('ERR_PROBE_HEADER')
  expect(await outcome(server.url, { expectHeaders: { 'x-ready': /no/ } })).toBe('ERR_PROBE_HEADER')
  expect(await outcome(server.url, { expectHeaders: { 'x-other': true } })).toBe('ERR_PROBE_HEADER')
})

describe('the body', () => {
  it('must hold a text or match, every time', async () => {
    await using server = await testUpstream({ '*': { body: '{"status":"ok"}' } })
    expect(await outcome(server.url, { body: '"ok"' })).toEqual(passed)
    expect(await outcome(server.url, { body: 'fine' })).toBe('ERR_PROBE_BODY')
    const probe = httpProbe({ body: /"OK"/gi }).open(target(server.url))
    for (let i = 0; i < 3; i++) expect(await probe.run(AbortSignal.timeout(5000))).toEqual(passed)
  })

  it('is read to maxBody and no further, also when it never ends', async () => {
    const head = 'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n'
    await using server = await rawUpstream(`${head}${'a'.repeat(99)}needle`)
    expect(await outcome(server.url, { body: 'needle', maxBody: 105 })).toEqual(passed)
    expect(await outcome(server.url, { body: 'needle', maxBody: 104 })).toBe('ERR_PROBE_BODY')
    expect(await outcome(server.url, { maxBody: 10 })).toEqual(passed)
  })

  it('is given up when an expression takes too long on what the server made up for it', async () => {
    const evil = `${'a'.repeat(27)}!`
    await using server = await testUpstream({ '*': { body: evil, headers: { 'X-Load': evil } } })
    expect(await outcome(server.url, { body: /^(a+)+$/ })).toBe('ERR_PROBE_PATTERN')
    expect(await outcome(server.url, { expectHeaders: { 'x-load': /^(a+)+$/ } })).toBe('ERR_PROBE_PATTERN')
    // The next one is none the worse for it.
    expect(await outcome(server.url, { body: /^a+!$/, expectHeaders: { 'x-load': /!$/ } })).toEqual(passed)
  })

  it('has one limit for all lines of all fields', async () => {
    // Each takes a few milliseconds: far below the limit, and all of them far above it.
    const line = `${'a'.repeat(20)}!`
    await using server = await testUpstream({ '*': { headers: { 'X-Load': Array.from({ length: 400 }, () => line) } } })
    expect(await outcome(server.url, { expectHeaders: { 'x-load': /^(a+)+$/ } })).toBe('ERR_PROBE_PATTERN')
  })

  it('that breaks off fails', async () => {
    await using server = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')
      connection.end()
    })
    expect(await outcome(server.url)).toBe('ERR_PROBE_CONNECTION')
  })
})

describe('failures', () => {
  it('of the connection', async () => {
    await using dead = await refusedPort()
    expect(await outcome(dead.url)).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome('http://nowhere.invalid/')).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome('unix:/nowhere/at/all.sock')).toBe('ERR_PROBE_CONNECTION')
  })

  it('an answer that never comes ends with the signal, and the connection with it', async () => {
    await using server = await rawUpstream(async (connection) => void (await connection.readRequest()))
    const controller = new AbortController()
    const running = httpProbe().open(target(server.url)).run(controller.signal)
    await server.request(1)
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
    await (await server.connection(1)).closed
    expect(server.open).toBe(0)
  })
})

it('an answer that fails is not read further, and its connection closed', async () => {
  await using server = await rawUpstream('HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n')
  const probe = httpProbe().open(target(server.url))
  await expect(probe.run(AbortSignal.timeout(5000))).rejects.toMatchObject({ code: 'ERR_PROBE_STATUS' })
  await (await server.connection(1)).closed
})

describe('what a pass says besides', () => {
  it('degraded by a field, draining by a field or a status', async () => {
    await using server = await testUpstream({
      '/d': { headers: { 'X-Degraded': '' } },
      '/s': { headers: { 'x-stop': '1' } },
      '/404': { status: 404 },
    })
    const options = { degradedHeader: 'X-Degraded', drainHeader: 'X-Stop', drainStatus: 404 } as const
    expect(await outcome(server.url, { ...options, path: '/d' })).toEqual({ degraded: true, draining: false })
    expect(await outcome(server.url, { ...options, path: '/s' })).toEqual({ degraded: false, draining: true })
    expect(await outcome(server.url, { ...options, path: '/404' })).toEqual({ degraded: false, draining: true })
    expect(await outcome(server.url, { path: '/404' })).toBe('ERR_PROBE_STATUS')
  })
})

describe('connections', () => {
  it('a new one each time, or a kept one; close lets go of it', async () => {
    await using server = await testUpstream({ '*': {} })
    const fresh = httpProbe().open(target(server.url))
    const kept = httpProbe({ keepAlive: true }).open(target(server.url))
    for (let i = 0; i < 2; i++) await fresh.run(AbortSignal.timeout(5000))
    expect(server.accepted).toBe(2)
    await server.until(({ sockets }) => sockets === 0)
    for (let i = 0; i < 3; i++) await kept.run(AbortSignal.timeout(5000))
    expect(server.accepted).toBe(3)
    expect(server.sockets).toBe(1)
    kept.close?.()
    await server.until(({ sockets }) => sockets === 0)
  })

  it('a kept one that has gone stale is no failure; a server that has gone is one', async () => {
    await using server = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
      // The second request on this connection is reset without an answer.
      if (connection.number > 2) return
      await connection.readRequest()
      connection.reset()
    })
    const probe = httpProbe({ keepAlive: true }).open(target(server.url))
    for (let i = 0; i < 3; i++) await probe.run(AbortSignal.timeout(5000))
    expect(server.connections.length).toBe(3)
    await server.stopListening()
    probe.close?.()
    await expect(probe.run(AbortSignal.timeout(5000))).rejects.toMatchObject({ code: 'ERR_PROBE_CONNECTION' })
  })
})

describe('TLS', () => {
  it("verifies with the pool's options, or its own", async () => {
    await using server = await testUpstream({ '*': {} }, { tls: true })
    const { ca } = certificates()
    expect(await outcome(server.url)).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome(server.url, { tls: { ca } })).toEqual(passed)
    expect(await ask(httpProbe().open({ ...target(server.url), tls: { ca } }))).toEqual(passed)
    // Its own go before the pool's.
    const other = certificateAuthority().ca
    await expect(ask(httpProbe({ tls: { ca: other } }).open({ ...target(server.url), tls: { ca } }))).rejects.toMatchObject({
      code: 'ERR_PROBE_CONNECTION',
    })
  })

  it('the name of the certificate is the upstream, its host, or servername', async () => {
    const { ca, wrongName } = certificates()
    await using server = await testUpstream({ '*': {} }, { tls: wrongName })
    expect(await outcome(server.url, { tls: { ca } })).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome(server.url, { tls: { ca }, servername: 'wrong.test' })).toEqual(passed)
    expect(await outcome(server.url, { tls: { ca, servername: 'wrong.test' } })).toEqual(passed)
    const named = target(server.url)
    expect(await ask(httpProbe({ tls: { ca } }).open({ ...named, upstream: { ...named.upstream, host: 'wrong.test:1' } }))).toEqual(passed)
  })

  it('an address is verified as an address', async () => {
    const { ca } = certificates()
    await using server = await testUpstream({ '*': {} }, { tls: true })
    expect(await outcome(`https://127.0.0.1:${server.port}`, { tls: { ca } })).toEqual(passed)
    expect(await outcome(`https://127.0.0.2:${server.port}`, { tls: { ca }, address: '127.0.0.1' })).toBe('ERR_PROBE_CONNECTION')
  })

  it('may be off for a health port beside an https service', async () => {
    await using server = await testUpstream({ '*': {} })
    expect(await outcome('https://127.0.0.1:1', { secure: false, port: server.port })).toEqual(passed)
  })
})

describe('options', () => {
  const wrong: [options: unknown, paths: string[]][] = [
    [{ path: 'x' }, ['path']],
    [{ path: '/ x' }, ['path']],
    [{ method: 'POST' }, ['method']],
    [{ method: 'HEAD', body: 'x' }, ['body']],
    [{ body: '' }, ['body']],
    [{ status: 99, drainStatus: '9xx' }, ['status', 'drainStatus']],
    [{ status: '399-200' }, ['status']],
    [{ port: 0, address: '', servername: 1 }, ['address', 'port', 'servername']],
    [{ headers: { 'a b': '1' } }, ['headers.a b']],
    [{ headers: { a: 'x\r\ny' } }, ['headers.a']],
    [{ expectHeaders: { a: 1 } }, ['expectHeaders']],
    [{ maxBody: 0 }, ['maxBody']],
    [{ degradedHeader: 'a b' }, ['degradedHeader']],
    [{ tls: { key: 'x' } }, ['tls.cert', 'tls']],
    [{ pth: '/' }, ['pth']],
  ]
  for (const [options, paths] of wrong)
    it(`${JSON.stringify(options)} is wrong at ${paths.join(', ')}`, () => {
      let found: string[] = []
      try {
        httpProbe(options as HttpProbeOptions)
      } catch (error) {
        found = (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
      }
      expect(found).toEqual(paths)
    })
})
