/**
 * E30. A WebSocket client sees the upstream's own status when the upgrade is refused, and 502/504 when the upstream is unreachable.
 *
 * A refused upgrade is an ordinary response: status, fields and body are the upstream's, whatever they are, and the client can read why.
 */
import { createServer } from 'node:http'
import {
  blackHolePort,
  certificates,
  everyRequest,
  faults,
  patternAt,
  rawConnect,
  rawRequest,
  rawUpstream,
  refusedPort,
  testUpstream,
} from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { get, head, ok, switching, upgradeHead } from './messages.ts'
import { listen, startProxy, transports, until } from './observed.ts'

describe.each(transports)('E30 over %s', (_name, transport) => {
  const retry = false

  it.each([
    [
      '403 with a body',
      'HTTP/1.1 403 No Entry\r\nContent-Length: 4\r\nX-Why: origin\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nnope',
      403,
      'No Entry',
      'nope',
    ],
    [
      '401 with a challenge',
      'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n',
      401,
      'Unauthorized',
      '',
    ],
    [
      '426',
      'HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n',
      426,
      'Upgrade Required',
      '',
    ],
    [
      '503, chunked',
      'HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n3\r\nsor\r\n2\r\nry\r\n0\r\n\r\n',
      503,
      'Busy',
      'sorry',
    ],
    ['302', 'HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n', 302, 'Found', ''],
    ['200 from a server that knows no upgrades', ok('a page'), 200, 'OK', 'a page'],
    ['404 that ends with the connection', 'HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nto the end', 404, 'Not Found', 'to the end'],
    ['204', 'HTTP/1.1 204 No Content\r\n\r\n', 204, 'No Content', ''],
  ] as const)('%s: status, fields and body are the upstream’s', async (_case, answer, status, reason, body) => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(answer)
      if (answer.includes('Connection: close')) connection.end()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    const response = await rawRequest(proxy.port, upgradeHead(), { until: 'close' })
    expect([response.status, response.reason, response.text(), response.complete]).toEqual([status, reason, body, true])
    expect(response.ending).toBe('fin')
    for (const name of ['x-why', 'www-authenticate', 'retry-after', 'location', 'sec-websocket-version'])
      if (answer.toLowerCase().includes(`\r\n${name}:`)) expect(response.header(name)).toBeDefined()
    expect(response.all('set-cookie')).toEqual(status === 403 ? ['a=1', 'b=2'] : [])
    // Per hop, also in a refusal.
    expect(response.header('upgrade')).toBeUndefined()
    const outcome = await proxy.outcome()
    expect(outcome).toMatchObject({ status, reason: 'completed', upstream: { id: upstream.url } })
    await until('the upstream is free', () => upstream.open === 0)
    expect(proxy.proxy.stats()).toMatchObject({ inflight: 0, tunnels: 0 })
  })

  it('a large refusal arrives whole, with back-pressure', async () => {
    const size = 8 * 1024 * 1024
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(`HTTP/1.1 403 Forbidden\r\nContent-Length: ${size}\r\n\r\n`)
      for (let at = 0; at < size; at += 65_536) await connection.send(patternAt(at, 65_536))
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(upgradeHead())
    await client.sees('403')
    client.pause()
    // The upstream's sends stop somewhere well below the whole.
    const [connection] = upstream.connections
    let before = -1
    await until('the upstream feels the slow client', () => {
      const sent = connection?.sent ?? 0
      const still = sent === before && sent > 0
      before = sent
      return still
    })
    expect(before).toBeLessThan(size)
    client.resume()
    const response = await client.readResponse()
    expect(response.complete).toBe(true)
    expect(response.body).toHaveLength(size)
    expect(response.body.subarray(0, 65_536)).toEqual(patternAt(0, 65_536))
  })

  it('a refusal that breaks off looks broken', async () => {
    await using upstream = await testUpstream({ '/': faults.resetAt(10, 1000) })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    const response = await rawRequest(proxy.port, upgradeHead(), { until: 'close' })
    expect(response.complete).toBe(false)
    expect((await proxy.outcome()).reason).toBe('ERR_UPSTREAM_BODY')
  })

  it.each([
    ['refused', 502, 'connection_refused', 'ERR_CONNECT_REFUSED'],
    ['silent before the connection', 504, 'connection_timeout', 'ERR_CONNECT_TIMEOUT'],
    ['silent before the head', 504, 'http_response_timeout', 'ERR_HEAD_TIMEOUT'],
    ['reset', 502, 'connection_terminated', 'ERR_UPSTREAM_RESET'],
    ['closed', 502, 'connection_terminated', 'ERR_UPSTREAM_RESET'],
    ['not HTTP', 502, 'http_protocol_error', 'ERR_UPSTREAM_PROTOCOL'],
  ] as const)('an upstream that is %s: %i %s', async (what, status, type, code) => {
    await using dead = await refusedPort()
    await using hole = await blackHolePort()
    await using upstream = await testUpstream({
      '/silent-before-the-head': faults.stall(),
      '/reset': faults.reset(),
      '/closed': faults.hangUp(),
      '/not-HTTP': faults.garbage(),
    })
    const url = what === 'refused' ? dead.url : what === 'silent before the connection' ? hole.url : upstream.url
    await using proxy = await startProxy({ upstreams: [url], retry, timeouts: { connect: 150, head: 300 } }, { transport })
    const response = await rawRequest(proxy.port, upgradeHead(`/${what.replaceAll(' ', '-')}`), { until: 'close' })
    expect(response.status).toBe(status)
    expect(response.header('proxy-status')).toBe(`weir; error=${type}; details="${code}"`)
    expect(response.raw.toString('latin1')).not.toContain(new URL(url).port)
    expect(response.ending).toBe('fin')
    expect(await proxy.outcome()).toMatchObject({ status, reason: code })
    expect(proxy.proxy.stats()).toMatchObject({ inflight: 0, tunnels: 0 })
  })

  it.each([
    ['to another protocol', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'],
    ['without saying to what', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
  ])('an upstream that switches %s: 502 ERR_UPGRADE_RESPONSE', async (_case, answer) => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(answer)
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    const response = await rawRequest(proxy.port, upgradeHead(), { until: 'close' })
    expect([response.status, response.header('proxy-status')]).toEqual([
      502,
      'weir; error=http_upgrade_failed; details="ERR_UPGRADE_RESPONSE"',
    ])
    await until('the upstream is free', () => upstream.open === 0)
  })

  it('a 101 that nobody asked for is 502 for a plain request, and nothing leaks', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(`${switching()}secret`)
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(502)
    expect(response.raw.toString('latin1')).not.toContain('secret')
    await until('the upstream is free', () => upstream.open === 0)
  })

  it('interim responses in front of a refusal do not confuse it', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(
        'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n',
      )
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    expect((await rawRequest(proxy.port, upgradeHead())).status).toBe(403)
  })

  it('what Weir itself refuses: a stage, no route, draining', async () => {
    await using upstream = await rawUpstream(async (connection) => void (await connection.stall()))
    await using proxy = await startProxy(
      {
        routes: [
          {
            match: { path: '/private' },
            pool: { upstreams: [upstream.url] },
            use: [() => ({ status: 401, headers: { 'WWW-Authenticate': 'Bearer' }, body: 'who are you?' })],
          },
          { match: { path: '/slow' }, pool: { upstreams: [upstream.url] } },
        ],
      },
      { transport },
    )
    const refused = await rawRequest(proxy.port, upgradeHead('/private'), { until: 'close' })
    expect([refused.status, refused.header('www-authenticate'), refused.text()]).toEqual([401, 'Bearer', 'who are you?'])
    const unknown = await rawRequest(proxy.port, upgradeHead('/elsewhere'), { until: 'close' })
    expect([unknown.status, unknown.header('proxy-status')]).toEqual([404, 'weir; error=destination_not_found; details="ERR_NO_ROUTE"'])
    // A connection that was there before, an upgrade that comes while the proxy drains.
    await using waiting = await rawConnect(proxy.port)
    void waiting.write(upgradeHead('/slow'))
    await upstream.connection(1)
    await using late = await rawConnect(proxy.port)
    const closed = proxy.proxy.close({ deadline: 300 })
    void late.write(upgradeHead('/slow'))
    const drained = await late.readResponse()
    expect([drained.status, drained.header('proxy-status')]).toEqual([503, 'weir; error=destination_unavailable; details="ERR_DRAINING"'])
    expect((await waiting.readResponse()).status).toBe(503)
    await closed
  })

  it('HEAD and POST with Upgrade: websocket are no upgrades', async () => {
    await using upstream = await rawUpstream(
      everyRequest((request) => (request.method === 'HEAD' ? 'HTTP/1.1 200 OK\r\n\r\n' : ok('plain'))),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (const method of ['HEAD', 'POST']) {
      const response = await rawRequest(
        proxy.port,
        head(method, '/', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'),
      )
      expect(response.status).toBe(200)
    }
    // Per hop: what is forwarded asks for no upgrade.
    for (const request of upstream.requests) expect([request.header('upgrade'), request.header('connection')]).not.toContain('websocket')
    expect(upstream.requests.flatMap((request) => request.all('upgrade'))).toEqual([])
  })

  it('over TLS on both sides', async () => {
    const { ca, localhost } = certificates()
    await using upstream = await rawUpstream(
      everyRequest(() => 'HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope'),
      { tls: localhost },
    )
    await using untrusting = await startProxy({ upstreams: [upstream.url], retry }, { https: true })
    const response = await rawRequest(untrusting.port, upgradeHead(), { tls: { ca }, until: 'close' })
    expect([response.status, response.header('proxy-status')]).toEqual([
      502,
      'weir; error=tls_certificate_error; details="ERR_TLS_CERTIFICATE"',
    ])
    await using trusting = await startProxy({ upstreams: [upstream.url], retry, tls: { ca } }, { https: true })
    const refused = await rawRequest(trusting.port, upgradeHead(), { tls: { ca }, until: 'close' })
    expect([refused.status, refused.text()]).toEqual([403, 'nope'])
  })

  it('a real client hears the upstream’s own status', async () => {
    const wss = new WebSocketServer({ noServer: true })
    const server = createServer()
    server.on('upgrade', (req, socket, first) => {
      if (req.headers.origin !== 'https://good.example') {
        socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\nConnection: close\r\n\r\nwrong origin')
        return
      }
      wss.handleUpgrade(req, socket, first, (client) => client.send('welcome'))
    })
    await using upstream = await listen(server)
    await using proxy = await startProxy({ upstreams: [`http://127.0.0.1:${upstream.port}`] }, { transport })
    const outcome = (origin: string): Promise<string> =>
      new Promise((resolve) => {
        const client = new WebSocket(`ws://127.0.0.1:${proxy.port}/`, { origin })
        client.on('error', () => {})
        client.on('unexpected-response', (_request, response) => {
          response.setEncoding('utf8')
          response.on('data', (text: string) => resolve(`${response.statusCode} ${text}`))
        })
        client.on('message', (message) => {
          resolve(String(message))
          client.close()
        })
      })
    expect(await outcome('https://bad.example')).toBe('403 wrong origin')
    expect(await outcome('https://good.example')).toBe('welcome')
    wss.close()
  })
})
