import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hashAddress } from './client-address.ts'
import { hashText, mix } from './text-hash.ts'

/** The one spelling that RFC 5952 allows, by the platform's own parser. */
const canonical = (address: string): string => new URL(`http://[${address}]`).hostname.slice(1, -1)

describe('IPv6', () => {
  it('is one client however it is spelt', () => {
    fc.assert(
      fc.property(fc.ipV6(), (address) => {
        for (const prefix of [128, 64, 17]) {
          const hash = hashAddress(address, prefix)
          expect(hashAddress(canonical(address), prefix)).toBe(hash)
          expect(hashAddress(address.toUpperCase(), prefix)).toBe(hash)
        }
      }),
      { numRuns: 2_000 },
    )
  })

  it.each([
    ['2001:db8::1', '2001:DB8:0:0:0:0:0:1'],
    ['2001:db8::1', '2001:0db8:0000:0000:0000:0000:0000:0001'],
    ['::', '0:0:0:0:0:0:0:0'],
    ['::1', '0:0:0:0:0:0:0:1'],
    ['1::', '1:0:0:0:0:0:0:0'],
    ['fe80::1%eth0', 'fe80::1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['::ffff:255.254.253.252', '::ffff:fffe:fdfc'],
    ['1:2:3:4:5:6:7.8.9.10', '1:2:3:4:5:6:708:90a'],
  ])('%s is %s', (a, b) => {
    for (const prefix of [128, 112, 64]) expect(hashAddress(a, prefix)).toBe(hashAddress(b, prefix))
  })

  it('counts exactly the bits of the prefix', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
        fc.integer({ min: 1, max: 128 }),
        fc.nat({ max: 127 }),
        (bits, prefix, at) => {
          const write = (value: bigint): string =>
            Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16)).join(':')
          const other = bits ^ (1n << BigInt(127 - at))
          // Different keys could share a hash of 32 bits, but two keys that differ in one bit do not: every step of the hash can be undone.
          expect(hashAddress(write(bits), prefix) === hashAddress(write(other), prefix)).toBe(at >= prefix)
        },
      ),
      { numRuns: 2_000 },
    )
  })
})

describe('IPv4', () => {
  it('counts in full', () => {
    const hashes = new Set<number>()
    for (let host = 0; host < 256; host++) hashes.add(hashAddress(`192.0.2.${host}`, 64))
    expect(hashes.size).toBe(256)
  })
})

describe('the hash', () => {
  it('spreads addresses in a row over all values', () => {
    const cells = new Array<number>(64).fill(0)
    for (let i = 0; i < 64_000; i++) {
      const cell = hashAddress(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, 64) >>> 26
      cells[cell] = (cells[cell] as number) + 1
    }
    const chiSquare = cells.reduce((sum, count) => sum + (count - 1_000) ** 2 / 1_000, 0)
    // 63 degrees of freedom: one in a million true hash functions is beyond.
    expect(chiSquare).toBeLessThan(130)
  })

  it('is another function for another seed', () => {
    const same = Array.from({ length: 1_000 }, (_, i) => `s${i}`).filter((text) => hashText(text, 1) >>> 28 === hashText(text, 2) >>> 28)
    expect(Math.abs(same.length - 62.5)).toBeLessThan(40)
  })

  it('mixes without losing any value', () => {
    expect(new Set(Array.from({ length: 100_000 }, (_, i) => mix(i))).size).toBe(100_000)
  })

  it('takes anything for an address, and ends', () => {
    const punctuation = fc.array(fc.constantFrom(':', '.', '%', 'f', '0'), { maxLength: 60 }).map((parts) => parts.join(''))
    fc.assert(fc.property(fc.oneof(fc.string(), punctuation), (text) => Number.isInteger(hashAddress(text, 64))))
  })
})
