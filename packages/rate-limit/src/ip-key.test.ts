import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ipKey } from './ip-key.ts'

it.each([
  ['192.0.2.1', 64, '192.0.2.1'],
  ['', 64, ''],
  ['2001:db8:1:2:3:4:5:6', 64, '2001:db8:1:2::/64'],
  ['2001:DB8:1:2::', 64, '2001:db8:1:2::/64'],
  ['::1', 64, '0:0:0:0::/64'],
  ['2001:db8:1:ffff::1', 56, '2001:db8:1:ff00::/56'],
  ['2001:db8:1:ffff::1', 48, '2001:db8:1::/48'],
  ['2001:db8::1', 128, '2001:db8:0:0:0:0:0:1/128'],
  ['64:ff9b::192.1.2.33', 128, '64:ff9b:0:0:0:0:c001:221/128'],
  ['fe80::1%eth0', 64, 'fe80:0:0:0::/64'],
  ['::ffff:192.0.2.1', 64, '192.0.2.1'],
  ['::FFFF:c000:0201', 128, '192.0.2.1'],
  ['0:0:0:0:0:ffff:192.0.2.1%eth0', 64, '192.0.2.1'],
  ['::fffe:192.0.2.1', 64, '0:0:0:0::/64'],
  ['1::ffff:192.0.2.1', 64, '1:0:0:0::/64'],
  ['a:b', 64, 'a:b'],
  ['1::2::3', 64, '1::2::3'],
])('%s by %d bits is %s', (address, prefix, key) => expect(ipKey(address, prefix)).toBe(key))

it('addresses have the same key exactly when they have the same prefix, however they are spelt', () => {
  const group = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }))
  const address = fc.array(group, { minLength: 8, maxLength: 8 })
  const bits = (groups: readonly number[]): string => groups.map((one) => one.toString(2).padStart(16, '0')).join('')
  fc.assert(
    fc.property(address, fc.nat(127), fc.integer({ min: 16, max: 128 }), (groups, flipped, prefix) => {
      const other = groups.map((one, i) => (i === flipped >> 4 ? one ^ (1 << (15 - (flipped & 15))) : one))
      const long = groups.map((one) => one.toString(16).padStart(4, '0')).join(':')
      const short = new URL(`http://[${long}]`).hostname.slice(1, -1)
      expect(ipKey(short, prefix)).toBe(ipKey(long, prefix))
      const same = bits(groups).slice(0, prefix) === bits(other).slice(0, prefix)
      expect(ipKey(other.map((one) => one.toString(16)).join(':'), prefix) === ipKey(long, prefix)).toBe(same)
    }),
  )
})
