/**
 * E33. One upstream's `error`, bad header, bad status or malformed chunk never throws out of the handler or affects another request (fuzzed).
 *
 * A few hundred answers that no server should give, drawn from a grammar of HTTP with mistakes in it, cut into pieces and ended in every way.
 * Three things must hold for each: the process does not notice, the client gets one well-formed message or a connection that is visibly
 * broken, and a healthy exchange that runs at the same time arrives untouched. The draw is seeded: a case that failed fails again.
 */
import { everyRequest, type RawConnection, type RawUpstream, rawConnect, rawUpstream, WireError } from '@weir/testing'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, ok, upgradeHead } from './messages.ts'
import { type ObservedProxy, startProxy, transports, until } from './observed.ts'

/** mulberry32: enough for drawing cases. */
function draw(seed: number): {
  readonly int: (below: number) => number
  readonly of: <T>(list: readonly T[]) => T
  readonly chance: (share: number) => boolean
} {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (below: number): number => Math.floor(next() * below)
  return { int, of: (list) => list[int(list.length)] as (typeof list)[number], chance: (share) => next() < share }
}

type Draw = ReturnType<typeof draw>
type End = 'fin' | 'reset' | 'silence'

interface Hostile {
  readonly bytes: Buffer
  /** Where the bytes are cut into packets. */
  readonly cuts: readonly number[]
  readonly end: End
}

const statusLines = [
  'HTTP/1.1 200 OK',
  'HTTP/1.1 200',
  'HTTP/1.1 200 ',
  'HTTP/1.0 200 OK',
  'HTTP/1.1 204 No Content',
  'HTTP/1.1 304 Not Modified',
  'HTTP/1.1 500 Oops',
  'HTTP/1.1 99 Low',
  'HTTP/1.1 000 Zero',
  'HTTP/1.1 600 High',
  'HTTP/1.1 999 Highest',
  'HTTP/1.1 1000 Long',
  'HTTP/1.1 -1 Minus',
  'HTTP/1.1 20 Short',
  'HTTP/1.1 2x0 Letters',
  'HTTP/1.1  200 OK',
  'HTTP/1.1\t200 OK',
  'HTTP/1.1 200 caf\xe9',
  'HTTP/1.1 200 \x01\x02',
  'HTTP/1.1 200 a\0b',
  'HTTP/1.1 200 a\rb',
  'HTTP/2.0 200 OK',
  'HTTP/0.9 200 OK',
  'HTTP/1.2 200 OK',
  'HTTP/11 200 OK',
  'http/1.1 200 OK',
  'ICY 200 OK',
  'RTSP/1.0 200 OK',
  '',
  ' HTTP/1.1 200 OK',
  '\r\nHTTP/1.1 200 OK',
  'HTTP/1.1 101 Switching Protocols',
  'HTTP/1.1 100 Continue',
  'HTTP/1.1 102 Processing',
  'HTTP/1.1 103 Early Hints',
  'HTTP/1.1 199 Odd',
  'HTTP/1.1 407 Proxy Authentication Required',
  'HTTP/1.1 426 Upgrade Required',
  '200 OK',
  'GET / HTTP/1.1',
  '\x16\x03\x01\x02\x00\x01',
  '<html>',
]
const fields = [
  'Content-Length: 5',
  'Content-Length: 0',
  'Content-Length: 999999',
  'Content-Length: -1',
  'Content-Length: +5',
  'Content-Length: 5, 5',
  'Content-Length: 5, 6',
  'Content-Length: 0x5',
  'Content-Length: 5 ',
  'Content-Length:',
  'Content-Length: 99999999999999999999',
  'content-length: 6',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding: chunked, gzip',
  'Transfer-Encoding: identity',
  'Transfer-Encoding: xchunked',
  'Transfer-Encoding:\x0bchunked',
  'transfer-encoding: CHUNKED',
  'Transfer-Encoding : chunked',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: Upgrade',
  'Connection: Content-Length, Transfer-Encoding',
  'Connection: \xff',
  'Upgrade: websocket',
  'Upgrade: h2c',
  'Keep-Alive: timeout=0',
  'Keep-Alive: timeout=-1',
  'Keep-Alive: timeout=99999999999',
  'Keep-Alive: \xff',
  'Trailer: Content-Length',
  'Trailer: X-Sum',
  'Date: tomorrow',
  'Location: http://[',
  'Location: \\\\evil\\',
  'Refresh: 5; url=',
  'Set-Cookie: a=\xff\xfe',
  'X-Nul: a\0b',
  'X-Cr: a\rb',
  'X-Lf: a\nb',
  'X-Bell: \x07',
  'X-Del: \x7f',
  `X-Long: ${'l'.repeat(3000)}`,
  'X Space: 1',
  ': nameless',
  'nocolon',
  ' folded: 1',
  '\tfolded',
  'X-\xe9: 1',
  'X-Empty:',
  '__proto__: x',
  'constructor: x',
  'Proxy-Status: evil',
  'Proxy-Connection: keep-alive',
  ':status: 200',
  'Alt-Svc: h3=":443"',
  'Content-Encoding: gzip',
  'Content-Type: \xff',
  'Vary: *',
  'Retry-After: \xff',
  'Age: x',
]
const chunkings = [
  '5\r\nhello\r\n0\r\n\r\n',
  '5\r\nhello\r\n',
  '5\r\nhel',
  '5;ext=1\r\nhello\r\n0\r\n\r\n',
  '5 \r\nhello\r\n0\r\n\r\n',
  '0005\r\nhello\r\n0\r\n\r\n',
  '-5\r\nhello\r\n0\r\n\r\n',
  '0x5\r\nhello\r\n0\r\n\r\n',
  'g\r\nhello\r\n0\r\n\r\n',
  '5\nhello\n0\n\n',
  '5\r\nhelloXX0\r\n\r\n',
  'ffffffffffffffff\r\nhello',
  '7fffffff\r\nhello',
  '\r\n5\r\nhello\r\n0\r\n\r\n',
  '5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n',
  '5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n',
  '5\r\nhello\r\n0\r\nbad trailer\r\n\r\n',
  '5\r\nhello\r\n0\r\nX: \0\r\n\r\n',
  '5\r\nhello\r\n0\r\n',
  '0\r\n\r\n',
  '',
  '5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison',
  `5;${'e'.repeat(20_000)}\r\nhello\r\n0\r\n\r\n`,
]
const bodies = ['hello', 'hell', '', 'hello and more', 'helloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison', '\0\xff\r\n\r\n']

/** One answer: mostly well-formed, with a mistake or three. */
function hostile(random: Draw): Hostile {
  let text = ''
  if (random.chance(0.15))
    text += `${random.of(['HTTP/1.1 100 Continue', 'HTTP/1.1 103 Early Hints', 'HTTP/1.1 102 Processing', 'HTTP/1.1 103 \xff'])}\r\n${random.chance(0.5) ? 'Link: </a>\r\n' : ''}\r\n`
  const line = random.chance(0.6) ? 'HTTP/1.1 200 OK' : random.of(statusLines)
  const list = Array.from({ length: random.int(5) }, () => random.of(fields))
  const chunked = random.chance(0.4)
  if (random.chance(0.7)) list.splice(random.int(list.length + 1), 0, chunked ? 'Transfer-Encoding: chunked' : 'Content-Length: 5')
  const eol = random.chance(0.04) ? '\n' : '\r\n'
  text += [line, ...list, '', ''].join(eol)
  if (random.chance(0.03)) text += Array.from({ length: 1500 }, (_, i) => `X-${i}: ${i}\r\n`).join('')
  text += chunked ? random.of(chunkings) : random.of(bodies)
  let bytes = Buffer.from(text, 'latin1')
  if (random.chance(0.15)) {
    // Octets changed, taken out or put in, anywhere.
    const list = [...bytes]
    for (let i = random.int(4); i >= 0; i--)
      list.splice(random.int(list.length), random.int(2), ...Array.from({ length: random.int(3) }, () => random.int(256)))
    bytes = Buffer.from(list)
  }
  if (random.chance(0.1)) bytes = bytes.subarray(0, random.int(bytes.length + 1))
  if (random.chance(0.02)) bytes = Buffer.from(Array.from({ length: 500 }, () => random.int(256)))
  const cuts = random.chance(0.5) ? [] : Array.from({ length: 1 + random.int(4) }, () => random.int(bytes.length + 1)).sort((a, b) => a - b)
  return { bytes, cuts, end: random.chance(0.08) ? 'silence' : random.of(['fin', 'reset'] as const) }
}

/** Each mistake by itself, so that none depends on the draw. */
const singles: readonly string[] = [
  ...statusLines.map((line) => `${line}\r\nContent-Length: 5\r\n\r\nhello`),
  ...fields.map((field) => `HTTP/1.1 200 OK\r\nContent-Length: 5\r\n${field}\r\n\r\nhello`),
  ...fields.map((field) => `HTTP/1.1 200 OK\r\n${field}\r\n\r\nhello`),
  ...chunkings.map((body) => `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body}`),
  ...fields.map((field) => `HTTP/1.1 103 Early Hints\r\n${field}\r\n\r\n${ok('hello')}`),
  ...fields.map((field) => `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n${field}\r\n\r\n`),
]

const rounds = 150

describe.each(transports)('E33 over %s', (_name, transport) => {
  let next: Hostile = { bytes: Buffer.alloc(0), cuts: [], end: 'fin' }
  let evil: RawUpstream
  let good: RawUpstream
  let proxy: ObservedProxy
  let http2: ObservedProxy
  const broken: unknown[] = []
  const note = (error: unknown): void => void broken.push(error)

  beforeAll(async () => {
    evil = await rawUpstream(async (connection) => {
      for (;;) {
        await connection.readHead(60_000)
        const { bytes, cuts, end } = next
        let from = 0
        for (const cut of [...cuts, bytes.length]) {
          await connection.send(bytes.subarray(from, cut))
          from = cut
          if (cuts.length > 0) await new Promise((resolve) => setImmediate(resolve))
        }
        if (end === 'silence') continue
        if (end === 'fin') connection.end()
        // A turn later, so that the bytes are in the reader's queue first.
        else setImmediate(() => connection.reset())
        return
      }
    })
    good = await rawUpstream(
      everyRequest(async (request, connection) => {
        await connection.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Healthy: yes\r\n\r\n7\r\nhealthy\r\n')
        await new Promise((resolve) => setTimeout(resolve, 5))
        const rest = ` ${request.target}`
        return `${rest.length.toString(16)}\r\n${rest}\r\n0\r\n\r\n`
      }),
    )
    const options = {
      // The limits are for those who fall silent; a busy machine must not make them fall on the healthy.
      routes: [
        { match: { path: '/evil' }, pool: { upstreams: [evil.url], health: [] }, timeouts: { head: 100, idle: 100 } },
        { pool: { upstreams: [good.url] } },
      ],
      retry: false as const,
    }
    // The transport under test serves the hostile pool.
    const make = transport()
    const withTransport = { ...options, routes: options.routes.map((route) => ({ ...route, pool: { ...route.pool, transport: make } })) }
    proxy = await startProxy(withTransport)
    http2 = await startProxy(withTransport, { http2: true })
    process.on('uncaughtException', note)
    process.on('unhandledRejection', note)
  })
  afterEach(() => {
    expect(broken.splice(0)).toEqual([])
  })
  afterAll(async () => {
    process.off('uncaughtException', note)
    process.off('unhandledRejection', note)
    await proxy[Symbol.asyncDispose]()
    await http2[Symbol.asyncDispose]()
    await evil.close().catch(() => {})
    await good.close()
  })

  const healthy = async (number: number, on: RawConnection): Promise<void> => {
    void on.write(get(`/${number}`))
    const response = await on.readResponse()
    expect([response.status, response.header('x-healthy'), response.text(), response.complete]).toEqual([
      200,
      'yes',
      `healthy /${number}`,
      true,
    ])
  }

  /** What a client may see: nothing malformed, nothing of another message, nothing of the inside. */
  async function expectSane(client: RawConnection, method: string): Promise<void> {
    let response: Awaited<ReturnType<RawConnection['readResponse']>>
    try {
      response = await client.readResponse({ method })
    } catch (error) {
      // No head at all: then the connection must have been broken off.
      expect(error).toBeInstanceOf(WireError)
      expect((error as WireError).reason).toBe('ended')
      return
    }
    expect(response.status).toBeGreaterThanOrEqual(200)
    expect(response.status).toBeLessThanOrEqual(999)
    if (!response.complete) expect(client.ending).not.toBe('open')
    // The connection is of use, or closed: what comes next is the answer to the next question, not a leftover.
    if (client.ending !== 'open' || response.header('connection') === 'close') return
    await healthy(7, client)
    expect(client.unread).toHaveLength(0)
  }

  /** One hostile answer beside one healthy exchange. */
  async function exchange(method: string, beside: RawConnection, number: number): Promise<void> {
    const before = proxy.outcomes.length
    await using client = await rawConnect(proxy.port, { deadline: 3000 })
    const other = healthy(number, beside)
    void client.write(
      method === 'POST' ? `${head('POST', '/evil', 'Content-Length: 4')}body` : head(method, '/evil', 'TE: trailers', 'Connection: TE'),
    )
    const [evilly, healthily] = await Promise.allSettled([expectSane(client, method), other])
    const failed = evilly.status === 'rejected' ? evilly : healthily.status === 'rejected' ? healthily : undefined
    if (failed !== undefined)
      throw new Error(
        `${method}, ${next.end}, ${JSON.stringify(next.cuts)}: ${JSON.stringify(next.bytes.toString('latin1').slice(0, 600))}`,
        {
          cause: failed.reason,
        },
      )
    client.destroy()
    await until('both outcomes are told', () => proxy.outcomes.length >= before + 2)
  }

  it.each(['GET', 'HEAD'])('every mistake by itself, to %s', { timeout: 60_000 }, async (method) => {
    await using beside = await rawConnect(proxy.port)
    for (const [index, text] of singles.entries()) {
      next = { bytes: Buffer.from(text, 'latin1'), cuts: [], end: 'fin' }
      await exchange(method, beside, index)
    }
    await until('nothing is in flight', () => proxy.proxy.stats().inflight === 0)
  })

  it.each(Array.from({ length: 6 }, (_, i) => i + 1))('answers drawn from seed %i', { timeout: 60_000 }, async (seed) => {
    const random = draw(seed)
    await using beside = await rawConnect(proxy.port)
    for (let round = 0; round < rounds / 2; round++) {
      next = hostile(random)
      await exchange(random.of(['GET', 'HEAD', 'POST']), beside, round)
    }
    await until('nothing is in flight', () => proxy.proxy.stats().inflight === 0)
    expect(proxy.proxy.stats().pools.flatMap((pool) => pool.upstreams.map((upstream) => upstream.inflight))).toEqual([0, 0])
  })

  it('to a client of HTTP/2: one stream suffers, the session and the others do not', { timeout: 60_000 }, async () => {
    const random = draw(77)
    await using client = await h2Client(http2.port)
    for (let round = 0; round < rounds; round++) {
      next = hostile(random)
      const other = client.request({ ':path': `/${round}` })
      const answer = client.request({ ':path': '/evil', ':method': random.of(['GET', 'HEAD']) }).catch((error: Error) => error)
      try {
        const seen = await answer
        // Without a head the stream must have been reset, which the client tells by rejecting.
        if (!(seen instanceof Error)) expect(seen.status).toBeGreaterThanOrEqual(200)
        expect(await other).toMatchObject({ status: 200, reset: 0, body: Buffer.from(`healthy /${round}`) })
      } catch (error) {
        throw new Error(`round ${round}, ${next.end}: ${JSON.stringify(next.bytes.toString('latin1').slice(0, 600))}`, { cause: error })
      }
      expect(client.session.destroyed).toBe(false)
    }
  })

  it('in answer to upgrades', { timeout: 60_000 }, async () => {
    const random = draw(4711)
    await using beside = await rawConnect(proxy.port)
    for (let round = 0; round < rounds; round++) {
      next = hostile(random)
      if (random.chance(0.3))
        next = {
          ...next,
          bytes: Buffer.concat([
            Buffer.from('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'),
            next.bytes,
          ]),
        }
      await using client = await rawConnect(proxy.port, { deadline: 3000 })
      const other = healthy(round, beside)
      void client.write(upgradeHead('/evil'))
      const response = await client.readResponse().catch((error: unknown) => {
        expect((error as WireError).reason).toBe('ended')
        return undefined
      })
      if (response !== undefined && response.status !== 101) expect(response.status).toBeGreaterThanOrEqual(200)
      await other
      client.reset()
    }
    await until('nothing is in flight', () => proxy.proxy.stats().inflight === 0, 10_000)
    expect(proxy.proxy.stats().tunnels).toBe(0)
  })

  it('with hooks that look at everything', { timeout: 60_000 }, async () => {
    const random = draw(99)
    const { PassThrough } = await import('node:stream')
    const own = transport()
    await using hooked = await startProxy({
      upstreams: [evil.url],
      health: [],
      retry: false,
      timeouts: { head: 100, idle: 100 },
      transport: own,
      use: [
        () => ({
          onResponse: async (response) => {
            await Promise.resolve()
            response.headers.append('X-Seen', String(response.headers.size))
            response.tap({ onChunk: () => {}, onEnd: () => {} })
            response.transform(new PassThrough())
          },
        }),
      ],
    })
    for (let round = 0; round < rounds; round++) {
      next = hostile(random)
      await using client = await rawConnect(hooked.port, { deadline: 3000 })
      void client.write(get('/evil'))
      try {
        const response = await client.readResponse().catch((error: unknown) => {
          if (!(error instanceof WireError) || error.reason !== 'ended') throw error
        })
        if (response && !response.complete) expect(client.ending).not.toBe('open')
      } catch (error) {
        throw new Error(`round ${round}, ${next.end}: ${JSON.stringify(next.bytes.toString('latin1').slice(0, 600))}`, { cause: error })
      }
      client.destroy()
      await hooked.outcome(round + 1)
    }
    expect(hooked.outcomes).toHaveLength(rounds)
    expect(hooked.proxy.stats()).toMatchObject({ inflight: 0, pools: [{ upstreams: [{ inflight: 0 }] }] })
    await own.close?.()
  })

  it('good answers still pass when all of that is over', async () => {
    next = { bytes: Buffer.from(ok('reformed')), cuts: [], end: 'silence' }
    await using client = await rawConnect(proxy.port)
    for (let i = 0; i < 3; i++) {
      void client.write(get('/evil'))
      expect((await client.readResponse()).text()).toBe('reformed')
    }
  })
})
