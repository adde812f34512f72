/**
 * E19. Whoever cannot take more must be heard at the other end. A gigabyte is offered, the reader stalls, and the upstream must come to a
 * stop after what the kernel's buffers hold, whatever is in between. The proxy's own share is told apart from the kernel's: bytes it has
 * read and not yet given away.
 */
import { PassThrough } from 'node:stream'
import { constants, createGzip } from 'node:zlib'
import type { Stage } from '@weir/core'
import { patternAt, type RawUpstream, rawConnect, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { atRest, outcomeLog, startProxy, transports, until } from './setup.ts'
import { heldBack, incoming, outgoing } from './sockets.ts'

const gigabyte = 1_000_000_000
/** With both kernels' buffers, which grow to some megabytes each on loopback. */
const bound = 16_000_000
/** What the proxy itself may hold per exchange: a chunk or two on their way, and the high-water marks. */
const own = 1_000_000
const mebibyte = 1024 * 1024
const get = 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n'

type Framing = 'Content-Length' | 'chunked' | 'end of the connection'

/** Offers a gigabyte of the kit's pattern, as fast as it is taken. */
function generous(framing: Framing = 'Content-Length'): Promise<RawUpstream> {
  const field = {
    'Content-Length': `Content-Length: ${gigabyte}\r\n`,
    chunked: 'Transfer-Encoding: chunked\r\n',
    'end of the connection': '',
  }[framing]
  return rawUpstream(async (connection) => {
    await connection.readHead()
    await connection.send(`HTTP/1.1 200 OK\r\n${field}\r\n`)
    for (let at = 0; at < gigabyte; at += 65_536) {
      if (framing === 'chunked') void connection.send('10000\r\n')
      if (!(await connection.send(patternAt(at, 65_536)))) return
      if (framing === 'chunked') void connection.send('\r\n')
    }
  })
}

/** Where this stops being the kit's pattern; -1 when it does not. */
function firstDifference(body: Buffer): number {
  for (let at = 0; at < body.length; at += 65_536) {
    const piece = body.subarray(at, at + 65_536)
    if (!piece.equals(patternAt(at, piece.length))) return at
  }
  return -1
}

describe.each(transports)('E19 over %s: A client that stops reading', (_, transport) => {
  it.each<Framing>(['Content-Length', 'chunked', 'end of the connection'])(
    'stops the upstream, and lets it go on when it reads again: %s',
    async (framing) => {
      await using upstream = await generous(framing)
      const log = outcomeLog()
      const toUpstream = outgoing(upstream.port)
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
      const fromClient = incoming(running)
      await using client = await rawConnect(running.port)
      const before = process.memoryUsage.rss()
      client.pause()
      void client.write(get)
      const { sent } = await upstream.connection(1).then(async (connection) => {
        await atRest(() => connection.sent)
        return connection
      })
      expect(sent).toBeGreaterThan(0)
      expect(sent).toBeLessThan(bound)
      expect(heldBack(toUpstream()[0], fromClient[0])).toBeLessThan(own)
      expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
      expect(log.outcomes).toEqual([])

      client.resume()
      await until('more than was buffered', () => client.received.length > sent + 4_000_000)
      client.pause()
      const head = await client.readHead()
      expect(head.line).toBe('HTTP/1.1 200 OK')
      if (framing === 'Content-Length') expect(firstDifference(client.unread)).toBe(-1)
      // A kernel that has seen its reader hurry keeps more for it: from here on only the proxy's own share is bounded.
      await atRest(() => upstream.connections[0]?.sent ?? 0)
      expect(heldBack(toUpstream()[0], fromClient[0])).toBeLessThan(own)
      client.destroy()
      expect((await log.outcome(1)).reason).toBe('ERR_CLIENT_ABORTED')
      await until('the upstream to be let go', () => upstream.open === 0)
    },
  )

  it.each<[what: string, stage: Stage]>([
    ['taps', { name: 'tap', handle: () => ({ onResponse: (response) => response.tap({ onChunk: () => {} }) }) }],
    ['transforms', { name: 'through', handle: () => ({ onResponse: (response) => response.transform(new PassThrough()) }) }],
    [
      'transforms, several times',
      {
        name: 'through',
        handle: () => ({
          onResponse: (response) => {
            for (let i = 0; i < 5; i++) response.transform(new PassThrough())
          },
        }),
      },
    ],
    [
      'compresses, without making it smaller',
      { name: 'gzip', handle: () => ({ onResponse: (response) => response.transform(createGzip({ level: constants.Z_NO_COMPRESSION })) }) },
    ],
    ['waits in a hook', { name: 'wait', handle: () => ({ onResponse: () => new Promise((resolve) => setTimeout(resolve, 50)) }) }],
  ])('stops the upstream through a stage that %s', async (_what, stage) => {
    await using upstream = await generous()
    const toUpstream = outgoing(upstream.port)
    await using running = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const fromClient = incoming(running)
    await using client = await rawConnect(running.port)
    const before = process.memoryUsage.rss()
    client.pause()
    void client.write(get)
    const connection = await upstream.connection(1)
    await until('the body to begin', () => (fromClient[0]?.bytesWritten ?? 0) > 65_536)
    const sent = await atRest(() => connection.sent)
    expect(sent).toBeLessThan(bound)
    expect(heldBack(toUpstream()[0], fromClient[0])).toBeLessThan(own)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
    client.resume()
    await until('more than was buffered', () => client.received.length > sent + 1_000_000)
  })

  it.each<Framing>(['Content-Length', 'chunked', 'end of the connection'])(
    'again and again gets every byte in its place: %s',
    async (framing) => {
      const total = 40_000_000
      const field = {
        'Content-Length': `Content-Length: ${total}\r\n`,
        chunked: 'Transfer-Encoding: chunked\r\n',
        'end of the connection': '',
      }
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readHead()
        await connection.send(`HTTP/1.1 200 OK\r\n${field[framing]}\r\n`)
        // Sizes that fit no buffer.
        for (let at = 0, size = 1; at < total; at += size) {
          size = Math.min((size * 7919) % 65_521, total - at)
          if (framing === 'chunked') void connection.send(`${size.toString(16)}\r\n`)
          if (!(await connection.send(patternAt(at, size)))) return
          if (framing === 'chunked') void connection.send('\r\n')
        }
        if (framing === 'chunked') await connection.send('0\r\n\r\n')
        if (framing === 'end of the connection') connection.end()
      })
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
      await using client = await rawConnect(running.port)
      client.pause()
      void client.write(get)
      while (log.outcomes.length === 0) {
        await atRest(() => upstream.connections[0]?.sent ?? 0, { turns: 3, every: 2 })
        const before = client.received.length
        client.resume()
        await until('some more', () => client.received.length > before + 500_000 || log.outcomes.length > 0)
        client.pause()
      }
      client.resume()
      const response = await client.readResponse()
      expect([response.status, response.complete, response.body.length]).toEqual([200, true, total])
      expect(firstDifference(response.body)).toBe(-1)
      expect(log.outcomes.map(({ reason }) => reason)).toEqual(['completed'])
    },
  )

  it('stops the upstream while a hook never comes to an end', async () => {
    await using upstream = await generous()
    const toUpstream = outgoing(upstream.port)
    const stage = () => ({ onResponse: () => new Promise<void>(() => {}) })
    await using running = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(get)
    const connection = await upstream.connection(1)
    await until('the body to begin', () => (toUpstream()[0]?.bytesRead ?? 0) > 0)
    expect(await atRest(() => connection.sent)).toBeLessThan(bound)
    expect(toUpstream()[0]?.bytesRead).toBeLessThan(own)
    expect(client.received.length).toBe(0)
  })

  it('is not cut by an idle timeout: it is not the upstream that is silent', async () => {
    await using upstream = await generous()
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], timeouts: { idle: 1000 }, use: [log.stage] }, { transport })
    await using client = await rawConnect(running.port)
    client.pause()
    void client.write(get)
    const connection = await upstream.connection(1)
    const sent = await atRest(() => connection.sent)
    // Longer than the timeout.
    await atRest(() => connection.sent, { turns: 75 })
    expect([log.outcomes.length, connection.ending]).toEqual([0, 'open'])
    client.resume()
    await until('more than was buffered', () => client.received.length > sent + 1_000_000)
  })

  it('holds up nobody else', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      for (;;) {
        const head = await connection.readHead(10_000)
        if (head.line === 'GET /small HTTP/1.1') await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
        else {
          await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${gigabyte}\r\n\r\n`)
          while (await connection.send(patternAt(0, 65_536)));
          return
        }
      }
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const before = process.memoryUsage.rss()
    const stalled = await Promise.all(Array.from({ length: 16 }, () => rawConnect(running.port)))
    for (const client of stalled) {
      client.pause()
      void client.write(get)
    }
    await upstream.connection(16)
    await atRest(() => upstream.connections.reduce((sum, connection) => sum + connection.sent, 0))
    for (const connection of upstream.connections) expect(connection.sent).toBeLessThan(bound)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
    await using other = await rawConnect(running.port)
    void other.write(get.replace('/', '/small'))
    expect((await other.readResponse()).text()).toBe('ok')
    for (const client of stalled) client.destroy()
    await until('all of it to be let go', () => running.proxy.stats().inflight === 0)
  })

  it('over HTTP/2 stops the upstream of its stream, and no other stream', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      const head = await connection.readHead()
      if (head.line === 'GET /small HTTP/1.1') await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      else {
        await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${gigabyte}\r\n\r\n`)
        for (let at = 0; await connection.send(patternAt(at, 65_536)); at += 65_536);
      }
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const before = process.memoryUsage.rss()
    // Not `open`: it would read.
    const stream = client.session.request({ ':path': '/large' })
    stream.on('error', () => {})
    await new Promise((resolve) => stream.once('response', resolve))
    const connection = await upstream.connection(1)
    const sent = await atRest(() => connection.sent)
    expect(sent).toBeGreaterThan(0)
    expect(sent).toBeLessThan(bound)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
    const other = await client.request({ ':path': '/small' })
    expect([other.status, other.body.toString()]).toEqual([200, 'ok'])
    let read = 0
    let intact = true
    stream.on('data', (chunk: Buffer) => {
      intact &&= chunk.equals(patternAt(read, chunk.length))
      read += chunk.length
    })
    await until('more than was buffered', () => read > sent + 1_000_000)
    expect(intact).toBe(true)
    stream.close(8)
    await until('the upstream to be let go', () => connection.ending !== 'open')
  })
})
