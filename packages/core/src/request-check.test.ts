/** The first look at a request: every reason to refuse, with its code, and what is kept of a request that passes. */
import type { IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { ProxyError } from './errors.ts'
import { type Connection, Forwarding } from './forwarded.ts'
import { checkRequest, isHttp2, type RequestFacts } from './request-check.ts'

interface Given {
  readonly method?: string
  readonly url?: string
  readonly minor?: number
  /** Flat list; `Host: a` is added unless `bare`. */
  readonly fields?: readonly string[]
  readonly bare?: boolean
}

const connection = (): Connection => new Forwarding(undefined, {}).connection({ httpVersionMajor: 1, socket: {} } as IncomingMessage)

function http1({ method = 'GET', url = '/', minor = 1, fields = [], bare = false }: Given): IncomingMessage {
  const rawHeaders = Object.freeze([...(bare ? [] : ['Host', 'a']), ...fields])
  return { method, url, httpVersionMajor: 1, httpVersionMinor: minor, rawHeaders } as unknown as IncomingMessage
}

function http2(given: Given & { readonly ended?: boolean }): IncomingMessage {
  const { method = 'GET', url = '/', fields = [], bare = false, ended = true } = given
  const pseudo = [':method', method, ':path', url, ':scheme', 'https', ...(bare ? [] : [':authority', 'a'])]
  return {
    method,
    url,
    httpVersionMajor: 2,
    httpVersionMinor: 0,
    rawHeaders: Object.freeze([...pseudo, ...fields]),
    stream: { endAfterHeaders: ended },
  } as unknown as IncomingMessage
}

function outcome(req: IncomingMessage, on: Connection = connection()): RequestFacts | string {
  try {
    return checkRequest(req, on)
  } catch (error) {
    if (!ProxyError.is(error)) throw error
    expect(error.source).toBe('client')
    return error.code
  }
}
const facts = (req: IncomingMessage): RequestFacts => {
  const result = outcome(req)
  if (typeof result === 'string') throw new Error(`refused with ${result}`)
  return result
}
/** The code, or `fine`. */
const verdict = (req: IncomingMessage): string => {
  const result = outcome(req)
  return typeof result === 'string' ? result : 'fine'
}

describe('fields that node may have dropped', () => {
  const many = (count: number, maxHeadersCount?: number | null): IncomingMessage => {
    const fields = Array.from({ length: count - 1 }, (_, i) => [`X-${i}`, '1']).flat()
    return Object.assign(http1({ fields }), { socket: { server: { maxHeadersCount } } })
  }

  it.each<[count: number, most: number | null | undefined, code: string]>([
    [1000, undefined, 'fine'],
    [1001, undefined, 'ERR_TOO_MANY_FIELDS'],
    [1024, null, 'ERR_TOO_MANY_FIELDS'],
    [1001, 1001, 'fine'],
    [1002, 1001, 'ERR_TOO_MANY_FIELDS'],
    [1002, 500, 'ERR_TOO_MANY_FIELDS'],
    [5000, 0, 'fine'],
  ])('%i of them on a server that keeps %s: %s', (count, most, code) => {
    expect(verdict(many(count, most))).toBe(code)
  })
})

describe('refused over HTTP/1', () => {
  const chunked = ['Transfer-Encoding', 'chunked']
  const rows: [what: string, given: Given, code: string][] = [
    ['CONNECT', { method: 'CONNECT', url: 'a:443' }, 'ERR_METHOD'],
    ['TRACE', { method: 'TRACE' }, 'ERR_METHOD'],
    ['length and coding together', { fields: ['Content-Length', '3', ...chunked] }, 'ERR_FRAMING'],
    ['coding and length together', { fields: [...chunked, 'content-length', '3'] }, 'ERR_FRAMING'],
    ['a length of 0 and a coding', { fields: ['Content-Length', '0', ...chunked] }, 'ERR_FRAMING'],
    ['two lengths that differ', { fields: ['Content-Length', '3', 'Content-Length', '4'] }, 'ERR_FRAMING'],
    ['two lengths that agree', { fields: ['Content-Length', '3', 'Content-Length', '3'] }, 'ERR_FRAMING'],
    ...['', '+3', '-3', '3.0', '0x3', '3 3', '3, 3', '3,', '1e3', 'three', '\u0663', '1234567890123456'].map(
      (length): [string, Given, string] => [`a length of ${JSON.stringify(length)}`, { fields: ['Content-Length', length] }, 'ERR_FRAMING'],
    ),
    ['a coding on HTTP/1.0', { minor: 0, fields: chunked }, 'ERR_FRAMING'],
    ...['gzip', 'gzip, chunked', 'chunked, gzip', 'chunked, chunked', 'identity', 'chunked;q=1', '', 'xchunked'].map(
      (coding): [string, Given, string] => [
        `the coding ${JSON.stringify(coding)}`,
        { fields: ['Transfer-Encoding', coding] },
        'ERR_TRANSFER_CODING',
      ],
    ),
    ['codings on two lines', { fields: [...chunked, 'TRANSFER-ENCODING', 'chunked'] }, 'ERR_TRANSFER_CODING'],
    ['no Host', { bare: true }, 'ERR_HOST'],
    ['two Hosts that differ', { fields: ['host', 'b'] }, 'ERR_HOST'],
    ['two Hosts that agree', { fields: ['HOST', 'a'] }, 'ERR_HOST'],
    ['two Hosts on HTTP/1.0', { minor: 0, fields: ['host', 'b'] }, 'ERR_HOST'],
    ['absolute-form against Host', { url: 'http://b/' }, 'ERR_HOST'],
    ['absolute-form with another port', { url: 'http://a:8080/' }, 'ERR_HOST'],
    ['the two default ports are two authorities', { url: 'http://a:443/', bare: true, fields: ['Host', 'a:80'] }, 'ERR_HOST'],
    ...[
      '',
      'a',
      'a:80',
      'index.html',
      '?x',
      '*',
      'ftp://a/',
      'http:/a',
      'http:///x',
      'http://',
      'http://u@a/',
      'http://a b/',
      'http://a:80:80/',
      'https://[::1/',
      'ws://a/',
      '\\a',
    ].map((url): [string, Given, string] => [`the target ${JSON.stringify(url)}`, { url }, 'ERR_TARGET']),
    ['a fragment', { url: '/a#b' }, 'ERR_TARGET'],
    ['a fragment behind absolute-form', { url: 'http://a/x#b' }, 'ERR_TARGET'],
    ['a fragment in the query', { url: '/a?b#c' }, 'ERR_TARGET'],
  ]
  for (const [what, given, code] of rows) it(`${what}: ${code}`, () => expect(verdict(http1(given))).toBe(code))
})

describe('the Host field', () => {
  const fine = [
    'example.com',
    'EXAMPLE.com',
    'a-b.c_d',
    'localhost:8080',
    'example.com:',
    'example.com.',
    '192.0.2.1',
    '192.0.2.1:80',
    '[::1]',
    '[2001:db8::1]:8080',
    '[::ffff:192.0.2.1]',
    'xn--bcher-kva.example',
    'a%20b',
    "a!$&'()*+;=~",
  ]
  const wrong = [
    '',
    ' ',
    'a b',
    'a, b',
    'a,b',
    'a/b',
    '/',
    'a?b',
    'a#b',
    'u@a',
    'u:p@a',
    'http://a',
    'a\\b',
    'a:80:80',
    'a:b',
    'a:-1',
    'a:123456',
    ':80',
    '::1',
    '[::1',
    '::1]',
    '[]',
    '[::1]x',
    '[::1]:x',
    '[a]',
    '[g::1]',
    '[::1]]',
    'b\xfccher.example',
    'a\tb',
    'a"b',
    '<a>',
    'a|b',
    // RFC 3986 §3.2.2: what stands in brackets is an IPv6 address, and a percent sign begins an octet.
    '[:]',
    '[1.2.3.4]',
    '[1:2:3]',
    '[:::]',
    '[1:2:3:4:5:6:7:8:9]',
    'a%',
    'a%2',
    'a%zz',
  ]
  for (const host of fine)
    it(`${host} is fine`, () => {
      for (const minor of [0, 1]) expect(outcome(http1({ bare: true, minor, fields: ['Host', host] }))).toMatchObject({ host })
      expect(outcome(http2({ bare: true, fields: [':authority', host] }))).toMatchObject({ host })
    })
  for (const host of wrong)
    it(`${JSON.stringify(host)} is refused`, () => {
      for (const minor of [0, 1]) expect(verdict(http1({ bare: true, minor, fields: ['Host', host] }))).toBe('ERR_HOST')
      expect(verdict(http2({ bare: true, fields: [':authority', host] }))).toBe('ERR_HOST')
      expect(verdict(http2({ bare: true, fields: ['host', host] }))).toBe('ERR_HOST')
    })

  it('is checked for every request of a connection, whatever came before', () => {
    const one = connection()
    const ask = (host: string | undefined, minor = 1): RequestFacts | string =>
      outcome(http1({ bare: true, minor, fields: host === undefined ? [] : ['Host', host] }), one)
    expect(ask('a')).toMatchObject({ host: 'a' })
    expect(ask('a')).toMatchObject({ host: 'a' })
    expect(ask('a b')).toBe('ERR_HOST')
    expect(ask('a b')).toBe('ERR_HOST')
    expect(ask(undefined)).toBe('ERR_HOST')
    expect(ask(undefined, 0)).toMatchObject({ host: undefined })
    expect(ask('b')).toMatchObject({ host: 'b' })
  })
})

describe('what is kept of an HTTP/1 request', () => {
  it('a plain one', () => {
    const req = http1({ url: '/a?b=%20//..', fields: ['X-A', '1', 'x-a', '2'] })
    expect(facts(req)).toEqual({
      url: '/a?b=%20//..',
      raw: ['Host', 'a', 'X-A', '1', 'x-a', '2'],
      host: 'a',
      hasBody: false,
      length: undefined,
      expectsContinue: false,
      takesTrailers: false,
      announcesTrailers: false,
      connection: '',
      upgrade: undefined,
    })
    expect(facts(req).raw).toBe(req.rawHeaders)
  })

  const rows: [what: string, given: Given, kept: Partial<RequestFacts>][] = [
    ['no Host on HTTP/1.0', { bare: true, minor: 0 }, { host: undefined }],
    ['a length', { fields: ['content-LENGTH', '12'] }, { hasBody: true, length: 12 }],
    ['a length with zeros in front', { fields: ['Content-Length', '0012'] }, { hasBody: true, length: 12 }],
    ['a length of 0 is no body', { fields: ['Content-Length', '0'] }, { hasBody: false, length: 0 }],
    ['chunked', { fields: ['Transfer-Encoding', 'Chunked'] }, { hasBody: true, length: undefined }],
    ['Expect', { fields: ['Expect', '100-Continue'] }, { expectsContinue: true }],
    ['another expectation', { fields: ['Expect', 'coffee'] }, { expectsContinue: false }],
    ['Expect on HTTP/1.0 is not heard (RFC 9110 §10.1.1)', { minor: 0, fields: ['Expect', '100-continue'] }, { expectsContinue: false }],
    ['TE: trailers', { fields: ['TE', 'gzip;q=0.5, Trailers'] }, { takesTrailers: true }],
    ['TE: trailers with a weight', { fields: ['te', 'trailers;q=0.5'] }, { takesTrailers: true }],
    ['TE on two lines is one list', { fields: ['TE', 'trailers', 'TE', 'gzip'] }, { takesTrailers: true }],
    ['TE without trailers', { fields: ['TE', 'gzip, xtrailers, trailersx'] }, { takesTrailers: false }],
    ['TE on HTTP/1.0', { minor: 0, fields: ['TE', 'trailers'] }, { takesTrailers: false }],
    ['Trailer with chunked', { fields: ['Trailer', 'X-Sum', 'Transfer-Encoding', 'chunked'] }, { announcesTrailers: true }],
    ['Trailer with a length has no place to come', { fields: ['Trailer', 'X-Sum', 'Content-Length', '3'] }, { announcesTrailers: false }],
    ['Connection on two lines', { fields: ['Connection', 'close', 'CONNECTION', 'x-a'] }, { connection: 'close,x-a' }],
    ['Upgrade on two lines', { fields: ['Upgrade', 'websocket', 'upgrade', 'h2c'] }, { upgrade: 'websocket, h2c' }],
    ['OPTIONS *', { method: 'OPTIONS', url: '*' }, { url: '*' }],
    ['a target that looks like an authority', { url: '//b/c' }, { url: '//b/c', host: 'a' }],
  ]
  for (const [what, given, kept] of rows) it(what, () => expect(facts(http1(given))).toMatchObject(kept))

  describe('absolute-form', () => {
    const targets: [url: string, method: string, path: string][] = [
      ['http://a/x?y', 'GET', '/x?y'],
      ['HTTP://A/x', 'GET', '/x'],
      ['https://a/x', 'GET', '/x'],
      ['http://a', 'GET', '/'],
      ['http://a?x', 'GET', '/?x'],
      ['http://a', 'OPTIONS', '*'],
      ['http://a/', 'OPTIONS', '/'],
      ['http://a:80/x', 'GET', '/x'],
      ['http://a:/x', 'GET', '/x'],
      ['http://a//b', 'GET', '//b'],
    ]
    for (const [url, method, path] of targets)
      it(`${method} ${url} asks for ${path}`, () => expect(facts(http1({ method, url })).url).toBe(path))

    it('its authority replaces Host, once, and the other fields stay as they were (RFC 9112 §3.2.2)', () => {
      const { raw, host } = facts(http1({ bare: true, url: 'http://A:80/x', fields: ['X-A', '1', 'hOST', 'a', 'x-a', '2'] }))
      expect(host).toBe('A:80')
      expect(raw).toEqual(['Host', 'A:80', 'X-A', '1', 'x-a', '2'])
    })

    it('gives an HTTP/1.0 request without Host one', () => {
      expect(facts(http1({ bare: true, minor: 0, url: 'http://b:8080/x' }))).toMatchObject({ host: 'b:8080', raw: ['Host', 'b:8080'] })
    })
  })
})

describe('HTTP/2', () => {
  it('is told by the version', () => {
    expect(isHttp2(http2({}))).toBe(true)
    expect(isHttp2(http1({}))).toBe(false)
  })

  it('pseudo-fields go, Host comes first, the rest stays', () => {
    expect(facts(http2({ url: '/x?y', fields: ['accept', '*/*', 'x-a', '1', 'x-a', '2'] }))).toEqual({
      url: '/x?y',
      raw: ['Host', 'a', 'accept', '*/*', 'x-a', '1', 'x-a', '2'],
      host: 'a',
      hasBody: false,
      length: undefined,
      expectsContinue: false,
      takesTrailers: true,
      announcesTrailers: false,
      connection: '',
      upgrade: undefined,
    })
  })

  const refused: [what: string, given: Given, code: string][] = [
    ['neither :authority nor host', { bare: true }, 'ERR_HOST'],
    ['host against :authority', { fields: ['host', 'b'] }, 'ERR_HOST'],
    ['two hosts', { fields: ['host', 'a', 'host', 'a'] }, 'ERR_HOST'],
    ['the two default ports are two authorities', { bare: true, fields: [':authority', 'a:443', 'host', 'a:80'] }, 'ERR_HOST'],
    ['two lengths', { fields: ['content-length', '3', 'content-length', '3'] }, 'ERR_FRAMING'],
    ['a length that is none', { fields: ['content-length', '-3'] }, 'ERR_FRAMING'],
    ['absolute-form', { url: 'http://a/' }, 'ERR_TARGET'],
    ['an asterisk for GET', { url: '*' }, 'ERR_TARGET'],
    ['a fragment', { url: '/#x' }, 'ERR_TARGET'],
    ['extended CONNECT', { method: 'CONNECT', fields: [':protocol', 'websocket'] }, 'ERR_METHOD'],
  ]
  for (const [what, given, code] of refused) it(`${what}: ${code}`, () => expect(verdict(http2(given))).toBe(code))

  it('host alone, or the same as :authority', () => {
    expect(facts(http2({ bare: true, fields: ['host', 'b'] }))).toMatchObject({ host: 'b', raw: ['Host', 'b'] })
    expect(facts(http2({ fields: ['x-a', '1', 'host', 'A'] }))).toMatchObject({ host: 'a', raw: ['Host', 'a', 'x-a', '1'] })
    expect(facts(http2({ method: 'OPTIONS', url: '*' })).url).toBe('*')
  })

  it('the body is what the stream says, not what a field says', () => {
    expect(facts(http2({ ended: false }))).toMatchObject({ hasBody: true, length: undefined })
    expect(facts(http2({ ended: false, fields: ['content-length', '5'] }))).toMatchObject({ hasBody: true, length: 5 })
    expect(facts(http2({ ended: false, fields: ['content-length', '0'] }))).toMatchObject({ hasBody: false, length: 0 })
    expect(facts(http2({ ended: true }))).toMatchObject({ hasBody: false })
    expect(facts(http2({ ended: false, fields: ['trailer', 'x-sum', 'expect', '100-CONTINUE'] }))).toMatchObject({
      announcesTrailers: true,
      expectsContinue: true,
    })
    expect(facts(http2({ ended: false, fields: ['trailer', 'x-sum', 'content-length', '5'] })).announcesTrailers).toBe(false)
  })

  describe('cookie crumbs (RFC 9113 §8.2.3)', () => {
    it('become one field, where the first one stood', () => {
      const { raw } = facts(http2({ fields: ['x-a', '1', 'cookie', 'a=1', 'x-b', '2', 'cookie', 'b=2', 'cookie', 'c=3'] }))
      expect(raw).toEqual(['Host', 'a', 'x-a', '1', 'Cookie', 'a=1; b=2; c=3', 'x-b', '2'])
    })

    it('a value that reads Cookie is only a value', () => {
      const { raw } = facts(http2({ fields: ['x-a', 'Cookie', 'cookie', 'x-injected', 'x-b', '2'] }))
      expect(raw).toEqual(['Host', 'a', 'x-a', 'Cookie', 'Cookie', 'x-injected', 'x-b', '2'])
    })

    it('so is an authority that reads Cookie', () => {
      const { raw } = facts(http2({ bare: true, fields: [':authority', 'Cookie', 'x-a', '1', 'cookie', 'a=1'] }))
      expect(raw).toEqual(['Host', 'Cookie', 'x-a', '1', 'Cookie', 'a=1'])
    })
  })
})
