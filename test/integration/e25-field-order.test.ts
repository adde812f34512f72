/**
 * E25. Several `Set-Cookie` lines and duplicate fields keep count and order; header name case is preserved on h1.
 *
 * Everything that turns a list of lines into an object loses some of this: names fold together, cookies become one line that no browser can
 * take apart, and what depended on order changes its meaning.
 */
import type { Server } from 'node:http'
import { everyRequest, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, ok } from './messages.ts'
import { startProxy, transports } from './observed.ts'

const cookies = ['a=1; Path=/; HttpOnly', 'b=2; Expires=Wed, 09 Jun 2027 10:18:14 GMT', 'a=3', '', 'c="x, y"']

/** Lines in an order that no grouping keeps: names in several spellings, duplicates apart from each other, empty values. */
const lines = [
  'x-LOWER-upper: 1',
  'Set-Cookie: a=1; Path=/; HttpOnly',
  'X-Twice: first',
  'SET-COOKIE: b=2; Expires=Wed, 09 Jun 2027 10:18:14 GMT',
  'Vary: Accept',
  'x-twice: second',
  'set-cookie: a=3',
  'X-Empty:',
  'Set-Cookie:',
  'Vary: Accept-Encoding',
  'X-TWICE: third',
  'WWW-Authenticate: Basic realm="a, b"',
  'WWW-Authenticate: Bearer',
  'Set-Cookie: c="x, y"',
  'ETag: "a"',
  'x-lower-UPPER: 2',
  '__proto__: polluted',
  'constructor: also',
]

const pairs = (given: readonly string[]): string[] =>
  given.flatMap((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()])

/** The field list without what the proxy itself is to add or decide. */
function without(headers: readonly string[], names: readonly string[]): string[] {
  const out: string[] = []
  for (let i = 0; i < headers.length; i += 2)
    if (!names.includes((headers[i] as string).toLowerCase())) out.push(headers[i] as string, headers[i + 1] as string)
  return out
}

const added = [
  'content-length',
  'transfer-encoding',
  'connection',
  'keep-alive',
  'date',
  'host',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
]

describe.each(transports)('E25 over %s', (_name, transport) => {
  it.each([
    ['with a length', 'Content-Length: 2', 'ok'],
    ['chunked', 'Transfer-Encoding: chunked', '2\r\nok\r\n0\r\n\r\n'],
  ])('a response, %s: every line, in its order and spelling', async (_form, framing, body) => {
    await using upstream = await rawUpstream(everyRequest(() => `${['HTTP/1.1 200 OK', framing, ...lines].join('\r\n')}\r\n\r\n${body}`))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(without(response.headers, added)).toEqual(pairs(lines))
    expect(response.all('set-cookie')).toEqual(cookies)
    expect(response.text()).toBe('ok')
  })

  it.each([
    ['GET', []],
    ['POST', ['Content-Length: 2']],
    ['POST', ['Transfer-Encoding: chunked']],
    ['DELETE', ['Transfer-Encoding: chunked']],
  ] as const)('a request (%s %j): every line, in its order and spelling', async (method, framing) => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const asked = [...lines, 'Cookie: a=1', 'Accept: text/html', 'ACCEPT: */*', 'cookie: b=2', 'User-Agent:']
    const body = framing.length === 0 ? '' : framing[0]?.startsWith('Content') ? 'hi' : '2\r\nhi\r\n0\r\n\r\n'
    expect((await rawRequest(proxy.port, head(method, '/', ...asked, ...framing) + body)).status).toBe(200)
    const [seen] = upstream.requests
    expect(without(seen?.headers ?? [], added)).toEqual(pairs(asked))
    // And `Host` once, as it was spelt, where it was.
    expect(seen?.headers.slice(0, 2).map((part) => part.toLowerCase())).toEqual(['host', 'localhost'])
  })

  it('stages and rules that touch one field leave the others as they are', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok', ...lines)))
    await using proxy = await startProxy(
      {
        upstreams: [upstream.url],
        headers: { response: { set: { 'x-lower-upper': 'one' }, add: { 'X-New': 'last' }, remove: ['etag'] } },
        use: [
          () => ({
            onAttempt: (headers) => void headers.set('X-Seen', 'yes').append('X-Seen', 'twice'),
            onResponse: async (response) => {
              await Promise.resolve()
              response.headers.append('Set-Cookie', 'own=1')
            },
          }),
        ],
      },
      { transport },
    )
    const response = await rawRequest(proxy.port, get('/', 'X-Twice: 1', 'x-TWICE: 2'))
    const expected = pairs([
      ...lines.filter((line) => !line.startsWith('ETag') && line !== 'x-lower-UPPER: 2'),
      'Set-Cookie: own=1',
      'X-New: last',
    ])
    // The first of several lines keeps the place, under the name as the rule writes it.
    expected[0] = 'x-lower-upper'
    expected[1] = 'one'
    expect(without(response.headers, added)).toEqual(expected)
    expect(without(upstream.requests[0]?.headers ?? [], added)).toEqual([
      'X-Twice',
      '1',
      'x-TWICE',
      '2',
      'X-Seen',
      'yes',
      'X-Seen',
      'twice',
    ])
  })

  it('interim responses and trailers keep theirs', async () => {
    await using upstream = await rawUpstream(
      everyRequest(
        () =>
          'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-B: 1\r\nlink: </b>\r\n\r\n' +
          'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: a\r\nx-sum: 2\r\n\r\n',
      ),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, get('/', 'TE: trailers', 'Connection: TE'))
    expect(response.interims[0]?.headers).toEqual(['Link', '</a>', 'X-B', '1', 'link', '</b>'])
    expect(response.trailers).toEqual(['X-Sum', '1', 'X-Other', 'a', 'x-sum', '2'])
  })

  it('to an HTTP/2 client: names in lower case, every line, cookies in their order', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok', ...lines)))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    const response = await client.request()
    expect(response.status).toBe(200)
    expect(response.all('set-cookie')).toEqual(cookies)
    expect(response.all('x-twice')).toEqual(['first', 'second', 'third'])
    expect(response.all('vary')).toEqual(['Accept', 'Accept-Encoding'])
    expect(response.all('www-authenticate')).toEqual(['Basic realm="a, b"', 'Bearer'])
    expect(response.all('x-lower-upper')).toEqual(['1', '2'])
    expect(response.all('x-empty')).toEqual([''])
    expect(response.all('__proto__')).toEqual(['polluted'])
    expect(response.rawHeaders.filter((_, i) => i % 2 === 0)).toEqual(
      response.rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase()),
    )
  })

  it.each([
    'Server',
    'ETag',
    'Content-Type',
    'Location',
    'Last-Modified',
    'Age',
    'Retry-After',
    'Expires',
    'Access-Control-Allow-Origin',
    'Content-Security-Policy',
  ])('to an HTTP/2 client: two %s lines, which node refuses to write, are no reason to fail', async (name) => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok', `${name}: one`, 'X-Between: 1', `${name.toLowerCase()}: two`)))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    const response = await client.request()
    expect([response.status, String(response.body)]).toEqual([200, 'ok'])
    expect(response.all(name)[0]).toMatch(/^one/)
  })

  it('from an HTTP/2 client: every line, and one Cookie', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    await client.request({ 'x-twice': ['first', 'second'], cookie: ['a=1', 'b=2; c=3'], accept: 'text/html', 'x-empty': '' })
    const [seen] = upstream.requests
    expect(seen?.all('x-twice')).toEqual(['first', 'second'])
    expect(seen?.all('cookie')).toEqual(['a=1; b=2; c=3'])
    expect(seen?.all('x-empty')).toEqual([''])
  })

  it('a reply of a stage may have several lines of one name, over both protocols', async () => {
    const reply = { status: 200, headers: { 'Set-Cookie': ['a=1', 'b=2', 'a=3'], 'X-One': 'only' }, body: 'mine' }
    await using proxy = await startProxy({ upstreams: [], use: [() => reply] }, { http2: true, https: true })
    await using h2 = await h2Client(proxy.port, 'https')
    expect((await h2.request()).all('set-cookie')).toEqual(['a=1', 'b=2', 'a=3'])
    await using plain = await startProxy({ upstreams: [], use: [() => reply] })
    await using client = await rawConnect(plain.port)
    void client.write(get())
    expect((await client.readResponse()).all('set-cookie')).toEqual(['a=1', 'b=2', 'a=3'])
  })

  it('1,000 fields of a request arrive, in order; more are refused, for node may have dropped some; where the server keeps all, all arrive', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, server: { maxHeaderSize: 262_144 } })
    // With Host and Connection.
    const fields = (count: number): string[] => Array.from({ length: count - 2 }, (_, i) => `X-${i}: ${i}`)
    const asked = async (count: number): Promise<number> =>
      (await rawRequest(proxy.port, get('/', 'Connection: close', ...fields(count)), { until: 'close' })).status
    const arrived = (): (string | undefined)[] =>
      (upstream.requests.at(-1)?.fields ?? []).filter((line) => line.startsWith('X-') && !line.startsWith('X-F'))
    expect(await asked(1000)).toBe(200)
    expect(arrived()).toEqual(fields(1000))
    for (const count of [1001, 1100, 3000]) expect(await asked(count)).toBe(431)
    expect(upstream.requests).toHaveLength(1)
    ;(proxy.server as Server).maxHeadersCount = 0
    expect(await asked(3000)).toBe(200)
    expect(arrived()).toEqual(fields(3000))
  })
})
