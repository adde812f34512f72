import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { certificates } from './certificates.ts'
import { rawConnect, rawRequest } from './raw-client.ts'
import { rawUpstream } from './raw-upstream.ts'

const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

describe('rawRequest', () => {
  it('reads a response as it is on the wire: case, order, duplicates, latin1 bytes', async () => {
    await using upstream = await rawUpstream(
      'HTTP/1.1 404 Nicht da \xe9\r\nX-B: 1\r\nx-a:  two \r\nX-b: \xfc\r\nContent-Length: 2\r\n\r\nhi',
    )
    const response = await rawRequest(upstream.port, get)
    expect(response.line).toBe('HTTP/1.1 404 Nicht da \xe9')
    expect(response).toMatchObject({ status: 404, reason: 'Nicht da \xe9', version: '1.1', framing: 'length', complete: true })
    expect(response.fields).toEqual(['X-B: 1', 'x-a:  two ', 'X-b: \xfc', 'Content-Length: 2'])
    expect(response.headers).toEqual(['X-B', '1', 'x-a', 'two', 'X-b', '\xfc', 'Content-Length', '2'])
    expect(response.all('x-b')).toEqual(['1', '\xfc'])
    expect(response.header('X-B')).toBe('1, \xfc')
    expect(response.header('none')).toBeUndefined()
    expect(response.text()).toBe('hi')
    expect(response.ending).toBe('open')
  })

  it('sends the bytes unchanged', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readThrough('\r\n\r\n')
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    })
    await rawRequest(upstream.port, 'GARBAGE \xff\n weird\r\n\r\n')
    expect(upstream.connections[0]?.received.toString('latin1')).toBe('GARBAGE \xff\n weird\r\n\r\n')
  })

  it('reads a chunked body with extensions and trailers, split anywhere', async () => {
    const bytes =
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n, a world!\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n'
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      for (const byte of bytes) await connection.send(byte)
    })
    const response = await rawRequest(upstream.port, get)
    expect(response.text()).toBe('hello, a world!')
    expect(response).toMatchObject({ framing: 'chunked', complete: true, trailers: ['X-Sum', '1', 'x-sum', '2'] })
    expect(response.raw.toString('latin1')).toBe(bytes)
  })

  it('collects interim responses and leaves what follows unread', async () => {
    await using upstream = await rawUpstream(
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nextra',
    )
    await using connection = await rawConnect(upstream.port)
    void connection.write(get)
    const response = await connection.readResponse()
    expect(response.interims.map(({ status, headers }) => ({ status, headers }))).toEqual([
      { status: 100, headers: [] },
      { status: 103, headers: ['Link', '<a>'] },
    ])
    expect(response).toMatchObject({ status: 204, framing: 'none', complete: true })
    expect((await connection.readBytes(5)).toString()).toBe('extra')
  })

  it('knows from the bytes that HEAD has no body, and a 101 too', async () => {
    await using upstream = await rawUpstream('HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n')
    expect(await rawRequest(upstream.port, 'HEAD / HTTP/1.1\r\nHost: a\r\n\r\n')).toMatchObject({ framing: 'none', complete: true })
    await using switching = await rawUpstream('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst')
    await using connection = await rawConnect(switching.port)
    void connection.write(get)
    expect(await connection.readResponse()).toMatchObject({ status: 101, framing: 'none' })
    expect((await connection.readBytes(5)).toString()).toBe('first')
  })

  it.each([
    ['fin', 'HTTP/1.1 200 OK\r\n\r\nall of it', 'close', true],
    ['reset', 'HTTP/1.1 200 OK\r\n\r\nsome of it', 'close', false],
    ['fin', 'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nsome of it', 'length', false],
    ['reset', 'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nsome of it', 'length', false],
    ['fin', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', 'chunked', false],
    ['reset', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nhello', 'chunked', false],
    ['fin', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\r\n', 'chunked', false],
  ] as const)('tells a body that ended by %s from one that was whole: %j', async (ending, bytes, framing, complete) => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(bytes)
      // A reset discards what the client has not read yet: wait until it says that it has.
      if (ending === 'reset') await connection.readBytes(1)
      if (ending === 'reset') connection.reset()
      else connection.end()
    })
    await using connection = await rawConnect(upstream.port)
    void connection.write(get)
    const response = connection.readResponse()
    if (ending === 'reset') {
      await connection.sees(bytes)
      void connection.write('!')
    }
    expect(await response).toMatchObject({ framing, complete, ending })
    expect(connection.received.toString('latin1')).toBe(bytes)
  })

  it('with until close, shows whatever else came and how the connection ended', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 Smuggled\r\nContent-Length: 0\r\n\r\n')
      connection.end()
    })
    const response = await rawRequest(upstream.port, get, { until: 'close' })
    expect(response.ending).toBe('fin')
    expect(response.raw.toString()).toContain('Smuggled')
  })

  it.each([
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\nX: y\r\n\r\nx',
    'HTTP/1.1 200 OK\r\nName : y\r\n\r\nx',
    'HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\nx',
    'HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n',
    'HTTP 200\r\n\r\n',
  ])('forgives nothing: %j', async (bytes) => {
    await using upstream = await rawUpstream(bytes)
    await expect(rawRequest(upstream.port, get)).rejects.toMatchObject({ name: 'WireError', reason: 'malformed' })
  })

  it('gives up at the deadline and shows what came until then', async () => {
    await using upstream = await rawUpstream('HTTP/1.1 200 OK\r\nX-Half:')
    const error = await rawRequest(upstream.port, get, { deadline: 100 }).catch((e: unknown) => e)
    expect(error).toMatchObject({ reason: 'deadline', ending: 'open' })
    expect(String((error as { received: Buffer }).received)).toBe('HTTP/1.1 200 OK\r\nX-Half:')
  })

  it('says that the connection ended when no head will come', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      connection.reset()
    })
    await expect(rawRequest(upstream.port, get)).rejects.toMatchObject({ reason: 'ended', ending: 'reset' })
  })
})

describe('rawConnect', () => {
  it('reset is seen as a reset, end as an orderly close that can still be answered', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      if (connection.number === 2) {
        await connection.closed
        await connection.send('bye')
      }
    })
    const first = await rawConnect(upstream.port)
    const accepted = await upstream.connection(1)
    first.reset()
    expect(await accepted.closed).toBe('reset')
    await using second = await rawConnect(upstream.port)
    second.end()
    expect(await (await upstream.connection(2)).closed).toBe('fin')
    expect((await second.readToEnd()).toString()).toBe('bye')
  })

  it('paused, it makes the sender wait; resumed, it gets everything', async () => {
    const total = 64 * 1024 * 1024
    await using upstream = await rawUpstream(async (connection) => {
      const chunk = Buffer.alloc(64 * 1024, 'x')
      await connection.readBytes(1)
      for (let sent = 0; sent < total; sent += chunk.length) await connection.send(chunk)
      connection.end()
    })
    await using connection = await rawConnect(upstream.port)
    connection.pause()
    void connection.write('!')
    const peer = await upstream.connection(1)
    await expect.poll(() => peer.sent).toBeGreaterThan(0)
    expect(peer.sent).toBeLessThan(total)
    connection.resume()
    expect((await connection.readToEnd()).length).toBe(total)
  })

  it.each([
    [{ ca: certificates().ca }, 'hello'],
    [{ verify: false }, 'hello'],
  ])('speaks TLS: %#', async (tls, expected) => {
    await using upstream = await rawUpstream(`HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello`, { tls: certificates().localhost })
    expect((await rawRequest(upstream.port, get, { tls })).text()).toBe(expected)
    expect(upstream.connections[0]?.servername).toBe('localhost')
  })

  it('refuses a certificate that it cannot verify', async () => {
    await using upstream = await rawUpstream('', { tls: certificates().localhost })
    await expect(rawConnect(upstream.port, { tls: true })).rejects.toMatchObject({ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' })
    await using wrong = await rawUpstream('', { tls: certificates().wrongName })
    await expect(rawConnect(wrong.port, { tls: { ca: certificates().ca } })).rejects.toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  })

  it('resets a TLS connection too', async () => {
    await using upstream = await rawUpstream('HTTP/1.1 204 No Content\r\n\r\n', { tls: certificates().localhost })
    const connection = await rawConnect(upstream.port, { tls: { ca: certificates().ca } })
    const peer = await upstream.connection(1)
    // One round trip first: a reset inside the handshake is reported as its failure.
    void connection.write(get)
    await connection.readResponse()
    connection.reset()
    expect(await peer.closed).toBe('reset')
  })

  it('agrees with node:http about a real server', async () => {
    const server = createServer((_req, res) => res.writeHead(201, { 'X-One': '1' }).end('made'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const response = await rawRequest((server.address() as AddressInfo).port, get)
      expect(response).toMatchObject({ status: 201, reason: 'Created', framing: 'chunked', complete: true })
      expect(response.text()).toBe('made')
    } finally {
      server.closeAllConnections()
      server.close()
    }
  })
})
