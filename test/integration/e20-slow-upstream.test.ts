/**
 * E20. The same in the other direction: an upstream that does not read stops the client's upload after what the kernel's buffers hold. So
 * does everything that may lie before the upstream: a stage that thinks, a queue, a connection that does not come about.
 */
import { blackHolePort, patternAt, type RawConnection, type RawUpstream, rawConnect, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { atRest, gate, outcomeLog, startProxy, transports, until } from './setup.ts'
import { heldBack, incoming, outgoing } from './sockets.ts'

const gigabyte = 1_000_000_000
const bound = 16_000_000
const own = 1_000_000
const mebibyte = 1024 * 1024

type Framing = 'Content-Length' | 'chunked'
const framings: readonly Framing[] = ['Content-Length', 'chunked']

/** Uploads the kit's pattern as fast as it is taken, until all is sent or the connection breaks. */
async function upload(client: RawConnection, framing: Framing, total = gigabyte, path = '/'): Promise<boolean> {
  const field = framing === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${total}`
  if (!(await client.write(`POST ${path} HTTP/1.1\r\nHost: public.test\r\n${field}\r\n\r\n`))) return false
  for (let at = 0; at < total; at += 65_536) {
    const piece = patternAt(at, Math.min(65_536, total - at))
    if (framing === 'chunked') void client.write(`${piece.length.toString(16)}\r\n`)
    if (!(await client.write(piece))) return false
    if (framing === 'chunked') void client.write('\r\n')
  }
  return framing === 'chunked' ? client.write('0\r\n\r\n') : true
}

/** Accepts, reads a head, and then nothing until told to. */
function reluctant(go?: Promise<void>): Promise<RawUpstream> {
  return rawUpstream(
    async (connection) => {
      await connection.sees('\r\n\r\n')
      connection.pause()
      await (go ?? connection.stall())
      connection.resume()
      await connection.readRequest(15_000)
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    },
    { deadline: 15_000 },
  )
}

/** Where this stops being the kit's pattern; -1 when it does not. */
function firstDifference(body: Buffer): number {
  for (let at = 0; at < body.length; at += 65_536) {
    const piece = body.subarray(at, at + 65_536)
    if (!piece.equals(patternAt(at, piece.length))) return at
  }
  return -1
}

describe.each(transports)('E20 over %s: An upstream that stops reading', (_, transport) => {
  it.each(framings)("stops the client's upload: %s", async (framing) => {
    await using upstream = await reluctant()
    const log = outcomeLog()
    const toUpstream = outgoing(upstream.port)
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
    const fromClient = incoming(running)
    await using client = await rawConnect(running.port)
    const before = process.memoryUsage.rss()
    const uploading = upload(client, framing)
    const written = await atRest(() => client.written)
    expect(written).toBeGreaterThan(65_536)
    expect(written).toBeLessThan(bound)
    expect(toUpstream().length).toBe(1)
    expect(heldBack(fromClient[0], toUpstream()[0])).toBeLessThan(own)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
    expect(log.outcomes).toEqual([])
    // A connection that is not read learns nothing of its client's end, but all of it ends with the upstream's.
    client.reset()
    expect(await uploading).toBe(false)
    upstream.connections[0]?.reset()
    await log.outcome(1)
    await until('all of it to be let go', () => toUpstream().every((socket) => socket.destroyed))
    expect(running.proxy.stats().inflight).toBe(0)
  })

  it.each(framings)('and never reads again is given up at the head timeout: %s', async (framing) => {
    await using upstream = await reluctant()
    const log = outcomeLog()
    const toUpstream = outgoing(upstream.port)
    await using running = await startProxy({ upstreams: [upstream.url], timeouts: { head: 500 }, use: [log.stage] }, { transport })
    await using client = await rawConnect(running.port)
    const uploading = upload(client, framing)
    expect((await client.readResponse()).status).toBe(504)
    const outcome = await log.outcome(1)
    expect([outcome.status, outcome.reason]).toEqual([504, 'ERR_HEAD_TIMEOUT'])
    expect(toUpstream().every((socket) => socket.destroyed)).toBe(true)
    client.reset()
    await uploading
  })

  it.each(framings)('and reads again gets all of it as it was: %s', async (framing) => {
    const total = 24_000_000
    const { opened, open } = gate()
    await using upstream = await reluctant(opened)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port, { deadline: 15_000 })
    const uploading = upload(client, framing, total)
    expect(await atRest(() => client.written)).toBeLessThan(bound)
    open()
    expect(await uploading).toBe(true)
    expect((await client.readResponse()).status).toBe(200)
    const body = upstream.requests[0]?.body as Buffer
    expect([body.length, firstDifference(body)]).toEqual([total, -1])
  })

  it.each(framings)('again and again gets every byte in its place: %s', async (framing) => {
    const total = 40_000_000
    await using upstream = await rawUpstream(
      async (connection) => {
        const request = connection.readRequest(20_000)
        let done = false
        void request.finally(() => {
          done = true
        })
        while (!done) {
          connection.pause()
          await atRest(() => client.written, { turns: 3, every: 2 })
          const before = connection.received.length
          connection.resume()
          await until('some more', () => connection.received.length > before + 500_000 || done)
        }
        await request
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      },
      { deadline: 20_000 },
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port, { deadline: 20_000 })
    expect(await upload(client, framing, total)).toBe(true)
    expect((await client.readResponse()).status).toBe(200)
    expect([upstream.requests[0]?.body.length, firstDifference(upstream.requests[0]?.body as Buffer)]).toEqual([total, -1])
  })

  it('stops sixteen clients at once, and holds up nobody else', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      const head = await connection.readHead()
      if (head.line.startsWith('GET')) await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      else connection.pause()
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const before = process.memoryUsage.rss()
    const clients = await Promise.all(Array.from({ length: 16 }, () => rawConnect(running.port)))
    const uploads = clients.map((client) => upload(client, 'Content-Length'))
    await atRest(() => clients.reduce((sum, client) => sum + client.written, 0))
    for (const client of clients) expect(client.written).toBeLessThan(bound)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
    await using other = await rawConnect(running.port)
    void other.write('GET / HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect((await other.readResponse()).status).toBe(200)
    for (const client of clients) client.reset()
    expect(await Promise.all(uploads)).toEqual(Array(16).fill(false))
    for (const connection of upstream.connections) connection.reset()
    await until('all of it to be let go', () => running.proxy.stats().inflight === 0)
  })

  it("stops an HTTP/2 client's upload, and no other stream", async () => {
    await using upstream = await rawUpstream(async (connection) => {
      const head = await connection.readHead()
      if (head.line.startsWith('GET')) await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      else connection.pause()
    })
    const toUpstream = outgoing(upstream.port)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const before = process.memoryUsage.rss()
    const { stream } = client.open({ ':method': 'POST' })
    let taken = 0
    const send = (): void => {
      if (!stream.destroyed)
        stream.write(patternAt(taken, 65_536), () => {
          taken += 65_536
          send()
        })
    }
    send()
    await until('the upload to begin', () => taken > 0)
    expect(await atRest(() => taken)).toBeLessThan(bound)
    expect(toUpstream()[0]?.writableLength).toBeLessThan(own)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
    const other = await client.request()
    expect([other.status, other.body.toString()]).toEqual([200, 'ok'])
    stream.close(8)
    await until('all of it to be let go', () => running.proxy.stats().inflight === 0)
  })

  it('after it has answered has the rest of the upload read away, not collected', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readHead()
      connection.pause()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      await connection.stall()
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port, { deadline: 15_000 })
    const before = process.memoryUsage.rss()
    const uploading = upload(client, 'Content-Length', 200_000_000)
    expect((await client.readResponse()).status).toBe(200)
    await uploading
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * mebibyte)
  })

  it('that cannot even be connected to stops the upload before it has begun', async () => {
    await using hole = await blackHolePort()
    await using running = await startProxy({ upstreams: [hole.url] }, { transport })
    const fromClient = incoming(running)
    await using client = await rawConnect(running.port)
    const uploading = upload(client, 'Content-Length')
    expect(await atRest(() => client.written)).toBeLessThan(bound)
    expect(fromClient[0]?.bytesRead).toBeLessThan(own)
    client.reset()
    await uploading
  })

  it('whose slots are taken stops the upload of who waits', async () => {
    await using upstream = await reluctant()
    await using running = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
    const fromClient = incoming(running)
    await using first = await rawConnect(running.port)
    void first.write('POST / HTTP/1.1\r\nHost: public.test\r\nContent-Length: 10\r\n\r\nhello')
    await upstream.connection(1)
    await using second = await rawConnect(running.port)
    const uploading = upload(second, 'Content-Length')
    await until('the second to wait', () => running.proxy.pool?.stats().waiting === 1)
    expect(await atRest(() => second.written)).toBeLessThan(bound)
    expect(fromClient[1]?.bytesRead).toBeLessThan(own)
    second.reset()
    await uploading
  })
})

describe('E20: A stage that thinks', () => {
  it.each(framings)('stops the upload as well: %s', async (framing) => {
    const { opened, open } = gate()
    const total = 24_000_000
    await using upstream = await rawUpstream(
      async (connection) => {
        await connection.readRequest(15_000)
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      },
      { deadline: 15_000 },
    )
    await using running = await startProxy({ upstreams: [upstream.url], use: [() => opened] })
    const fromClient = incoming(running)
    await using client = await rawConnect(running.port, { deadline: 15_000 })
    const uploading = upload(client, framing, total)
    expect(await atRest(() => client.written)).toBeLessThan(bound)
    expect(fromClient[0]?.bytesRead).toBeLessThan(own)
    open()
    expect(await uploading).toBe(true)
    expect((await client.readResponse()).status).toBe(200)
    expect(upstream.requests[0]?.body.length).toBe(total)
  })
})
