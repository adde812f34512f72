/**
 * Upgrades over http-proxy-3's `ws()`, with real sockets on both sides. The client is the accepted end of a TCP connection, as core hands it
 * over: paused, nothing read.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  blackHolePort,
  certificates,
  type RawConnection,
  type RawUpstream,
  rawConnect,
  rawUpstream,
  refusedPort,
  type UpstreamScript,
} from '@weir/testing'
import { numOpenSockets } from 'http-proxy-3'
import { afterEach, describe, it } from 'vitest'
import type { ProxyError } from '../errors.ts'
import { OptionReader } from '../options.ts'
import type { Upstream } from '../upstream.ts'
import { type UpgradeSettings, type Upgrades, upgradeWithHttpProxy } from './http-proxy-upgrade.ts'
import { readTlsOptions, type UpstreamTlsOptions } from './tls.ts'
import type { PendingTunnel, UpgradeRequest, UpgradeSink, UpstreamCall } from './transport.ts'

const endings: (() => unknown)[] = []
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end()
  // http-proxy-3 counts the sockets that it still holds listeners on. Closing takes a few turns.
  for (let turn = 0; turn < 50 && numOpenSockets() > 0; turn++) await turns()
  assert.equal(numOpenSockets(), 0)
})

const turns = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const closed = async (socket: Duplex): Promise<unknown> => (socket.closed ? undefined : once(socket, 'close'))

const switching = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n'
const fields =
  ['HTTP', '1'].length === 2
    ? ['Connection', 'Upgrade', 'uPgrade', 'websocket', 'Set-Cookie', 'a', 'X', '1', 'Set-Cookie', 'b', 'X-Latin', '\xe9']
    : []
const answered =
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nuPgrade: websocket\r\nSet-Cookie: a\r\nX: 1\r\nSet-Cookie: b\r\nX-Latin: \xe9\r\n\r\n'

async function upstreamOf(script: UpstreamScript | string, options?: Parameters<typeof rawUpstream>[1]): Promise<RawUpstream> {
  const upstream = await rawUpstream(script, options)
  endings.push(() => upstream.close())
  return upstream
}

/** Says 101 to everything, then `then`. */
const accepts =
  (then: UpstreamScript = () => {}): UpstreamScript =>
  async (connection, upstream) => {
    await connection.readRequest()
    await connection.send(switching)
    await then(connection, upstream)
  }

const asUpstream = (url: string): Upstream => ({ id: url, url: new URL(url) }) as Upstream

function upgradesOf(tls?: UpstreamTlsOptions, rest: Partial<UpgradeSettings> = {}): Upgrades {
  const upgrades = upgradeWithHttpProxy({
    tls: readTlsOptions(tls, new OptionReader('test')),
    maxHeaderSize: 65_536,
    localAddress: undefined,
    allowAddress: undefined,
    ...rest,
  })
  endings.push(() => upgrades.close())
  return upgrades
}

/** Both ends of a client's connection: the raw far one, and the one that the proxy has accepted. */
async function clientPair(): Promise<{ far: RawConnection; near: Socket }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const far = await rawConnect((server.address() as AddressInfo).port)
  const [near] = await accepted
  near.on('error', () => {})
  endings.push(() => {
    near.destroy()
    far.destroy()
    server.close()
  })
  return { far, near }
}

interface Run {
  readonly call: UpstreamCall
  head: { status: number; headers: string[] } | undefined
  body: string
  error: ProxyError | undefined
  tunnel: PendingTunnel | undefined
  headers: string[] | undefined
  /** 101, end or error. */
  readonly over: Promise<Run>
}

function upgrade(
  upgrades: Upgrades,
  to: RawUpstream | Upstream,
  near: Socket,
  asked: Partial<Omit<UpgradeRequest, 'timeouts'>> & { timeouts?: Partial<UpgradeRequest['timeouts']> } = {},
  onHead: () => void = () => {},
): Run {
  let settle = (): void => {}
  const run = { head: undefined, body: '', error: undefined, tunnel: undefined, headers: undefined } as unknown as Run & {
    call: UpstreamCall
    over: Promise<Run>
  }
  run.over = new Promise((resolve) => {
    settle = () => resolve(run)
  })
  const sink: UpgradeSink = {
    onStart: (call) => {
      run.call = call
    },
    onInterim: () => {},
    onHead: (status, _, headers) => {
      run.head = { status, headers }
      onHead()
    },
    onData: (chunk) => {
      run.body += chunk.toString('latin1')
    },
    onEnd: () => settle(),
    onError: (error) => {
      run.error = error
      settle()
    },
    onUpgrade: (headers, tunnel) => {
      run.headers = headers
      run.tunnel = tunnel
      settle()
    },
  }
  const request = {
    method: 'GET',
    path: '/',
    headers: ['Host', 'up.test'],
    protocol: 'websocket',
    client: near,
    ...asked,
    timeouts: { connect: 5000, head: 5000, idle: 5000, ...asked.timeouts },
  }
  upgrades.upgrade(request, 'id' in to ? to : asUpstream(to.url), sink)
  return run
}

/** The tunnel that the upstream has agreed to. */
async function agreed(run: Run): Promise<PendingTunnel> {
  const { tunnel, error } = await run.over
  if (tunnel === undefined) throw error ?? new Error(`no tunnel but ${run.head?.status}`)
  return tunnel
}

/** Everything that an attempt could leave on the client's socket. */
const traces = (socket: Socket): unknown => ({
  listeners: socket.eventNames().map((name) => [name, socket.listenerCount(name)]),
  properties: Object.keys(socket).filter((name) => name === 'id'),
  timeout: socket.timeout,
  flowing: socket.readableFlowing,
  written: socket.bytesWritten,
  writable: socket.writable,
})

describe('the request', () => {
  it('keeps target, case, order and repetition, and asks for the upgrade', async () => {
    const upstream = await upstreamOf(accepts())
    const { near } = await clientPair()
    const headers = ['hOST', 'up.test', 'Sec-WebSocket-Key', 'k', 'Cookie', 'a', 'X', '\xe9', 'Cookie', 'b']
    await agreed(upgrade(upgradesOf(), upstream, near, { path: '//a/../b"?x', headers }))
    assert.equal(
      (await upstream.request(1)).raw.toString('latin1'),
      'GET //a/../b"?x HTTP/1.1\r\nhOST: up.test\r\nSec-WebSocket-Key: k\r\nCookie: a\r\nX: \xe9\r\nCookie: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    )
  })

  for (const asked of [{ method: 'POST' }, { protocol: 'h2c' }, { protocol: 'websocket, h2c' }]) {
    it(`${JSON.stringify(asked)} is refused, and the client left as it is`, async () => {
      const { near } = await clientPair()
      const before = traces(near)
      const { error } = await upgrade(upgradesOf(), asUpstream('http://127.0.0.1:1'), near, asked).over
      assert.equal(error?.code, 'ERR_UPGRADE_REQUEST')
      assert.deepEqual(traces(near), before)
    })
  }

  it('goes over TLS, verified, with the name of the upstream', async () => {
    const { ca, localhost } = certificates()
    const upstream = await upstreamOf(accepts(), { tls: localhost })
    const first = await clientPair()
    await agreed(upgrade(upgradesOf({ ca }), upstream, first.near, { headers: ['Host', 'evil.test'] }))
    assert.equal((await upstream.connection(1)).servername, 'localhost')
    assert.equal((await upgrade(upgradesOf(), upstream, first.near).over).error?.code, 'ERR_TLS_CERTIFICATE')
  })

  it('goes over a Unix socket', async () => {
    const upstream = await upstreamOf(accepts(), { unix: true })
    const { near } = await clientPair()
    await agreed(upgrade(upgradesOf(), upstream, near, { path: '/chat' }))
    assert.equal((await upstream.request(1)).target, '/chat')
  })
})

describe('before the 101', () => {
  const failures: [name: string, script: UpstreamScript | string, code: string, asked?: Parameters<typeof upgrade>[3]][] = [
    ['closes', async (connection) => void (await connection.readRequest().then(() => connection.end())), 'ERR_UPSTREAM_RESET'],
    ['resets', async (connection) => void (await connection.readRequest().then(() => connection.reset())), 'ERR_UPSTREAM_RESET'],
    ['says nothing', async (connection) => void (await connection.readRequest()), 'ERR_HEAD_TIMEOUT', { timeouts: { head: 50 } }],
    ['says nonsense', 'nonsense\r\n\r\n', 'ERR_UPSTREAM_PROTOCOL'],
    ['switches without Upgrade', 'HTTP/1.1 101 Switching Protocols\r\n\r\n', 'ERR_UPGRADE_RESPONSE'],
    [
      'switches to something else',
      'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n',
      'ERR_UPGRADE_RESPONSE',
    ],
  ]
  for (const [name, script, code, asked] of failures) {
    it(`an upstream that ${name}: ${code}, and the client is left for another attempt`, async () => {
      const { far, near } = await clientPair()
      const before = traces(near)
      const bad = await upstreamOf(script)
      const { error } = await upgrade(upgradesOf(), bad, near, asked).over
      assert.equal(error?.code, code)
      assert.notEqual(await (await bad.connection(1)).closed, 'open')
      assert.deepEqual(traces(near), before)

      const good = await upstreamOf(accepts((connection) => void connection.send('hello')))
      const tunnel = await agreed(upgrade(upgradesOf(), good, near))
      tunnel.open(fields)
      assert.equal((await far.readThrough('hello')).toString('latin1'), `${answered}hello`)
      far.end()
      assert.equal(await far.closed, 'fin')
      await closed(near)
    })
  }

  it('nobody there: the same', async () => {
    const { near } = await clientPair()
    const before = traces(near)
    await using refused = await refusedPort()
    assert.equal((await upgrade(upgradesOf(), asUpstream(refused.url), near).over).error?.code, 'ERR_CONNECT_REFUSED')
    await using hole = await blackHolePort()
    const timed = await upgrade(upgradesOf(), asUpstream(hole.url), near, { timeouts: { connect: 50 } }).over
    assert.equal(timed.error?.code, 'ERR_CONNECT_TIMEOUT')
    assert.equal(timed.call.sent, false)
    assert.deepEqual(traces(near), before)
  })

  it('another answer is relayed as any response, with back-pressure', async () => {
    const size = 32 * 1024 * 1024
    const upstream = await upstreamOf(async (connection) => {
      await connection.readRequest()
      await connection.send(`HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: ${size}\r\n\r\n`)
      await connection.send(Buffer.alloc(size))
    })
    const { near } = await clientPair()
    const before = traces(near)
    const run = upgrade(upgradesOf(), upstream, near, {}, () => run.call.pause())
    while (run.head === undefined) await turns()
    assert.deepEqual([run.head.status, run.head.headers.slice(0, 2)], [403, ['X-Why', 'no']])
    assert.equal(run.body.length, 0)
    assert.ok((await upstream.connection(1)).sent < size)
    run.call.resume()
    assert.equal((await run.over).body.length, size)
    assert.equal(run.error, undefined)
    assert.deepEqual(traces(near), before)
  })

  it('abort frees the upstream at once, in every phase', async () => {
    const upgrades = upgradesOf()
    const { near } = await clientPair()
    const before = traces(near)
    await using hole = await blackHolePort()
    const silent = await upstreamOf(async (connection) => void (await connection.readRequest()))
    const atOnce = upgrade(upgrades, silent, near)
    atOnce.call.abort()
    const connecting = upgrade(upgrades, asUpstream(hole.url), near)
    await turns()
    connecting.call.abort()
    const waiting = upgrade(upgrades, silent, near)
    await silent.request(1)
    waiting.call.abort()
    for (const connection of silent.connections) assert.notEqual(await connection.closed, 'open')
    await turns()
    for (const run of [atOnce, connecting, waiting]) assert.equal(run.error, undefined)
    assert.deepEqual(traces(near), before)
  })
})

describe('the tunnel', () => {
  it('is not joined before open: the client is untouched, the upstream waits', async () => {
    const upstream = await upstreamOf(accepts((connection) => void connection.send('first')))
    const { near, far } = await clientPair()
    const before = traces(near)
    void far.write('early')
    const run = upgrade(upgradesOf(), upstream, near)
    const tunnel = await agreed(run)
    assert.deepEqual(run.headers, ['Upgrade', 'websocket', 'Connection', 'Upgrade', 'Sec-WebSocket-Accept', 'x'])
    assert.deepEqual(traces(near), before)
    tunnel.open(fields)
    assert.equal((await far.readThrough('first')).toString('latin1'), `${answered}first`)
    await (await upstream.connection(1)).sees('early')
  })

  it('delivers the bytes that came behind the 101 first and once', async () => {
    const upstream = await upstreamOf(async (connection) => {
      await connection.readRequest()
      await connection.send(`${switching}head|`)
      await connection.readThrough('go')
      await connection.send('rest.')
    })
    const { near, far } = await clientPair()
    const tunnel = await agreed(upgrade(upgradesOf(), upstream, near))
    tunnel.open(fields)
    tunnel.open(fields)
    await far.readThrough('head|')
    void far.write('go')
    await far.readThrough('rest.')
    assert.equal(far.received.toString('latin1'), `${answered}head|rest.`)
  })

  it('carries octets both ways with back-pressure', async () => {
    const size = 8 * 1024 * 1024
    const bytes = Buffer.alloc(size)
    for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >> 8)) & 0xff
    const upstream = await upstreamOf(
      accepts(async (connection) => {
        const sent = connection.send(bytes)
        assert.ok((await connection.readBytes(size)).equals(bytes))
        await sent
        await connection.send('done')
      }),
    )
    const { near, far } = await clientPair()
    const tunnel = await agreed(upgrade(upgradesOf(), upstream, near))
    tunnel.open([])
    await far.readThrough('\r\n\r\n')
    void far.write(bytes)
    assert.ok((await far.readBytes(size)).equals(bytes))
    await far.readThrough('done')
  })

  it('refused after all: destroying its socket frees the upstream and leaves the client', async () => {
    const upstream = await upstreamOf(accepts())
    const { near } = await clientPair()
    const before = traces(near)
    const tunnel = await agreed(upgrade(upgradesOf(), upstream, near))
    tunnel.socket.destroy()
    assert.notEqual(await (await upstream.connection(1)).closed, 'open')
    await turns()
    assert.deepEqual(traces(near), before)
  })

  it('an upstream that breaks between 101 and open ends the client, not the process', async () => {
    const upstream = await upstreamOf(accepts(async (connection) => void connection.reset()))
    const { near, far } = await clientPair()
    const tunnel = await agreed(upgrade(upgradesOf(), upstream, near))
    await new Promise<void>((resolve) => {
      if (tunnel.socket.closed) resolve()
      else {
        tunnel.socket.once('close', resolve)
        tunnel.socket.resume()
      }
    })
    tunnel.open(fields)
    assert.equal(await far.closed, 'fin')
    far.end()
    await closed(near)
  })

  for (const how of ['end', 'reset', 'destroy'] as const) {
    it(`the upstream's ${how} ends the client`, async () => {
      const upstream = await upstreamOf(
        accepts(async (connection) => {
          await connection.readThrough('bye')
          await connection.send('last words')
          connection[how]()
        }),
      )
      const { near, far } = await clientPair()
      const tunnel = await agreed(upgrade(upgradesOf(), upstream, near))
      tunnel.open([])
      void far.write('bye')
      assert.notEqual(await far.closed, 'open')
      if (how === 'end') await far.readThrough('last words')
      far.end()
      await closed(near)
      await closed(tunnel.socket)
    })

    it(`the client's ${how} ends the upstream`, async () => {
      const upstream = await upstreamOf(accepts())
      const { near, far } = await clientPair()
      const tunnel = await agreed(upgrade(upgradesOf(), upstream, near))
      tunnel.open([])
      void far.write('last words')
      const connection = await upstream.connection(1)
      await connection.sees('last words')
      far[how]()
      assert.notEqual(await connection.closed, 'open')
      await closed(near)
      await closed(tunnel.socket)
    })
  }

  it('a side that neither reads nor ends goes when nothing moves any more', async () => {
    let broke = (): void => {}
    const broken = new Promise<void>((resolve) => {
      broke = resolve
    })
    const upstream = await upstreamOf(
      accepts(async (connection) => {
        // More than the kernel and both streams hold: the proxy cannot get rid of it.
        void connection.send(Buffer.alloc(64 * 1024 * 1024))
        await connection.readThrough('go')
        connection.reset()
        broke()
      }),
    )
    const { near, far } = await clientPair()
    const tunnel = await agreed(upgrade(upgradesOf(undefined, { linger: 100 }), upstream, near))
    tunnel.open([])
    await far.readThrough('\r\n\r\n')
    far.pause()
    void far.write('go')
    await broken
    // The upstream's side is held back and not read: that it is gone shows when something is to be sent there.
    void far.write('more')
    await closed(near)
    assert.ok(tunnel.socket.destroyed)
  })

  it('an upstream that ignores the end of the client goes too', async () => {
    const upstream = await upstreamOf(
      accepts(async (connection) => {
        connection.pause()
        await new Promise<void>((resolve) => endings.push(resolve))
      }),
    )
    const { near, far } = await clientPair()
    const tunnel = await agreed(upgrade(upgradesOf(undefined, { linger: 50 }), upstream, near))
    tunnel.open([])
    far.end()
    await closed(near)
    await closed(tunnel.socket)
  })

  it('1,000 tunnels whose upstream crashes leave no socket behind', async () => {
    const upgrades = upgradesOf()
    const upstream = await upstreamOf(accepts())
    const accepted: Socket[] = []
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => accepted.push(socket)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    endings.push(() => server.close())
    const { port } = server.address() as AddressInfo
    // In batches: four descriptors each, and a machine may allow no more than 1,024.
    for (let batch = 0; batch < 20; batch++) {
      const fars = await Promise.all(Array.from({ length: 50 }, () => rawConnect(port)))
      while (accepted.length < 50) await turns()
      const nears = accepted.splice(0)
      const tunnels = await Promise.all(nears.map((near) => agreed(upgrade(upgrades, upstream, near))))
      for (const tunnel of tunnels) tunnel.open(fields)
      await Promise.all(fars.map((far) => far.readThrough('\r\n\r\n')))
      for (const connection of upstream.connections.slice(-50)) connection.reset()
      await Promise.all(fars.map((far) => far.closed))
      for (const far of fars) far.end()
      await Promise.all([...nears, ...tunnels.map((tunnel) => tunnel.socket)].map(closed))
    }
    assert.equal(upstream.connections.length, 1000)
    assert.equal(upstream.open, 0)
    assert.equal(await new Promise((resolve) => server.getConnections((_, count) => resolve(count))), 0)
  })
})
