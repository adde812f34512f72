/**
 * E17. Nobody waits any more, so nobody should work any more: the upstream request is cancelled in the turn of the event loop in which the
 * client's end shows, and the log says 499. Peers forget it in one phase or another, and event streams then leak upstream sockets.
 *
 * "Within one turn" is measured, not timed: when the server's connection (or HTTP/2 stream) says that it has closed, the proxy's socket to
 * the upstream must be gone at the next `setImmediate`.
 */
import { channel } from 'node:diagnostics_channel'
import { createServer } from 'node:http'
import { createServer as createHttp2Server, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo, Server, Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { createPool, createProxy, type ProxyOptions } from '@weir/core'
import {
  blackHolePort,
  everyRequest,
  type RawUpstream,
  rawConnect,
  rawRequest,
  rawUpstream,
  refusedPort,
  testUpstream,
} from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { h2Client } from './h2.ts'
import { atRest, type Mounting, okUpstream, outcomeLog, type RunningProxy, startProxy, transports, until } from './setup.ts'
import { outgoing } from './sockets.ts'

const get = 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n'

/** Calls back one turn after the first connection (HTTP/2: stream) of this server has closed. */
function turnAfterClose(running: RunningProxy, http2: boolean, look: () => void): void {
  const watch = (side: Socket | ServerHttp2Stream): void => void side.once('close', () => setImmediate(look))
  if (http2) (running.server as Server).once('stream', watch)
  else (running.server as Server).once('connection', watch)
}

type Leave = 'end' | 'reset' | 'destroy'

interface Scene {
  readonly transport: Mounting['transport']
  readonly options?: Omit<ProxyOptions, 'upstreams'>
  readonly upstream: RawUpstream
  readonly request?: string
  /** Resolves when the client should leave. */
  readonly when: (running: RunningProxy, client: { sees(text: string): Promise<void> }) => Promise<unknown>
}

/** Plays a scene on HTTP/1.1 and returns what was to be seen a turn after the client's end. */
async function leaving(leave: Leave, { transport, options = {}, upstream, request = get, when }: Scene): Promise<void> {
  const log = outcomeLog()
  const sockets = outgoing(upstream.port)
  await using running = await startProxy({ ...options, upstreams: [upstream.url], use: [log.stage, ...(options.use ?? [])] }, { transport })
  let seen: { open: number; outcomes: number; aborted: boolean | undefined; inflight: number } | undefined
  turnAfterClose(running, false, () => {
    seen = {
      open: sockets().filter((socket) => !socket.destroyed).length,
      outcomes: log.outcomes.length,
      aborted: log.exchanges[0]?.signal.aborted,
      inflight: running.proxy.stats().inflight,
    }
  })
  const client = await rawConnect(running.port)
  void client.write(request)
  await when(running, client)
  expect(sockets().filter((socket) => !socket.destroyed).length).toBe(1)
  expect(log.outcomes).toEqual([])
  client[leave]()
  await until('the turn after the close', () => seen)
  expect(seen).toEqual({ open: 0, outcomes: 1, aborted: true, inflight: 0 })
  const [outcome] = log.outcomes
  expect([outcome?.status, outcome?.reason, outcome?.error?.source]).toEqual([499, 'ERR_CLIENT_ABORTED', 'client'])
  expect(outcome?.attempts.map(({ error }) => error?.source)).toEqual(['client'])
  const stats = running.proxy.pool?.stats().upstreams.map(({ inflight, state }) => [inflight, state])
  expect(stats).toEqual([[0, 'up']])
  // The upstream is told, too.
  await until('the upstream to be let go', () => upstream.open === 0)
}

function silent(said = ''): Promise<RawUpstream> {
  return rawUpstream(async (connection) => {
    await connection.readHead()
    if (said !== '') await connection.send(said)
    await connection.stall()
  })
}

const bodies: readonly (readonly [framing: string, said: string])[] = [
  ['Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part'],
  ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfirst part\r\n'],
  [
    'event stream',
    'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n12\r\ndata: first part\n\n\r\n',
  ],
  ['end of the connection', 'HTTP/1.1 200 OK\r\n\r\nfirst part'],
]

const leaves: readonly Leave[] = ['end', 'reset', 'destroy']

describe.each(transports)('E17 over %s: A client that leaves', (_, transport) => {
  describe.each(leaves)('(%s)', (leave) => {
    it('before the response cancels the upstream request in the same turn', async () => {
      await using upstream = await silent()
      await leaving(leave, { transport, upstream, when: async () => (await upstream.connection(1)).sees('\r\n\r\n') })
    })

    it('after a 103 does, too', async () => {
      await using upstream = await silent('HTTP/1.1 103 Early Hints\r\nLink: </first part>\r\n\r\n')
      await leaving(leave, { transport, upstream, when: (_running, client) => client.sees('first part') })
    })

    it.each(bodies)('during a response cancels it in the same turn: %s', async (_framing, said) => {
      await using upstream = await silent(said)
      await leaving(leave, { transport, upstream, when: (_running, client) => client.sees('first part') })
    })

    it('during a response that stages transform and tap', async () => {
      await using upstream = await silent('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part')
      const through = new PassThrough()
      const ends: boolean[] = []
      const stage = () => ({
        onResponse: (response: { transform(stream: PassThrough): void; tap(tap: { onEnd(complete: boolean): void }): void }) => {
          response.tap({ onEnd: (complete) => void ends.push(complete) })
          response.transform(through)
          response.tap({ onEnd: (complete) => void ends.push(complete) })
        },
      })
      await leaving(leave, { transport, upstream, options: { use: [stage] }, when: (_running, client) => client.sees('first part') })
      expect([through.destroyed, ends]).toEqual([true, [false, false]])
    })

    it('during its own upload', async () => {
      await using upstream = await silent()
      const request = 'POST / HTTP/1.1\r\nHost: public.test\r\nContent-Length: 1000\r\n\r\nfirst part'
      await leaving(leave, { transport, upstream, request, when: async () => (await upstream.connection(1)).sees('first part') })
      expect(upstream.requests).toEqual([])
    })

    it('during a chunked upload, which must not look complete', async () => {
      await using upstream = await silent()
      const request = 'POST / HTTP/1.1\r\nHost: public.test\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfirst part\r\n'
      await leaving(leave, { transport, upstream, request, when: async () => (await upstream.connection(1)).sees('first part') })
      expect(upstream.connections[0]?.received.toString('latin1')).not.toContain('0\r\n\r\n')
    })

    it('while an asynchronous hook holds the response', async () => {
      await using upstream = await silent('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part')
      let held = false
      const stage = () => ({
        onResponse: () => {
          held = true
          return new Promise<void>(() => {})
        },
      })
      await leaving(leave, { transport, upstream, options: { use: [stage] }, when: () => until('the hook', () => held) })
    })
  })

  it('without reading (a full pipe) cancels the upstream request, too', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readHead()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n')
      while (await connection.send(Buffer.alloc(65_536)));
    })
    const log = outcomeLog()
    const sockets = outgoing(upstream.port)
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
    const client = await rawConnect(running.port)
    client.pause()
    void client.write(get)
    await atRest(() => upstream.connections[0]?.sent ?? 0)
    client.reset()
    const outcome = await log.outcome(1)
    expect([outcome.status, outcome.reason]).toEqual([499, 'ERR_CLIENT_ABORTED'])
    expect(sockets().map((socket) => socket.destroyed)).toEqual([true])
  })

  it('while the connection to the upstream is being made gives that up', async () => {
    await using hole = await blackHolePort()
    const opened: Socket[] = []
    const remember = (message: unknown): void => void opened.push((message as { socket: Socket }).socket)
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [hole.url], use: [log.stage] }, { transport })
    let left: boolean[] | undefined
    turnAfterClose(running, false, () => {
      left = opened.map((socket) => socket.destroyed)
    })
    const client = await rawConnect(running.port)
    channel('net.client.socket').subscribe(remember)
    onTestFinished(() => void channel('net.client.socket').unsubscribe(remember))
    void client.write(get)
    await until('the connect', () => opened.length === 1)
    client.reset()
    const outcome = await log.outcome(1)
    expect([outcome.status, outcome.reason]).toEqual([499, 'ERR_CLIENT_ABORTED'])
    expect(await until('the turn after the close', () => left)).toEqual([true])
    expect(running.proxy.pool?.stats().upstreams.map(({ inflight, state }) => [inflight, state])).toEqual([[0, 'up']])
  })

  it('while it waits for a slot leaves the queue', async () => {
    await using upstream = await silent()
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, use: [log.stage] }, { transport })
    await using first = await rawConnect(running.port)
    void first.write(get)
    await upstream.connection(1)
    const second = await rawConnect(running.port)
    void second.write(get)
    await until('the second to wait', () => running.proxy.pool?.stats().waiting === 1)
    second.reset()
    const outcome = await log.outcome(1)
    expect([outcome.status, outcome.reason, outcome.attempts.length]).toEqual([499, 'ERR_CLIENT_ABORTED', 0])
    expect(running.proxy.pool?.stats().waiting).toBe(0)
    expect(upstream.connections.length).toBe(1)
  })

  it('between two tries is not tried for again', async () => {
    await using dead = await refusedPort()
    const log = outcomeLog()
    const retry = { attempts: 5, backoff: { base: '10s', max: '10s' } } as const
    await using running = await startProxy({ upstreams: [dead.url], retry, random: () => 1, health: [], use: [log.stage] }, { transport })
    const client = await rawConnect(running.port)
    void client.write(get)
    await until(
      'the first try to end',
      () => running.proxy.pool?.stats().upstreams[0]?.inflight === 0 && running.proxy.stats().inflight === 1,
    )
    await until('the first try to have been', () => log.exchanges[0]?.tried.length === 1)
    client.reset()
    const outcome = await log.outcome(1)
    expect([outcome.status, outcome.reason, outcome.attempts.length]).toEqual([499, 'ERR_CLIENT_ABORTED', 1])
  })

  it('over HTTP/2 (a stream) cancels its own request in the same turn, and no other', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      const { target } = await connection.readRequest()
      if (target === '/waiting') await connection.stall()
      else await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part')
    })
    for (const path of ['/waiting', '/streaming']) {
      const log = outcomeLog()
      const sockets = outgoing(upstream.port)
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport, http2: true })
      let open: number | undefined
      turnAfterClose(running, true, () => {
        open = sockets().filter((socket) => !socket.destroyed).length
      })
      await using client = await h2Client(running.port)
      const leaving = client.open({ ':path': path })
      leaving.stream.end()
      if (path === '/streaming') await new Promise((resolve) => leaving.stream.once('data', resolve))
      else await until('the exchange', () => sockets().length === 1 && upstream.requests.at(-1)?.target === path)
      const staying = client.open({ ':path': '/staying' })
      staying.stream.end()
      await new Promise((resolve) => staying.stream.once('data', resolve))
      expect(sockets().filter((socket) => !socket.destroyed).length).toBe(2)
      leaving.stream.close(8)
      await until('the turn after the close', () => open !== undefined)
      expect(open).toBe(1)
      expect(log.outcomes.map(({ status, reason }) => [status, reason])).toEqual([[499, 'ERR_CLIENT_ABORTED']])
      expect(running.proxy.stats().inflight).toBe(1)
    }
  })

  it.each(['GET', 'HEAD'])(
    'over HTTP/2 a %s whose client leaves is noticed, as it is sent and while it waits for a slot',
    async (method) => {
      await using upstream = await testUpstream({ '*': () => undefined })
      const log = outcomeLog()
      await using running = await startProxy(
        { upstreams: [{ url: upstream.url, maxConcurrent: 1 }], use: [log.stage] },
        { transport, http2: true },
      )
      await using client = await h2Client(running.port)
      const holds = client.open({ ':method': method })
      await until('it is sent', () => upstream.requests.length === 1)
      const waits = client.open({ ':method': method, expect: '100-continue' })
      await until('it waits', () => running.proxy.stats().pools[0]?.waiting === 1)
      waits.stream.close(8)
      await until('that one has ended', () => log.outcomes.length === 1)
      holds.stream.close(8)
      await until('both have', () => log.outcomes.length === 2)
      expect(log.outcomes.map(({ reason }) => reason)).toEqual(['ERR_CLIENT_ABORTED', 'ERR_CLIENT_ABORTED'])
      expect(running.proxy.stats()).toMatchObject({ inflight: 0, pools: [{ waiting: 0, upstreams: [{ inflight: 0 }] }] })
    },
  )

  it('over HTTP/2 (the session) cancels everything that it asked for', async () => {
    await using upstream = await silent('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part')
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport, http2: true })
    const client = await h2Client(running.port)
    const streams = ['/1', '/2', '/3'].map((path) => client.open({ ':path': path }).stream)
    for (const stream of streams) stream.end()
    await Promise.all(streams.map((stream) => new Promise((resolve) => stream.once('data', resolve))))
    client.session.destroy()
    await log.outcome(3)
    expect(log.outcomes.map(({ status, reason }) => [status, reason])).toEqual(Array(3).fill([499, 'ERR_CLIENT_ABORTED']))
    await until('the upstream to be let go', () => upstream.open === 0)
  })

  it('ten times in a row is never held against the upstream, which serves the next one', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      for (;;) {
        const { target } = await connection.readRequest()
        if (target === '/') await connection.stall()
        else await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      }
    })
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
    for (let i = 1; i <= 10; i++) {
      const client = await rawConnect(running.port)
      void client.write(get)
      await upstream.request(i)
      client.reset()
      expect((await log.outcome(i)).reason).toBe('ERR_CLIENT_ABORTED')
    }
    expect(running.proxy.pool?.stats().upstreams.map(({ state }) => state)).toEqual(['up'])
    expect((await rawRequest(running.port, get.replace('/', '/good'))).status).toBe(200)
  })
})

describe.each(transports)('E17 over %s: A client that has its answer', (_, transport) => {
  it.each<[what: string, request: string, leave: Leave]>([
    ['and closes', get, 'end'],
    ['and resets', get, 'reset'],
    ['and asked for close', 'GET / HTTP/1.1\r\nHost: public.test\r\nConnection: close\r\n\r\n', 'destroy'],
    ['of HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n', 'end'],
    ['without a body', 'HEAD / HTTP/1.1\r\nHost: public.test\r\n\r\n', 'reset'],
  ])('%s has not left: the exchange is completed', async (_what, request, leave) => {
    await using upstream = await rawUpstream(
      everyRequest(({ method }) => `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${method === 'HEAD' ? '' : 'ok'}`),
    )
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
    const client = await rawConnect(running.port)
    void client.write(request)
    expect((await client.readResponse({ method: request.split(' ', 1)[0] as string })).status).toBe(200)
    client[leave]()
    const outcome = await log.outcome(1)
    expect([outcome.status, outcome.reason, outcome.error]).toEqual([200, 'completed', undefined])
    expect(outcome.attempts.map(({ error }) => error)).toEqual([undefined])
    expect(upstream.open).toBe(1)
  })

  it('over HTTP/2 has not left either', async () => {
    await using upstream = await okUpstream()
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport, http2: true })
    const client = await h2Client(running.port)
    expect((await client.request()).status).toBe(200)
    client.session.destroy()
    expect((await log.outcome(1)).reason).toBe('completed')
  })

  it('and one that left before are told apart on one pool', async () => {
    await using upstream = await silent('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst part')
    const pool = createPool({ upstreams: [upstream.url], transport: transport() })
    onTestFinished(() => pool.close())
    const log = outcomeLog()
    await using running = await startProxy({ pool, use: [log.stage] })
    expect((await rawRequest(running.port, get)).text()).toBe('first part')
    expect((await log.outcome(1)).reason).toBe('completed')
  })
})

describe.each(transports)(
  'E17: A client that asked for another protocol, on a server that hands such sockets over, over %s',
  (_name, transport) => {
    const h2c = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: public.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n`

    it.each(['end', 'reset', 'destroy'] as const)('is seen to leave (%s), also behind bytes that it has sent', async (leave) => {
      await using upstream = await silent()
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport, mount: 'listener' })
      ;(running.server as Server).on('upgrade', running.proxy.upgrade)
      await using client = await rawConnect(running.port)
      await client.write(h2c('/'))
      await upstream.connection(1)
      await client.write('more')
      client[leave]()
      expect(await log.outcome(1)).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
      await until('the upstream to be let go', () => upstream.open === 0)
      expect(running.proxy.stats().inflight).toBe(0)
    })

    it('gets its answer as a plain client, and the end of the connection', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, mount: 'listener' })
      ;(running.server as Server).on('upgrade', running.proxy.upgrade)
      const answer = await rawRequest(running.port, h2c('/'), { until: 'close' })
      expect([answer.status, answer.text()]).toEqual([200, 'ok'])
    })
  },
)

describe.each(transports)('E17: A client that has sent requests ahead and leaves, over %s', (_name, transport) => {
  it('is seen to leave for each of them, also those whose answers are there and wait for their turn', async () => {
    await using slow = await rawUpstream(async (connection) => {
      for (;;) {
        const { target } = await connection.readRequest()
        if (target === '/slow') await connection.stall()
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      }
    })
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [slow.url], use: [log.stage] }, { transport })
    const client = await rawConnect(running.port)
    const ahead = Array.from({ length: 15 }, (_, i) => `GET /${i} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
    await client.write(`GET /slow HTTP/1.1\r\nHost: public.test\r\n\r\n${ahead.join('')}`)
    await until(
      'all but the first are answered',
      () => slow.requests.length === 16 && running.proxy.pool?.stats().upstreams[0]?.inflight === 1,
    )
    expect(log.outcomes).toEqual([])
    client.reset()
    await until('all have ended', () => log.outcomes.length === 16)
    expect(log.outcomes.map(({ reason }) => reason)).toEqual(new Array(16).fill('ERR_CLIENT_ABORTED'))
    expect(running.proxy.stats().inflight).toBe(0)
  })
})

describe('E17: A client that leaves while others are at work on its request, before the proxy has it,', () => {
  /** The proxy behind something that takes a while: a session that is looked up, say. */
  async function behind(http2: boolean, upstream: RawUpstream, options: Partial<ProxyOptions> = {}) {
    const log = outcomeLog()
    const proxy = createProxy({ upstreams: [upstream.url], use: [log.stage], ...options })
    const server = http2 ? createHttp2Server() : createServer()
    const arrived: (() => void)[] = []
    const hold = (go: () => void): void => void arrived.push(go)
    ;(server as Server).on('request', (req, res) => hold(() => proxy(req, res)))
    ;(server as Server).on('upgrade', (req, socket, head) => {
      // Somebody has to listen, or its reset would end the process.
      socket.on('error', () => {})
      hold(() => proxy.upgrade(req, socket, head))
    })
    await new Promise<void>((resolve) => (server as Server).listen(0, '127.0.0.1', resolve))
    onTestFinished(async () => {
      await proxy.close({ deadline: 0 })
      await new Promise<void>((resolve) => (server as Server).close(() => resolve()))
    })
    return { proxy, server, log, arrived, port: ((server as Server).address() as AddressInfo).port }
  }

  it.each<[string, string]>([
    ['a plain one', get],
    ['one with a body that is not all there', 'POST / HTTP/1.1\r\nHost: public.test\r\nContent-Length: 9\r\n\r\nabc'],
    ['one that Weir refuses', 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n'],
    [
      'an upgrade',
      'GET / HTTP/1.1\r\nHost: public.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    ],
  ])('is not served and leaves nothing behind: %s', async (_name, request) => {
    await using upstream = await okUpstream()
    const sockets = outgoing(upstream.port)
    const { proxy, server, log, arrived, port } = await behind(false, upstream)
    let connection: Socket | undefined
    ;(server as Server).once('connection', (socket) => {
      connection = socket
    })
    const client = await rawConnect(port)
    void client.write(request)
    await until('it is at work', () => arrived.length === 1)
    client.reset()
    await until('its end has been seen', () => connection?.closed)
    arrived[0]?.()
    expect(proxy.stats().inflight).toBe(0)
    expect([log.outcomes.length, sockets().length]).toEqual([0, 0])
  })

  it('is not served and leaves nothing behind: one over HTTP/2, and the next one is served', async () => {
    await using upstream = await okUpstream()
    const { proxy, arrived, port } = await behind(true, upstream)
    await using client = await h2Client(port)
    const { stream } = client.open({ ':path': '/' })
    await until('it is at work', () => arrived.length === 1)
    stream.close(8)
    const next = client.request({ ':path': '/next' })
    // It comes behind the reset.
    await until('the next one is, too', () => arrived.length === 2)
    arrived[0]?.()
    expect(proxy.stats().inflight).toBe(0)
    arrived[1]?.()
    expect((await next).body.toString()).toBe('ok')
  })

  it('is not served and leaves nothing behind: one over HTTP/2 whose session is gone', async () => {
    await using upstream = await okUpstream()
    const sockets = outgoing(upstream.port)
    const { proxy, server, arrived, port } = await behind(true, upstream)
    let gone = false
    ;(server as unknown as Server).once('session', (session) =>
      session.once('close', () => {
        gone = true
      }),
    )
    const client = await h2Client(port)
    client.open({ ':path': '/' })
    await until('it is at work', () => arrived.length === 1)
    client.session.destroy()
    await until('its end has been seen', () => gone)
    arrived[0]?.()
    expect([proxy.stats().inflight, sockets().length]).toEqual([0, 0])
  })

  it('is told apart from one whose body somebody has read, and that waits', async () => {
    await using upstream = await okUpstream()
    const { arrived, server, port } = await behind(false, upstream)
    ;(server as Server).prependListener('request', (req) => req.resume())
    const answer = rawRequest(port, 'POST / HTTP/1.1\r\nHost: public.test\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc')
    await until('it is at work', () => arrived.length === 1)
    await new Promise((resolve) => setImmediate(resolve))
    arrived[0]?.()
    expect((await answer).status).toBeGreaterThanOrEqual(200)
  })
})
