/** Real endpoints, with real faults, in virtual time. */
import { Agent, createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttps, Agent as HttpsAgent } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { OptionsError } from '@weir/core'
import { certificates, type VirtualClock, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type Reading, read, until } from './fixtures/reading.ts'
import { type HttpSourceOptions, httpSource } from './http-source.ts'

type Answer = (req: IncomingMessage, res: ServerResponse) => void

const list = (...ports: number[]): string => JSON.stringify(ports.map((port) => `http://10.0.0.1:${port}`))
const urls = (...ports: number[]): string[] => ports.map((port) => `http://10.0.0.1:${port}`)
const ok =
  (body: string, headers: Record<string, string> = {}, status = 200): Answer =>
  (_req, res) =>
    void res.writeHead(status, headers).end(body)

interface Endpoint extends AsyncDisposable {
  answer: Answer
  readonly requests: readonly IncomingMessage[]
  readonly url: string
  readonly sockets: ReadonlySet<Socket>
}

async function endpoint(answer: Answer, tls = false): Promise<Endpoint> {
  const requests: IncomingMessage[] = []
  const sockets = new Set<Socket>()
  const handle: Answer = (req, res) => {
    requests.push(req)
    self.answer(req, res)
  }
  const server = (tls ? createHttps(certificates().localhost, handle) : createServer(handle)) as Server
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const self: Endpoint = {
    answer,
    requests,
    sockets,
    url: `${tls ? 'https://localhost' : 'http://127.0.0.1'}:${(server.address() as AddressInfo).port}/upstreams?token=secret`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return self
}

interface Rig extends AsyncDisposable {
  readonly server: Endpoint
  readonly clock: VirtualClock
  readonly reading: Reading
  /** Nothing is asked until `ms` have passed, and then something is. */
  asksAfter(ms: number): Promise<void>
}

async function rig(answer: Answer, options: Partial<HttpSourceOptions> = {}): Promise<Rig> {
  const server = await endpoint(answer)
  const clock = virtualClock()
  const reading = read(httpSource({ url: server.url, clock, jitter: 0, firstFailure: 'wait', ...options }))
  // While a request runs, its time limit is the one timer that is pending.
  const settled = (count: number): Promise<unknown> =>
    until(
      `round ${count} is over`,
      () => server.requests.length === count && reading.lists.length + reading.failures.length > 0 && server.sockets.size === 0,
    )
  await settled(1)
  return {
    server,
    clock,
    reading,
    asksAfter: async (ms) => {
      const count = server.requests.length
      await clock.advance(ms - 1)
      expect(server.requests).toHaveLength(count)
      await clock.advance(1)
      await settled(count + 1)
      await new Promise((resolve) => setImmediate(resolve))
    },
    [Symbol.asyncDispose]: async () => {
      await reading[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
      expect(clock.pending).toBe(0)
    },
  }
}

describe('an endpoint', () => {
  it('is asked at the interval, and gives a list when it has changed', async () => {
    await using t = await rig(ok(list(1, 2)))
    expect(await t.reading.urls(1)).toEqual(urls(1, 2))
    t.server.answer = ok(list(2, 1))
    await t.asksAfter(30_000)
    t.server.answer = ok(list(3))
    await t.asksAfter(30_000)
    expect(await t.reading.urls(2)).toEqual(urls(3))
    expect(t.reading.lists).toHaveLength(2)
  })

  it('is asked whether the list has changed: by ETag, else by date', async () => {
    await using t = await rig(ok(list(1), { etag: '"v1"', 'last-modified': 'Fri, 20 Nov 2026 10:00:00 GMT' }))
    t.server.answer = ok('', {}, 304)
    await t.asksAfter(30_000)
    await t.asksAfter(30_000)
    expect(t.server.requests.map(({ headers }) => headers['if-none-match'])).toEqual([undefined, '"v1"', '"v1"'])
    expect(t.server.requests.map(({ headers }) => headers['if-modified-since'])).toEqual([undefined, undefined, undefined])
    t.server.answer = ok(list(2), { 'last-modified': 'Fri, 20 Nov 2026 11:00:00 GMT' })
    await t.asksAfter(30_000)
    t.server.answer = ok('', {}, 304)
    await t.asksAfter(30_000)
    expect(t.server.requests.at(-1)?.headers).toMatchObject({ 'if-modified-since': 'Fri, 20 Nov 2026 11:00:00 GMT' })
    expect(t.server.requests.at(-1)?.headers['if-none-match']).toBeUndefined()
    expect([t.reading.lists.length, t.reading.failures]).toEqual([2, []])
  })

  it('whose list was wrong is not asked whether that has changed', async () => {
    await using t = await rig(ok(list(1), { etag: '"v1"' }))
    t.server.answer = ok('["ftp://a"]', { etag: '"v2"' })
    await t.asksAfter(30_000)
    t.server.answer = ok('', {}, 304)
    await t.asksAfter(1000)
    expect(t.server.requests.map(({ headers }) => headers['if-none-match'])).toEqual([undefined, '"v1"', '"v1"'])
  })

  it('that says 304 of nothing has failed', async () => {
    await using t = await rig(ok('', {}, 304))
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_HTTP'])
  })

  it('says how long its answer is good for, within bounds', async () => {
    await using t = await rig(ok(list(1), { 'cache-control': 'max-age=7' }), { minInterval: '5s', maxInterval: '1m' })
    t.server.answer = ok(list(1), { 'cache-control': 'max-age=1' })
    await t.asksAfter(7000)
    t.server.answer = ok(list(1), { 'cache-control': 'max-age=86400' })
    await t.asksAfter(5000)
    t.server.answer = ok(list(1), { 'cache-control': 'max-age=60', age: '45' })
    await t.asksAfter(60_000)
    t.server.answer = ok(list(1), { 'cache-control': 'no-store' })
    await t.asksAfter(15_000)
    await t.asksAfter(30_000)
  })

  it('is asked a little later, by chance, and never sooner', async () => {
    await using t = await rig(ok(list(1)), { jitter: 0.5, random: () => 0.5 })
    await t.asksAfter(37_500)
  })

  it('gets the fields that it wants, also such as change', async () => {
    let token = 0
    await using t = await rig(ok(list(1), { etag: '"v1"' }), {
      headers: async () => ({ Authorization: `Bearer ${++token}`, 'If-None-Match': 'mine', 'X-Team': 'a' }),
    })
    await t.asksAfter(30_000)
    expect(
      t.server.requests.map(({ headers }) => [headers.authorization, headers['if-none-match'], headers['x-team'], headers.accept]),
    ).toEqual([
      ['Bearer 1', 'mine', 'a', 'application/json'],
      ['Bearer 2', '"v1"', 'a', 'application/json'],
    ])
    expect(t.server.requests[0]?.url).toBe('/upstreams?token=secret')
  })

  it('may be HTTPS, verified, with an agent of your own', async () => {
    await using server = await endpoint(ok(list(1)), true)
    const refused = httpSource({ url: server.url })[Symbol.asyncIterator]().next()
    await expect(refused).rejects.toMatchObject({ code: 'ERR_DISCOVERY_HTTP' })
    const agent = new HttpsAgent({ ca: certificates().ca })
    await using reading = read(httpSource({ url: server.url, agent }))
    expect(await reading.urls(1)).toEqual(urls(1))
  })

  it('may speak another format', async () => {
    const parse = async (text: string): Promise<unknown> => text.split(',').map((port) => `http://10.0.0.1:${port}`)
    await using t = await rig(ok('1,2'), { parse })
    expect(await t.reading.urls(1)).toEqual(urls(1, 2))
  })
})

describe('no good answer: the last good list stays', () => {
  const cut: Answer = (req, res) => {
    res.writeHead(200, { 'content-length': '1000' })
    res.write('["http://10.0.0.9:1"]', () => req.socket.destroy())
  }
  const chunked: Answer = (req, res) => void res.write('["http://10.0.0.9:1"]', () => req.socket.resetAndDestroy())

  it.each<[string, Answer, string]>([
    ['500', ok(list(9), {}, 500), 'ERR_DISCOVERY_HTTP'],
    ['204', ok('', {}, 204), 'ERR_DISCOVERY_HTTP'],
    ['a redirect, which is not followed', ok(list(9), { location: '/elsewhere' }, 302), 'ERR_DISCOVERY_HTTP'],
    ['a connection that is reset', (req) => void req.socket.resetAndDestroy(), 'ERR_DISCOVERY_HTTP'],
    ['a body that is cut short', cut, 'ERR_DISCOVERY_HTTP'],
    ['a chunked body that is cut short', chunked, 'ERR_DISCOVERY_HTTP'],
    ['what is not HTTP', (req) => void req.socket.end('hello\r\n\r\n'), 'ERR_DISCOVERY_HTTP'],
    [
      'a coding that was not asked for',
      (_req, res) => void res.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(list(9))),
      'ERR_DISCOVERY_HTTP',
    ],
    ['too long, announced', ok(`[${' '.repeat(200)}]`), 'ERR_DISCOVERY_TOO_LARGE'],
    ['too long, and without end', (_req, res) => void res.write(`[${' '.repeat(200)}`), 'ERR_DISCOVERY_TOO_LARGE'],
    ['half of it', ok('["http://10.'), 'ERR_DISCOVERY_SYNTAX'],
    ['an HTML page', ok('<html>'), 'ERR_DISCOVERY_SYNTAX'],
    ['no list', ok('{}'), 'ERR_DISCOVERY_LIST'],
    ['a socket of this machine', ok('["http://10.0.0.1:1","unix:/run/docker.sock"]'), 'ERR_DISCOVERY_LIST'],
    ['such a socket, with settings', ok('[{"url":" UNIX:/run/docker.sock"}]'), 'ERR_DISCOVERY_LIST'],
    ['TLS options of an upstream', ok('["http://10.0.0.1:1",{"url":"https://10.0.0.9","tls":{"insecure":true}}]'), 'ERR_DISCOVERY_LIST'],
    ['probes that are sent elsewhere', ok('[{"url":"http://10.0.0.9","meta":{"health":{"address":"a.internal"}}}]'), 'ERR_DISCOVERY_LIST'],
    ['a list with a mistake', ok('["http://10.0.0.1:1",{"url":"http://10.0.0.9","weight":1.5}]'), 'ERR_DISCOVERY_LIST'],
    ['the metadata service alone', ok('["http://169.254.169.254"]'), 'ERR_DISCOVERY_REFUSED'],
  ])('%s', async (_what, answer, code) => {
    await using t = await rig(ok(list(1)), { maxSize: 100 })
    t.server.answer = answer
    await t.asksAfter(30_000)
    await t.asksAfter(1000)
    await t.asksAfter(2000)
    t.server.answer = ok(list(2))
    await t.asksAfter(4000)
    expect(await t.reading.urls(2)).toEqual(urls(2))
    expect(t.reading.failures).toEqual([code, code, code])
    for (const event of t.reading.told) if (event.type === 'kept') expect(event.error.message).not.toContain('secret')
  })

  it('silence, for as long as the time limit says', async () => {
    await using t = await rig(ok(list(1)), { timeout: '3s' })
    const half: Answer = (_req, res) => void res.writeHead(200).write('[')
    for (const [index, answer] of [() => {}, half].entries()) {
      t.server.answer = answer
      const wait = index === 0 ? 30_000 : 1000
      const count = t.server.requests.length
      await t.clock.advance(wait)
      await until('it is asked', () => t.server.requests.length === count + 1)
      await t.clock.advance(2999)
      expect([t.server.sockets.size, t.reading.failures.length]).toEqual([1, index])
      await t.clock.advance(1)
      await until('it is given up', () => t.server.sockets.size === 0 && t.reading.failures.length === index + 1)
    }
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_HTTP', 'ERR_DISCOVERY_HTTP'])
  })

  it('nobody listens', async () => {
    const gone = await endpoint(ok(''))
    await gone[Symbol.asyncDispose]()
    await expect(httpSource({ url: gone.url })[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      code: 'ERR_DISCOVERY_HTTP',
      cause: { code: 'ECONNREFUSED' },
    })
  })

  it('a server that asks to be left alone is, within the bound', async () => {
    await using t = await rig(ok('', { 'retry-after': '20' }, 503), { maxInterval: '1m' })
    t.server.answer = ok('', { 'retry-after': '86400' }, 429)
    await t.asksAfter(20_000)
    t.server.answer = ok('', { 'retry-after': '0' }, 503)
    await t.asksAfter(60_000)
    await t.asksAfter(4000)
  })

  it('what the guard refused is refused again when the server calls it unchanged', async () => {
    let open = true
    await using t = await rig(ok(list(1), { etag: '"v1"' }), { guard: () => open })
    open = false
    t.server.answer = ok('', {}, 304)
    await t.asksAfter(30_000)
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_REFUSED'])
  })

  it('a function for fields that throws', async () => {
    let broken = true
    const headers = (): Record<string, string> => {
      if (broken) throw new Error('no token')
      return {}
    }
    await using server = await endpoint(ok(list(1)))
    const clock = virtualClock()
    await using reading = read(httpSource({ url: server.url, clock, jitter: 0, headers, firstFailure: 'wait' }))
    await until('it has failed', () => reading.failures.length === 1)
    broken = false
    await clock.advance(1000)
    expect(await reading.urls(1)).toEqual(urls(1))
  })
})

describe('what a list says of probes', () => {
  const saying = (health: unknown, url = 'http://10.0.0.1:1'): Answer =>
    ok(JSON.stringify([url, { url: 'http://10.0.0.2:2', meta: { health } }]))
  const problems = (t: Rig): unknown[] =>
    t.reading.told.flatMap((event) => (event.type === 'kept' ? event.error.problems.map(({ path }) => path) : []))

  it.each([
    { address: '10.0.0.9' },
    { tls: { insecure: true } },
    { servername: 'other.internal' },
    { send: 'FLUSHALL\r\n' },
    { headers: { 'Metadata-Flavor': 'Google' } },
    { maxBody: '1GiB' },
    { socketPath: '/run/docker.sock' },
  ])('%j is refused', async (health) => {
    await using t = await rig(saying({ path: '/up', ...health }))
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_LIST'])
    expect(problems(t)).toEqual([`$[1].meta.health.${Object.keys(health)[0]}`])
    const [kept] = t.reading.told
    if (kept?.type === 'kept') expect(kept.error.message).not.toContain(JSON.stringify(Object.values(health)[0]))
  })

  it.each([
    { port: 9000, path: '/up', method: 'HEAD', host: 'app.internal', status: ['2xx'], secure: false },
    { expectHeaders: { 'x-up': true }, body: 'ok', drainStatus: 404, drainHeader: 'x-drain', degradedHeader: 'x-slow', keepAlive: true },
    { service: 'app.v1', unimplemented: 'up', expect: '+OK' },
    false,
    // Not what a check reads, so not what is held against it here.
    'fine',
    null,
  ])('%j is taken', async (health) => {
    await using t = await rig(saying(health))
    expect((await t.reading.list(1))[1]).toMatchObject({ meta: { health } })
  })

  it('all of it is taken where that is said, or some other of it', async () => {
    await using all = await rig(saying({ tls: { insecure: true }, send: 'PING\r\n' }), { probeOptions: 'all' })
    expect(await all.reading.list(1)).toHaveLength(2)
    await using some = await rig(saying({ headers: { 'X-Probe': '1' } }), { probeOptions: ['headers', 'path'] })
    expect(await some.reading.list(1)).toHaveLength(2)
    some.server.answer = saying({ port: 9000 })
    await some.asksAfter(30_000)
    expect(problems(some)).toEqual(['$[1].meta.health.port'])
    await using none = await rig(saying({ path: '/up' }), { probeOptions: [] })
    expect(problems(none)).toEqual(['$[1].meta.health.path'])
  })

  it.each(['169.254.169.254', '127.1', '0x7f000001', '::1', '::ffff:169.254.169.254', 'fe80::1%lo'])(
    'an address that the guard refuses leaves the upstream out: %s',
    async (address) => {
      await using t = await rig(saying({ address }), { probeOptions: 'all' })
      expect(await t.reading.urls(1)).toEqual(['http://10.0.0.1:1'])
      expect(t.reading.told.map(({ type }) => type)).toEqual(['refused', 'list'])
    },
  )

  it('an address that the guard lets pass, or a name, does not', async () => {
    for (const address of ['10.0.0.9', 'health.internal']) {
      await using t = await rig(saying({ address }), { probeOptions: 'all' })
      expect(await t.reading.list(1)).toHaveLength(2)
    }
  })
})

describe('the life of a source', () => {
  it('a request under way is given up at return', async () => {
    await using server = await endpoint(() => {})
    const clock = virtualClock()
    const iterator = httpSource({ url: server.url, clock })[Symbol.asyncIterator]()
    const pending = iterator.next()
    await until('it is asked', () => server.requests.length === 1)
    await iterator.return?.()
    expect((await pending).done).toBe(true)
    await until('the connection is closed', () => server.sockets.size === 0)
    expect(clock.pending).toBe(0)
  })

  it('keeps no connection between requests, but those of an agent that does', async () => {
    await using server = await endpoint(ok(list(1)))
    await using reading = read(httpSource({ url: server.url, interval: '1h' }))
    await reading.list(1)
    await until('the connection is closed', () => server.sockets.size === 0)
    const agent = new Agent({ keepAlive: true })
    await using kept = read(httpSource({ url: server.url, interval: '1h', agent }))
    await kept.list(1)
    expect(server.sockets.size).toBe(1)
    agent.destroy()
  })
})

it('wrong options are reported all at once, and secrets in none of it', () => {
  try {
    httpSource({
      url: 'http://user:hunter2@127.0.0.1/',
      headers: { 'bad name': 'x', good: 'line\nbreak', authorization: 5 },
      interval: '1s',
      minInterval: '2s',
      timeout: 0,
      maxSize: 'big',
      parse: 1,
      agent: {},
      redirect: true,
      probeOptions: 'some',
    } as never)
    expect.unreachable()
  } catch (error) {
    expect(OptionsError.is(error)).toBe(true)
    expect((error as OptionsError).problems.map(({ path }) => path).toSorted()).toEqual(
      [
        'agent',
        'headers.authorization',
        'headers.bad name',
        'headers.good',
        'interval',
        'maxSize',
        'parse',
        'probeOptions',
        'redirect',
        'timeout',
        'url',
      ].toSorted(),
    )
    expect((error as Error).message).not.toContain('hunter2')
  }
  for (const probeOptions of [[''], [1], {}, true, null])
    expect(() => httpSource({ url: 'http://a.test', probeOptions } as never), String(probeOptions)).toThrow(OptionsError)
  for (const url of ['ftp://a', 'nonsense', undefined]) expect(() => httpSource({ url } as never)).toThrow(OptionsError)
})
