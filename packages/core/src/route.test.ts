/**
 * The router has an index by host and by first path segment; the rule it must keep is that of a list: the first route that matches wins. So
 * it is held against the list, read from the top, with the match written out in the plainest way.
 */
import { stubExchange } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Exchange } from './exchange.ts'
import { HeaderList } from './headers.ts'
import { OptionReader, type OptionsError } from './options.ts'
import { type CompiledRoute, compileMatch, normaliseHost, type RouteMatch, Router } from './route.ts'

interface Request {
  readonly url: string
  readonly method: string
  readonly host: string | undefined
  readonly fields: readonly string[]
}
type Match = RouteMatch | ((exchange: Exchange) => boolean)

const exchangeOf = (request: Request): Exchange => ({
  ...stubExchange({ url: request.url, method: request.method }),
  headers: new HeaderList(request.fields),
})

function routesOf(matches: readonly (Match | undefined)[]): CompiledRoute[] {
  const read = new OptionReader('createProxy')
  const routes = matches.map((match, index) => ({ ...compileMatch(match, read), index }) as CompiledRoute)
  read.check()
  return routes
}

/** Does this match hold? */
function holds(match: Match | undefined, request: Request): boolean {
  if (match === undefined) return true
  if (typeof match === 'function') return match(exchangeOf(request))
  const some = (rule: string | readonly string[] | undefined, test: (entry: string) => boolean): boolean =>
    rule === undefined || [rule].flat().some(test)
  const name = request.host?.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '')
  const path = request.url.split('?', 1)[0] as string
  return (
    some(match.host, (rule) => {
      const wanted = rule.toLowerCase()
      if (name === undefined) return false
      return wanted.startsWith('*.') ? name.endsWith(wanted.slice(1)) && name !== wanted.slice(1) : name === wanted
    }) &&
    some(match.path, (rule) => {
      const prefix = rule.replace(/\/+$/, '')
      return path === prefix || path.startsWith(`${prefix}/`) || prefix === ''
    }) &&
    some(match.method, (rule) => rule.toUpperCase() === request.method) &&
    Object.entries(match.header ?? {}).every(([field, wanted]) => {
      const lines = request.fields.filter((_, i) => i % 2 === 1 && request.fields[i - 1]?.toLowerCase() === field.toLowerCase())
      return lines.length > 0 && (wanted === true || lines.join(', ') === wanted)
    })
  )
}

describe('the router', () => {
  const oneOrMore = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | T[]> => fc.oneof(value, fc.array(value, { minLength: 1, maxLength: 3 }))
  const hostRule = fc.constantFrom(
    'a.example',
    'A.Example',
    'b.a.example',
    '*.a.example',
    '*.example',
    '*.b.a.example',
    'localhost',
    '[::1]',
  )
  const pathRule = fc.constantFrom('/', '/a', '/a/', '/a/b', '/ab', '/b', '/A', '//a', '/a/b/c', '/%61')
  const rule: fc.Arbitrary<Match | undefined> = fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record(
        {
          host: oneOrMore(hostRule),
          path: oneOrMore(pathRule),
          method: oneOrMore(fc.constantFrom('GET', 'post', 'PUT')),
          header: fc.dictionary(fc.constantFrom('x-a', 'X-B', 'accept'), fc.constantFrom('1', '1, 2', true as const), { maxKeys: 2 }),
        },
        { requiredKeys: [] },
      ) as fc.Arbitrary<RouteMatch>,
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        (exchange: Exchange) => exchange.url.includes('b'),
        () => true,
        () => false,
      ),
    },
    { weight: 1, arbitrary: fc.constant(undefined) },
  )
  const request: fc.Arbitrary<Request> = fc.record({
    url: fc.constantFrom('/', '/a', '/a/', '/a?x=/b', '/a/b', '/a/b/c/d', '/ab', '/a/bc', '/b?', '/A', '//a', '//a/b', '/?/a', '/%61', '*'),
    method: fc.constantFrom('GET', 'POST', 'PUT', 'get'),
    host: fc.constantFrom(
      undefined,
      'a.example',
      'A.EXAMPLE:8080',
      'a.example.',
      'a.example.:80',
      'b.a.example',
      'c.b.a.example',
      'xa.example',
      'example',
      'LOCALHOST',
      '[::1]:3000',
      'localhost:',
    ),
    fields: fc
      .array(fc.tuple(fc.constantFrom('X-A', 'x-a', 'x-b', 'Accept'), fc.constantFrom('1', '2')), { maxLength: 3 })
      .map((pairs) => pairs.flat()),
  })

  it('finds what reading the list from the top finds', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 10 }), fc.array(request, { minLength: 1, maxLength: 8 }), (matches, requests) => {
        const routes = routesOf(matches)
        const router = new Router(routes)
        for (const asked of requests) {
          const expected = matches.findIndex((match) => holds(match, asked))
          expect(router.find(exchangeOf(asked), asked.host)?.index ?? -1).toBe(expected)
        }
      }),
      { numRuns: 1000 },
    )
  })

  it('a function is asked only when no earlier route took the request', () => {
    const asked: string[] = []
    const note = (name: string, answer: boolean) => (): boolean => {
      asked.push(name)
      return answer
    }
    const router = new Router(routesOf([{ path: '/b' }, note('first', false), { path: '/a' }, note('second', true), note('third', true)]))
    const find = (url: string): number | undefined => router.find(exchangeOf({ url, method: 'GET', host: 'h', fields: [] }), 'h')?.index
    expect([find('/b'), find('/a'), find('/c')]).toEqual([0, 2, 3])
    expect(asked).toEqual(['first', 'first', 'second'])
  })

  it('without routes there is none', () => expect(new Router([]).find(stubExchange(), 'a')).toBeUndefined())
})

describe('hosts', () => {
  const rows: [host: string, name: string][] = [
    ['example.com', 'example.com'],
    ['EXAMPLE.com', 'example.com'],
    ['example.com:8080', 'example.com'],
    ['example.com:', 'example.com'],
    ['example.com.', 'example.com'],
    ['example.com.:443', 'example.com'],
    ['192.0.2.1:80', '192.0.2.1'],
    ['[::1]', '[::1]'],
    ['[2001:DB8::1]:8080', '[2001:db8::1]'],
    ['::1', '::1'],
    ['', ''],
  ]
  for (const [host, name] of rows) it(`${host} is ${name}`, () => expect(normaliseHost(host)).toBe(name))
})

describe('what a match may say', () => {
  const problems = (match: unknown): string[] => {
    const read = new OptionReader('createProxy')
    compileMatch(match, read.at('match'))
    try {
      read.check()
    } catch (error) {
      return (error as OptionsError).problems.map(({ path }) => path)
    }
    return []
  }
  const fine: unknown[] = [
    undefined,
    {},
    () => true,
    { host: 'a' },
    { host: ['A.example', '*.Example.com', 'a_b', '10.0.0.1', '[::1]', 'xn--a'] },
    { host: 'a.example:8080' },
    { path: '/' },
    { path: ['/a', '/a/b/', '/%20', '/~;='] },
    { method: 'get' },
    { header: { 'X-A': true, accept: 'text/html' } },
  ]
  for (const match of fine) it(`${JSON.stringify(match)} is fine`, () => expect(problems(match)).toEqual([]))

  const wrong: [match: unknown, paths: string[]][] = [
    ['/a', ['match']],
    [null, ['match']],
    [[{ path: '/a' }], ['match']],
    [{ paths: '/a' }, ['match.paths']],
    [{ host: '' }, ['match.host']],
    [{ host: [] }, ['match.host']],
    [{ host: 5 }, ['match.host']],
    [{ host: ['a', 5] }, ['match.host']],
    [{ host: '*' }, ['match.host']],
    [{ host: 'a.*' }, ['match.host']],
    [{ host: '*a.example' }, ['match.host']],
    [{ host: 'a b' }, ['match.host']],
    [{ host: 'a/b' }, ['match.host']],
    [{ host: 'http://a.example' }, ['match.host']],
    [{ host: 'http://a.example:80' }, ['match.host']],
    [{ host: 'b\xfccher.example' }, ['match.host']],
    [{ path: 'a' }, ['match.path']],
    [{ path: '/a?x' }, ['match.path']],
    [{ path: '/a#x' }, ['match.path']],
    [{ path: '/a b' }, ['match.path']],
    [{ path: '' }, ['match.path']],
    [{ path: /a/ }, ['match.path']],
    [{ method: [] }, ['match.method']],
    [{ method: 5 }, ['match.method']],
    [{ header: { 'X-A': 1 } }, ['match.header']],
    [{ header: { 'X-A': false } }, ['match.header']],
    [{ header: 'x-a' }, ['match.header']],
    [{ header: ['x-a'] }, ['match.header']],
    [{ header: null }, ['match.header']],
    [{ host: '', path: 'a', method: 5, header: { a: 1 } }, ['match.host', 'match.path', 'match.method', 'match.header']],
  ]
  for (const [match, paths] of wrong) it(`${JSON.stringify(match)} is not`, () => expect(problems(match)).toEqual(paths))
})
