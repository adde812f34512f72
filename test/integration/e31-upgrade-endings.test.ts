/**
 * E31. A WebSocket client that leaves before `101` frees the upstream socket, and any side's end or error closes the other within a deadline.
 *
 * Nobody reads a socket that waits for its 101, and a pipe forwards an end but not a loss: both are ways for a crash somewhere to leave a
 * socket per client behind. So every way of ending is tried, before and after the 101, from both sides.
 */
import { blackHolePort, type RawConnection, type RawUpstream, rawConnect, rawUpstream, type UpstreamConnection } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { get, switching, upgradeHead } from './messages.ts'
import { type ObservedProxy, startProxy, transports, until } from './observed.ts'
import { incoming } from './sockets.ts'

type Leaving = 'fin' | 'reset' | 'destroy'
const leavings: readonly Leaving[] = ['fin', 'reset', 'destroy']

function leave(side: { end(): void; reset(): void; destroy(): void }, how: Leaving): void {
  if (how === 'fin') side.end()
  else if (how === 'reset') side.reset()
  else side.destroy()
}

/** Nothing of the exchange is left, on any side. */
async function expectNothingLeft(proxy: ObservedProxy, upstream: RawUpstream): Promise<void> {
  await until('the upstream is free', () => upstream.open === 0, 8000)
  await until('the exchange is over', () => proxy.proxy.stats().inflight === 0, 8000)
  expect(proxy.proxy.stats()).toMatchObject({ tunnels: 0, pools: [{ waiting: 0, upstreams: [{ inflight: 0 }] }] })
}

interface Open extends AsyncDisposable {
  readonly upstream: RawUpstream
  readonly proxy: ObservedProxy
  readonly client: RawConnection
  readonly server: UpstreamConnection
}

describe.each(transports)('E31 over %s', (_name, transport) => {
  async function open(): Promise<Open> {
    const upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(switching())
      await connection.stall()
    })
    const proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const client = await rawConnect(proxy.port)
    void client.write(upgradeHead())
    expect((await client.readResponse()).status).toBe(101)
    const server = await upstream.connection(1)
    // Both directions flow.
    void client.write('ping')
    await server.sees('ping')
    void server.send('pong')
    await client.sees('pong')
    expect(proxy.proxy.stats()).toMatchObject({ inflight: 1, tunnels: 1, pools: [{ upstreams: [{ inflight: 1 }] }] })
    return {
      upstream,
      proxy,
      client,
      server,
      [Symbol.asyncDispose]: async () => {
        client.destroy()
        await proxy[Symbol.asyncDispose]()
        await upstream.close()
      },
    }
  }

  describe('before the 101', () => {
    it.each(leavings)('a client that leaves (%s) frees an upstream that has not answered', async (how) => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(proxy.port)
      void client.write(upgradeHead())
      await upstream.request(1)
      leave(client, how)
      await expectNothingLeft(proxy, upstream)
      expect(await proxy.outcome()).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
      expect(proxy.outcomes).toHaveLength(1)
      expect((await proxy.outcome()).attempts.map((attempt) => attempt.error?.source)).toEqual(['client'])
      expect(proxy.proxy.pool?.upstreams[0]?.state).toBe('up')
    })

    it.each(leavings)('a client that has sent frames already and leaves (%s) does so too', async (how) => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const sockets = incoming(proxy)
      await using client = await rawConnect(proxy.port)
      // With the head, and behind it: bytes that nobody reads yet, behind which the end is not seen by itself.
      void client.write(`${upgradeHead()}early`)
      await upstream.request(1)
      await client.write(' frames')
      await until('they have come', () => sockets[0]?.bytesRead === `${upgradeHead()}early frames`.length)
      leave(client, how)
      await expectNothingLeft(proxy, upstream)
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
    })

    it('a client that leaves while the connection is being made', async () => {
      await using hole = await blackHolePort()
      await using proxy = await startProxy({ upstreams: [hole.url], timeouts: { connect: '20s' } }, { transport })
      await using client = await rawConnect(proxy.port)
      await client.write(upgradeHead())
      const sockets = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length
      await until('the proxy is connecting', () => proxy.proxy.stats().inflight === 1)
      const before = sockets()
      client.reset()
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
      // The client's two ends, and the one that was connecting.
      await until('the half-made connection is given up', () => sockets() <= before - 3)
    })

    it('a client that leaves while it waits for a slot gives its place up', async () => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
      await using first = await rawConnect(proxy.port)
      void first.write(get())
      await upstream.request(1)
      await using second = await rawConnect(proxy.port)
      void second.write(upgradeHead())
      await until('it waits', () => proxy.proxy.pool?.stats().waiting === 1)
      second.end()
      await until('it has left', () => proxy.proxy.pool?.stats().waiting === 0)
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
    })

    it('a client that leaves while a hook still thinks about the 101', async () => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.send(switching())
        await connection.stall()
      })
      const thinking = Promise.withResolvers<void>()
      await using proxy = await startProxy(
        {
          upstreams: [upstream.url],
          use: [() => ({ onResponse: () => thinking.promise })],
        },
        { transport },
      )
      await using client = await rawConnect(proxy.port)
      void client.write(upgradeHead())
      await upstream.request(1)
      await until('the hook is thinking', () => (proxy.proxy.stats().inflight === 1 && upstream.connections[0]?.sent) || undefined)
      client.reset()
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
      thinking.resolve()
      await expectNothingLeft(proxy, upstream)
    })
  })

  describe('after the 101', () => {
    it.each(leavings)('the client’s end (%s) closes the upstream’s side', async (how) => {
      await using tunnel = await open()
      leave(tunnel.client, how)
      expect(await tunnel.server.closed).not.toBe('open')
      await expectNothingLeft(tunnel.proxy, tunnel.upstream)
      expect(tunnel.proxy.outcomes).toHaveLength(1)
      expect(await tunnel.proxy.outcome()).toMatchObject({ status: 101 })
    })

    it.each(leavings)('the upstream’s end (%s) closes the client’s side', async (how) => {
      await using tunnel = await open()
      leave(tunnel.server, how)
      expect(await tunnel.client.closed).not.toBe('open')
      tunnel.client.end()
      await expectNothingLeft(tunnel.proxy, tunnel.upstream)
      expect(tunnel.proxy.outcomes).toHaveLength(1)
      expect(await tunnel.proxy.outcome()).toMatchObject({ status: 101 })
    })

    it('an orderly end is told from a broken tunnel', async () => {
      await using orderly = await open()
      orderly.client.end()
      await orderly.server.closed
      orderly.server.end()
      expect((await orderly.proxy.outcome()).reason).toBe('completed')
      await using broken = await open()
      broken.server.reset()
      await broken.client.closed
      broken.client.end()
      expect((await broken.proxy.outcome()).reason).toBe('ERR_TUNNEL_BROKEN')
    })

    it('a half-closed side still gets what the other has to say', async () => {
      await using tunnel = await open()
      tunnel.client.end()
      expect(await tunnel.server.closed).toBe('fin')
      void tunnel.server.send('last words')
      await tunnel.client.sees('last words')
      tunnel.server.end()
      expect(await tunnel.client.closed).toBe('fin')
      await expectNothingLeft(tunnel.proxy, tunnel.upstream)
    })
  })

  // The deadline is five seconds: side by side, they take no longer than one.
  describe.concurrent('within a deadline', () => {
    it('an upstream that breaks while a hook still thinks about the 101', async () => {
      const thinking = Promise.withResolvers<void>()
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.send(switching())
        connection.reset()
      })
      await using proxy = await startProxy(
        { upstreams: [upstream.url], use: [() => ({ onResponse: () => thinking.promise })] },
        { transport },
      )
      await using client = await rawConnect(proxy.port)
      void client.write(upgradeHead())
      await until('the upstream has gone', () => upstream.connections.length === 1 && upstream.open === 0)
      thinking.resolve()
      // Whatever it is told, a client must not be left waiting.
      expect(await client.closed).not.toBe('open')
      await expectNothingLeft(proxy, upstream)
      expect(proxy.outcomes).toHaveLength(1)
    })

    it.each(['client', 'upstream'] as const)(
      'the %s says its end and the other side never does: both are closed within a deadline',
      async (who) => {
        await using tunnel = await open()
        const [ending, other] = who === 'client' ? [tunnel.client, tunnel.server] : [tunnel.server, tunnel.client]
        ending.end()
        expect(await other.closed).toBe('fin')
        // The other side keeps its half open for ever; the proxy does not.
        await until('the tunnel is gone', () => tunnel.proxy.proxy.stats().tunnels === 0, 8000)
        await expectNothingLeftOf(tunnel)
      },
    )

    it.each(['client', 'upstream'] as const)('the %s is gone and the other side does not read: it is closed all the same', async (who) => {
      await using tunnel = await open()
      const [gone, deaf] = who === 'client' ? [tunnel.client, tunnel.server] : [tunnel.server, tunnel.client]
      deaf.pause()
      // Fill the way to the deaf side, so that not even an end gets through.
      const chunk = Buffer.alloc(256 * 1024)
      let written = -1
      const sent = (): number => (who === 'client' ? tunnel.client.written : tunnel.server.sent)
      for (let i = 0; i < 64; i++) void ('write' in gone ? gone.write(chunk) : gone.send(chunk))
      await until('the way is full', () => {
        const still = written === sent()
        written = sent()
        return still
      })
      gone.reset()
      await until('the tunnel is gone', () => tunnel.proxy.proxy.stats().tunnels === 0, 15_000)
      expect(tunnel.proxy.proxy.stats().inflight).toBe(0)
    })
  })
})

async function expectNothingLeftOf({ proxy }: Open): Promise<void> {
  expect(proxy.proxy.stats()).toMatchObject({ inflight: 0, tunnels: 0, pools: [{ upstreams: [{ inflight: 0 }] }] })
  expect(proxy.outcomes).toHaveLength(1)
}
