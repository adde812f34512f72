/**
 * E5. Where a body ends must not be a matter of opinion. Whatever two servers could frame in two ways is refused, the connection is closed (its
 * next byte has no meaning any more), and the upstream never hears of it.
 */
import { type RawUpstream, rawConnect, rawRequest } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, type RunningProxy, startProxy, transports, until } from './setup.ts'

/** A body that is a request: if any reading of the framing leaves it over, it becomes one. */
const smuggled = 'GET /admin HTTP/1.1\r\nHost: public.test\r\n\r\n'

const post = (...fields: string[]): string =>
  `POST /first HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}\r\n`

async function expectRefused(running: RunningProxy, upstream: RawUpstream, bytes: string, status = 400): Promise<void> {
  const response = await rawRequest(running.port, bytes, { until: 'close' })
  expect(response.status).toBe(status)
  // One answer and no more: nothing behind the head was taken for another request.
  expect(response.raw.toString('latin1').match(/HTTP\/1\.1 /g)).toHaveLength(1)
  expect(['fin', 'reset']).toContain(response.ending)
  expect(upstream.connections).toEqual([])
}

describe('E5: A request whose framing is ambiguous', () => {
  it.each<[what: string, fields: string[]]>([
    ['Content-Length, then Transfer-Encoding', ['Content-Length: 4', 'Transfer-Encoding: chunked']],
    ['Transfer-Encoding, then Content-Length', ['Transfer-Encoding: chunked', 'Content-Length: 4']],
    ['both, with a length of 0', ['Content-Length: 0', 'Transfer-Encoding: chunked']],
    ['both, with the length of the chunked body', ['Content-Length: 11', 'Transfer-Encoding: chunked']],
    ['both, in odd case', ['cOnTeNt-LeNgTh: 4', 'tRaNsFeR-eNcOdInG: ChUnKeD']],
    ['both, with other fields between', ['Content-Length: 4', 'X-A: 1', 'X-B: 2', 'Transfer-Encoding: chunked']],
    ['two lengths that differ', ['Content-Length: 4', 'Content-Length: 5']],
    ['two lengths that agree', ['Content-Length: 4', 'Content-Length: 4']],
    ['two lengths, of which one is 0', ['Content-Length: 0', 'Content-Length: 44']],
    ['a list of lengths that differ', ['Content-Length: 4, 5']],
    ['a list of lengths that agree', ['Content-Length: 4, 4']],
    ['a signed length', ['Content-Length: +4']],
    ['a negative length', ['Content-Length: -4']],
    ['a hexadecimal length', ['Content-Length: 0x4']],
    ['an exponent', ['Content-Length: 1e1']],
    ['a fraction', ['Content-Length: 4.0']],
    ['a length with something behind it', ['Content-Length: 4 4']],
    ['a length with a letter behind it', ['Content-Length: 4a']],
    ['no length at all', ['Content-Length:']],
    ['a length beyond 2^53', ['Content-Length: 18446744073709551620']],
    ['a length beyond 2^64 that wraps to 4', ['Content-Length: 18446744073709551620']],
    ['a space before the colon', ['Transfer-Encoding : chunked']],
    ['a space before the colon of the length', ['Content-Length : 4']],
    ['a folded coding', ['Transfer-Encoding:\r\n chunked', 'Content-Length: 4']],
    ['an unknown coding and a length', ['Transfer-Encoding: xchunked', 'Content-Length: 4']],
    ['a coding behind a control octet', ['Transfer-Encoding: \x0bchunked', 'Content-Length: 4']],
    ['identity and a length', ['Transfer-Encoding: identity', 'Content-Length: 4']],
    ['a second line of coding and a length', ['Transfer-Encoding: chunked', 'Transfer-Encoding: identity', 'Content-Length: 4']],
    ['chunked that is not the last coding', ['Transfer-Encoding: chunked, gzip']],
    ['a length in a line that ends with a bare LF', ['X-A: 1\nContent-Length: 44', 'Transfer-Encoding: chunked']],
  ])('is refused with 400 and never forwarded: %s', async (_what, fields) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    await expectRefused(running, upstream, `${post(...fields)}0\r\n\r\n${smuggled}`)
  })

  it.each<[what: string, fields: string[], statuses: number[]]>([
    ['no coding is named', ['Transfer-Encoding:'], [400, 501]],
    ['a coding that is not chunked', ['Transfer-Encoding: gzip'], [400, 501]],
    ['identity', ['Transfer-Encoding: identity'], [400, 501]],
    ['a coding under chunked', ['Transfer-Encoding: gzip, chunked'], [501]],
    ['a coding under chunked, on two lines', ['Transfer-Encoding: gzip', 'Transfer-Encoding: chunked'], [501]],
    ['chunked twice', ['Transfer-Encoding: chunked, chunked'], [400, 501]],
    ['chunked on two lines', ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], [400, 501]],
    ['chunked with a parameter', ['Transfer-Encoding: chunked;q=1'], [400, 501]],
    ['quoted chunked', ['Transfer-Encoding: "chunked"'], [400, 501]],
  ])('is refused when the coding is not plain chunked, and never forwarded: %s', async (_what, fields, statuses) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, `${post(...fields)}0\r\n\r\n${smuggled}`, { until: 'close' })
    expect(statuses).toContain(response.status)
    expect(response.raw.toString('latin1').match(/HTTP\/1\.1 /g)).toHaveLength(1)
    expect(upstream.connections).toEqual([])
  })

  it('is refused with 400 and never forwarded: a transfer coding on HTTP/1.0', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const head = 'POST / HTTP/1.0\r\nHost: public.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n'
    await expectRefused(running, upstream, `${head}0\r\n\r\n${smuggled}`)
  })

  it.each(['GET', 'DELETE', 'OPTIONS', 'HEAD', 'PUT'])('is refused whatever the method: %s', async (method) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const bytes = post('Content-Length: 4', 'Transfer-Encoding: chunked').replace('POST', method)
    await using client = await rawConnect(running.port)
    void client.write(`${bytes}0\r\n\r\n${smuggled}`)
    const response = await client.readResponse({ method })
    expect(response.status).toBe(400)
    await client.closed
    expect(client.received.toString('latin1').match(/HTTP\/1\.1 /g)).toHaveLength(1)
    expect(upstream.connections).toEqual([])
  })

  it('is refused on an upgrade, too', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const bytes = `GET / HTTP/1.1\r\nHost: public.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`
    await expectRefused(running, upstream, bytes)
  })

  it.each([
    ['a chunk size that is no number', 'zz\r\nabcd\r\n0\r\n\r\n'],
    ['a chunk size with a sign', '+4\r\nabcd\r\n0\r\n\r\n'],
    ['a chunk size behind 0x', '0x4\r\nabcd\r\n0\r\n\r\n'],
    ['a chunk size beyond 2^64', '10000000000000004\r\nabcd\r\n0\r\n\r\n'],
    ['a chunk that is longer than it says', '3\r\nabcd\r\n0\r\n\r\n'],
    ['a bare LF behind a chunk size', '4\nabcd\r\n0\r\n\r\n'],
    ['a bare LF in a chunk extension', `4;a\n${smuggled}\r\nabcd\r\n0\r\n\r\n`],
  ])('never completes at the upstream when its chunks are malformed: %s', async (_what, body) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, `${post('Transfer-Encoding: chunked')}${body}${smuggled}`, { until: 'close' })
    expect(response.status).toBe(400)
    // The head may have gone on already; what must not is anything that makes it a whole request, or another one.
    await until('the upstream to be let go', () => upstream.open === 0)
    expect(upstream.requests).toEqual([])
    for (const connection of upstream.connections) expect(connection.received.toString('latin1')).not.toContain('/admin')
  })

  it.each([
    ['0.9, which has no framing', 'GET /first HTTP/0.9\r\nHost: public.test\r\n\r\n'],
    ['0.9, by a line that ends early', 'GET /first\nX-Evil: 1 HTTP/1.1\r\nHost: public.test\r\n\r\n'],
    ['2.0, which has another framing', 'GET /first HTTP/2.0\r\nHost: public.test\r\n\r\n'],
    ['1.2, which nobody knows', 'GET /first HTTP/1.2\r\nHost: public.test\r\n\r\n'],
  ])('is refused and never forwarded when it claims another version of HTTP: %s', async (_what, bytes) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    await using client = await rawConnect(running.port)
    void client.write(bytes)
    await client.closed
    expect(client.received.toString('latin1')).toMatch(/^(?:HTTP\/1\.1 (?:400|505) .*)?$/s)
    expect(upstream.connections).toEqual([])
  })

  it('is answered with a reason that names no inside', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, 'POST / HTTP/1.0\r\nHost: public.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n')
    expect(response.header('proxy-status')).toContain('http_request_error')
    expect(response.raw.toString('latin1')).not.toContain(String(upstream.port))
  })

  it('on HTTP/2 (a transfer coding, a length that is not the body) ends its stream and is never completed', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { http2: true })
    await using client = await h2Client(running.port)
    const short = client.open({ ':method': 'POST', 'content-length': '10' })
    short.stream.end('abc')
    const answer = await short.answer
    // RFC 9113 §8.1.1: a malformed request, PROTOCOL_ERROR (1); or an answer that refuses it.
    expect(answer.reset === 1 || answer.status === 400).toBe(true)
    expect((await client.request({ ':path': '/good' })).status).toBe(200)
    const long = client.open({ ':method': 'POST', 'content-length': '2' })
    long.stream.end('abc')
    const second = await long.answer
    // Node ends the whole session over this one.
    expect(second.reset !== 0 || second.status === 400).toBe(true)
    expect(upstream.requests.map(({ target }) => target)).toEqual(['/good'])
  })
})

describe.each(transports)('E5 over %s: A request whose framing is plain', (_, transport) => {
  it.each<[what: string, bytes: string, body: string]>([
    ['a length', `${post('Content-Length: 4')}abcd`, 'abcd'],
    ['a length with zeros before it', `${post('Content-Length: 0004')}abcd`, 'abcd'],
    ['a length between blanks', `${post('Content-Length: \t 4 \t')}abcd`, 'abcd'],
    ['a length of 0', post('Content-Length: 0'), ''],
    ['chunks', `${post('Transfer-Encoding: chunked')}4\r\nabcd\r\n0\r\n\r\n`, 'abcd'],
    ['chunks in odd case', `${post('transfer-encoding:  CHUNKED ')}4\r\nabcd\r\n0\r\n\r\n`, 'abcd'],
    ['chunks with extensions', `${post('Transfer-Encoding: chunked')}4;a=b;c="d"\r\nabcd\r\n0\r\n\r\n`, 'abcd'],
    ['no body', post(), ''],
  ])('is forwarded, framed once: %s', async (_what, bytes, body) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    // The upstream of the kit refuses two framing fields and anything but a plain number by itself.
    await using client = await rawConnect(running.port)
    void client.write(bytes + smuggled)
    expect((await client.readResponse()).status).toBe(200)
    expect((await client.readResponse()).status).toBe(200)
    expect(upstream.requests.map((request) => [request.target, request.text()])).toEqual([
      ['/first', body],
      ['/admin', ''],
    ])
  })
})
