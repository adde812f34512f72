/**
 * Prefixes by whole segments, and the promise of a base path. The servers behind a proxy read one path in many ways, so what is let through
 * is given to all of them at once: decoded not at all, once or twice, with backslashes for slashes, with path parameters cut off, cut at an
 * octet that ends strings elsewhere. None of these readings may leave the base.
 */
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { ProxyError } from './errors.ts'
import { hasPrefix, joinBase, refuseClimbing, stripPrefix } from './target.ts'

const accepted = (url: string): boolean => {
  try {
    refuseClimbing(url)
    return true
  } catch (error) {
    expect(ProxyError.is(error) && error.code).toBe('ERR_TARGET')
    return false
  }
}

const decode = (text: string): string => text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))

interface Reading {
  readonly decodings: number
  readonly backslash: boolean
  /** `;a=b` at the end of a segment is cut off, before or after decoding. */
  readonly params: 'none' | 'before' | 'after'
  /** Nothing counts from one of these octets on, once decoded. */
  readonly stop: string
  readonly mergeSlashes: boolean
}

const readings: Reading[] = []
for (const decodings of [0, 1, 2])
  for (const backslash of [false, true])
    for (const params of ['none', 'before', 'after'] as const)
      for (const stop of ['', '?', '#', '\0'])
        for (const mergeSlashes of [false, true]) readings.push({ decodings, backslash, params, stop, mergeSlashes })

/** Where a server that reads like this looks for `url`: a resolved path. */
function resolve(url: string, reading: Reading): string {
  const cutParams = (path: string): string =>
    path
      .split(reading.backslash ? /(?<=[/\\])/ : /(?<=\/)/)
      .map((segment) => segment.replace(/;[^/\\]*/, ''))
      .join('')
  let path = url.split('?', 1)[0] as string
  if (reading.params === 'before') path = cutParams(path)
  for (let i = 0; i < reading.decodings; i++) path = decode(path)
  if (reading.stop !== '') path = path.split(reading.stop, 1)[0] as string
  if (reading.backslash) path = path.replaceAll('\\', '/')
  if (reading.params === 'after') path = cutParams(path)
  if (reading.mergeSlashes) path = path.replace(/\/+/g, '/')
  const stack: string[] = []
  for (const segment of path.split('/').slice(1)) {
    if (segment === '..') stack.pop()
    else if (segment !== '.') stack.push(segment)
  }
  return `/${stack.join('/')}`
}

const piece = fc.constantFrom(
  '..',
  '.',
  '%2e',
  '%2E',
  '%252e',
  '%25%32%65',
  '/',
  '\\',
  '%2f',
  '%2F',
  '%5c',
  '%5C',
  '%252f',
  '%25%35%63',
  ';',
  ';a=b',
  '%3b',
  '%253b',
  'a',
  'bc',
  '%00',
  '%2500',
  '%',
  '%2',
  '%25',
  '?',
  '%3f',
  '%253f',
  '%23',
  '&',
)
const target = fc.array(piece, { maxLength: 9 }).map((pieces) => `/${pieces.join('')}`)

describe('nothing that is let through leaves its base', () => {
  it('however a server reads it', () => {
    fc.assert(
      fc.property(target, fc.constantFrom('/base', '/base/deep'), (url, base) => {
        if (!accepted(url)) return
        for (const reading of readings) {
          const path = resolve(joinBase(base, url), reading)
          expect(path === base || path.startsWith(`${base}/`), `${url} read as ${path} by ${JSON.stringify(reading)}`).toBe(true)
        }
      }),
      { numRuns: 1500 },
    )
  })

  it('the readings are real: without the check nearly each of them leaves the base somewhere', () => {
    const out = (url: string, reading: Partial<Reading>): string =>
      resolve(`/base${url}`, { decodings: 0, backslash: false, params: 'none', stop: '', mergeSlashes: false, ...reading })
    expect(out('/../x', {})).toBe('/x')
    expect(out('/%2e%2E/x', { decodings: 1 })).toBe('/x')
    expect(out('/%252e./x', { decodings: 2 })).toBe('/x')
    expect(out('/..\\x', { backslash: true })).toBe('/x')
    expect(out('/..;a=b/x', { params: 'before' })).toBe('/x')
    expect(out('/..%3ba/x', { decodings: 1, params: 'after' })).toBe('/x')
    expect(out('/..%00a', { decodings: 1, stop: '\0' })).toBe('/')
    expect(out('/a%2f..%5c../x', { decodings: 1, backslash: true })).toBe('/x')
  })
})

describe('what is refused', () => {
  const climbing = [
    '/..',
    '/../',
    '/../x',
    '/a/..',
    '/a/../b',
    '/..?x',
    '/..;',
    '/..;a=b/c',
    '/%2e%2e',
    '/.%2E/',
    '/%2E./x',
    '/..%2f',
    '/a%2F..%2Fb',
    '/..\\',
    '\\..\\x',
    '/a\\..',
    '/..%5cx',
    '/..%3bx',
    '/..%00',
    '/..%23x',
    '/..%3fx',
    '..',
    '/%252e%252e/',
    '/..%252f',
    '/%25%32%65%25%32%65/x',
    '/..%255cx',
  ]
  for (const url of climbing) it(url, () => expect(accepted(url)).toBe(false))
})

describe('what passes', () => {
  const harmless = [
    '/',
    '/a',
    '/a..',
    '/..a',
    '/a..b/c',
    '/...',
    '/..../x',
    '/.',
    '/./a',
    '/.a',
    '/a;..',
    '/a/.;b',
    '/%2e',
    '/a%2eb',
    '/%2e%2e%2e',
    '/?..',
    '/a?b=/../c',
    '/a?%2e%2e/',
    '//',
    '//a//b',
    '/%',
    '/%zz..',
    '/~a',
    '*',
  ]
  for (const url of harmless) it(url, () => expect(accepted(url)).toBe(true))

  it('every target that holds no two dots in a row, even when decoded twice', () => {
    fc.assert(
      fc.property(target, (url) => {
        const path = url.split('?', 1)[0] as string
        if (![path, decode(path), decode(decode(path))].some((text) => text.includes('..'))) expect(accepted(url)).toBe(true)
      }),
    )
  })
})

describe('a hostile target', () => {
  // One decoding per pass is a pass per two octets: sixteen thousand octets of "%2525..." held the process for a tenth of a second.
  const nested = (depth: number): string => (depth === 0 ? '.' : nested(depth - 1).replace(/./g, (c) => `%${c.charCodeAt(0).toString(16)}`))
  const rows: [what: string, url: string][] = [
    ['a percent sign, encoded over and over', `/%${'25'.repeat(8000)}`],
    ['the same, and dots at the bottom', `/%${'25'.repeat(4000)}2e%${'25'.repeat(3900)}2e/x`],
    ['every octet of every depth encoded', `/${nested(8)}a`],
  ]
  for (const [what, url] of rows)
    it(`is looked at a few times, not once per octet: ${what}`, () => {
      const replace = vi.spyOn(String.prototype, 'replace')
      const test = vi.spyOn(RegExp.prototype, 'test')
      accepted(url)
      const passes = replace.mock.calls.length + test.mock.calls.length
      vi.restoreAllMocks()
      expect(passes).toBeLessThan(40)
    })

  it('dots at any depth are found', () => {
    for (let depth = 0; depth <= 7; depth++) expect(accepted(`/${nested(depth)}${nested(depth)}/x`)).toBe(false)
    expect(accepted(`/%${'25'.repeat(4000)}2e%${'25'.repeat(3900)}2e/x`)).toBe(false)
  })
})

describe('prefixes', () => {
  const rows: [url: string, prefix: string, rest: string | undefined][] = [
    ['/api', '/api', '/'],
    ['/api/', '/api', '/'],
    ['/api/x/y?z', '/api', '/x/y?z'],
    ['/api?x', '/api', '/?x'],
    ['/api//x', '/api', '//x'],
    ['/apix', '/api', undefined],
    ['/api.json', '/api', undefined],
    ['/api%2fx', '/api', undefined],
    ['/API/x', '/api', undefined],
    ['/%61pi', '/api', undefined],
    ['/ap', '/api', undefined],
    ['/x/api', '/api', undefined],
    ['/a/b/c', '/a/b', '/c'],
    ['/a/bc', '/a/b', undefined],
  ]
  for (const [url, prefix, rest] of rows)
    it(`${prefix} ${rest === undefined ? 'does not cover' : 'covers'} ${url}`, () => {
      expect(hasPrefix(url, prefix)).toBe(rest !== undefined)
      if (rest !== undefined) expect(stripPrefix(url, prefix)).toBe(rest)
    })

  it('taking one off and putting it on again gives the same bytes', () => {
    const segment = fc.constantFrom('a', 'api', '%2F', '.', '', 'b;c', '\xe9')
    fc.assert(
      fc.property(
        fc.array(segment, { minLength: 1, maxLength: 3 }),
        fc.array(segment, { maxLength: 4 }),
        fc.constantFrom('', '?', '?a=/b'),
        (front, rest, query) => {
          const prefix = `/${front.join('/')}`.replace(/\/+$/, '')
          const url = `${prefix}/${rest.join('/')}${query}`
          expect(hasPrefix(url, prefix)).toBe(true)
          expect(joinBase(prefix, stripPrefix(url, prefix))).toBe(url)
        },
      ),
    )
  })

  it('a base stands before everything but the server itself', () => {
    expect(joinBase('/base', '/x?y')).toBe('/base/x?y')
    expect(joinBase('', '/x')).toBe('/x')
    expect(joinBase('/base', '*')).toBe('*')
  })
})
