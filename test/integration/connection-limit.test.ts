/** Connections that say nothing, or next to nothing, against real servers: they are held to their client's share, and others are served. */
import { once } from 'node:events'
import { createServer as createHttp, get as httpGet } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { connect as connectTls, createServer as createTls } from 'node:tls'
import { promisify } from 'node:util'
import { connectionLimit } from '@weir/access'
import { createProxy } from '@weir/core'
import { certificates, rawConnect, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { until } from './observed.ts'

/** Opens a connection from `localAddress` and sends `text`. Linux has all of 127.0.0.0/8 on its loopback. */
function open(port: number, localAddress: string, text: string): Socket {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  socket.on('error', () => undefined)
  // Without a reader the end of a connection waits behind the 408.
  socket.resume()
  if (text !== '') socket.write(text)
  return socket
}

function status(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    httpGet({ port, host: '127.0.0.1', localAddress: '127.0.0.1', agent: false }, (response) => {
      response.resume()
      response.once('end', () => resolve(response.statusCode as number))
    }).once('error', reject)
  })
}

describe('ten thousand slow connections', () => {
  it('get their clients no more than their share, leave well-behaved clients served, and end', async () => {
    await using upstream = await testUpstream()
    await using proxy = createProxy({ upstreams: [upstream.url] })
    const server = createHttp({ headersTimeout: 3000, requestTimeout: 6000, connectionsCheckingInterval: 200 })
    proxy.attach(server)
    const limit = connectionLimit({ perClient: 20 })
    limit.attach(server)
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo

    const clients = 100
    const sockets: Socket[] = []
    let closed = 0
    let most = 0
    try {
      for (let round = 0; round < 100; round++) {
        // Half of them send nothing at all, half a head that never ends.
        for (let client = 0; client < clients; client++) {
          const socket = open(port, `127.1.0.${client + 1}`, round % 2 === 0 ? '' : 'GET / HTTP/1.1\r\nHost: slow\r\nX-')
          socket.once('close', () => closed++)
          sockets.push(socket)
        }
        expect(await status(port), `in round ${round}`).toBe(200)
        most = Math.max(most, limit.stats().open)
      }
      await until('all connections decided', () => limit.stats().allowed + limit.stats().refused >= 10_000)
      // The well-behaved client is one more, with one connection at a time.
      expect(most).toBeLessThanOrEqual(clients * 20 + 1)
      expect(limit.stats().refused).toBeGreaterThan(0)
      // What the limit lets in has its end in the server's deadline for heads.
      await until('all connections ended', () => closed === 10_000 && limit.stats().open === 0, 20_000)
      expect(limit.stats()).toMatchObject({ open: 0, clients: 0, dry: 0 })
      expect(await status(port)).toBe(200)
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
      server.closeAllConnections()
    }
  }, 60_000)
})

describe("the server's own caps on kept connections", () => {
  it('hold in front of the proxy: requests per connection, and how long it may idle', async () => {
    await using upstream = await testUpstream()
    await using proxy = createProxy({ upstreams: [upstream.url] })
    const server = createHttp({ keepAliveTimeout: 200, keepAliveTimeoutBuffer: 0, connectionsCheckingInterval: 50 })
    server.maxRequestsPerSocket = 2
    proxy.attach(server)
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
    try {
      await using busy = await rawConnect(port)
      await busy.write(get)
      expect((await busy.readResponse()).all('connection')).toEqual(['keep-alive'])
      await busy.write(get)
      const last = await busy.readResponse()
      expect([last.status, last.all('connection')]).toEqual([200, ['close']])
      await busy.closed
      await using idle = await rawConnect(port)
      await idle.write(get)
      expect((await idle.readResponse()).status).toBe(200)
      await idle.closed
      expect(upstream.count()).toBe(3)
    } finally {
      server.close()
    }
  })
})

describe('a server that is handed what has been decrypted elsewhere', () => {
  it('has its clients held to the limit too', async () => {
    const { ca, localhost } = certificates()
    const inner = createHttp((_req, res) => res.end('fine'))
    const limit = connectionLimit({ perClient: 1 })
    limit.attach(inner)
    const outer = createTls(localhost, (socket) => {
      socket.on('error', () => undefined)
      inner.emit('connection', socket)
    })
    outer.listen(0, '127.0.0.1')
    await once(outer, 'listening')
    const { port } = outer.address() as AddressInfo
    const sockets: Socket[] = []
    try {
      for (const expected of [
        { allowed: 1, refused: 0 },
        { allowed: 1, refused: 1 },
      ]) {
        const socket = connectTls({ port, host: '127.0.0.1', servername: 'localhost', ca })
        socket.on('error', () => undefined)
        sockets.push(socket)
        await once(socket, 'secureConnect')
        const { allowed, refused } = expected
        // The client may be through with the handshake before the server is.
        await until('decided', () => limit.stats().allowed === allowed && limit.stats().refused === refused)
        expect(limit.stats().open).toBe(1)
        if (refused > 0 && !socket.closed) await once(socket.resume(), 'close')
      }
      sockets[0]?.destroy()
      await until('room', () => limit.stats().open === 0)
    } finally {
      for (const socket of sockets) socket.destroy()
      outer.close()
      inner.closeAllConnections()
    }
  })
})

describe('over TLS', () => {
  it('is refused before the handshake, and a connection that closes makes room', async () => {
    const { ca, localhost } = certificates()
    const server = createHttps(localhost, (_req, res) => res.end('fine'))
    let handshakes = 0
    server.on('secureConnection', () => handshakes++)
    const limit = connectionLimit({ perClient: 1 })
    const detach = limit.attach(server)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const shake = async (): Promise<'secure' | 'refused'> => {
      const socket = connectTls({ port, host: '127.0.0.1', servername: 'localhost', ca })
      sockets.push(socket)
      return Promise.race([
        once(socket, 'secureConnect').then(
          () => 'secure' as const,
          () => 'refused' as const,
        ),
        once(socket, 'close').then(
          () => 'refused' as const,
          () => 'refused' as const,
        ),
      ])
    }
    const sockets: Socket[] = []
    try {
      expect(await shake()).toBe('secure')
      expect(await shake()).toBe('refused')
      await until('one refused', () => limit.stats().refused === 1)
      expect(handshakes).toBe(1)
      // Nothing is left of it on the server, which has put TLS on top of what is gone.
      expect(await promisify(server.getConnections.bind(server))()).toBe(1)
      sockets[0]?.destroy()
      await until('room', () => limit.stats().open === 0)
      expect(await shake()).toBe('secure')
      detach()
      expect(await shake()).toBe('secure')
      expect(limit.stats()).toMatchObject({ open: 1, allowed: 2, refused: 1 })
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
      server.closeAllConnections()
    }
  })
})
