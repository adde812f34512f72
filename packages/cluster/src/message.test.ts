/** Whatever plain data goes in comes out again, through JSON. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { decode, encode, isAnswer, isCall } from './message.ts'

const leaf = fc.oneof(
  fc.string(),
  fc.double({ noNaN: true }).filter((value) => !Object.is(value, -0)),
  fc.constantFrom(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, null, undefined, true, '\u0001', '\u0001u', '\u0001\u0001Infinity'),
)
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    leaf,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      tie('value'),
      { maxKeys: 4, noNullPrototype: true },
    ),
  ),
}))

it('as it was, Infinity and undefined included', () => {
  fc.assert(fc.property(value, (data) => void expect(decode(encode(data))).toStrictEqual(data)))
})

it('tells its own messages from those of the application', () => {
  for (const message of [undefined, null, 1, 'call', {}, { weir: 1 }, { cmd: 'call' }]) {
    expect(isCall(message)).toBe(false)
    expect(isAnswer(message)).toBe(false)
  }
})
