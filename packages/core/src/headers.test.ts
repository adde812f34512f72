/**
 * `HeaderList` against a model that is too simple to be wrong: an array of pairs, filtered and mapped. The list it was made from belongs to
 * the parser and to other lists, so it is frozen throughout: a write to it throws.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ProxyError } from './errors.ts'
import { checkField, filterFields, HeaderList, isField } from './headers.ts'

type Pair = readonly [name: string, value: string]
const flat = (pairs: readonly Pair[]): readonly string[] => Object.freeze(pairs.flat())
const is =
  (name: string) =>
  (pair: Pair): boolean =>
    pair[0].toLowerCase() === name.toLowerCase()

// Few names in several spellings, so that operations meet; two of one length, so that comparing lengths alone would show.
const name = fc.constantFrom('Host', 'host', 'Via', 'VIA', 'TE', 'Set-Cookie', 'set-cookie', 'SET-COOKIE', 'X-A', 'x-a', 'X-B', 'Accept')
const value = fc.constantFrom('', '1', '2', 'a, b', 'caf\xe9', 'tab\there')
const pairs = fc.array(fc.tuple(name, value), { maxLength: 8 })

type Operation =
  | { readonly do: 'set'; readonly name: string; readonly values: string | readonly string[] }
  | { readonly do: 'append'; readonly name: string; readonly value: string }
  | { readonly do: 'delete'; readonly name: string }
  | { readonly do: 'rename'; readonly from: string; readonly to: string }

const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ do: fc.constant('set' as const), name, values: fc.oneof(value, fc.array(value, { maxLength: 3 })) }),
  fc.record({ do: fc.constant('append' as const), name, value }),
  fc.record({ do: fc.constant('delete' as const), name }),
  fc.record({ do: fc.constant('rename' as const), from: name, to: name }),
)

/** What the operation returns, and the pairs afterwards. */
function model(before: readonly Pair[], op: Operation): [result: boolean | 'this', after: readonly Pair[]] {
  switch (op.do) {
    case 'set': {
      const lines = [op.values].flat().map((line): Pair => [op.name, line])
      const at = before.findIndex(is(op.name))
      if (at < 0) return ['this', [...before, ...lines]]
      return ['this', [...before.slice(0, at), ...lines, ...before.slice(at).filter((pair) => !is(op.name)(pair))]]
    }
    case 'append':
      return ['this', [...before, [op.name, op.value]]]
    case 'delete':
      return [before.some(is(op.name)), before.filter((pair) => !is(op.name)(pair))]
    case 'rename':
      return [before.some(is(op.from)), before.map((pair) => (is(op.from)(pair) ? [op.to, pair[1]] : pair))]
  }
}

function apply(list: HeaderList, op: Operation): boolean | HeaderList {
  switch (op.do) {
    case 'set':
      return list.set(op.name, op.values)
    case 'append':
      return list.append(op.name, op.value)
    case 'delete':
      return list.delete(op.name)
    case 'rename':
      return list.rename(op.from, op.to)
  }
}

function expectSame(list: HeaderList, expected: readonly Pair[]): void {
  expect([...list]).toEqual(expected)
  expect(list.raw).toEqual(expected.flat())
  expect(list.size).toBe(expected.length)
  for (const asked of ['host', 'VIA', 'te', 'Set-Cookie', 'x-A', 'X-b', 'accept', 'absent']) {
    const values = expected.filter(is(asked)).map((pair) => pair[1])
    expect(list.getAll(asked)).toEqual(values)
    expect(list.has(asked)).toBe(values.length > 0)
    const joined = is(asked)(['set-cookie', '']) ? values[0] : values.join(', ')
    expect(list.get(asked)).toBe(values.length === 0 ? undefined : joined)
  }
}

describe('HeaderList', () => {
  it('does what the model does, whatever the operations, and never writes to its source', () => {
    fc.assert(
      fc.property(pairs, fc.array(operation, { maxLength: 12 }), (start, operations) => {
        const source = flat(start)
        const list = new HeaderList(source)
        let expected: readonly Pair[] = start
        expectSame(list, expected)
        for (const op of operations) {
          const [result, after] = model(expected, op)
          expect(apply(list, op)).toBe(result === 'this' ? list : result)
          expected = after
          expectSame(list, expected)
        }
        expect(source).toEqual(start.flat())
      }),
      { numRuns: 500 },
    )
  })

  it('two lists over one source do not see each other', () => {
    fc.assert(
      fc.property(pairs, fc.array(operation, { maxLength: 6 }), fc.array(operation, { maxLength: 6 }), (start, mine, yours) => {
        const source = flat(start)
        const a = new HeaderList(source)
        const b = new HeaderList(source)
        const length = Math.max(mine.length, yours.length)
        for (let i = 0; i < length; i++) {
          if (mine[i] !== undefined) apply(a, mine[i] as Operation)
          if (yours[i] !== undefined) apply(b, yours[i] as Operation)
        }
        const run = (operations: readonly Operation[]): readonly Pair[] =>
          operations.reduce<readonly Pair[]>((state, op) => model(state, op)[1], start)
        expect([...a]).toEqual(run(mine))
        expect([...b]).toEqual(run(yours))
      }),
    )
  })

  it('shares the source until the first write', () => {
    const source = flat([['Host', 'a']])
    const list = new HeaderList(source)
    expect(list.raw).toBe(source)
    expect(list.delete('absent')).toBe(false)
    expect(list.rename('absent', 'X-A')).toBe(false)
    expect(list.raw).toBe(source)
    list.append('Via', '1.1 a')
    expect(list.raw).not.toBe(source)
  })

  it('a list taken from a list is a source like any other', () => {
    const first = new HeaderList([]).append('X-A', '1')
    const second = new HeaderList(Object.freeze(first.raw))
    second.set('X-A', '2')
    expect(first.get('x-a')).toBe('1')
  })
})

describe('what HTTP forbids', () => {
  const code = (run: () => unknown): string | undefined => {
    try {
      run()
      return undefined
    } catch (error) {
      return ProxyError.is(error) ? error.code : 'another error'
    }
  }

  it('every octet of a value: HTAB, SP, VCHAR and obs-text pass, the rest never', () => {
    for (let octet = 0; octet <= 0x17f; octet++) {
      const allowed = octet === 0x09 || (octet >= 0x20 && octet <= 0x7e) || (octet >= 0x80 && octet <= 0xff)
      const text = `a${String.fromCharCode(octet)}b`
      for (const write of [
        (list: HeaderList) => list.set('X-A', text),
        (list: HeaderList) => list.set('X-A', ['fine', text]),
        (list: HeaderList) => list.append('X-A', text),
      ])
        expect(code(() => write(new HeaderList([])))).toBe(allowed ? undefined : 'ERR_HEADER_VALUE')
    }
    for (const text of ['\u2028', '\ud83d\ude00', '\ud83d', '\u010d\u010a'])
      expect(code(() => checkField('X-A', text))).toBe('ERR_HEADER_VALUE')
  })

  it('every octet of a name: token characters only (RFC 9110 §5.6.2)', () => {
    const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for (let octet = 0; octet <= 0x17f; octet++) {
      const char = String.fromCharCode(octet)
      const expected = token.includes(char) ? undefined : 'ERR_HEADER_VALUE'
      for (const write of [
        (list: HeaderList) => list.set(`X${char}A`, '1'),
        (list: HeaderList) => list.append(`X${char}A`, '1'),
        (list: HeaderList) => list.rename('host', `X${char}A`),
      ])
        expect(code(() => write(new HeaderList(['Host', 'a'])))).toBe(expected)
    }
    expect(code(() => checkField('', 'x'))).toBe('ERR_HEADER_VALUE')
  })

  it('a refused write leaves the list as it was', () => {
    const list = new HeaderList(flat([['X-A', '1']]))
    for (const write of [
      () => list.set('X-A', ['2', 'a\r\nb']),
      () => list.append('X-B', '\0'),
      () => list.append('X B', '1'),
      () => list.rename('X-A', 'X:A'),
      () => list.rename('absent', 'X:A'),
    ]) {
      expect(code(write)).toBe('ERR_HEADER_VALUE')
      expect([...list]).toEqual([['X-A', '1']])
    }
  })
})

it('isField and filterFields look at names alone, in any case', () => {
  expect(isField('HOST', 'host')).toBe(true)
  expect(isField('Hosts', 'host')).toBe(false)
  expect(isField('most', 'host')).toBe(false)
  expect(
    filterFields(
      flat([
        ['host', 'via'],
        ['Via', 'host'],
        ['Host', ''],
      ]),
      (field) => isField(field, 'host'),
    ),
  ).toEqual(['host', 'via', 'Host', ''])
})
