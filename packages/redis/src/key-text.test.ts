/** Whatever a key holds, what Redis gets is plain, without braces, and another text for every key. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { keyText } from './key-text.ts'

const key = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.constantFrom('', '%', '%25', '{a}', '}', '\ud800', '\ud801', '10.0.0.1', '2001:db8::'),
)

it('is printable ASCII without braces', () => {
  fc.assert(fc.property(key, (text) => /^[!-z|]*$/.test(keyText(text)) && !/[{}]/.test(keyText(text))))
})

it('differs for different keys', () => {
  fc.assert(fc.property(key, key, (a, b) => (keyText(a) === keyText(b)) === (a === b)))
  const texts = ['', '%', '%25', '{a}', '\ud800', '\ud801', keyText('{a}'), keyText(keyText('{a}'))]
  expect(new Set(texts.map(keyText)).size).toBe(texts.length)
})

it('leaves what is plain as it is', () => {
  for (const text of ['10.0.0.1', '2001:db8::/64', 'user-7']) expect(keyText(text)).toBe(text)
})
