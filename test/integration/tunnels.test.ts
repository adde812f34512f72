/**
 * Tunnels in numbers and over time: what a crash of a server with a thousand of them leaves behind, how silence and draining end them, and
 * what hooks, failover and other listeners have to do with them. Single endings are E31's subject.
 */
import { createServer } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Hooks, ProxyOptions } from '@weir/core'
import {
  everyRequest,
  faults,
  type RawConnection,
  type RawUpstream,
  rawConnect,
  rawRequest,
  rawUpstream,
  refusedPort,
  testUpstream,
} from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { get, head, ok, switching, upgradeHead } from './messages.ts'
import { gate, listen, type ObservedProxy, startProxy, transports, until } from './observed.ts'

/** Switches, then says back what it hears, five bytes at a time. */
function echoing(): Promise<RawUpstream> {
  return rawUpstream(async (connection) => {
    await connection.readRequest()
    await connection.send(switching())
    for (;;) await connection.send(await connection.readBytes(5, 60_000))
  })
}

/** Switches, and keeps still. */
function silent(): Promise<RawUpstream> {
  return rawUpstream(async (connection) => {
    await connection.readRequest()
    await connection.send(switching())
    await connection.stall()
  })
}

async function tunnel(proxy: ObservedProxy, path = '/'): Promise<RawConnection> {
  const client = await rawConnect(proxy.port)
  void client.write(upgradeHead(path))
  expect((await client.readResponse()).status).toBe(101)
  return client
}

const nothingLeft = (proxy: ObservedProxy): void => {
  const { inflight, tunnels, pools } = proxy.proxy.stats()
  expect([inflight, tunnels, ...pools.flatMap((pool) => pool.upstreams.map((upstream) => upstream.inflight))]).toEqual([
    0,
    0,
    ...pools.flatMap((pool) => pool.upstreams.map(() => 0)),
  ])
}

describe('a thousand tunnels', () => {
  it('whose upstream crashes leave no socket behind', async () => {
    const count = 1000
    const server = createServer()
    const accepted = new Set<Socket>()
    server.on('upgrade', (_req, socket) => {
      accepted.add(socket as Socket)
      socket.on('error', () => {})
      socket.write(switching())
    })
    const upstream = await listen(server)
    await using proxy = await startProxy({ upstreams: [`http://127.0.0.1:${upstream.port}`] })
    const before = process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length
    const clients: Socket[] = []
    let ended = 0
    // In batches: the backlog of a listening socket is not the subject.
    for (let batch = 0; batch < count; batch += 100)
      await Promise.all(
        Array.from(
          { length: 100 },
          () =>
            new Promise<void>((resolve) => {
              const client = connect(proxy.port, '127.0.0.1', () => client.write(upgradeHead()))
              client.on('error', () => {})
              client.once('data', (chunk) => {
                expect(chunk.toString()).toMatch(/^HTTP\/1\.1 101 /)
                resolve()
              })
              client.on('close', () => ended++)
              clients.push(client)
            }),
        ),
      )
    expect(proxy.proxy.stats()).toMatchObject({ inflight: count, tunnels: count, pools: [{ upstreams: [{ inflight: count }] }] })
    expect(accepted.size).toBe(count)
    for (const socket of accepted) socket.resetAndDestroy()
    await until('every client has been told', () => ended === count, 15_000)
    await until('every tunnel is gone', () => proxy.proxy.stats().tunnels === 0, 15_000)
    nothingLeft(proxy)
    expect(proxy.outcomes).toHaveLength(count)
    expect(new Set(proxy.outcomes.map((outcome) => outcome.reason))).toEqual(new Set(['ERR_TUNNEL_BROKEN']))
    await upstream.close()
    await until(
      'no socket is left in this process',
      () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length <= before,
    )
  })

  it('whose clients vanish leave none either', async () => {
    const count = 300
    const server = createServer()
    let open = 0
    server.on('upgrade', (_req, socket) => {
      open++
      socket.on('error', () => {})
      socket.on('close', () => open--)
      // As every server does that reads its clients.
      socket.on('end', () => socket.end()).resume()
      socket.write(switching())
    })
    await using upstream = await listen(server)
    await using proxy = await startProxy({ upstreams: [`http://127.0.0.1:${upstream.port}`] })
    const clients: Socket[] = []
    await Promise.all(
      Array.from(
        { length: count },
        () =>
          new Promise<void>((resolve) => {
            const client = connect(proxy.port, '127.0.0.1', () => client.write(upgradeHead()))
            client.on('error', () => {})
            client.once('data', () => resolve())
            clients.push(client)
          }),
      ),
    )
    await until('all are open', () => open === count)
    for (const client of clients) client.resetAndDestroy()
    await until('the upstream has lost them all', () => open === 0, 15_000)
    await until('every tunnel is gone', () => proxy.proxy.stats().tunnels === 0, 15_000)
    nothingLeft(proxy)
  })
})

describe.each(transports)('tunnels over %s', (_name, transport) => {
  describe('silence', () => {
    it('in both directions for as long as `tunnelIdle` ends a tunnel', async () => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url], timeouts: { tunnelIdle: 150 } }, { transport })
      await using client = await tunnel(proxy)
      expect(await client.closed).not.toBe('open')
      client.end()
      expect(await proxy.outcome()).toMatchObject({ status: 101, reason: 'ERR_TUNNEL_IDLE' })
      await until('the upstream is free', () => upstream.open === 0)
      nothingLeft(proxy)
    })

    it.each(['client', 'upstream'] as const)('is broken by either side (%s), however little it says', async (who) => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url], timeouts: { tunnelIdle: 600 } }, { transport })
      await using client = await tunnel(proxy)
      const server = await upstream.connection(1)
      // Longer than the limit in all, never silent for nearly as long.
      for (let i = 0; i < 20; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50))
        if (who === 'client') {
          void client.write('.')
          await server.sees('.'.repeat(i + 1))
        } else {
          void server.send('.')
          await client.sees('.'.repeat(i + 1))
        }
      }
      expect(proxy.proxy.stats().tunnels).toBe(1)
    })

    it('of a waiting handshake is not a tunnel’s: the head timeout covers that', async () => {
      await using upstream = await testUpstream({ '/': faults.stall() })
      await using proxy = await startProxy(
        { upstreams: [upstream.url], retry: false, timeouts: { tunnelIdle: 20, head: 250 } },
        { transport },
      )
      const response = await rawRequest(proxy.port, upgradeHead())
      expect([response.status, response.header('proxy-status')]).toEqual([
        504,
        'weir; error=http_response_timeout; details="ERR_HEAD_TIMEOUT"',
      ])
    })

    it('has no limit with 0, and `total` does not count once the tunnel is open', async () => {
      await using upstream = await silent()
      await using proxy = await startProxy(
        { upstreams: [upstream.url], timeouts: { tunnelIdle: 0, total: 150, head: 100, idle: 50 } },
        { transport },
      )
      await using client = await tunnel(proxy)
      await new Promise((resolve) => setTimeout(resolve, 400))
      void (await upstream.connection(1)).send('still here')
      await client.sees('still here')
      expect(proxy.proxy.stats().tunnels).toBe(1)
    })
  })

  describe('draining', () => {
    it('lets a tunnel go on until the deadline, then ends it', async () => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await tunnel(proxy)
      const server = await upstream.connection(1)
      let closed = false
      const closing = proxy.proxy.close({ deadline: 1000 }).then(() => {
        closed = true
      })
      void client.write('while draining')
      await server.sees('while draining')
      void server.send('so it goes')
      await client.sees('so it goes')
      expect(closed).toBe(false)
      await closing
      expect(await client.closed).not.toBe('open')
      expect(await proxy.outcome()).toMatchObject({ status: 101, reason: 'ERR_DRAINING' })
      await until('the upstream is free', () => upstream.open === 0)
      nothingLeft(proxy)
    })

    it('ends early when the last tunnel does', async () => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const client = await tunnel(proxy)
      const closing = proxy.proxy.close({ deadline: '60s' })
      client.reset()
      await closing
      nothingLeft(proxy)
    })

    it('of one upstream leaves the tunnels of the others alone', async () => {
      await using first = await silent()
      await using second = await silent()
      await using proxy = await startProxy({ upstreams: [first.url, second.url] }, { transport })
      await using one = await tunnel(proxy)
      await using two = await tunnel(proxy)
      const firstOf = async (upstream: RawUpstream): Promise<RawConnection> => {
        const { received } = await upstream.connection(1)
        expect(received.length).toBeGreaterThan(0)
        // Who is who: a word from this upstream.
        void (await upstream.connection(1)).send('you are mine')
        return Promise.race(
          [one, two].map(async (client) => {
            await client.sees('you are mine', 10_000).catch(() => new Promise(() => {}))
            return client
          }),
        )
      }
      const drained = await firstOf(first)
      const other = drained === one ? two : one
      const left = proxy.proxy.pool?.drain(first.url, { deadline: 200 })
      expect(proxy.proxy.pool?.get(first.url)?.state).toBe('draining')
      await left
      expect(await drained.closed).not.toBe('open')
      void other.write('still open')
      await (await second.connection(1)).sees('still open')
      expect(proxy.proxy.stats().tunnels).toBe(1)
      expect(proxy.proxy.pool?.get(first.url)?.inflight).toBe(0)
      expect((await proxy.outcome()).reason).toBe('ERR_DRAINING')
    })

    it('without a deadline waits for the tunnel', async () => {
      await using upstream = await silent()
      await using other = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const client = await tunnel(proxy)
      proxy.proxy.pool?.add(other.url)
      let gone = false
      const leaving = proxy.proxy.pool?.remove(upstream.url).then(() => {
        gone = true
      })
      // New ones go elsewhere.
      await using next = await tunnel(proxy)
      expect(other.connections).toHaveLength(1)
      expect(gone).toBe(false)
      void client.write('not cut')
      await (await upstream.connection(1)).sees('not cut')
      client.reset()
      await leaving
      expect(next.ending).toBe('open')
    })
  })

  describe('failover before the 101', () => {
    it.each(['refused', 'reset', 'hang-up'] as const)('an upstream that fails (%s) costs the client nothing', async (how) => {
      await using dead = await refusedPort()
      await using failing = await testUpstream({ '/': how === 'reset' ? faults.reset() : faults.hangUp() })
      await using upstream = await echoing()
      const url = how === 'refused' ? dead.url : failing.url
      await using proxy = await startProxy({ upstreams: [url, { url: upstream.url, backup: true }] }, { transport })
      const client = await tunnel(proxy)
      void client.write('hello')
      expect((await client.readBytes(5)).toString()).toBe('hello')
      client.end()
      const outcome = await proxy.outcome()
      expect(outcome.attempts.map((attempt) => attempt.upstream.id)).toEqual([url, upstream.url])
      expect(outcome).toMatchObject({ status: 101, upstream: { id: upstream.url } })
    })

    it('a slow one too, where the policy says so', async () => {
      await using slow = await testUpstream({ '/': faults.stall() })
      await using upstream = await echoing()
      await using proxy = await startProxy(
        { upstreams: [slow.url, { url: upstream.url, backup: true }], retry: { on: ['timeout'], perTryTimeout: 150 } },
        { transport },
      )
      await using client = await tunnel(proxy)
      void client.write('hello')
      expect((await client.readBytes(5)).toString()).toBe('hello')
    })

    it('a status is the upstream’s answer, not a failure', async () => {
      await using busy = await testUpstream({ '/': 503 })
      await using upstream = await echoing()
      await using proxy = await startProxy({ upstreams: [busy.url, { url: upstream.url, backup: true }] }, { transport })
      expect((await rawRequest(proxy.port, upgradeHead())).status).toBe(503)
      expect(upstream.connections).toHaveLength(0)
    })

    it('balances tunnels like requests, counts them, and respects caps', async () => {
      await using first = await silent()
      await using second = await silent()
      await using proxy = await startProxy({ upstreams: [first.url, second.url], maxConcurrent: 2, queue: false }, { transport })
      const clients = [await tunnel(proxy), await tunnel(proxy), await tunnel(proxy), await tunnel(proxy)]
      expect([first.open, second.open]).toEqual([2, 2])
      const refused = await rawRequest(proxy.port, upgradeHead())
      expect([refused.status, refused.header('proxy-status')]).toEqual([
        503,
        'weir; error=connection_limit_reached; details="ERR_QUEUE_FULL"',
      ])
      clients[0]?.reset()
      await until('a place is free', () => proxy.proxy.stats().tunnels === 3)
      clients.push(await tunnel(proxy))
      for (const client of clients) client.destroy()
    })
  })

  describe('hooks', () => {
    const proxied = async (
      hooks: Hooks,
      options: Partial<ProxyOptions> = {},
    ): Promise<{ proxy: ObservedProxy; upstream: RawUpstream } & AsyncDisposable> => {
      const upstream = await echoing()
      const proxy = await startProxy({ upstreams: [upstream.url], ...options, use: [() => hooks] }, { transport })
      return {
        proxy,
        upstream,
        [Symbol.asyncDispose]: async () => {
          await proxy[Symbol.asyncDispose]()
          await upstream.close()
        },
      }
    }

    it('see the 101 and may add to it', async () => {
      const seen: unknown[] = []
      await using both = await proxied({
        onAttempt: (headers) => void headers.set('X-Asked', 'yes'),
        onResponse: async (response, exchange) => {
          seen.push([response.status, response.hasBody, response.upstream?.id, exchange.kind])
          response.headers.append('Set-Cookie', 'session=1')
          await new Promise((resolve) => setImmediate(resolve))
          response.headers.append('Set-Cookie', 'other=2')
        },
      })
      await using client = await rawConnect(both.proxy.port)
      void client.write(upgradeHead())
      const response = await client.readResponse()
      expect(response.status).toBe(101)
      expect(response.all('set-cookie')).toEqual(['session=1', 'other=2'])
      expect(seen).toEqual([[101, false, both.upstream.url, 'upgrade']])
      expect(both.upstream.requests[0]?.header('x-asked')).toBe('yes')
      void client.write('hello')
      expect((await client.readBytes(5)).toString()).toBe('hello')
    })

    it('header rules hold for the 101 as for any response', async () => {
      await using both = await proxied({}, { headers: { response: { set: { 'X-Edge': 'yes' } }, request: { set: { 'X-From': 'edge' } } } })
      await using client = await rawConnect(both.proxy.port)
      void client.write(upgradeHead())
      expect((await client.readResponse()).header('x-edge')).toBe('yes')
      expect(both.upstream.requests[0]?.header('x-from')).toBe('edge')
    })

    it('may refuse what the upstream has accepted', async () => {
      await using both = await proxied({
        onResponse: (response) => response.replace({ status: 403, headers: { 'X-Why': 'policy' }, body: 'not you' }),
      })
      const response = await rawRequest(both.proxy.port, `${upgradeHead()}frames`, { until: 'close' })
      expect([response.status, response.header('x-why'), response.text()]).toEqual([403, 'policy', 'not you'])
      await until('the upstream is free', () => both.upstream.open === 0)
      expect(await both.proxy.outcome()).toMatchObject({ status: 403, reason: 'completed' })
      nothingLeft(both.proxy)
    })

    it('that throw are a 500, and the upstream is freed', async () => {
      await using both = await proxied({
        onResponse: () => {
          throw new Error('hook')
        },
      })
      const response = await rawRequest(both.proxy.port, upgradeHead(), { until: 'close' })
      expect([response.status, response.header('proxy-status')]).toEqual([500, 'weir; error=proxy_internal_error; details="ERR_STAGE"'])
      await until('the upstream is free', () => both.upstream.open === 0)
      nothingLeft(both.proxy)
    })

    it('hear of the end once, with the status and the bytes', async () => {
      await using both = await proxied({})
      await using client = await tunnel(both.proxy)
      void client.write('five.')
      await client.readBytes(5)
      client.end()
      const outcome = await both.proxy.outcome()
      expect(outcome).toMatchObject({ status: 101, reason: 'completed', upstream: { id: both.upstream.url } })
      expect(outcome.attempts).toHaveLength(1)
      expect(outcome.attempts[0]).toMatchObject({ status: 101, error: undefined })
      expect(both.proxy.outcomes).toHaveLength(1)
    })

    it('a refusal by a stage never asks the upstream', async () => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url], use: [() => ({ status: 401, body: 'no' })] }, { transport })
      expect((await rawRequest(proxy.port, upgradeHead())).status).toBe(401)
      expect(upstream.connections).toHaveLength(0)
    })
  })

  describe('what is not tunnelled', () => {
    it('`Upgrade: h2c`, which some clients send with every request, is answered as the request that it is', async () => {
      await using upstream = await rawUpstream(
        everyRequest((request) => ok(`${request.method} ${request.header('upgrade')} ${request.header('http2-settings')}`)),
      )
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(
        proxy.port,
        get('/', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA'),
      )
      expect([response.status, response.text()]).toEqual([200, 'GET undefined undefined'])
      expect(proxy.proxy.stats().tunnels).toBe(0)
    })

    it('nor is any other protocol, nor a list', async () => {
      await using upstream = await rawUpstream(everyRequest(() => ok('plain')))
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      for (const value of ['TLS/1.0', 'IRC/6.9', 'h2c, websocket', 'connect-udp', 'websocket2', '']) {
        const response = await rawRequest(proxy.port, get('/', 'Connection: Upgrade', `Upgrade: ${value}`))
        expect(response.status).toBe(200)
      }
      expect(upstream.requests.flatMap((request) => request.all('upgrade'))).toEqual([])
    })

    it.each([
      ['Content-Length', ['Content-Length: 5'], 'hello'],
      ['chunked', ['Transfer-Encoding: chunked'], '5\r\nhello\r\n0\r\n\r\n'],
    ])('an upgrade with a body (%s) is refused, and never reaches an upstream', async (_framing, lines, body) => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(proxy.port, `${upgradeHead('/', ...lines)}${body}`, { until: 'close' })
      expect([response.status, response.header('proxy-status')]).toEqual([
        400,
        'weir; error=http_request_error; details="ERR_UPGRADE_REQUEST"',
      ])
      // One answer: the body is not taken for another request.
      expect(response.raw.toString('latin1').match(/HTTP\/1\.1/g)).toHaveLength(1)
      expect(upstream.connections).toHaveLength(0)
    })

    it('Content-Length: 0 is no body', async () => {
      await using upstream = await silent()
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(proxy.port)
      void client.write(upgradeHead('/', 'Content-Length: 0'))
      expect((await client.readResponse()).status).toBe(101)
    })

    it('an HTTP/1.0 client has no upgrades', async () => {
      await using upstream = await rawUpstream(everyRequest(() => ok('plain')))
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(
        proxy.port,
        'GET / HTTP/1.0\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
      )
      expect([response.status, response.text()]).toEqual([200, 'plain'])
    })
  })
})

describe('tunnels beside other listeners', () => {
  it('an upgrade that no route takes is left to the other listener', async () => {
    await using upstream = await echoing()
    await using proxy = await startProxy({ routes: [{ match: { path: '/proxied' }, pool: { upstreams: [upstream.url] } }] })
    const heard: string[] = []
    proxy.server.on('upgrade', (req, socket) => {
      if (req.url !== '/own') return
      heard.push(req.url)
      socket.write(switching('X-By: other'))
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => socket.write(`own ${chunk}`))
    })
    await using own = await rawConnect(proxy.port)
    void own.write(upgradeHead('/own'))
    const response = await own.readResponse()
    expect([response.status, response.header('x-by')]).toEqual([101, 'other'])
    void own.write('hello')
    expect((await own.readBytes(9)).toString()).toBe('own hello')
    await using proxied = await tunnel(proxy, '/proxied')
    void proxied.write('hello')
    expect((await proxied.readBytes(5)).toString()).toBe('hello')
    expect(heard).toEqual(['/own'])
    expect(proxy.proxy.stats()).toMatchObject({ inflight: 1, tunnels: 1 })
  })

  it('alone, it is answered 404', async () => {
    await using upstream = await silent()
    await using proxy = await startProxy({ routes: [{ match: { path: '/proxied' }, pool: { upstreams: [upstream.url] } }] })
    const response = await rawRequest(proxy.port, upgradeHead('/own'), { until: 'close' })
    expect(response.status).toBe(404)
  })

  it('`server.on("upgrade", proxy.upgrade)` does what attach does', async () => {
    await using upstream = await echoing()
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { mount: 'listener' })
    ;(proxy.server as ReturnType<typeof createServer>).on('upgrade', proxy.proxy.upgrade)
    await using client = await tunnel(proxy)
    void client.write('hello')
    expect((await client.readBytes(5)).toString()).toBe('hello')
    // A plain request with `Upgrade: h2c` arrives here as an upgrade as well.
    const response = await rawRequest(proxy.port, head('GET', '/', 'Connection: Upgrade', 'Upgrade: h2c'), { deadline: 2000 }).catch(
      (error: Error) => error,
    )
    expect(response).not.toBeInstanceOf(Error)
  })
})

describe.each(transports)('a real server and a real client over %s', (_name, transport) => {
  it('permessage-deflate, subprotocols, binary and text, pings, close codes', async () => {
    const server = createServer()
    const wss = new WebSocketServer({
      server,
      perMessageDeflate: { threshold: 0 },
      handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
    })
    const pinged = gate()
    wss.on('connection', (socket) => {
      socket.on('ping', () => pinged.open())
      socket.on('message', (data, binary) => socket.send(data, { binary, compress: true }))
      socket.on('close', (code, reason) => lastClose.open([code, String(reason)]))
    })
    const lastClose = gate<[number, string]>()
    await using upstream = await listen(server)
    await using proxy = await startProxy({ upstreams: [`http://127.0.0.1:${upstream.port}`] }, { transport })
    const client = new WebSocket(`ws://127.0.0.1:${proxy.port}/chat?x=1`, ['chat.v1', 'chat.v2'], { perMessageDeflate: { threshold: 0 } })
    const messages: [Buffer, boolean][] = []
    client.on('message', (data, binary) => messages.push([data as Buffer, binary]))
    await new Promise((resolve, reject) => client.once('open', resolve).once('error', reject))
    expect(client.protocol).toBe('chat.v2')
    expect(client.extensions).toContain('permessage-deflate')
    const large = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * i) & 0xff))
    client.send('grüße')
    client.send(large)
    client.send('')
    client.ping()
    await pinged.opened
    await until('all came back', () => messages.length === 3, 10_000)
    expect(messages[0]).toEqual([Buffer.from('grüße'), false])
    expect(messages[1]?.[1]).toBe(true)
    expect(messages[1]?.[0].equals(large)).toBe(true)
    expect(messages[2]).toEqual([Buffer.alloc(0), false])
    client.close(4001, 'done here')
    expect(await lastClose.opened).toEqual([4001, 'done here'])
    expect(await proxy.outcome()).toMatchObject({ status: 101, reason: 'completed' })
    wss.close()
  })

  it('a hundred clients at once, each with its own conversation', async () => {
    const server = createServer()
    const wss = new WebSocketServer({ server })
    wss.on('connection', (socket, req) => socket.on('message', (data) => socket.send(`${req.url} ${data}`)))
    await using upstream = await listen(server)
    await using proxy = await startProxy({ upstreams: [`http://127.0.0.1:${upstream.port}`] }, { transport })
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const client = new WebSocket(`ws://127.0.0.1:${proxy.port}/${i}`)
        await new Promise((resolve, reject) => client.once('open', resolve).once('error', reject))
        for (let round = 0; round < 5; round++) {
          const answer = new Promise((resolve) => client.once('message', (data) => resolve(String(data))))
          client.send(`round ${round}`)
          expect(await answer).toBe(`/${i} round ${round}`)
        }
        client.close()
      }),
    )
    await until('all are over', () => proxy.outcomes.length === 100)
    expect(new Set(proxy.outcomes.map((outcome) => outcome.reason))).toEqual(new Set(['completed']))
    wss.close()
  })
})
