import { BlockList, isIPv6 } from 'node:net'
import { OptionsError } from '@weir/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { addressGuard } from './address-guard.ts'
import { namedRanges } from './address-ranges.ts'

const decide = (guard: (address: string) => boolean, addresses: readonly string[]) => addresses.filter((address) => guard(address))

describe('by default', () => {
  const guard = addressGuard()

  it.each([
    ['public', ['8.8.8.8', '1.1.1.1', '223.255.255.255', '2606:4700:4700::1111', '2001:4860:4860::8888']],
    ['private', ['10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', 'fd12:3456::1', 'fc00::1']],
    ['shared', ['100.64.0.1', '100.127.255.255']],
  ])('%s addresses are used', (_kind, addresses) => {
    expect(decide(guard, addresses)).toEqual(addresses)
  })

  it.each([
    ['loopback', ['127.0.0.1', '127.255.255.254', '::1', '0:0:0:0:0:0:0:1', '[::1]']],
    ['link-local', ['169.254.0.1', '169.254.255.255', 'fe80::1', 'fe80::1%eth0', 'febf::1']],
    ['metadata', ['169.254.169.254', 'fd00:ec2::254', '168.63.129.16', '100.100.100.200', 'fd20:ce::254', '169.254.170.2']],
    ['unspecified', ['0.0.0.0', '0.1.2.3', '::']],
    ['multicast', ['224.0.0.1', '239.255.255.255', 'ff02::1', 'ff05::2']],
    ['broadcast', ['255.255.255.255']],
    ['documentation', ['192.0.2.1', '198.51.100.7', '203.0.113.9', '2001:db8::1', '3fff::1']],
    ['reserved', ['192.0.0.8', '198.18.0.1', '240.0.0.1', '100::1', '64:ff9b:1::a00:1', 'fec0::1']],
    ['IPv4 in disguise: mapped', ['::ffff:127.0.0.1', '::ffff:7f00:1', '0:0:0:0:0:ffff:a9fe:a9fe', '::FFFF:169.254.169.254']],
    ['IPv4 in disguise: compatible', ['::127.0.0.1', '::a9fe:a9fe']],
    ['IPv4 in disguise: translated', ['::ffff:0:127.0.0.1', '::ffff:0:a9fe:a9fe']],
    ['IPv4 in disguise: NAT64', ['64:ff9b::127.0.0.1', '64:ff9b::a9fe:a9fe', '0064:FF9B::A9FE:A9FE']],
    ['IPv4 in disguise: 6to4', ['2002:7f00:1::', '2002:a9fe:a9fe::1', '2002:a9fe:a9fe:1234::5678']],
    // Server 65.54.227.120, client 127.0.0.1 with its bits turned; then the other way round.
    ['IPv4 in disguise: Teredo', ['2001:0:4136:e378:8000:63bf:80ff:fffe', '2001:0:7f00:1:8000:63bf:3fff:fdd2']],
    ['IPv4 in disguise: ISATAP', ['2400:cb00::5efe:127.0.0.1', '2400:cb00::200:5efe:a9fe:a9fe']],
    ['what is no address', ['', 'localhost', '127.1', '0177.0.0.1', '2130706433', '10.0.0.1:80', '10.0.0.1/8', ' 10.0.0.1', '::g']],
  ])('%s are refused', (_kind, addresses) => {
    expect(decide(guard, addresses)).toEqual([])
  })

  it.each(['::ffff:10.0.0.1', '64:ff9b::8.8.8.8', '2002:808:808::1', '2400:cb00::5efe:8.8.8.8'])('%s carries a harmless one', (address) => {
    expect(guard(address)).toBe(true)
  })

  it('refuses what is not even text', () => {
    for (const value of [undefined, null, 1, {}]) expect(guard(value as never)).toBe(false)
  })
})

describe('allow', () => {
  it('is the whole list of what is used', () => {
    const guard = addressGuard({ allow: ['10.0.0.0/8', 'fd00::/8'] })
    expect(decide(guard, ['10.1.2.3', 'fd00::1', '11.0.0.1', '8.8.8.8', 'fc00::1', '::ffff:10.0.0.1', '127.0.0.1'])).toEqual([
      '10.1.2.3',
      'fd00::1',
      '::ffff:10.0.0.1',
    ])
  })

  it('opens a special range by its name, or by a part of it, and by nothing wider', () => {
    expect(decide(addressGuard({ allow: ['loopback'] }), ['127.0.0.1', '::1', '::ffff:127.0.0.1', '10.0.0.1'])).toHaveLength(3)
    expect(addressGuard({ allow: ['127.0.0.1'] })('127.0.0.1')).toBe(true)
    expect(addressGuard({ allow: ['127.0.0.1'] })('127.0.0.2')).toBe(false)
    const all = addressGuard({ allow: ['0.0.0.0/0', '::/0'] })
    expect(decide(all, ['127.0.0.1', '169.254.169.254', '::1', 'fd00:ec2::254', '255.255.255.255'])).toEqual([])
    expect(decide(all, ['8.8.8.8', '10.0.0.1', 'fd00::1'])).toHaveLength(3)
  })

  it('keeps the metadata addresses closed that lie in a range it opens', () => {
    const guard = addressGuard({ allow: ['private', 'link-local'] })
    expect(decide(guard, ['169.254.1.1', 'fe80::1', 'fd00::1', '169.254.169.254', 'fd00:ec2::254'])).toEqual([
      '169.254.1.1',
      'fe80::1',
      'fd00::1',
    ])
    expect(addressGuard({ allow: ['metadata'] })('169.254.169.254')).toBe(true)
  })

  it('public is what has no other name', () => {
    const guard = addressGuard({ allow: ['public'] })
    expect(decide(guard, ['8.8.8.8', '2606:4700::1', '10.0.0.1', '100.64.0.1', 'fd00::1', '127.0.0.1', '192.0.2.1', 'ff02::1'])).toEqual([
      '8.8.8.8',
      '2606:4700::1',
    ])
    expect(addressGuard({ allow: ['public', 'loopback'] })('127.0.0.1')).toBe(true)
  })

  it('an address that carries another must be allowed itself', () => {
    expect(addressGuard({ allow: ['10.0.0.0/8'] })('64:ff9b::10.0.0.1')).toBe(false)
    expect(addressGuard({ allow: ['10.0.0.0/8', '64:ff9b::/96'] })('64:ff9b::10.0.0.1')).toBe(true)
    expect(addressGuard({ allow: ['10.0.0.0/8', '64:ff9b::/96'] })('64:ff9b::11.0.0.1')).toBe(false)
  })

  it('that is empty allows nothing', () => {
    expect(decide(addressGuard({ allow: [] }), ['8.8.8.8', '10.0.0.1', '2606:4700::1'])).toEqual([])
  })
})

describe('deny', () => {
  it('comes on top of the special ranges, and before allow', () => {
    const guard = addressGuard({ deny: ['10.1.0.0/16', 'public'] })
    expect(decide(guard, ['10.1.0.1', '10.2.0.1', '8.8.8.8', '127.0.0.1', '192.168.0.1'])).toEqual(['10.2.0.1', '192.168.0.1'])
    const both = addressGuard({ allow: ['10.1.2.3', 'loopback'], deny: ['10.0.0.0/8', '127.0.0.1'] })
    expect(decide(both, ['10.1.2.3', '127.0.0.1', '127.0.0.2'])).toEqual(['127.0.0.2'])
  })

  it('finds an address within another', () => {
    const guard = addressGuard({ deny: ['10.0.0.0/8', '2001:db8:64::/96'] })
    expect(decide(guard, ['64:ff9b::10.0.0.1', '2002:a00:1::1', '::ffff:10.0.0.1', '::ffff:a00:1'])).toEqual([])
  })

  it('takes a range of mapped addresses for one of IPv4', () => {
    expect(addressGuard({ deny: ['::ffff:10.0.0.0/104'] })('10.9.9.9')).toBe(false)
  })
})

describe('against node', () => {
  const v4 = fc.ipV4()
  const v6 = fc.ipV6()
  const nearby = fc.constantFrom(...Object.values(namedRanges).flat()).chain((range) => {
    const [base = '', bits] = range.split('/')
    return isIPv6(base)
      ? fc.constant(base)
      : fc.nat({ max: 255 }).map((last) => (bits === undefined ? base : base.replace(/\d+$/, `${last}`)))
  })
  // Those that are IPv4 themselves are another matter for node: it has no notion of addresses in addresses but mapped ones.
  const plain = fc
    .oneof(v4, v6, nearby)
    .filter((address) => !/^(0*:){2}|^(0*64:ff9b|2002|2001:0*:)|5efe/i.test(address) && !address.startsWith('::'))

  it('the special ranges are those that BlockList finds', () => {
    const list = new BlockList()
    for (const [name, ranges] of Object.entries(namedRanges)) {
      if (name === 'private' || name === 'shared') continue
      for (const text of ranges) {
        const [base = '', bits] = text.split('/')
        const family = isIPv6(base) ? 'ipv6' : 'ipv4'
        list.addSubnet(base, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family)
      }
    }
    const guard = addressGuard()
    fc.assert(
      fc.property(plain, (address) => {
        expect(guard(address)).toBe(!list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4'))
      }),
      { numRuns: 5000 },
    )
  })

  it('an IPv4 address is judged alike in every disguise', () => {
    const guard = addressGuard()
    fc.assert(
      fc.property(
        fc.oneof(
          v4,
          nearby.filter((address) => !address.includes(':')),
        ),
        (address) => {
          const [a, b, c, d] = address.split('.').map(Number) as [number, number, number, number]
          const hex = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
          const expected = guard(address)
          for (const disguise of [
            `::ffff:${address}`,
            `::ffff:${hex}`,
            `64:ff9b::${address}`,
            `2002:${hex}::1`,
            `::ffff:0:${hex}`,
            `2400::5efe:${hex}`,
          ])
            expect([disguise, guard(disguise)]).toEqual([disguise, expected])
        },
      ),
      { numRuns: 2000 },
    )
  })

  it('never throws, whatever it is given', () => {
    const guard = addressGuard()
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(':', '.', 'f', '0', '%', '/', '[') })),
        (text) => typeof guard(text) === 'boolean',
      ),
    )
  })
})

it('remembers without end only what is not much', () => {
  const guard = addressGuard()
  for (let i = 0; i < 5000; i++) expect(guard(`10.0.${i >> 8}.${i & 255}`)).toBe(true)
  expect(guard('127.0.0.1')).toBe(false)
})

it('reports wrong options all at once', () => {
  try {
    addressGuard({ allow: ['10.0.0.1/8', 'publik', '10.0.0.0/33', 5, 'private'], deny: '10.0.0.0/8', alow: [] } as never)
    expect.unreachable()
  } catch (error) {
    expect(OptionsError.is(error)).toBe(true)
    expect((error as OptionsError).problems.map(({ path }) => path)).toEqual([
      'alow',
      'allow[0]',
      'allow[1]',
      'allow[2]',
      'allow[3]',
      'deny',
    ])
  }
})
