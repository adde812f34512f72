import { BlockList, isIP, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Address, contains, faces, parseAddress, parseRange } from './ip-address.ts'

const v4 = fc.ipV4()
const v6 = fc.ipV6()
const hex = (address: Address): string => Buffer.from(address).toString('hex')

/** By the platform's own parser of URLs. */
function canonical(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1)
}

function write(address: Address): string {
  if (address.length === 4) return address.join('.')
  return hex(address).replace(/(.{4})(?!$)/g, '$1:')
}

describe('an address', () => {
  it('is the same however it is spelt', () => {
    fc.assert(
      fc.property(v6, (text) => {
        const bytes = parseAddress(text) as Address
        expect(bytes).toHaveLength(16)
        expect(canonical(write(bytes))).toBe(canonical(text))
        for (const other of [text.toUpperCase(), canonical(text), `[${text}]`, `${text}%eth0`]) expect(parseAddress(other)).toEqual(bytes)
      }),
    )
    fc.assert(fc.property(v4, (text) => void expect(write(parseAddress(text) as Address)).toBe(text)))
  })

  it('is one exactly where node says so', () => {
    const likely = fc.array(fc.constantFrom(':', '.', 'f', '0', '1', '255', '::'), { maxLength: 12 }).map((parts) => parts.join(''))
    fc.assert(
      fc.property(fc.oneof(fc.string(), likely), (text) => void expect(parseAddress(text) !== undefined).toBe(isIP(text) !== 0)),
      { numRuns: 2000 },
    )
  })
})

describe('a range', () => {
  const base = fc.oneof(v4, v6).map((text) => parseAddress(text) as Address)

  it('holds the addresses that BlockList says it does', () => {
    fc.assert(
      fc.property(base, fc.nat({ max: 128 }), fc.nat({ max: 127 }), fc.oneof(v4, v6), (bytes, length, flip, far) => {
        const bits = Math.min(length, bytes.length * 8)
        const start = bytes.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, bits - i * 8))))
        const family = start.length === 4 ? 'ipv4' : 'ipv6'
        const list = new BlockList()
        list.addSubnet(write(start), bits, family)
        // One bit away from within the range: in it or out of it by that bit alone.
        const near = bytes.map((byte, i) => (i === flip >> 3 ? byte ^ (1 << (flip & 7)) : byte))
        const range = parseRange(`${write(start)}/${bits}`)
        // Node compares IPv4 addresses with mapped ones, which are folded before it comes to comparing here.
        fc.pre(faces(start)[0]?.length === start.length && range !== undefined)
        for (const text of [write(near), write(bytes), far]) {
          const address = parseAddress(text) as Address
          if (faces(address)[0]?.length !== address.length) continue
          const kind = isIPv6(text) ? 'ipv6' : 'ipv4'
          expect([text, contains(range as NonNullable<typeof range>, address)]).toEqual([text, kind === family && list.check(text, kind)])
        }
      }),
      { numRuns: 3000 },
    )
  })

  it.each(['10.0.0.0/8', '10.0.0.1', '0.0.0.0/0', '::/0', 'fd00::/8', '::1/128', '::ffff:10.0.0.0/104'])('%s is one', (text) => {
    expect(parseRange(text)).toBeDefined()
  })

  it.each([
    '10.0.0.1/8',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
    '10.0.0.0/8.0',
    'fd00::1/8',
    '::/129',
    'fe80::%eth0/64',
    '[::1]',
    '',
    'x/8',
  ])('%s is none', (text) => {
    expect(parseRange(text)).toBeUndefined()
  })
})

it.each([
  ['10.1.2.3', ['0a010203']],
  ['::ffff:10.1.2.3', ['0a010203']],
  ['64:ff9b::10.1.2.3', ['0064ff9b00000000000000000a010203', '0a010203']],
  ['2002:a01:203::9', ['20020a01020300000000000000000009', '0a010203']],
  ['::1', ['00000000000000000000000000000001']],
  ['::2', ['00000000000000000000000000000002', '00000002']],
  ['2001:0:a01:203:0:0:f5fe:fdfc', ['200100000a01020300000000f5fefdfc', '0a010203', '0a010203']],
  ['2600::1', ['26000000000000000000000000000001']],
])('%s may end up at %j', (text, expected) => {
  expect(faces(parseAddress(text) as Address).map(hex)).toEqual(expected)
})
