/** `Cookie` and `Set-Cookie` fields from anybody: what is found, and that nothing else changes by an octet. */
import { HeaderList } from '@weir/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cookieValues, editCookies } from './cookie-pairs.ts'
import { editSetCookies, isRemoval, parseSetCookie, setCookieOf } from './set-cookie.ts'

const list = (...lines: string[]): HeaderList => new HeaderList(lines.flatMap((line) => ['Cookie', line]))
const drop = (): undefined => undefined

describe('cookieValues', () => {
  it.each([
    ['one', ['s=1'], ['1']],
    ['among others', ['a=1; s=2; b=3'], ['2']],
    ['without spaces', ['a=1;s=2;b=3'], ['2']],
    ['in quotes', ['s="2"'], ['2']],
    ['with one quote', ['s="2'], ['"2']],
    ['with = inside', ['s=a=b=='], ['a=b==']],
    ['empty', ['s='], ['']],
    ['twice, and over several lines', ['s=1; s=2', 'a=1', 's=3'], ['1', '2', '3']],
    ['more often than anybody needs', ['s=1;s=2;s=3;s=4;s=5'], ['1', '2', '3', '4']],
    ['of another case', ['S=1'], []],
    ['as the end of another name', ['xs=1; s.=2; s x=3'], []],
    ['as a value', ['a=s; b="s=1'], []],
    ['without =', ['s; s'], []],
    ['not at all', [], []],
  ])('finds a cookie %s', (_, lines, expected) => {
    expect(cookieValues(list(...lines), 's')).toEqual(expected)
  })
})

describe('editCookies', () => {
  it.each([
    ['first', ['s=1; a=1; b="x;y"'], ['a=1; b="x;y"']],
    ['in the middle', ['a=1; s=1; b=2'], ['a=1; b=2']],
    ['last', ['a=1;  b=2 ; s=1'], ['a=1;  b=2 ']],
    ['alone', ['s=1'], []],
    ['alone on its line', ['a=1', 's=1', 'b=2'], ['a=1', 'b=2']],
    ['twice', ['s=1; a=1; s="2"'], ['a=1']],
  ])('takes one out that is %s', (_, lines, expected) => {
    const headers = list(...lines)
    expect(editCookies(headers, 's', drop)).toBe(true)
    expect(headers.getAll('cookie')).toEqual(expected)
  })

  it('changes a value in its place', () => {
    const headers = list('a=1; s=x~2; b=3', 's=x~')
    expect(editCookies(headers, 's', (value) => value.slice(2))).toBe(true)
    expect(headers.getAll('cookie')).toEqual(['a=1; s=2; b=3', 's='])
  })

  it('keeps the quotes around a value', () => {
    const headers = list('a="1"; s="x~a b"; b="3"')
    expect(editCookies(headers, 's', (value) => value.slice(2))).toBe(true)
    expect(headers.getAll('cookie')).toEqual(['a="1"; s="a b"; b="3"'])
    const set = new HeaderList(['Set-Cookie', 's="a b"; Path=/', 'Set-Cookie', 's=1'])
    expect(editSetCookies(set, 's', 0, (value) => `x~${value}`)).toBe(true)
    expect(set.getAll('set-cookie')).toEqual(['s="x~a b"; Path=/', 's=x~1'])
  })

  it('keeps the name of the field as it was sent', () => {
    const headers = new HeaderList(['cookie', 's=1; a=1', 'x', 'y'])
    editCookies(headers, 's', drop)
    expect(headers.raw).toEqual(['cookie', 'a=1', 'x', 'y'])
  })

  const octets = fc.string({ unit: fc.constantFrom(...'sa=;"\\ ,\t\x80\xff~1'.split('')), maxLength: 60 })

  it('never throws, takes out all of them, and leaves every other pair as it was', () => {
    fc.assert(
      fc.property(fc.array(octets, { maxLength: 4 }), (lines) => {
        const pieces = (all: readonly string[]): string[] =>
          all.flatMap((line) => line.split(';').map((piece) => piece.trim())).filter((piece) => piece !== '' && !/^s\s*=/.test(piece))
        const headers = list(...lines)
        const before = headers.raw
        const changed = editCookies(headers, 's', drop)
        expect(cookieValues(headers, 's')).toEqual([])
        expect(pieces(headers.getAll('cookie'))).toEqual(pieces(lines))
        if (!changed) expect(headers.raw).toBe(before)
      }),
    )
  })

  it('leaves lines without the cookie untouched', () => {
    fc.assert(
      fc.property(fc.array(octets.filter((line) => !line.includes('s') && line !== '')), (lines) => {
        const headers = list(...lines, 's=1')
        editCookies(headers, 's', drop)
        expect(headers.getAll('cookie')).toEqual(lines)
      }),
    )
  })

  it('copes with a line of nothing but semicolons', () => {
    const headers = list(`${';'.repeat(100_000)}s=1`)
    expect(cookieValues(headers, 's')).toEqual(['1'])
    editCookies(headers, 's', drop)
    expect(headers.getAll('cookie')).toEqual([';'.repeat(99_999)])
  })
})

describe('Set-Cookie', () => {
  it.each([
    ['s=1', '1', ''],
    ['s=1; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT', '1', '; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT'],
    ['s="1";Path=/', '1', ';Path=/'],
    ['s=a=b', 'a=b', ''],
    ['s=', '', ''],
  ])('%s is cut where its value begins and ends', (line, value, tail) => {
    expect(parseSetCookie(line, 's')).toMatchObject({ head: 's=', value, tail })
  })

  it.each(['t=1', 'S=1', 's', '; s=1', 'x; s=1'])('%s is another one', (line) => {
    expect(parseSetCookie(line, 's')).toBeUndefined()
  })

  it('of one name twice: the last one counts', () => {
    expect(setCookieOf(new HeaderList(['Set-Cookie', 's=1', 'set-cookie', 's=2', 'set-cookie', 't=3']), 's')?.value).toBe('2')
  })

  it.each([
    ['s=; Path=/', true],
    ['s=1; Max-Age=0', true],
    ['s=1; max-age = -1 ; Path=/', true],
    ['s=deleted; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Path=/', true],
    ['s=1; Max-Age=01', false],
    ['s=1; X-Max-Age=0', false],
    ['s=1; Expires=Wed, 21 Oct 2099 07:28:00 GMT', false],
    ['s=1; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=60', false],
    ['s=1; Expires=nonsense', false],
    ['s=1', false],
  ])('%s: takes the cookie away: %s', (line, removes) => {
    expect(isRemoval(parseSetCookie(line, 's') as never, 1_800_000_000_000)).toBe(removes)
  })

  it('is edited in the value only, and not when it takes the cookie away', () => {
    const headers = new HeaderList(['Set-Cookie', 's=1; Path=/', 'Set-Cookie', 't=1', 'Set-Cookie', 's=; Max-Age=0'])
    expect(editSetCookies(headers, 's', 0, (value) => `x${value}`)).toBe(true)
    expect(headers.getAll('set-cookie')).toEqual(['s=x1; Path=/', 't=1', 's=; Max-Age=0'])
    expect(editSetCookies(headers, 'u', 0, (value) => `x${value}`)).toBe(false)
  })
})
