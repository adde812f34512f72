/** Transforms of a request's body on real sockets: framing, trailers, 100-continue, retries, back-pressure, and every way in which an upload can end. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough, Transform } from 'node:stream'
import type { StageHandler } from '@weir/core'
import { rawConnect, rawRequest, rawUpstream, refusedPort, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { head } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'
import { atRest, okUpstream } from './setup.ts'

/** A stage that passes bodies through streams like these, and the streams it has made. */
function through(...make: readonly (() => Transform)[]): { readonly stage: StageHandler; readonly streams: Transform[] } {
  const streams: Transform[] = []
  const stage: StageHandler = (exchange) => {
    for (const one of make) {
      const stream = one()
      streams.push(stream)
      exchange.transformRequest(stream)
    }
  }
  return { stage, streams }
}

const upper = (): Transform =>
  new Transform({ transform: (chunk: Buffer, _encoding, done) => done(null, chunk.toString('latin1').toUpperCase()) })
const twice = (): Transform => new Transform({ transform: (chunk: Buffer, _encoding, done) => done(null, Buffer.concat([chunk, chunk])) })
const same = (): Transform => new PassThrough()

describe.each(transports)('over %s', (_name, transport) => {
  it('a body arrives changed and chunked, on a connection that is kept', async () => {
    await using upstream = await okUpstream()
    const { stage, streams } = through(upper, twice)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    await using client = await rawConnect(proxy.port)
    for (let i = 0; i < 3; i++) {
      void client.write(`${head('POST', '/', 'Content-Length: 5')}hello`)
      expect((await client.readResponse()).status).toBe(200)
      void client.write(`${head('POST', '/', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
      void client.write(head('GET', '/'))
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => [request.method, request.text(), request.all('content-length')])).toEqual(
      Array.from({ length: 3 }, () => [
        ['POST', 'HELLOHELLO', []],
        ['POST', 'HELLOHELLO', []],
        ['GET', '', []],
      ]).flat(),
    )
    await until('all streams are closed', () => streams.every(({ closed }) => closed))
    expect(streams).toHaveLength(18)
  })

  it('an HTTP/2 body arrives changed, too', async () => {
    await using upstream = await okUpstream()
    const { stage, streams } = through(upper)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    const body = 'hello '.repeat(50_000)
    for (const fields of [{}, { 'content-length': String(body.length) }]) {
      const response = await client.request({ ':method': 'POST', ...fields }, body)
      expect([response.status, response.reset]).toEqual([200, 0])
    }
    expect(upstream.requests.map((request) => request.text() === body.toUpperCase())).toEqual([true, true])
    await until('all streams are closed', () => streams.every(({ closed }) => closed))
  })

  it('trailers come behind it', async () => {
    await using upstream = await okUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [through(upper).stage] }, { transport })
    const bytes = `${head('POST', '/', 'Transfer-Encoding: chunked', 'Trailer: X-Sum')}5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n`
    expect((await rawRequest(proxy.port, bytes)).status).toBe(200)
    expect([upstream.requests[0]?.text(), upstream.requests[0]?.trailers]).toEqual(['HELLO', ['X-Sum', '1']])
  })

  it('a client that waits for its 100 gets it, once', async () => {
    await using dead = await refusedPort()
    await using upstream = await okUpstream()
    await using proxy = await startProxy(
      { upstreams: [dead.url, { url: upstream.url, backup: true }], use: [through(upper).stage], retry: { attempts: 2 } },
      { transport },
    )
    await using client = await rawConnect(proxy.port)
    void client.write(head('POST', '/', 'Content-Length: 5', 'Expect: 100-continue'))
    expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void client.write('hello')
    const response = await client.readResponse()
    expect([response.status, response.interims, upstream.requests.map((request) => request.text())]).toEqual([200, [], ['HELLO']])
  })

  it('a body that is sent again, after it has been read or with nobody there to read it, passes once', async () => {
    await using dead = await refusedPort()
    await using bad = await testUpstream({ '*': (req, _res, wire) => void req.on('end', () => wire.reset()).resume() })
    await using good = await okUpstream()
    const body = 'x'.repeat(20_000)
    for (const first of [dead, bad]) {
      let given = 0
      const count = (): Transform =>
        new Transform({
          transform: (chunk: Buffer, _encoding, done) => {
            given += chunk.length
            done(null, Buffer.concat([chunk, chunk]))
          },
        })
      await using proxy = await startProxy(
        { upstreams: [first.url, { url: good.url, backup: true }], health: [], use: [through(count).stage], retry: { attempts: 2 } },
        { transport },
      )
      const { status } = await rawRequest(proxy.port, `${head('PUT', '/', `Content-Length: ${body.length}`)}${body}`)
      expect([status, given]).toEqual([200, body.length])
      expect((await proxy.outcome()).attempts).toHaveLength(2)
    }
    expect(good.requests.map((request) => request.text() === body + body)).toEqual([true, true])
  })

  it('a slow upstream slows the client down, and gets every byte in the end', async () => {
    let taken = 0
    let req: IncomingMessage | undefined
    const upstream = createServer((request, res) => {
      req = request
      request.on('end', () => res.end('ok'))
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    try {
      let through_ = 0
      const count = (): Transform =>
        new Transform({
          transform: (chunk: Buffer, _encoding, done) => {
            through_ += chunk.length
            done(null, chunk)
          },
        })
      await using proxy = await startProxy(
        { upstreams: [`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`], use: [through(count, same).stage] },
        { transport },
      )
      await using client = await rawConnect(proxy.port, { deadline: 15_000 })
      const total = 48 * 1024 ** 2
      void client.write(head('PUT', '/', `Content-Length: ${total}`))
      void client.write(Buffer.alloc(total, 'x'))
      await until('the upstream has the head', () => req)
      // What rests in the kernel is some megabytes on each connection.
      expect(await atRest(() => through_)).toBeLessThan(total / 2)
      req?.on('data', (chunk: Buffer) => {
        taken += chunk.length
      })
      expect((await client.readResponse()).status).toBe(200)
      expect([through_, taken]).toEqual([total, total])
    } finally {
      upstream.closeAllConnections()
      upstream.close()
    }
  })

  it('an upstream that answers without waiting for the body is heard, and the streams go', async () => {
    for (const http2 of [false, true]) {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readHead()
        await connection.send('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno')
      })
      const { stage, streams } = through(upper)
      await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, http2 })
      if (http2) {
        await using client = await h2Client(proxy.port)
        const { stream, answer } = client.open({ ':method': 'POST' })
        stream.write('some of it')
        expect((await answer).status).toBe(403)
      } else {
        await using client = await rawConnect(proxy.port)
        void client.write(`${head('POST', '/', 'Content-Length: 100000')}some of it`)
        expect((await client.readResponse()).status).toBe(403)
      }
      expect((await proxy.outcome()).reason).toBe('completed')
      await until('the streams are closed', () => streams.length === 1 && streams[0]?.closed)
    }
  })

  it('a client that leaves midway, by either protocol, takes the streams and the upstream with it', async () => {
    for (const http2 of [false, true]) {
      await using upstream = await testUpstream({ '*': (req) => void req.resume() })
      const { stage, streams } = through(upper, same)
      await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, http2 })
      if (http2) {
        await using client = await h2Client(proxy.port)
        const { stream } = client.open({ ':method': 'POST' })
        stream.write('some of it')
        await upstream.until(({ active }) => active === 1)
        stream.close(8)
        await proxy.outcome()
      } else {
        await using client = await rawConnect(proxy.port)
        void client.write(`${head('POST', '/', 'Content-Length: 100000')}some of it`)
        await upstream.until(({ active }) => active === 1)
        client.reset()
        await proxy.outcome()
      }
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
      await until('the streams are closed', () => streams.length === 2 && streams.every(({ closed }) => closed))
      await upstream.until(({ active }) => active === 0)
    }
  })

  it('a stream that fails midway ends the exchange, and the next request on that connection works', async () => {
    await using upstream = await testUpstream()
    let wrong = true
    const picky = (): Transform =>
      new Transform({
        transform: (chunk: Buffer, _encoding, done) => done(wrong && chunk.includes('bad') ? new Error('bad') : null, chunk),
      })
    const { stage, streams } = through(picky)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage], retry: { attempts: 3 } }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(`${head('PUT', '/', 'Content-Length: 20000')}good`)
    await upstream.until(({ active }) => active === 1)
    void client.write('bad')
    expect((await client.readResponse()).status).toBe(500)
    const outcome = await proxy.outcome()
    expect([outcome.reason, outcome.attempts.length]).toEqual(['ERR_STAGE', 1])
    wrong = false
    void client.write('x'.repeat(20_000 - 7))
    void client.write(`${head('PUT', '/', 'Content-Length: 3')}bad`)
    expect((await client.readResponse()).text()).toContain('bad')
    await until('the streams are closed', () => streams.length === 2 && streams.every(({ closed }) => closed))
    await upstream.until(({ active }) => active === 0)
  })

  it('a body over the limit of the route is a 413, on whichever side of the stream', async () => {
    await using upstream = await testUpstream({ '*': (req) => void req.resume() })
    const { stage, streams } = through(twice)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage], maxBodySize: 1000 }, { transport })
    for (const size of [501, 1001]) {
      const bytes = `${head('POST', '/', 'Transfer-Encoding: chunked')}${size.toString(16)}\r\n${'x'.repeat(size)}\r\n0\r\n\r\n`
      expect((await rawRequest(proxy.port, bytes)).status).toBe(413)
    }
    expect(proxy.outcomes.map(({ reason }) => reason)).toEqual(['ERR_BODY_TOO_LARGE', 'ERR_BODY_TOO_LARGE'])
    await until('the streams are closed', () => streams.length === 2 && streams.every(({ closed }) => closed))
  })

  it('a body that a middleware in front has read passes the streams, too', async () => {
    await using upstream = await okUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [through(upper, twice).stage] }, { transport })
    const [listener] = proxy.server.listeners('request') as [(req: IncomingMessage, res: ServerResponse) => void]
    proxy.server.removeAllListeners('request')
    proxy.server.on('request', (req: IncomingMessage & { rawBody?: Buffer }, res: ServerResponse) => {
      const chunks: Buffer[] = []
      req.on('data', (chunk: Buffer) => chunks.push(chunk))
      req.on('end', () => {
        req.rawBody = Buffer.concat(chunks)
        listener(req, res)
      })
    })
    expect((await rawRequest(proxy.port, `${head('PUT', '/', 'Content-Length: 4')}body`)).status).toBe(200)
    expect(upstream.requests.map((request) => request.text())).toEqual(['BODYBODY'])
  })
})
