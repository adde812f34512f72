/**
 * Coded request bodies on real sockets: bombs, bodies that are broken or break off, clients and upstreams that leave, slow upstreams, retries. In each case
 * the right party is told, and no decoder outlives its exchange. What is decoded, and which fields change, is shown beside the sources.
 */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Transform } from 'node:stream'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { type ShadowResult, shadow } from '@weir/balancer'
import { decompressRequests } from '@weir/compress'
import type { StageHandler } from '@weir/core'
import { rawConnect, rawRequest, rawUpstream, refusedPort, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { head } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'
import { atRest, okUpstream } from './setup.ts'
import { outgoing } from './sockets.ts'
import { zlibStreams } from './zlib-streams.ts'

const MiB = 1024 ** 2
const zstdNoticesCuts = ((): boolean => {
  try {
    zstdDecompressSync(zstdCompressSync('weir').subarray(0, -1))
    return false
  } catch {
    return true
  }
})()
const encoders: readonly (readonly [string, (bytes: Uint8Array | string) => Buffer])[] = [
  ['gzip', (bytes) => gzipSync(bytes)],
  ['deflate', (bytes) => deflateSync(bytes)],
  ['br', (bytes) => brotliCompressSync(bytes)],
  ['zstd', (bytes) => zstdCompressSync(bytes)],
]
const usable = encoders.filter(([coding]) => coding !== 'zstd' || zstdNoticesCuts)

/** The others do not notice that bytes which they could not make smaller are not those that they were. */
const hasChecksum: ReadonlySet<string> = new Set(['gzip', 'deflate'])

const text = 'All work and no play makes Jack a dull boy.\n'.repeat(500)

function request(coding: string, body: Uint8Array, ...fields: readonly string[]): Buffer {
  return Buffer.concat([Buffer.from(head('POST', '/', `Content-Encoding: ${coding}`, `Content-Length: ${body.length}`, ...fields)), body])
}

/** Counts what comes out of the stages in front of it. */
function meter(): { readonly stage: StageHandler; readonly bytes: () => number } {
  let bytes = 0
  const stage: StageHandler = (exchange) =>
    exchange.transformRequest(
      new Transform({
        transform: (chunk: Buffer, _encoding, done) => {
          bytes += chunk.length
          done(null, chunk)
        },
      }),
    )
  return { stage, bytes: () => bytes }
}

describe.each(transports)('over %s', (_name, transport) => {
  it.each(usable)('a body in %s arrives decoded, by HTTP/1.1 and HTTP/2', async (name, encode) => {
    const coded = encode(text)
    const stages = [decompressRequests(), decompressRequests()]
    const streams = zlibStreams()
    await using upstream = await okUpstream()
    for (const [index, stage] of stages.entries()) {
      const http2 = index === 1
      await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, http2 })
      if (http2) {
        await using client = await h2Client(proxy.port)
        const response = await client.request({ ':method': 'POST', 'content-encoding': name }, coded)
        expect([response.status, response.reset]).toEqual([200, 0])
      } else expect((await rawRequest(proxy.port, request(name, coded))).status).toBe(200)
      const seen = upstream.requests.at(-1)
      expect([seen?.text() === text, seen?.all('content-encoding'), seen?.all('content-length')]).toEqual([true, [], []])
    }
    await until('every decoder is closed', () => streams.open() === 0)
    expect(streams.made()).toBe(2)
  })

  it('a bomb is cut off at the limit, whatever it would have become', async () => {
    const streams = zlibStreams()
    const bomb = gzipSync(Buffer.alloc(256 * MiB))
    expect(bomb.length).toBeLessThan(MiB)
    let received = 0
    await using upstream = await testUpstream({
      '*': (req) =>
        void req.on('data', (chunk: Buffer) => {
          received += chunk.length
        }),
    })
    for (const [coding, body] of [
      ['gzip', bomb],
      ['gzip, gzip', gzipSync(bomb)],
    ] as const) {
      for (const options of [{ maxRatio: 1e6, maxSize: '4MiB' }, {}] as const) {
        const stage = decompressRequests(options)
        const made = meter()
        const use = [stage, made.stage]
        await using proxy = await startProxy({ upstreams: [upstream.url], use, retry: { attempts: 3 } }, { transport })
        received = 0
        const before = process.memoryUsage().external
        let most = 0
        const watch = setInterval(() => {
          most = Math.max(most, process.memoryUsage().external - before)
        }, 1)
        try {
          const response = await rawRequest(proxy.port, request(coding, body))
          expect([response.status, response.header('proxy-status')]).toEqual([413, expect.stringContaining('ERR_BODY_TOO_LARGE')])
        } finally {
          clearInterval(watch)
        }
        const limit = options.maxSize === undefined ? MiB : 4 * MiB
        expect(made.bytes()).toBeLessThanOrEqual(limit)
        expect(received).toBeLessThanOrEqual(limit)
        expect(most).toBeLessThan(64 * MiB)
        const outcome = await proxy.outcome()
        expect([outcome.reason, outcome.attempts.length]).toEqual(['ERR_BODY_TOO_LARGE', 1])
        expect(outcome.attempts[0]?.error?.source).toBe('client')
        expect(stage.stats()).toMatchObject({ active: 0, decoded: 1, refused: 1 })
        await upstream.until(({ active }) => active === 0)
      }
    }
    await until('every decoder is closed', () => streams.open() === 0)
  })

  it.each(usable)(
    'a body in %s that is damaged or cut short is a 400, and the upstream does not take it for whole',
    async (coding, encode) => {
      const streams = zlibStreams()
      let whole = 0
      await using upstream = await testUpstream({ '*': (req) => void req.on('end', () => whole++).resume() })
      const coded = encode(randomBytes(200_000))
      const damaged = Buffer.from(coded)
      damaged.fill(0xa5, 100_000, 120_000)
      const stage = decompressRequests()
      for (const body of [
        coded.subarray(0, -5),
        ...(hasChecksum.has(coding) ? [damaged] : []),
        Buffer.concat([coded, Buffer.from('more')]),
      ]) {
        await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage], retry: { attempts: 3 } }, { transport })
        await using client = await rawConnect(proxy.port)
        void client.write(request(coding, body))
        const response = await client.readResponse()
        expect([response.status, response.header('proxy-status')]).toEqual([400, expect.stringContaining('ERR_BODY_CODING')])
        const outcome = await proxy.outcome()
        expect([outcome.reason, outcome.attempts.length]).toEqual(['ERR_BODY_CODING', 1])
        await upstream.until(({ active }) => active === 0)
      }
      expect([whole, stage.stats().active]).toEqual([0, 0])
      await until('every decoder is closed', () => streams.open() === 0)
    },
  )

  it('a client that leaves midway takes the decoders with it', async () => {
    const coded = brotliCompressSync(gzipSync(randomBytes(300_000)))
    for (const http2 of [false, true]) {
      const stage = decompressRequests()
      const streams = zlibStreams()
      await using upstream = await testUpstream({ '*': (req) => void req.resume() })
      await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, http2 })
      if (http2) {
        await using client = await h2Client(proxy.port)
        const { stream } = client.open({ ':method': 'POST', 'content-encoding': 'gzip, br' })
        stream.write(coded.subarray(0, 200_000))
        await upstream.until(({ active }) => active === 1)
        expect([streams.made(), streams.open(), stage.stats().active]).toEqual([2, 2, 1])
        stream.close(8)
        await proxy.outcome()
      } else {
        await using client = await rawConnect(proxy.port)
        void client.write(request('gzip, br', coded).subarray(0, 200_000))
        await upstream.until(({ active }) => active === 1)
        expect([streams.made(), streams.open(), stage.stats().active]).toEqual([2, 2, 1])
        client.reset()
        await proxy.outcome()
      }
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
      await until('every decoder is closed', () => streams.open() === 0 && stage.stats().active === 0)
      await upstream.until(({ active }) => active === 0)
    }
  })

  it('a slow upstream: what is decoded and waits stays small, and every byte arrives in the end', async () => {
    const total = 128 * MiB
    const coded = gzipSync(Buffer.alloc(total, text))
    let req: IncomingMessage | undefined
    const hash = createHash('sha1')
    const upstream = createServer((incoming, res) => {
      req = incoming
      incoming.on('end', () => res.end('ok'))
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    const { port } = upstream.address() as AddressInfo
    try {
      const sockets = outgoing(port)
      const made = meter()
      const stage = decompressRequests({ maxSize: total, maxRatio: 2000 })
      await using proxy = await startProxy({ upstreams: [`http://127.0.0.1:${port}`], use: [stage, made.stage] }, { transport })
      await using client = await rawConnect(proxy.port, { deadline: 15_000 })
      void client.write(request('gzip', coded))
      await until('the upstream has the head', () => req)
      const before = await atRest(made.bytes)
      const [socket] = sockets()
      const taken = (socket?.bytesWritten ?? 0) - (socket?.writableLength ?? 0)
      // The kernel's part is not ours. What is: the buffers of a few streams of 64 KiB, and the replay buffer.
      expect(before).toBeLessThan(total)
      expect(before - taken).toBeLessThan(MiB)
      req?.on('data', (chunk: Buffer) => void hash.update(chunk))
      expect((await client.readResponse()).status).toBe(200)
      expect(made.bytes()).toBe(total)
      expect(hash.digest('hex')).toBe(createHash('sha1').update(Buffer.alloc(total, text)).digest('hex'))
    } finally {
      upstream.closeAllConnections()
      upstream.close()
    }
  })

  it('an upstream that answers early is heard, and the decoder goes', async () => {
    const coded = gzipSync(Buffer.concat([Buffer.alloc(64 * MiB), randomBytes(4 * MiB)]))
    for (const http2 of [false, true]) {
      const stage = decompressRequests({ maxRatio: 1e6, maxSize: '1GiB' })
      const streams = zlibStreams()
      // Nothing is read, so that everything up to the client fills up and waits.
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readHead()
        await connection.send('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno')
      })
      await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, http2 })
      if (http2) {
        await using client = await h2Client(proxy.port)
        const { stream } = client.open({ ':method': 'POST', 'content-encoding': 'gzip' })
        const answered = once(stream, 'response')
        stream.write(coded)
        // Not for the end of the stream: node keeps one open that it could not write to the end.
        expect((await answered)[0]).toMatchObject({ ':status': 403 })
        await proxy.outcome()
      } else {
        await using client = await rawConnect(proxy.port)
        void client.write(request('gzip', coded).subarray(0, -1))
        expect((await client.readResponse()).status).toBe(403)
        await proxy.outcome()
      }
      await until('the decoder is closed', () => streams.open() === 0 && stage.stats().active === 0)
      await until('the exchange has ended', () => proxy.proxy.stats().inflight === 0)
      expect(streams.made()).toBe(1)
    }
  })

  it('a retry sends the decoded bytes again, and decodes them once', async () => {
    const body = gzipSync(text)
    const bytes = Buffer.concat([Buffer.from(head('PUT', '/', 'Content-Encoding: gzip', `Content-Length: ${body.length}`)), body])
    const use = [decompressRequests()]
    const streams = zlibStreams()
    await using dead = await refusedPort()
    await using bad = await testUpstream({ '*': (req, _res, wire) => void req.on('end', () => wire.reset()).resume() })
    await using good = await okUpstream()
    for (const first of [dead, bad]) {
      await using proxy = await startProxy(
        { upstreams: [first.url, { url: good.url, backup: true }], health: [], use, retry: { attempts: 2 } },
        { transport },
      )
      expect((await rawRequest(proxy.port, bytes)).status).toBe(200)
      expect((await proxy.outcome()).attempts).toHaveLength(2)
    }
    expect(good.requests.map((seen) => [seen.text() === text, seen.all('content-encoding')])).toEqual([
      [true, []],
      [true, []],
    ])
    expect(streams.made()).toBe(2)
    await until('every decoder is closed', () => streams.open() === 0)
  })

  it('a client that waits for its 100 is told 415 before it sends anything', async () => {
    await using upstream = await okUpstream()
    const stage = decompressRequests({ unsupported: 'refuse' })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(head('POST', '/', 'Content-Encoding: compress', 'Content-Length: 5', 'Expect: 100-continue'))
    const response = await client.readResponse()
    expect([response.status, response.interims, upstream.connections.length]).toEqual([415, [], 0])
    expect(response.header('accept-encoding')).toContain('gzip')
    await using other = await rawConnect(proxy.port)
    const body = gzipSync(text)
    void other.write(head('POST', '/', 'Content-Encoding: gzip', `Content-Length: ${body.length}`, 'Expect: 100-continue'))
    expect((await other.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void other.write(body)
    expect((await other.readResponse()).status).toBe(200)
    expect(upstream.requests.map((seen) => seen.text() === text)).toEqual([true])
  })

  it('a coded body that a parser in front has read is an error that says so', async () => {
    const streams = zlibStreams()
    await using upstream = await okUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [decompressRequests()] }, { transport })
    const [listener] = proxy.server.listeners('request') as [(req: IncomingMessage, res: ServerResponse) => void]
    proxy.server.removeAllListeners('request')
    proxy.server.on('request', (req: IncomingMessage, res: ServerResponse) => void req.on('end', () => listener(req, res)).resume())
    expect((await rawRequest(proxy.port, request('gzip', gzipSync(text)))).status).toBe(500)
    expect((await proxy.outcome()).reason).toBe('ERR_BODY_CONSUMED')
    await until('the decoder is closed', () => streams.open() === 0)
  })
})

it('a copy for a shadow has the bytes that the client sent, and says what they are in', async () => {
  await using primary = await okUpstream()
  await using other = await okUpstream()
  const results: ShadowResult[] = []
  const copies = shadow({ upstreams: [other.url], share: 1, methods: ['POST'], onResult: (result) => void results.push(result) })
  await using proxy = await startProxy({ upstreams: [primary.url], use: [copies, decompressRequests()] })
  const body = gzipSync(text)
  expect((await rawRequest(proxy.port, request('gzip', body))).status).toBe(200)
  await until('the copy is answered', () => results.length === 1)
  expect([primary.requests[0]?.text() === text, primary.requests[0]?.all('content-encoding')]).toEqual([true, []])
  expect([other.requests[0]?.body.equals(body), other.requests[0]?.all('content-encoding')]).toEqual([true, ['gzip']])
})
