/** Reading addresses: the same as node's own reading, in every spelling. */
import { BlockList, isIP } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseRanges, readAddress } from './ip-address.ts'

const words = new Uint32Array(4)
const read = (text: string): string => {
  const family = readAddress(text, words)
  return family === 0 ? 'none' : family === 4 ? `4 ${words[0]}` : `6 ${[...words].join(' ')}`
}

describe('an address', () => {
  it('is one exactly where node says so', () => {
    const piece = fc.constantFrom(':', '::', '.', '0', '1', '01', '255', '256', 'ffff', '10000', 'g', '10.0.0.1', '%eth0', ' ', '')
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(piece, { maxLength: 12 }).map((parts) => parts.join('')),
          fc.ipV4(),
          fc.ipV6(),
          fc.string(),
        ),
        (text) => {
          const mine = readAddress(text, words)
          // A zone is cut off before reading, and node wants something behind the sign.
          const plain = text.split('%', 1)[0] as string
          const node = isIP(plain)
          expect(mine === 0, text).toBe(node === 0 || (node === 4 && text.includes('%')))
        },
      ),
      { numRuns: 2000 },
    )
  })

  it('has the bits that node gives it', () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        const family = readAddress(text, words)
        const canonical = new URL(`http://[${text}]`).hostname.slice(1, -1)
        const first = [...words]
        expect(readAddress(canonical, words)).toBe(family)
        if (family === 4) expect(words[0]).toBe(first[0])
        else expect([...words]).toEqual(first)
        const list = new BlockList()
        list.addAddress(text, 'ipv6')
        expect(list.check(canonical, 'ipv6')).toBe(true)
      }),
    )
  })

  it('is folded when it is a mapped one', () => {
    for (const text of ['::ffff:10.1.2.3', '::FFFF:0a01:0203', '0:0:0:0:0:ffff:a01:203', '::ffff:10.1.2.3%1', '10.1.2.3'])
      expect(read(text), text).toBe(`4 ${0x0a010203}`)
    expect(read('::10.1.2.3')).toBe(`6 0 0 0 ${0x0a010203}`)
    expect(read('255.255.255.255')).toBe('4 4294967295')
  })
})

describe('a range', () => {
  it('has no bits behind its prefix', () => {
    for (const text of ['10.0.0.1/8', 'fd00::1/8', '0.0.0.1/0', '2001:db8:0:1::/48']) expect(parseRanges(text), text).toBeUndefined()
    for (const text of ['10.0.0.0/8', '10.0.0.1', '10.0.0.1/32', 'fd00::/8', '::/0', '0.0.0.0/0'])
      expect(parseRanges(text)?.length, text).toBe(1)
  })

  it('of mapped addresses is one of IPv4; one that only reaches into them is refused', () => {
    expect(parseRanges('::ffff:10.0.0.0/104')).toEqual([{ family: 4, base: Uint32Array.of(0x0a000000), bits: 8 }])
    expect(parseRanges('::ffff:0:0/95')).toBeUndefined()
  })

  it('is nothing else', () => {
    for (const text of [
      '',
      'x',
      '10.0.0.0/',
      '10.0.0.0/33',
      '10.0.0.0/08',
      '10.0.0.0/8/8',
      '10.0.0.0 /8',
      '::/129',
      'fe80::1%1',
      '[::1]',
      7,
      null,
      'constructor',
    ])
      expect(parseRanges(text), String(text)).toBeUndefined()
  })
})
