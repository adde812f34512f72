/** The arithmetic against exact integers, for keys of any length and any characters. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { KeyHash, prime } from './key-hash.ts'

/** Coefficients that are known: the largest ones, where rounding would show first, or a simple sequence. */
const sequences: readonly (() => () => number)[] = [
  () => () => prime - 1,
  () => {
    let last = 1
    return () => {
      last = Number((BigInt(last) * 48_271n) % BigInt(prime))
      return last
    }
  },
]

function exactly(key: string, coefficients: readonly number[]): number {
  let sum = BigInt(key.length) * BigInt(coefficients[0] as number)
  for (let i = 0; i < key.length; i++) sum += BigInt(key.charCodeAt(i)) * BigInt(coefficients[i + 1] as number)
  return Number(sum % BigInt(prime))
}

it.each(sequences)('is the sum modulo the prime, exactly', (make) => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ maxLength: 200, unit: 'binary' }),
        fc.string({ maxLength: 64 }).map((s) => s.replaceAll(/./g, '\uffff')),
      ),
      (key) => {
        const length = Math.max(64, key.length) + 1
        // The order in which they are drawn: all of one half, then all of the other; what a longer key needs is drawn afterwards.
        const draw = make()
        const a = Array.from({ length: 65 }, draw)
        const b = Array.from({ length: 65 }, draw)
        while (a.length < length) a.push(draw())
        while (b.length < length) b.push(draw())
        const hash = new KeyHash(make())
        hash.update(key)
        expect([hash.low, hash.high]).toEqual([exactly(key, a), exactly(key, b)])
      },
    ),
  )
})

it('keys that differ in anything have hashes that differ, and another process other ones', () => {
  const hash = new KeyHash()
  const seen = new Set<string>()
  const keys = [
    '',
    '\0',
    '\0\0',
    '10.0.0.1',
    '10.0.0.2',
    '10.0.0.10',
    '1.0.0.10',
    '\u0100',
    'x'.repeat(64),
    'x'.repeat(65),
    'x'.repeat(1000),
  ]
  for (let i = 0; i < 100_000; i++) keys.push(`2001:db8:${i.toString(16)}::/64`)
  for (const key of keys) {
    hash.update(key)
    expect(hash.low).toBeLessThan(prime)
    expect(hash.high).toBeLessThan(prime)
    seen.add(`${hash.low}.${hash.high}`)
  }
  expect(seen.size).toBe(keys.length)
  const other = new KeyHash()
  hash.update('10.0.0.1')
  other.update('10.0.0.1')
  expect([other.low, other.high]).not.toEqual([hash.low, hash.high])
})
