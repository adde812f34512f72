/** What is read of field values: directives, dates, dictionaries, ranges, conditions. */
import { HeaderList } from '@weir/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseDirectives, requestDirectives, responseDirectives } from './cache-control.ts'
import { isNotModified } from './conditional.ts'
import { parseHttpDate } from './http-date.ts'
import { parseNoVarySearch, SearchRules } from './no-vary-search.ts'
import { parseRange } from './range.ts'
import { parseDictionary, parseStringList, serializeString, targetedDirectives } from './structured-field.ts'
import { matches, selectingFields } from './vary.ts'

describe('Cache-Control', () => {
  const read = (text: string) => responseDirectives(parseDirectives(text))
  it.each([
    ['max-age=60', 60],
    ['MAX-AGE=060', 60],
    ['max-age="60"', 60],
    ['max-age=60, max-age=1', 60],
    ['foo="max-age=1, x", max-age=60', 60],
    ['a="\\"", max-age=60', 60],
    ['max-age=99999999999', 2_147_483_648],
    ['max-age=-1', 0],
    ['max-age=1.5', 0],
    ["max-age='60'", 0],
    ['max-age', 0],
    ['max-age =60', undefined],
    ['no-store', undefined],
  ])('%s', (text, seconds) => expect(read(text).maxAge).toBe(seconds))

  it('knows fields from the whole', () => {
    expect(read('no-cache')).toMatchObject({ noCache: true, withheld: [] })
    expect(read('no-cache="Set-Cookie, X-A", private="x-b"')).toMatchObject({
      noCache: false,
      private: false,
      withheld: ['set-cookie', 'x-a', 'x-b'],
    })
    expect(read('private=""').private).toBe(true)
  })

  it('reads what clients want', () => {
    expect(requestDirectives('max-stale', undefined).maxStale).toBe(Number.POSITIVE_INFINITY)
    expect(requestDirectives(undefined, 'no-cache').noCache).toBe(true)
    expect(requestDirectives('max-age=5', 'no-cache').noCache).toBe(false)
  })

  it('takes any text', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const { maxAge } = read(text)
        expect(maxAge === undefined || (Number.isInteger(maxAge) && maxAge >= 0)).toBe(true)
      }),
    )
  })
})

describe('dates', () => {
  const now = Date.UTC(2026, 10, 27)
  const at = Date.UTC(1994, 10, 6, 8, 49, 37)
  it.each([
    ['Sun, 06 Nov 1994 08:49:37 GMT', at],
    ['sun, 06 NOV 1994 08:49:37 gmt', at],
    ['Sunday, 06-Nov-94 08:49:37 GMT', at],
    ['Sun Nov  6 08:49:37 1994', at],
    ['Sunday, 06-Nov-30 08:49:37 GMT', Date.UTC(2030, 10, 6, 8, 49, 37)],
    ['0', undefined],
    ['1994-11-06T08:49:37Z', undefined],
    ['Sun, 06 Nov 1994 08:49:37 CET', undefined],
    ['Sun, 06 Nov 1994 25:49:37 GMT', undefined],
    ['Sun, 06 Nox 1994 08:49:37 GMT', undefined],
  ])('%s', (text, ms) => expect(parseHttpDate(text, now)).toBe(ms))

  it('reads what node writes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 4_000_000_000 }),
        (seconds) => void expect(parseHttpDate(new Date(seconds * 1000).toUTCString(), now)).toBe(seconds * 1000),
      ),
    )
  })
})

describe('structured fields', () => {
  it('reads dictionaries, and nothing that is none', () => {
    expect([...(parseDictionary('a=1, b, c="x\\"y";q=1, d=?0, e=tok/en, f=(1 "2");x, g=1.5')?.keys() ?? [])]).toEqual([
      'a',
      'b',
      'c',
      'd',
      'e',
      'f',
      'g',
    ])
    expect(parseDictionary('a=1, a=2')?.get('a')?.value).toBe(2)
    expect(parseDictionary('a=("x" "y")')?.get('a')?.strings).toEqual(['x', 'y'])
    for (const wrong of ['A=1', 'a=', 'a=1,', 'a="x', 'a=(1', 'a=1 b', '&&', 'a=1;', 'a=1.', 'a==1', 'a=1,,b'])
      expect(parseDictionary(wrong), wrong).toBeUndefined()
  })

  it('takes targeted directives of the right types only', () => {
    expect(targetedDirectives('max-age=60, private')).toEqual(
      new Map<string, string | true>([
        ['max-age', '60'],
        ['private', true],
      ]),
    )
    for (const wrong of ['max-age="60"', 'max-age=1.5', 'max-age=-1', 'max-age=60, &', ''])
      expect(targetedDirectives(wrong), wrong).toBeUndefined()
  })

  it('reads the strings that it writes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: 'grapheme-ascii' })),
        (list) => void expect(parseStringList(list.map(serializeString).join(', '))).toEqual(list),
      ),
    )
    expect(parseStringList('a')).toBeUndefined()
  })
})

describe('ranges', () => {
  it('are within the body, or are refused', () => {
    fc.assert(
      fc.property(fc.nat(50), fc.option(fc.nat(60)), fc.option(fc.nat(60)), (length, first, last) => {
        const range = parseRange(`bytes=${first ?? ''}-${last ?? ''}`, length)
        if (typeof range === 'string') return
        expect(range.start).toBeGreaterThanOrEqual(0)
        expect(range.end).toBeLessThanOrEqual(length)
        expect(range.end).toBeGreaterThan(range.start)
      }),
    )
  })
})

it('compares entity tags weakly, whatever stands in them', () => {
  const asks = (fields: Record<string, string>, etag: string | undefined) =>
    isNotModified(new HeaderList(Object.entries(fields).flat()), etag, undefined, 0)
  expect(asks({ 'if-none-match': '"a,b", W/"c"' }, '"a,b"')).toBe(true)
  expect(asks({ 'if-none-match': '"a,b", W/"c"' }, '"c"')).toBe(true)
  expect(asks({ 'if-none-match': '"a,b"' }, '"b"')).toBe(false)
  expect(asks({ 'if-none-match': '*' }, undefined)).toBe(true)
})

it('a rule about queries leaves what else is in the key', () => {
  const rules = new SearchRules()
  const stored = rules.learn('http://a/b?x=1&utm=2\ntenant', 'params=("utm")')
  expect(rules.keyFor('http://a/b?x=1\ntenant')).toBe(stored)
  expect(rules.keyFor('http://a/b?x=1\nother')).toBeUndefined()
  expect(rules.keyFor('http://a/c?x=1\ntenant')).toBeUndefined()
  for (const wrong of ['', 'params=?0', 'except=("a")', 'params=("a"), except=("b")', 'params=1', 'key-order=1', 'params=("a" 1)'])
    expect(parseNoVarySearch(wrong), wrong).toBeUndefined()
})

it('what a request selects matches itself, and a reordering of equals', () => {
  const token = fc.constantFrom('gzip', 'br', 'zstd', 'identity')
  fc.assert(
    fc.property(fc.uniqueArray(token, { minLength: 1 }), fc.string({ unit: 'grapheme-ascii' }), (codings, other) => {
      const request = (list: readonly string[]) => new HeaderList(['Accept-Encoding', list.join(', '), 'X-Other', other])
      const fields = selectingFields(['accept-encoding', 'x-other'], request(codings))
      expect(matches(fields, request([...codings].reverse()), undefined)).toBe(true)
      expect(matches(fields, new HeaderList(['X-Other', other]), undefined)).toBe(false)
    }),
  )
})
