/** Options are read once and judged whole: what each reader takes, what it gives back for a wrong value, and that no mistake hides another. */
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { OptionReader, OptionsError, parseDuration, parseSize } from './options.ts'

const problemsOf = (read: OptionReader): readonly { path: string; given: string; expected: string }[] => {
  try {
    read.check()
  } catch (error) {
    if (OptionsError.is(error)) return error.problems
    throw error
  }
  return []
}
const paths = (read: OptionReader): string[] => problemsOf(read).map((problem) => problem.path)

describe('parseDuration', () => {
  const rows: [value: unknown, ms: number | undefined][] = [
    [0, 0],
    [1.5, 1.5],
    ['250ms', 250],
    ['5s', 5000],
    ['1.5s', 1500],
    ['10m', 600_000],
    ['2h', 7_200_000],
    ['1d', 86_400_000],
    ['0s', 0],
    [-1, undefined],
    [Number.NaN, undefined],
    [Number.POSITIVE_INFINITY, undefined],
    ['5', undefined],
    ['5S', undefined],
    ['5 s', undefined],
    [' 5s', undefined],
    ['5s\n', undefined],
    ['-5s', undefined],
    ['.5s', undefined],
    ['1e3ms', undefined],
    ['5sec', undefined],
    ['5KiB', undefined],
    ['', undefined],
    [null, undefined],
    [true, undefined],
    [10n, undefined],
    [['5s'], undefined],
    [undefined, undefined],
  ]
  for (const [value, ms] of rows)
    it(`${String(JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? 'bigint' : v)))} (${typeof value}) is ${ms}`, () =>
      expect(parseDuration(value)).toBe(ms))

  it('every unit is its factor', () => {
    const factors = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
    fc.assert(
      fc.property(fc.nat(1_000_000), fc.constantFrom('ms', 's', 'm', 'h', 'd'), (n, unit) => {
        expect(parseDuration(`${n}${unit}`)).toBe(n * factors[unit])
      }),
    )
  })

  it('what is too large for a number is no duration, as Infinity is none', () => {
    expect(parseDuration(`${'9'.repeat(400)}ms`)).toBeUndefined()
  })
})

describe('parseSize', () => {
  const rows: [value: unknown, bytes: number | undefined][] = [
    [0, 0],
    [1.7, 1],
    ['1B', 1],
    ['64KiB', 65_536],
    ['1.5KiB', 1536],
    ['256MiB', 268_435_456],
    ['2GiB', 2_147_483_648],
    ['64KB', undefined],
    ['64kib', undefined],
    ['64', undefined],
    ['5s', undefined],
    [-1, undefined],
    [Number.POSITIVE_INFINITY, undefined],
    [{}, undefined],
  ]
  for (const [value, bytes] of rows) it(`${JSON.stringify(value)} is ${bytes}`, () => expect(parseSize(value)).toBe(bytes))

  it('what is too large for a number is no size', () => {
    expect(parseSize(`${'9'.repeat(400)}B`)).toBeUndefined()
  })
})

describe('readers', () => {
  type Case = [name: string, run: (read: OptionReader) => unknown, result: unknown, wrong: boolean]
  const rows: Case[] = [
    ['duration: absent is the fallback', (r) => r.duration('x', undefined, 7), 7, false],
    ['duration: a string', (r) => r.duration('x', '5s', 7), 5000, false],
    ['duration: null is not absent', (r) => r.duration('x', null, 7), 7, true],
    ['duration: below min', (r) => r.duration('x', 0, 7, { min: 1 }), 7, true],
    ['duration: at min', (r) => r.duration('x', 1, 7, { min: 1 }), 1, false],
    ['duration: the longest that a timer can take', (r) => r.duration('x', 2_147_483_647, 7), 2_147_483_647, false],
    ['duration: longer would fire at once', (r) => r.duration('x', '25d', 7), 7, true],
    ['size: absent', (r) => r.size('x', undefined, 7), 7, false],
    ['size: a string', (r) => r.size('x', '1KiB', 7), 1024, false],
    ['size: no unit', (r) => r.size('x', '1', 7), 7, true],
    ['size: below min', (r) => r.size('x', 9, 7, { min: 10 }), 7, true],
    ['size: above what can be counted', (r) => r.size('x', '99999999GiB', 7), 7, true],
    ['number: absent', (r) => r.number('x', undefined, 7), 7, false],
    ['number: any', (r) => r.number('x', -2.5, 7), -2.5, false],
    ['number: Infinity where no limit is', (r) => r.number('x', Number.POSITIVE_INFINITY, 7, { min: 1 }), Number.POSITIVE_INFINITY, false],
    ['number: NaN', (r) => r.number('x', Number.NaN, 7), 7, true],
    ['number: a numeral', (r) => r.number('x', '3', 7), 7, true],
    ['number: a fraction for a whole', (r) => r.number('x', 1.5, 7, { integer: true }), 7, true],
    ['number: Infinity for a whole', (r) => r.number('x', Number.POSITIVE_INFINITY, 7, { integer: true }), 7, true],
    ['number: above max', (r) => r.number('x', 11, 7, { min: 0, max: 10 }), 7, true],
    ['number: at both ends', (r) => [r.number('x', 0, 7, { min: 0, max: 10 }), r.number('x', 10, 7, { min: 0, max: 10 })], [0, 10], false],
    ['number: a fallback of another type', (r) => r.number('x', undefined, undefined), undefined, false],
    ['boolean: absent', (r) => r.boolean('x', undefined, true), true, false],
    ['boolean: false is given', (r) => r.boolean('x', false, true), false, false],
    ['boolean: 0 is no boolean', (r) => r.boolean('x', 0, true), true, true],
    ['boolean: null is no boolean', (r) => r.boolean('x', null, true), true, true],
    ['oneOf: absent', (r) => r.oneOf('x', undefined, ['a', 'b'], 'a'), 'a', false],
    ['oneOf: one of them', (r) => r.oneOf('x', 'b', ['a', 'b'], 'a'), 'b', false],
    ['oneOf: case matters', (r) => r.oneOf('x', 'B', ['a', 'b'], 'a'), 'a', true],
    ['object: absent', (r) => r.object<{ a: 1 }>(undefined, ['a']), {}, false],
    ['object: known names', (r) => r.object({ a: 1 }, ['a', 'b']), { a: 1 }, false],
  ]
  for (const [name, run, result, wrong] of rows)
    it(name, () => {
      const read = new OptionReader('make')
      expect(run(read)).toEqual(result)
      expect(paths(read)).toEqual(wrong ? ['x'] : [])
    })

  describe('functions', () => {
    const given = (): number => 1
    const fallback = (): number => 2

    it('are taken as they are; absent is the fallback, or nothing', () => {
      const read = new OptionReader('make')
      expect(read.function('x', given, fallback)).toBe(given)
      expect(read.function('x', undefined, fallback)).toBe(fallback)
      expect(read.optionalFunction('x', given)).toBe(given)
      expect(read.optionalFunction('x', undefined)).toBeUndefined()
      expect(paths(read)).toEqual([])
    })

    for (const value of [null, 5, 'random', {}, [given]])
      it(`${JSON.stringify(value)} is none`, () => {
        const read = new OptionReader('make')
        expect(read.at('a').function('x', value, fallback)).toBe(fallback)
        read.at('b').optionalFunction('x', value as never)
        expect(paths(read)).toEqual(['a.x', 'b.x'])
      })

    // The wrong value itself comes back, as if it could be called.
    it('what is none reads as absent where it may be', () => {
      expect(new OptionReader('make').optionalFunction('x', 5 as never)).toBeUndefined()
    })
  })

  for (const value of [null, 5, 'x', true, [], () => {}])
    it(`object: ${String(value)} (${typeof value}) is none, and reads as empty`, () => {
      const read = new OptionReader('make')
      expect(read.at('retry').object(value as object, ['a'])).toEqual({})
      expect(paths(read)).toEqual(['retry'])
    })

  it('object: a name that does not exist is a problem that lists the ones that do', () => {
    const read = new OptionReader('make')
    read.object({ attemps: 3, on: [] } as object, ['attempts', 'on'])
    expect(paths(read)).toEqual(['attemps'])
    expect(problemsOf(read)[0]?.expected).toMatch(/attempts.*on/)
  })

  it('object: a name from the prototype does not pass for a known one', () => {
    const read = new OptionReader('make')
    read.object(JSON.parse('{"__proto__": 1, "constructor": 2}') as object, ['a'])
    expect(paths(read)).toEqual(['__proto__', 'constructor'])
  })
})

describe('problems', () => {
  it('all are reported at once, each with its path, in the order in which they were read', () => {
    const read = new OptionReader('createProxy')
    read.number('weight', 'heavy', 1)
    const upstreams = read.at('upstreams')
    upstreams.at(1).number('weight', -1, 1, { min: 0 })
    upstreams.at(2).problem('', 'nonsense', 'a URL')
    read.at('retry').at('backoff').duration('base', 'soon', 25)
    read.problem('', 5, 'an object')
    expect(paths(read)).toEqual(['weight', 'upstreams[1].weight', 'upstreams[2]', 'retry.backoff.base', 'options'])
  })

  it('one error carries them: a TypeError with a code, the factory, and one line per problem', () => {
    const read = new OptionReader('createPool')
    read.boolean('a', 1, false)
    read.at('b').boolean('c', 2, false)
    let caught: unknown
    try {
      read.check()
    } catch (error) {
      caught = error
    }
    expect(caught).toBeInstanceOf(TypeError)
    expect(caught).toMatchObject({ name: 'OptionsError', code: 'ERR_OPTIONS' })
    const lines = (caught as Error).message.split('\n')
    expect(lines).toHaveLength(3)
    expect(lines[0]).toContain('createPool')
    expect(lines[1]).toMatch(/ a: .*given 1$/)
    expect(lines[2]).toMatch(/ b\.c: .*given 2$/)
  })

  it('nothing wrong, nothing thrown', () => {
    const read = new OptionReader('make')
    read.duration('x', '5s', 0)
    expect(() => read.check()).not.toThrow()
  })

  it('whatever was given can be shown, in little room', () => {
    const circular: Record<string, unknown> = {}
    circular.self = circular
    const rows: [given: unknown, shown: RegExp][] = [
      [undefined, /^undefined$/],
      [null, /^null$/],
      ['a b', /^"a b"$/],
      [5, /^5$/],
      [Number.NaN, /^NaN$/],
      [10n, /^10$/],
      [Symbol('s'), /^Symbol\(s\)$/],
      [function strategy() {}, /function.*strategy/],
      [() => {}, /function/],
      [new URL('http://a/'), /^http:\/\/a\/$/],
      [/x/i, /^\/x\/i$/],
      [{ a: [1] }, /^\{"a":\[1\]\}$/],
      [circular, /Object/],
      [{ toJSON: () => undefined }, /./],
      ['x'.repeat(500), /^"x{50,}\.\.\.$/],
      ['x'.repeat(78), /^"x{78}"$/],
      ['x'.repeat(79), /^"x{50,}\.\.\.$/],
    ]
    const read = new OptionReader('make')
    for (const [given] of rows) read.problem('x', given, 'something else')
    const shown = problemsOf(read).map((problem) => problem.given)
    expect(shown).toHaveLength(rows.length)
    rows.forEach(([, pattern], index) => {
      expect(shown[index]).toMatch(pattern)
      expect((shown[index] as string).length).toBeLessThanOrEqual(80)
    })
  })
})

describe('OptionsError.is', () => {
  it('knows the errors of another copy of this package, and nothing else', async () => {
    vi.resetModules()
    const copy = await import('./options.ts')
    expect(copy.OptionsError).not.toBe(OptionsError)
    const foreign = new copy.OptionsError('make', [])
    expect(foreign).not.toBeInstanceOf(OptionsError)
    expect(OptionsError.is(foreign)).toBe(true)
    expect(OptionsError.is(new OptionsError('make', []))).toBe(true)
    for (const other of [new TypeError('x'), { name: 'OptionsError', code: 'ERR_OPTIONS' }, null, undefined, 'ERR_OPTIONS', 5])
      expect(OptionsError.is(other)).toBe(false)
  })
})
