/** The table against the plain reading of "the first rule that matches": one after the other, bit by bit. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Range, readAddress } from './ip-address.ts'
import { type NumberedRange, RangeTable } from './range-table.ts'

const bitsOf = (words: Uint32Array): string => [...words].map((word) => word.toString(2).padStart(32, '0')).join('')
const contains = (range: Range, bits: string): boolean =>
  bits.length === range.base.length * 32 && bits.slice(0, range.bits) === bitsOf(range.base).slice(0, range.bits)

function oracle(ranges: readonly NumberedRange[], bits: string): number {
  let first = -1
  for (const range of ranges) if (contains(range, bits) && (first < 0 || range.rule < first)) first = range.rule
  return first
}

const textOf = (words: Uint32Array): string =>
  words.length === 1
    ? [24, 16, 8, 0].map((shift) => ((words[0] as number) >>> shift) & 255).join('.')
    : [...words].flatMap((word) => [(word >>> 16).toString(16), (word & 0xffff).toString(16)]).join(':')

/** Words with few different values, so that ranges lie in each other, touch, and begin and end where the space does. */
const word = fc.oneof(
  fc.constantFrom(0, 1, 0x0a000000, 0x0a0000ff, 0x0a000100, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff),
  fc.integer({ min: 0, max: 0xffffffff }),
)
const address = (width: 1 | 4): fc.Arbitrary<Uint32Array> =>
  fc.array(word, { minLength: width, maxLength: width }).map((w) => Uint32Array.from(w))
const range = (width: 1 | 4): fc.Arbitrary<NumberedRange> =>
  fc.tuple(address(width), fc.integer({ min: 0, max: width * 32 }), fc.nat(6)).map(([base, bits, rule]) => {
    const text = bitsOf(base)
      .slice(0, bits)
      .padEnd(width * 32, '0')
    const cut = Uint32Array.from({ length: width }, (_, i) => Number.parseInt(text.slice(i * 32, i * 32 + 32), 2))
    return { family: width === 1 ? 4 : 6, base: cut, bits, rule }
  })

/** First and last address of a range, and the ones beyond. */
function edges({ base, bits }: Range): Uint32Array[] {
  const first = BigInt(`0b${bitsOf(base)}`)
  const width = BigInt(base.length * 32)
  const size = 1n << (width - BigInt(bits))
  return [first, first + size - 1n, first - 1n, first + size]
    .filter((n) => n >= 0n && n < 1n << width)
    .map((n) => Uint32Array.from({ length: base.length }, (_, i) => Number((n >> BigInt((base.length - 1 - i) * 32)) & 0xffffffffn)))
}

describe('the table of ranges', () => {
  it.each([1, 4] as const)('finds what the plain reading finds (%i words)', (width) => {
    fc.assert(
      fc.property(fc.array(range(width), { maxLength: 12 }), fc.array(address(width), { maxLength: 5 }), (ranges, others) => {
        const table = new RangeTable(ranges)
        for (const words of [...ranges.flatMap(edges), ...others]) {
          const text = textOf(words)
          // Mapped addresses belong to the other family.
          if (width === 4 && readAddress(text, new Uint32Array(4)) === 4) continue
          expect(table.find(text), `${text} in ${ranges.map((r) => `${textOf(r.base)}/${r.bits}:${r.rule}`).join(' ')}`).toBe(
            oracle(ranges, bitsOf(words)),
          )
        }
      }),
      { numRuns: 1000 },
    )
  })

  it('tells what is no address from what is in no range', () => {
    const table = new RangeTable([])
    expect([table.find('10.0.0.1'), table.find('::1'), table.find(''), table.find('x'), table.find('10.0.0.1:80')]).toEqual([
      -1, -1, -2, -2, -2,
    ])
  })

  it('holds 100,000 ranges, each of them to be found', () => {
    const ranges: NumberedRange[] = Array.from({ length: 100_000 }, (_, i) => ({
      family: 4,
      base: Uint32Array.of(i * 512),
      bits: 24,
      rule: i,
    }))
    ranges.push({ family: 4, base: Uint32Array.of(0), bits: 0, rule: 100_000 })
    const table = new RangeTable(ranges)
    const wrong: number[] = []
    for (let i = 0; i < 100_000; i++) {
      const [last, next] = [i * 512 + 255, i * 512 + 256].map((word) => table.find(textOf(Uint32Array.of(word))))
      if (last !== i || next !== 100_000) wrong.push(i)
    }
    expect(wrong).toEqual([])
    expect(table.size).toBe(100_001)
  })
})
