/**
 * What frames a message is the proxy's: a stage that is wrong about a body's length must not make a client read one answer as two, nor an upstream one request.
 * Each case is followed by a second one on the same connection, which shows whether the first one ended where it said.
 */
import { PassThrough, Readable } from 'node:stream'
import type { HeaderList, ProxyResponse, Reply, StageLike } from '@weir/core'
import { type RawUpstream, rawConnect, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { head } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'

const body = 'a body of 21 octets..'

function upstreamOf(framing: string): Promise<RawUpstream> {
  return rawUpstream(async (connection) => {
    for (;;) {
      const { method } = await connection.readRequest()
      const bytes = framing.startsWith('Transfer') ? `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n` : body
      await connection.send(`HTTP/1.1 200 OK\r\nETag: "v"\r\n${framing}\r\n\r\n${method === 'HEAD' ? '' : bytes}`)
    }
  })
}
const sized = `Content-Length: ${body.length}`
const chunked = 'Transfer-Encoding: chunked'

/** For the first request of a connection, and not for the one behind it. */
const first = (edit: (response: ProxyResponse) => void): StageLike => ({
  name: 'first',
  handle: ({ url }) => (url === '/next' ? undefined : { onResponse: (response) => edit(response) }),
})
const answering = (make: () => Reply): StageLike => ({ name: 'answering', handle: ({ url }) => (url === '/next' ? undefined : make()) })
const upper = (): PassThrough => {
  const stream = new PassThrough()
  stream._transform = (chunk: Buffer, _encoding, done) => done(null, `${chunk.toString().toUpperCase()}!`)
  return stream
}

const edits: readonly (readonly [name: string, framing: string, edit: (response: ProxyResponse) => void, expected: string])[] = [
  ['a length that is too small', sized, ({ headers }) => headers.set('Content-Length', '3'), body],
  ['a length that is too great', sized, ({ headers }) => headers.set('content-length', '300'), body],
  ['a second length', sized, ({ headers }) => headers.append('Content-Length', '3'), body],
  ['a length that is no number', sized, ({ headers }) => headers.set('Content-Length', 'all of it'), body],
  ['no length', sized, ({ headers }) => void headers.delete('content-length'), body],
  ['a length of a body that has none', chunked, ({ headers }) => headers.set('Content-Length', '3'), body],
  ['Transfer-Encoding', sized, ({ headers }) => headers.set('Transfer-Encoding', 'gzip, chunked'), body],
  [
    'the length of what it changes',
    sized,
    (response) => {
      response.transform(upper())
      response.headers.set('Content-Length', '3')
    },
    `${body.toUpperCase()}!`,
  ],
  [
    'a length, with a tap',
    sized,
    (response) => {
      response.tap({})
      response.headers.set('Content-Length', '3')
    },
    body,
  ],
  [
    'a status that has no body',
    sized,
    (response) => {
      response.status = 204
    },
    '',
  ],
  [
    'not modified',
    chunked,
    (response) => {
      response.status = 304
    },
    '',
  ],
  [
    'a replacement’s length',
    sized,
    (response) => response.replace({ status: 200, fields: ['Content-Length', '3'], body: 'other' }),
    'other',
  ],
]

const replies: readonly (readonly [name: string, reply: () => Reply, expected: string | 'broken'])[] = [
  ['two lengths', () => ({ status: 200, fields: ['Content-Length', '5', 'Content-Length', '3'], body: 'other' }), 'other'],
  ['a length of no number', () => ({ status: 200, fields: ['Content-Length', 'five'], body: 'other' }), 'other'],
  ['a stream as long as it says', () => ({ status: 200, fields: ['Content-Length', '5'], body: Readable.from(['ot', 'her']) }), 'other'],
  [
    'a stream of bytes that are no Buffer',
    () => ({ status: 200, fields: ['Content-Length', '2'], body: Readable.from([new Uint8Array([111, 107])]) }),
    'ok',
  ],
  [
    'a stream with two lengths',
    () => ({ status: 200, fields: ['Content-Length', '9', 'Content-Length', '5'], body: Readable.from(['other']) }),
    'other',
  ],
  [
    'a stream with a length of no number',
    () => ({ status: 200, fields: ['Content-Length', '-5'], body: Readable.from(['other']) }),
    'other',
  ],
  [
    'a stream that is longer than it says',
    () => ({ status: 200, fields: ['Content-Length', '4'], body: Readable.from(['other']) }),
    'broken',
  ],
  [
    'one that goes on behind its end',
    () => ({ status: 200, fields: ['Content-Length', '5'], body: Readable.from(['other', '!']) }),
    'broken',
  ],
  [
    'a stream that is shorter than it says',
    () => ({ status: 200, fields: ['Content-Length', '6'], body: Readable.from(['other']) }),
    'broken',
  ],
  ['a stream of what are no bytes', () => ({ status: 200, body: Readable.from([{ a: 1 }]) }), 'broken'],
]

describe('A hook that sets', () => {
  it.each(edits)('%s: HTTP/1.1', async (_name, framing, edit, expected) => {
    await using upstream = await upstreamOf(framing)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [first(edit)] })
    await using client = await rawConnect(proxy.port)
    await client.write(head('GET', '/') + head('GET', '/next'))
    const answer = await client.readResponse()
    expect(answer.text()).toBe(expected)
    expect(answer.all('content-length').length + answer.all('transfer-encoding').length).toBe(answer.status >= 204 ? 0 : 1)
    expect((await client.readResponse()).text()).toBe(body)
    expect(client.unread).toHaveLength(0)
    expect(proxy.outcomes.map(({ reason }) => reason)).toEqual(['completed', 'completed'])
  })

  it.each(edits)('%s: HTTP/2', async (_name, framing, edit, expected) => {
    await using upstream = await upstreamOf(framing)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [first(edit)] }, { http2: true })
    await using client = await h2Client(proxy.port)
    const answer = await client.request({ ':path': '/' })
    expect([answer.body.toString(), answer.reset]).toEqual([expected, 0])
    expect(answer.all('content-length')).toEqual(
      framing === chunked || expected === '' || expected.endsWith('!') ? [] : [String(expected.length)],
    )
    expect((await client.request({ ':path': '/next' })).body.toString()).toBe(body)
    await until('both have ended', () => proxy.outcomes.length === 2)
    expect(proxy.outcomes.map(({ reason }) => reason)).toEqual(['completed', 'completed'])
  })

  it('the length of HEAD: it is what a GET would have, or nothing', async () => {
    await using upstream = await upstreamOf(sized)
    for (const [value, told] of [
      ['7', ['7']],
      ['all of it', []],
    ] as const) {
      await using proxy = await startProxy({
        upstreams: [upstream.url],
        use: [first(({ headers }) => headers.set('Content-Length', value))],
      })
      await using client = await rawConnect(proxy.port)
      await client.write(head('HEAD', '/') + head('GET', '/next'))
      expect((await client.readResponse({ method: 'HEAD' })).all('content-length')).toEqual(told)
      expect((await client.readResponse()).text()).toBe(body)
    }
  })
})

describe('A reply with', () => {
  it.each(replies)('%s: HTTP/1.1', async (_name, make, expected) => {
    await using upstream = await upstreamOf(sized)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [answering(make)] })
    await using client = await rawConnect(proxy.port)
    await client.write(head('GET', '/') + head('GET', '/next'))
    if (expected === 'broken') {
      expect(await client.closed).not.toBe('open')
      expect(client.unread.toString()).not.toContain(body)
      expect((await proxy.outcome()).reason).toBe('ERR_STAGE')
    } else {
      const answer = await client.readResponse()
      expect(answer.text()).toBe(expected)
      expect(answer.all('content-length').length + answer.all('transfer-encoding').length).toBe(1)
      expect((await client.readResponse()).text()).toBe(body)
    }
    await until('the end', () => proxy.proxy.stats().inflight === 0)
  })

  it.each(replies)('%s: HTTP/2', async (_name, make, expected) => {
    await using upstream = await upstreamOf(sized)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [answering(make)] }, { http2: true })
    await using client = await h2Client(proxy.port)
    if (expected === 'broken') {
      const { stream, answer } = client.open({ ':path': '/' })
      stream.end()
      expect((await answer).reset).not.toBe(0)
      expect((await proxy.outcome()).reason).toBe('ERR_STAGE')
    } else expect((await client.request({ ':path': '/' })).body.toString()).toBe(expected)
    expect((await client.request({ ':path': '/next' })).body.toString()).toBe(body)
  })
})

const requestEdits: readonly (readonly [name: string, edit: (headers: HeaderList) => void])[] = [
  ['a length that is too small', (headers) => headers.set('Content-Length', '3')],
  ['a length that is too great', (headers) => headers.set('content-length', '300')],
  ['a second length', (headers) => headers.append('Content-Length', '3')],
  ['no length', (headers) => headers.delete('content-length')],
  ['Transfer-Encoding', (headers) => headers.set('Transfer-Encoding', 'chunked')],
  ['Upgrade', (headers) => headers.set('Connection', 'Upgrade').set('Upgrade', 'h2c')],
  ['Expect', (headers) => headers.set('Expect', '100-continue')],
]

describe.each(transports)('A request over %s that a stage gives', (_name, transport) => {
  const moments: readonly (readonly [name: string, stage: (edit: (headers: HeaderList) => void) => StageLike])[] = [
    ['before it is sent', (edit) => (exchange) => void edit(exchange.headers)],
    ['for each try', (edit) => () => ({ onAttempt: (headers) => void edit(headers) })],
  ]
  const cases = requestEdits.flatMap(([name, edit]) => moments.map(([moment, stage]) => [name, moment, stage(edit)] as const))

  it.each(cases)('%s, %s', async (_edit, _moment, stage) => {
    await using upstream = await rawUpstream(async (connection) => {
      for (;;) {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      }
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    await using client = await rawConnect(proxy.port)
    const post = `${head('POST', '/', `Content-Length: ${body.length}`)}${body}`
    for (const request of [post, head('GET', '/'), post]) {
      await client.write(request)
      expect((await client.readResponse()).text()).toBe('ok')
    }
    expect(upstream.connections).toHaveLength(1)
    expect(upstream.requests.map(({ method, body: sent }) => [method, sent.toString()])).toEqual([
      ['POST', body],
      ['GET', ''],
      ['POST', body],
    ])
    for (const request of upstream.requests) {
      expect(request.all('content-length')).toEqual(request.method === 'POST' ? [String(body.length)] : [])
      for (const name of ['transfer-encoding', 'upgrade', 'expect']) expect(request.all(name)).toEqual([])
    }
  })

  it('the end of its connection: that is heard', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      await connection.stall()
    })
    const closing: StageLike = () => ({ onAttempt: (headers) => void headers.set('Connection', 'close, x-a') })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [closing] }, { transport })
    await using client = await rawConnect(proxy.port)
    for (let i = 0; i < 2; i++) {
      await client.write(head('GET', '/'))
      expect((await client.readResponse()).text()).toBe('ok')
    }
    expect(upstream.requests.map((request) => request.header('connection'))).toEqual(['close', 'close'])
    expect(upstream.connections).toHaveLength(2)
  })
})
