/** Small edits without a stage: what each rule does, in which order they run, and what no rule may touch. */

import { stubExchange } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { ProxyError } from './errors.ts'
import { compileHeaderRules, type HeaderRules } from './header-rules.ts'
import { HeaderList } from './headers.ts'
import { type OptionProblem, OptionReader, type OptionsError } from './options.ts'

const exchange = stubExchange({ clientIp: '192.0.2.7' })

function edited(rules: HeaderRules, fields: readonly string[]): readonly string[] {
  const read = new OptionReader('createProxy')
  const edit = compileHeaderRules(rules, read)
  read.check()
  const list = new HeaderList(Object.freeze([...fields]))
  edit?.(list, exchange)
  return list.raw
}
function problems(rules: unknown): readonly OptionProblem[] {
  const read = new OptionReader('createProxy').at('headers').at('request')
  compileHeaderRules(rules as HeaderRules, read)
  try {
    read.check()
  } catch (error) {
    return (error as OptionsError).problems
  }
  return []
}

describe('rules', () => {
  const before = ['Via', '1', 'X-A', 'a', 'x-a', 'b', 'Host', 'h']
  const rows: [what: string, rules: HeaderRules, after: string[]][] = [
    ['remove takes every line, in any case', { remove: ['x-A', 'absent'] }, ['Via', '1', 'Host', 'h']],
    [
      'rename keeps value, place and number',
      { rename: { 'X-a': 'X-B', absent: 'X-C' } },
      ['Via', '1', 'X-B', 'a', 'X-B', 'b', 'Host', 'h'],
    ],
    ['set replaces every line', { set: { 'X-a': '9' } }, ['Via', '1', 'X-a', '9', 'Host', 'h']],
    ['set adds what was absent', { set: { New: '9' } }, [...before, 'New', '9']],
    ['add leaves what there is', { add: { 'X-A': '9' } }, [...before, 'X-A', '9']],
    ['setIfMissing leaves what there is', { setIfMissing: { 'x-A': '9', New: '8' } }, [...before, 'New', '8']],
    ['an empty value is a value', { set: { Via: '' } }, ['Via', '', 'X-A', 'a', 'x-a', 'b', 'Host', 'h']],
    [
      'a function gets the exchange',
      { set: { Via: ({ clientIp }) => clientIp } },
      ['Via', '192.0.2.7', 'X-A', 'a', 'x-a', 'b', 'Host', 'h'],
    ],
    [
      'undefined from a function leaves the field alone',
      { set: { Via: () => undefined }, add: { New: () => undefined }, setIfMissing: { New: () => undefined } },
      before,
    ],
    ['Host may be set', { set: { host: 'other' } }, ['Via', '1', 'X-A', 'a', 'x-a', 'b', 'host', 'other']],
  ]
  for (const [what, rules, after] of rows) it(what, () => expect(edited(rules, before)).toEqual(after))

  it('run in one order, however they are written: remove, rename, set, add, setIfMissing', () => {
    const rules: HeaderRules = {
      setIfMissing: { A: 'missing', B: 'missing' },
      add: { B: 'added' },
      set: { B: 'set' },
      rename: { C: 'B' },
      remove: ['B', 'A'],
    }
    expect(edited(rules, ['A', '1', 'B', '2', 'C', '3'])).toEqual(['B', 'set', 'B', 'added', 'A', 'missing'])
  })

  it('no rules are no edit: nothing runs', () => {
    const read = new OptionReader('createProxy')
    for (const rules of [undefined, {}, { remove: [], set: {} }]) expect(compileHeaderRules(rules, read)).toBeUndefined()
    read.check()
  })

  it('what a function returns is checked like anything else', () => {
    for (const value of ['a\r\nSet-Cookie: b', 'a\0', '\u2028'])
      expect(() => edited({ set: { 'X-A': () => value } }, [])).toThrow(expect.objectContaining({ code: 'ERR_HEADER_VALUE' }) as ProxyError)
  })
})

describe('refused', () => {
  const framing = ['Connection', 'Content-Length', 'Transfer-Encoding', 'Upgrade', 'Keep-Alive', 'TE', 'Trailer', 'Expect']
  for (const name of framing)
    it(`${name} is no rule's to touch, in any case`, () => {
      for (const spelt of [name, name.toLowerCase(), name.toUpperCase()]) {
        expect(problems({ remove: [spelt] })).toHaveLength(1)
        expect(problems({ rename: { [spelt]: 'X-A' } })).toHaveLength(1)
        expect(problems({ rename: { 'X-A': spelt } })).toHaveLength(1)
        expect(problems({ set: { [spelt]: '1' } })).toHaveLength(1)
        expect(problems({ set: { [spelt]: () => '1' } })).toHaveLength(1)
        expect(problems({ add: { [spelt]: '1' } })).toHaveLength(1)
        expect(problems({ setIfMissing: { [spelt]: '1' } })).toHaveLength(1)
      }
    })

  const rows: [what: string, rules: unknown, paths: string[]][] = [
    ['an unknown rule', { replace: {} }, ['headers.request.replace']],
    ['no object', 'x', ['headers.request']],
    ['a name that is no token', { set: { 'X A': '1' } }, ['headers.request.set']],
    ['an empty name', { remove: [''] }, ['headers.request.remove']],
    ['a value that splits', { add: { 'X-A': 'a\r\nb' } }, ['headers.request.add']],
    [
      'a value that is no string',
      { set: { 'X-A': 5 }, add: { 'X-B': null }, setIfMissing: { 'X-C': ['a'] } },
      ['headers.request.set', 'headers.request.add', 'headers.request.setIfMissing'],
    ],
    [
      'everything at once',
      { remove: ['a b', 'TE'], set: { 'X-A': '\n' } },
      ['headers.request.remove', 'headers.request.remove', 'headers.request.set'],
    ],
    ['remove that is one name', { remove: 'cookie' }, ['headers.request.remove']],
    ['remove that is no list', { remove: 5 }, ['headers.request.remove']],
    ['remove of something else', { remove: [5] }, ['headers.request.remove']],
    ['rename to something else', { rename: { 'X-A': 5 } }, ['headers.request.rename']],
    ['rename that is a list', { rename: ['X-A'] }, ['headers.request.rename']],
    ['set that is a string', { set: 'X-A' }, ['headers.request.set']],
    ['set that is null', { set: null }, ['headers.request.set']],
  ]
  for (const [what, rules, paths] of rows) it(what, () => expect(problems(rules).map(({ path }) => path)).toEqual(paths))
})
