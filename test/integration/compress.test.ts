/**
 * Compression on real sockets: nothing is held back, nothing looks complete that is not, and no encoder outlives its exchange. What is compressed,
 * and what the head says, is shown beside the sources.
 *
 * Streams are tested in lockstep: the upstream writes the next piece when the client has decoded the last one. A piece that is held back
 * anywhere stops the test, and nothing depends on how fast the machine is.
 */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { get as httpGet, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Readable, Transform } from 'node:stream'
import {
  brotliCompressSync,
  brotliDecompressSync,
  constants,
  createBrotliCompress,
  createBrotliDecompress,
  createGunzip,
  createGzip,
  createZstdCompress,
  createZstdDecompress,
  gunzipSync,
  gzipSync,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib'
import { type CompressOptions, type CompressStage, compress, decompress } from '@weir/compress'
import type { Hooks, StageLike } from '@weir/core'
import { rawConnect, rawRequest, rawUpstream, testUpstream, wsConnect, wsUpstream } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { h2Client } from './h2.ts'
import { get } from './messages.ts'
import { gate, startProxy, transports, until } from './observed.ts'
import { atRest } from './setup.ts'
import { zlibStreams } from './zlib-streams.ts'

const codings = ['gzip', 'br', 'zstd'] as const
type Coding = (typeof codings)[number]
const decode = { gzip: gunzipSync, br: brotliDecompressSync, zstd: zstdDecompressSync }
const decoder: Readonly<Record<Coding, () => Transform>> = {
  gzip: createGunzip,
  br: createBrotliDecompress,
  zstd: createZstdDecompress,
}
/** `decompress` leaves Zstandard alone where node takes a part of a body for all of it. */
const zstdNoticesCuts = ((): boolean => {
  try {
    zstdDecompressSync(zstdCompressSync('weir').subarray(0, -1))
    return false
  } catch {
    return true
  }
})()

/** On a machine that is busy with other tests the stage would do right to compress less. */
const steady = (options: CompressOptions = {}): CompressStage => compress({ overload: false, ...options })

const text = 'All work and no play makes Jack a dull boy.\n'.repeat(500)

interface Client {
  readonly head: IncomingMessage
  /** Resolves when the decoded body has this text in it. */
  sees(what: string): Promise<void>
}

/** A client that decodes what comes as it comes. */
async function client(port: number, coding: Coding | 'identity'): Promise<Client> {
  const request = httpGet({ port, host: '127.0.0.1', agent: false, headers: { 'Accept-Encoding': coding } })
  onTestFinished(() => void request.destroy())
  request.on('error', () => {})
  const head = await new Promise<IncomingMessage>((resolve) => request.once('response', resolve))
  head.on('error', () => {})
  const body: Readable = head.headers['content-encoding'] === undefined ? head : head.pipe(decoder[coding as Coding]())
  let seen = ''
  body.on('data', (chunk: Buffer) => {
    seen += chunk.toString('latin1')
  })
  return { head, sees: async (what) => void (await until(`the client sees ${what}`, () => seen.includes(what))) }
}

/** An upstream whose response a test writes by hand. */
async function byHand(type: string, fields: Readonly<Record<string, string>> = {}) {
  const answered = gate<ServerResponse>()
  const upstream = await testUpstream({
    '*': (_req, res) => {
      res.writeHead(200, { 'Content-Type': type, ...fields })
      res.flushHeaders()
      answered.open(res)
    },
  })
  return { upstream, response: answered.opened, [Symbol.asyncDispose]: () => upstream[Symbol.asyncDispose]() }
}

describe.each(transports)('over %s', (_name, transport) => {
  describe.each(codings)('in %s', (coding) => {
    it('a body arrives whole, over HTTP/1.1 and HTTP/2', async () => {
      await using upstream = await testUpstream({ '*': { headers: { 'Content-Type': 'text/plain', ETag: '"a"' }, body: text } })
      const options = { upstreams: [upstream.url], use: [steady()] }
      await using one = await startProxy(options, { transport })
      const response = await rawRequest(one.port, get('/', `Accept-Encoding: ${coding}`))
      expect(decode[coding](response.body).toString()).toBe(text)
      expect([
        response.header('content-encoding'),
        response.header('vary'),
        response.header('etag'),
        response.framing,
        response.complete,
      ]).toEqual([coding, 'Accept-Encoding', 'W/"a"', 'chunked', true])
      await using two = await startProxy({ ...options, use: [steady()] }, { transport, http2: true })
      await using http2 = await h2Client(two.port)
      const stream = await http2.request({ ':path': '/', 'accept-encoding': coding })
      expect(decode[coding](stream.body).toString()).toBe(text)
      expect([stream.all('content-encoding'), stream.all('content-length'), stream.reset]).toEqual([[coding], [], 0])
    })

    it.each(['text/event-stream', 'application/x-ndjson', 'text/html'])('nothing of %s is held back', async (type) => {
      await using hand = await byHand(type)
      await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [steady()] }, { transport })
      const asked = client(proxy.port, coding)
      const response = await hand.response
      response.write('data: 0!\n\n')
      const reader = await asked
      expect(reader.head.headers['content-encoding']).toBe(coding)
      await reader.sees('data: 0!\n\n')
      for (let i = 1; i < 20; i++) {
        response.write(`data: ${i}!\n\n`)
        await reader.sees(`data: ${i}!\n\n`)
      }
      // Larger than any buffer on the way, and then a last word.
      response.write('x'.repeat(300_000))
      response.write('the end of it')
      await reader.sees('the end of it')
      response.end()
      expect((await proxy.outcome()).reason).toBe('completed')
    })

    it('a body of known length that comes slowly is not held back either', async () => {
      await using hand = await byHand('text/plain', { 'Content-Length': '5000' })
      await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [steady()] }, { transport })
      const asked = client(proxy.port, coding)
      const response = await hand.response
      response.write('first')
      const reader = await asked
      await reader.sees('first')
      response.end('x'.repeat(4995))
      await reader.sees('x'.repeat(4995))
    })
  })

  it('nothing is held back over HTTP/2, and a stream that is cancelled takes its encoder with it', async () => {
    const streams = zlibStreams()
    await using hand = await byHand('text/html')
    await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [steady()] }, { transport, http2: true })
    await using http2 = await h2Client(proxy.port)
    const { stream, answer } = http2.open({ ':path': '/', 'accept-encoding': 'gzip' })
    stream.end()
    let coded = Buffer.alloc(0)
    stream.on('data', (chunk: Buffer) => {
      coded = Buffer.concat([coded, chunk])
    })
    const response = await hand.response
    for (let i = 0; i < 10; i++) {
      response.write(`<p>${i}</p>`)
      await until(
        `piece ${i}`,
        () => coded.length > 0 && gunzipSync(coded, { finishFlush: constants.Z_SYNC_FLUSH }).includes(`<p>${i}</p>`),
      )
    }
    expect(streams.open()).toBe(1)
    stream.close(8)
    await answer
    await until('the encoder is closed', () => streams.open() === 0)
    await hand.upstream.until((seen) => seen.active === 0)
  })

  it.each([
    ['is reset', (socket: Socket): void => void socket.resetAndDestroy()],
    ['closes', (socket: Socket): void => void socket.end()],
  ] as const)('a body whose upstream %s midway looks broken, and no encoder stays', async (_how, breakOff) => {
    const streams = zlibStreams()
    const stage = steady()
    for (const length of [{}, { 'Content-Length': '1000000' }]) {
      // HTTP/1.1 misses the last chunk, or without chunks, as in HTTP/1.0, only a reset tells.
      for (const version of ['1.1', '1.0']) {
        await using hand = await byHand('text/plain', length)
        await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [stage], retry: false, health: [] }, { transport })
        await using connection = await rawConnect(proxy.port)
        void connection.write(`GET / HTTP/${version}\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n`)
        const written = await hand.response
        written.write(text)
        await connection.sees('\r\n\r\n')
        breakOff(written.socket as Socket)
        const response = await connection.readResponse()
        expect([response.header('content-encoding'), response.complete, response.ending]).toEqual(['gzip', false, 'reset'])
        expect((await proxy.outcome()).reason).toBe('ERR_UPSTREAM_BODY')
      }
      await using hand = await byHand('text/plain', length)
      await using proxy = await startProxy(
        { upstreams: [hand.upstream.url], use: [stage], retry: false, health: [] },
        { transport, http2: true },
      )
      await using http2 = await h2Client(proxy.port)
      const { stream, answer } = http2.open({ ':path': '/', 'accept-encoding': 'gzip' })
      stream.end()
      const written = await hand.response
      written.write(text)
      await once(stream, 'response')
      breakOff(written.socket as Socket)
      const response = await answer
      expect([response.status, response.all('content-encoding'), response.reset]).toEqual([200, ['gzip'], 2])
    }
    await until('every encoder is closed', () => streams.open() === 0)
    expect([streams.made(), stage.stats().active]).toEqual([6, 0])
  })

  it.each(codings)('a client that leaves takes the encoder (%s) and the upstream with it', async (coding) => {
    const streams = zlibStreams()
    await using hand = await byHand('text/html')
    const stage = steady()
    await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [stage] }, { transport })
    const connection = await rawConnect(proxy.port)
    void connection.write(get('/', `Accept-Encoding: ${coding}`))
    const response = await hand.response
    // Enough for work to be under way on zlib's thread when the client leaves.
    response.write(randomBytes(500_000))
    await until('the encoder works', () => stage.stats().bytesOut > 0)
    expect([streams.made(), streams.open(), stage.stats().active]).toEqual([1, 1, 1])
    connection.reset()
    expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
    expect(stage.stats().active).toBe(0)
    await until('the encoder is closed', () => streams.open() === 0)
    await hand.upstream.until((seen) => seen.active === 0)
  })

  it('a slow reader slows the upstream down, and gets every byte in the end', async () => {
    // Beyond the window of gzip, so every repetition is new to it and nothing shrinks.
    const block = randomBytes(65_536)
    const total = 48 * 1024 ** 2
    let sent = 0
    const hash = createHash('sha256')
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${total}\r\n\r\n`)
      for (; sent < total; sent += block.length) {
        hash.update(block)
        await connection.send(block)
      }
    })
    const stage = steady({ gzip: { level: 1 } })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    await using connection = await rawConnect(proxy.port, { deadline: 15_000 })
    connection.pause()
    void connection.write(get('/', 'Accept-Encoding: gzip'))
    await until('the upstream sends', () => sent > 0)
    // What rests in the kernel on two connections is some megabytes each; Weir's own share is what the stage was given and has not yet given away.
    expect(await atRest(() => sent)).toBeLessThan(total / 2)
    connection.resume()
    const response = await connection.readResponse()
    expect(createHash('sha256').update(gunzipSync(response.body)).digest('hex')).toBe(hash.digest('hex'))
    expect(stage.stats()).toMatchObject({ active: 0, bytesIn: total })
  })

  it('trailers come behind a compressed body', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(
        'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n',
      )
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [steady()] }, { transport })
    const response = await rawRequest(proxy.port, get('/', 'Accept-Encoding: gzip', 'TE: trailers', 'Connection: TE'))
    expect([gunzipSync(response.body).toString(), response.trailers]).toEqual(['hello', ['X-Sum', '1']])
  })

  const encoders: readonly (readonly [Coding, () => Transform])[] = [
    ['gzip', (): Transform => createGzip({ flush: constants.Z_SYNC_FLUSH })],
    ['br', (): Transform => createBrotliCompress({ flush: constants.BROTLI_OPERATION_FLUSH })],
    ['zstd', (): Transform => createZstdCompress({ flush: constants.ZSTD_e_flush })],
  ]
  it.each(encoders.filter(([coding]) => coding !== 'zstd' || zstdNoticesCuts))(
    'an event stream that comes in %s is decoded as it comes',
    async (coding, make) => {
      await using hand = await byHand('text/event-stream', { 'Content-Encoding': coding })
      await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [decompress()] }, { transport })
      const encoder = make()
      const asked = client(proxy.port, 'identity')
      encoder.pipe(await hand.response)
      encoder.write('data: 0\n\n')
      const reader = await asked
      await reader.sees('data: 0\n\n')
      expect(reader.head.headers['content-encoding']).toBeUndefined()
      for (let i = 1; i < 10; i++) {
        encoder.write(`data: ${i}\n\n`)
        await reader.sees(`data: ${i}\n\n`)
      }
      encoder.destroy()
    },
  )

  it('a client that leaves, or an upstream that does, takes every decoder with it', async () => {
    const coded = brotliCompressSync(gzipSync(randomBytes(300_000)))
    for (const leave of ['client', 'upstream']) {
      await using hand = await byHand('text/plain', { 'Content-Encoding': 'gzip, br', 'Content-Length': String(coded.length) })
      const stage = decompress()
      await using proxy = await startProxy({ upstreams: [hand.upstream.url], use: [stage], retry: false, health: [] }, { transport })
      const streams = zlibStreams()
      await using connection = await rawConnect(proxy.port)
      void connection.write(get())
      const response = await hand.response
      response.write(coded.subarray(0, coded.length - 1000))
      await connection.sees('\r\n\r\n')
      expect([streams.made(), streams.open(), stage.stats().active]).toEqual([2, 2, 1])
      if (leave === 'client') connection.reset()
      else {
        response.socket?.resetAndDestroy()
        expect(await connection.readResponse()).toMatchObject({ complete: false })
      }
      await until('every decoder is closed', () => streams.open() === 0)
      expect((await proxy.outcome()).reason).toBe(leave === 'client' ? 'ERR_CLIENT_ABORTED' : 'ERR_UPSTREAM_BODY')
      expect(stage.stats().active).toBe(0)
    }
  })
})

describe('a response too many', () => {
  it('goes out as it is, until one of the others has ended', async () => {
    await using hand = await byHand('text/html')
    const stage = steady({ maxActive: 1 })
    await using other = await testUpstream({ '*': { headers: { 'Content-Type': 'text/plain' }, body: text } })
    const use: StageLike[] = [stage]
    await using busy = await startProxy({ upstreams: [hand.upstream.url], use })
    await using proxy = await startProxy({ upstreams: [other.url], use })
    const coding = async (): Promise<string | undefined> =>
      (await rawRequest(proxy.port, get('/', 'Accept-Encoding: gzip'))).header('content-encoding')
    expect(await coding()).toBe('gzip')
    const asked = client(busy.port, 'gzip')
    ;(await hand.response).write('a')
    const reader = await asked
    expect(reader.head.headers['content-encoding']).toBe('gzip')
    expect(await coding()).toBeUndefined()
    ;(await hand.response).end()
    await until('the stream has ended', () => stage.stats().active === 0)
    expect(await coding()).toBe('gzip')
    expect(stage.stats()).toMatchObject({ compressed: { gzip: 3 }, skipped: { busy: 1 } })
  })
})

describe('what another stage does with the response', () => {
  const outer: readonly (readonly [what: string, hooks: Hooks, status: number, body: string])[] = [
    ['refuses it', { onResponse: (response) => response.replace({ status: 403, body: 'no' }) }, 403, 'no'],
    [
      'throws',
      {
        onResponse: () => {
          throw new Error('no')
        },
      },
      500,
      '',
    ],
    [
      'spoils its head, and answers with another one',
      {
        onResponse: (response) => {
          if (response.upstream !== undefined) response.status = 1000
        },
        onError: () => ({ status: 200, body: text }),
      },
      200,
      text,
    ],
  ]
  it.each(outer)('leaves no encoder behind: it %s', async (_what, hooks, status, body) => {
    const streams = zlibStreams()
    const stage = steady()
    await using upstream = await testUpstream({ '*': { headers: { 'Content-Type': 'text/plain' }, body: text } })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [() => hooks, stage] })
    const response = await rawRequest(proxy.port, get('/', 'Accept-Encoding: gzip'))
    const got = response.header('content-encoding') === undefined ? response.body : gunzipSync(response.body)
    expect(response.status).toBe(status)
    if (body !== '') expect(got.toString()).toBe(body)
    await until('every encoder is closed', () => streams.open() === 0)
    expect([streams.made() > 0, stage.stats().active]).toEqual([true, 0])
  })
})

describe('a WebSocket', () => {
  it('passes as it is', async () => {
    await using upstream = await wsUpstream()
    const stage = steady({ minSize: 0 })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage, decompress()] })
    await using socket = await wsConnect(proxy.port, { headers: ['Accept-Encoding', 'gzip'] })
    void socket.send(text)
    expect(String((await socket.next()).data)).toBe(text)
    expect(stage.stats()).toMatchObject({ compressed: { gzip: 0 }, skipped: {} })
  })
})
