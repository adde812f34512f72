/**
 * Access control on real sockets: whose address counts, what HTTP/2 and WebSockets get, exact statuses, bodies that lie, TLS. What the stages decide
 * is shown beside their sources.
 */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect as connectTls } from 'node:tls'
import {
  basicAuth,
  clientCertificate,
  forwardAuth,
  hashPassword,
  headerHygiene,
  hideIdentity,
  ipAccess,
  requestFilter,
  securityHeaders,
  sizeLimits,
} from '@weir/access'
import { createProxy, type StageLike } from '@weir/core'
import {
  certificateAuthority,
  certificates,
  everyRequest,
  faults,
  rawConnect,
  rawRequest,
  rawUpstream,
  testUpstream,
  virtualClock,
  WsRefused,
  wsConnect,
  wsUpstream,
} from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, upgradeHead } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'
import { okUpstream, type RunningProxy } from './setup.ts'

const status = async (proxy: RunningProxy, request: string): Promise<number> => (await rawRequest(proxy.port, request)).status

describe('trailers of a request', () => {
  const upload = (fields: readonly string[], trailers: readonly string[]): string =>
    `POST / HTTP/1.1\r\nHost: public.test\r\nTrailer: X-Sum\r\n${fields.map((line) => `${line}\r\n`).join('')}Transfer-Encoding: chunked\r\n\r\n` +
    `5\r\nhello\r\n0\r\n${trailers.map((line) => `${line}\r\n`).join('')}\r\n`

  it('cannot set what only the proxy sets, whether it has something to say or not, nor what hygiene takes off', async () => {
    await using upstream = await okUpstream()
    const use: StageLike[] = [
      headerHygiene({ internal: ['X-Internal-*'] }),
      basicAuth({ users: { ada: await hashPassword('x') }, userHeader: 'X-User' }),
    ]
    await using running = await startProxy({ upstreams: [upstream.url], use })
    const trailers = ['X-User: root', 'x-user: root', 'X_User: root', 'X-Internal-Role: admin', 'X-Sum: abc', 'Pro^xy: x']
    const login = `Authorization: Basic ${Buffer.from('ada:x').toString('base64')}`
    expect(await status(running, upload([login], trailers))).toBe(200)
    const [request] = upstream.requests
    expect([request?.all('x-user'), request?.trailers]).toEqual([['ada'], ['X-Sum', 'abc']])
  })

  it('count for the limits of fields', async () => {
    await using upstream = await okUpstream()
    const stage = sizeLimits({ headers: 1024, header: 512, headerCount: 8 })
    await using running = await startProxy({ upstreams: [upstream.url], use: [stage] })
    for (const [trailers, expected] of [
      [[`X-Sum: ${'a'.repeat(503)}`], 200],
      [[`X-Sum: ${'a'.repeat(504)}`], 431],
      [Array.from({ length: 8 }, (_, i) => `X-${i}: a`), 200],
      [Array.from({ length: 9 }, (_, i) => `X-${i}: a`), 431],
      [['X-A', 'X-B', 'X-C'].map((name) => `${name}: ${'a'.repeat(400)}`), 431],
    ] as const)
      expect(await status(running, upload([], trailers))).toBe(expected)
    expect(stage.stats()).toMatchObject({ allowed: 2, refused: 3, exceeded: { header: 1, headerCount: 1, headers: 1, body: 0 } })
  })
})

describe('the address of a client', () => {
  it('is the one that a trusted proxy names, read from the right, and never one that a client forges', async () => {
    await using upstream = await okUpstream()
    const use = (): StageLike[] => [ipAccess({ allow: '192.0.2.0/24' })]
    await using behind = await startProxy({ upstreams: [upstream.url], trustedProxies: ['loopback'], use: use() })
    await using direct = await startProxy({ upstreams: [upstream.url], use: use() })
    const asks: readonly (readonly [string, number, number])[] = [
      ['X-Forwarded-For: 192.0.2.1', 200, 403],
      ['X-Forwarded-For: ::ffff:192.0.2.1', 200, 403],
      ['X-Forwarded-For: 192.0.2.1, 198.51.100.1', 403, 403],
      ['X-Forwarded-For: 198.51.100.1, 192.0.2.1', 200, 403],
      ['Forwarded: for="[::ffff:c000:201]:80"', 200, 403],
      ['X-Real-IP: 192.0.2.1', 403, 403],
      ['Accept: */*', 403, 403],
    ]
    for (const [line, trusted, forged] of asks)
      expect([await status(behind, get('/', line)), await status(direct, get('/', line))], line).toEqual([trusted, forged])
  })

  it('is IPv4 also when it comes over an IPv6 socket', async () => {
    await using upstream = await okUpstream()
    const proxy = createProxy({ upstreams: [upstream.url], use: [ipAccess({ rules: [{ deny: '127.0.0.1' }, { allow: 'all' }] })] })
    const { createServer: plain } = await import('node:http')
    const server = proxy.attach(plain())
    const listening = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(0, '::', () => resolve(true))
    })
    if (listening) {
      const { port } = server.address() as AddressInfo
      expect((await rawRequest(port, get('/', 'Connection: close'))).status).toBe(403)
      await new Promise((resolve) => server.close(resolve))
    }
    await proxy.close()
  })
})

describe('HTTP/2', () => {
  it('meets the same rules, and a browser over TLS is told to stay with it', async () => {
    await using upstream = await okUpstream()
    const use = [
      securityHeaders(),
      ipAccess({ deny: '203.0.113.0/24' }),
      sizeLimits({ url: 20, body: 4 }),
      requestFilter({ rules: [{ match: { path: '/admin/*' }, action: 'deny' }] }),
    ]
    await using proxy = await startProxy({ upstreams: [upstream.url], use }, { http2: true, https: true })
    await using client = await h2Client(proxy.port, 'https')
    const answers = [
      await client.request({ ':path': '/' }),
      await client.request({ ':path': '/%61dmin/x' }),
      await client.request({ ':path': `/${'a'.repeat(20)}` }),
      await client.request({ ':path': '/', ':method': 'POST' }, 'fives'),
      await client.request({ ':path': '/', ':method': 'POST', 'content-length': '5' }, 'fives'),
    ]
    expect(answers.map((answer) => answer.status)).toEqual([200, 403, 414, 413, 413])
    expect(answers[0]?.all('strict-transport-security')).toEqual(['max-age=31536000'])
    await using plain = await startProxy({ upstreams: [upstream.url], use: [securityHeaders()] })
    const { headers } = await rawRequest(plain.port, get())
    expect(headers.some((name) => /^strict-transport/i.test(name))).toBe(false)
  })
})

describe('a WebSocket', () => {
  it('is refused where a request would be, and let in where it would be', async () => {
    await using upstream = await wsUpstream()
    const users = { ada: await hashPassword('lovelace', { cost: 10 }) }
    await using closed = await startProxy({ upstreams: [upstream.url], use: [ipAccess({ deny: 'all' })] })
    await using asking = await startProxy({ upstreams: [upstream.url], use: [basicAuth({ users })] })
    expect(await status(closed, upgradeHead())).toBe(403)
    const refused = await rawRequest(asking.port, upgradeHead())
    expect([refused.status, refused.headers.includes('WWW-Authenticate')]).toEqual([401, true])
    const authorization = `Basic ${Buffer.from('ada:lovelace').toString('base64')}`
    const client = await rawConnect(asking.port)
    void client.write(upgradeHead('/', `Authorization: ${authorization}`))
    expect((await client.readResponse()).status).toBe(101)
    client.destroy()
    await expect(wsConnect(closed.port)).rejects.toBeInstanceOf(WsRefused)
  })
})

describe.each(transports)('sizes over %s', (_name, transport) => {
  it('are refused with the status that says which, before the upstream hears of it', async () => {
    await using upstream = await testUpstream()
    await using proxy = await startProxy(
      { upstreams: [upstream.url], use: [sizeLimits({ url: 100, headers: 1000, header: 500, headerCount: 10, body: 10 })] },
      { transport },
    )
    expect(await status(proxy, get(`/${'a'.repeat(99)}`))).toBe(200)
    const before = upstream.count()
    expect(await status(proxy, get(`/${'a'.repeat(100)}`))).toBe(414)
    expect(await status(proxy, get('/', `X-A: ${'a'.repeat(500)}`))).toBe(431)
    expect(await status(proxy, get('/', `X-A: ${'a'.repeat(480)}`, `X-B: ${'a'.repeat(480)}`, 'X-C: over the edge'))).toBe(431)
    expect(await status(proxy, get('/', ...Array.from({ length: 10 }, (_, i) => `X-${i}: 1`)))).toBe(431)
    expect(await status(proxy, `${head('POST', '/', 'Content-Length: 11')}12345678901`)).toBe(413)
    expect(upstream.count()).toBe(before)
  })

  it('of a body that is announced and then waits is told at once, without the 100', async () => {
    await using upstream = await okUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [sizeLimits({ body: 10 })] }, { transport })
    const client = await rawConnect(proxy.port)
    void client.write(head('POST', '/', 'Content-Length: 1000000', 'Expect: 100-continue'))
    const answer = await client.readResponse()
    expect([answer.status, client.received.includes('100 Continue')]).toEqual([413, false])
    client.destroy()
  })

  it('of a body without a length are counted as it comes; one that fits goes through', async () => {
    await using upstream = await testUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [sizeLimits({ body: 10 })] }, { transport })
    const chunked = (...chunks: readonly string[]): string =>
      `${head('POST', '/', 'Transfer-Encoding: chunked')}${chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('')}0\r\n\r\n`
    expect(await status(proxy, chunked('12345', '67890'))).toBe(200)
    expect(await status(proxy, chunked('12345', '67890', 'x'))).toBe(413)
    // It goes on for ever, and need not end for the answer to come.
    const client = await rawConnect(proxy.port)
    void client.write(`${head('POST', '/', 'Transfer-Encoding: chunked')}b\r\n12345678901\r\n`)
    expect((await client.readResponse()).status).toBe(413)
    client.destroy()
    // Two lengths, or a length and chunks, never get so far.
    expect(await status(proxy, `${head('POST', '/', 'Content-Length: 5', 'Transfer-Encoding: chunked')}0\r\n\r\n`)).toBe(400)
  })
})

describe('a client that leaves', () => {
  it('frees its place in the tarpit', async () => {
    await using upstream = await okUpstream()
    const stage = requestFilter({ rules: [{ action: 'tarpit', delay: '1m' }], clock: virtualClock() })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] })
    const client = await rawConnect(proxy.port)
    void client.write(get())
    await until('held', () => stage.stats().held === 1)
    client.destroy()
    await until('free', () => stage.stats().held === 0)
  })

  it('takes its question to the authorisation service along', async () => {
    await using service = await testUpstream({ '*': faults.stall(60_000) })
    await using upstream = await okUpstream()
    const stage = forwardAuth({ url: service.url })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] })
    const client = await rawConnect(proxy.port)
    void client.write(get())
    await service.until(({ active }) => active === 1)
    client.destroy()
    await service.until(({ active }) => active === 0)
    await until('no question', () => stage.stats().pending === 0)
    expect(stage.stats()).toMatchObject({ allowed: 0, refused: 0, failed: 0 })
  })
})

it('what an upstream says of itself does not reach the client, Date does', async () => {
  await using upstream = await rawUpstream(
    everyRequest(() => 'HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nVia: 1.1 inner\r\nX-Powered-By: x\r\nContent-Length: 0\r\n\r\n'),
  )
  await using proxy = await startProxy({ upstreams: [upstream.url], use: [hideIdentity()] })
  const { headers } = await rawRequest(proxy.port, get())
  const names = headers.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
  expect(names.filter((name) => ['server', 'via', 'x-powered-by', 'date'].includes(name))).toEqual(['date'])
})

describe('a client certificate', () => {
  const clients = certificateAuthority()
  const others = certificateAuthority()

  /** What the upstream gets of a request with this certificate, or the status of the refusal. */
  async function arrives(
    options: Parameters<typeof clientCertificate>[0],
    own: { key: string; cert: string } | undefined,
  ): Promise<number | Record<string, string>> {
    await using upstream = await testUpstream()
    const proxy = createProxy({ upstreams: [upstream.url], use: [clientCertificate(options)] })
    const server = proxy.attach(createServer({ ...certificates().localhost, requestCert: true, rejectUnauthorized: false, ca: clients.ca }))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const socket = connectTls({
      port: (server.address() as AddressInfo).port,
      host: '127.0.0.1',
      servername: 'localhost',
      ca: certificates().ca,
      ...own,
    })
    await once(socket, 'secureConnect')
    socket.write(
      get(
        '/',
        'Connection: close, Client-Cert',
        'Client-Cert: :Zm9yZ2Vk:',
        'Client_Cert: forged',
        'Client-Cert-Chain: :Zm9yZ2Vk:',
        'X-Subject: CN=root',
      ),
    )
    const [answer] = (await once(socket.setEncoding('latin1'), 'data')) as [string]
    socket.destroy()
    await new Promise((resolve) => server.close(resolve))
    await proxy.close()
    const found = Number(answer.slice(9, 12))
    const raw = upstream.requests[0]?.rawHeaders
    if (found !== 200 || raw === undefined) return found
    return Object.fromEntries(
      raw.flatMap((name, i) => (i % 2 === 0 && /^(?:client|x-subject)/i.test(name) ? [[name, raw[i + 1] as string]] : [])),
    )
  }

  it('that the server has verified lets in, and reaches the upstream as RFC 9440 says', async () => {
    const own = clients.issue(['ada'])
    const der = new X509Certificate(own.cert).raw.toString('base64')
    expect(await arrives({}, own)).toEqual({ 'Client-Cert': `:${der}:`, 'X-Subject': 'CN=root' })
    expect(await arrives({ forward: false, subjectHeader: 'X-Subject' }, own)).toEqual({ 'X-Subject': 'CN=ada' })
    const chain = (await arrives({ chain: true }, own)) as Record<string, string>
    expect(chain['Client-Cert-Chain']).toBe(`:${new X509Certificate(clients.ca).raw.toString('base64')}:`)
  })

  it('that is missing, of another authority, over, or not accepted keeps out, or is nobody where it is optional', async () => {
    const own = clients.issue(['ada'])
    const cases: readonly (readonly [Parameters<typeof clientCertificate>[0], { key: string; cert: string } | undefined])[] = [
      [{}, undefined],
      [{}, others.issue(['ada'])],
      [{ now: () => Date.now() + 40 * 86_400_000 }, own],
      [{ accept: ({ subject }) => subject !== 'CN=ada' }, own],
    ]
    for (const [options, certificate] of cases) {
      expect(await arrives(options, certificate)).toBe(403)
      expect(await arrives({ ...options, required: false }, certificate)).toEqual({ 'X-Subject': 'CN=root' })
      expect(await arrives({ ...options, dryRun: true }, certificate)).toEqual({ 'X-Subject': 'CN=root' })
    }
  })
})
