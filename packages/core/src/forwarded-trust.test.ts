/** Whose word counts: lists of ranges against arithmetic and against net.BlockList, and the verdict on a connection. */
import type { IncomingMessage } from 'node:http'
import { BlockList } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Connection, compileTrust, Forwarding, type TrustCheck } from './forwarded.ts'
import { OptionReader, OptionsError } from './options.ts'

const v4 = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((parts) => parts.join('.'))
const v6 = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 }).map((parts) => parts.map((part) => part.toString(16)).join(':'))
const toNumber = (address: string): number => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)

const trustIn = (value: unknown): TrustCheck => {
  const read = new OptionReader('createProxy')
  const check = compileTrust(value, read)
  read.check()
  return check ?? (() => false)
}
const request = (remoteAddress: string | undefined, encrypted = false): IncomingMessage =>
  ({ httpVersionMajor: 1, socket: { remoteAddress, encrypted } }) as unknown as IncomingMessage

describe('trust', () => {
  it('nobody by default, and by an empty list', () => {
    const read = new OptionReader('createProxy')
    expect(compileTrust(undefined, read)).toBeUndefined()
    expect(compileTrust([], read)).toBeUndefined()
    read.check()
  })

  it('a function is asked as it is', () => {
    const own = (address: string): boolean => address === '192.0.2.1'
    expect(trustIn(own)).toBe(own)
  })

  it('IPv4 ranges hold exactly the addresses that share their first bits', () => {
    const range = fc.tuple(v4, fc.nat(32))
    fc.assert(
      fc.property(fc.array(range, { minLength: 1, maxLength: 4 }), v4, fc.nat(31), (ranges, other, flip) => {
        const check = trustIn(ranges.map(([address, bits]) => `${address}/${bits}`))
        // An arbitrary address is nearly always outside: also try one bit beside a member.
        const near = (toNumber((ranges[0] as [string, number])[0]) ^ (1 << flip)) >>> 0
        for (const address of [other, [24, 16, 8, 0].map((shift) => (near >>> shift) & 255).join('.')]) {
          const inside = ranges.some(([base, bits]) => bits === 0 || (toNumber(base) ^ toNumber(address)) >>> (32 - bits) === 0)
          expect(check(address)).toBe(inside)
        }
      }),
    )
  })

  it('lists of everything agree with net.BlockList', () => {
    const entry = fc.oneof(
      v4.map((address) => [address, 32, 'ipv4', address] as const),
      fc.tuple(v4, fc.nat(32)).map(([address, bits]) => [address, bits, 'ipv4', `${address}/${bits}`] as const),
      v6.map((address) => [address, 128, 'ipv6', address] as const),
      fc.tuple(v6, fc.nat(128)).map(([address, bits]) => [address, bits, 'ipv6', `${address}/${bits}`] as const),
    )
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 5 }), v4, v6, (entries, four, six) => {
        const oracle = new BlockList()
        for (const [address, bits, family] of entries) oracle.addSubnet(address, bits, family)
        const check = trustIn(entries.map(([, , , text]) => text))
        for (const [address, , family] of entries) expect(check(address)).toBe(oracle.check(address, family))
        expect(check(four)).toBe(oracle.check(four, 'ipv4'))
        expect(check(six)).toBe(oracle.check(six, 'ipv6'))
      }),
    )
  })

  const edges: [set: string, inside: string[], outside: string[]][] = [
    ['loopback', ['127.0.0.1', '127.255.255.255', '::1'], ['126.255.255.255', '128.0.0.0', '::2', '10.0.0.1']],
    ['linklocal', ['169.254.0.0', '169.254.255.255', 'fe80::1', 'febf::1'], ['169.253.255.255', '169.255.0.0', 'fec0::1', 'fe7f::1']],
    [
      'private',
      [
        '10.0.0.0',
        '10.255.255.255',
        '172.16.0.0',
        '172.31.255.255',
        '192.168.0.0',
        '192.168.255.255',
        '100.64.0.0',
        '100.127.255.255',
        'fc00::1',
        'fdff::1',
      ],
      [
        '9.255.255.255',
        '11.0.0.0',
        '172.15.255.255',
        '172.32.0.0',
        '192.167.255.255',
        '192.169.0.0',
        '100.63.255.255',
        '100.128.0.0',
        'fbff::1',
        'fe00::1',
        '127.0.0.1',
      ],
    ],
  ]
  for (const [set, inside, outside] of edges)
    it(`${set} ends where its RFC says`, () => {
      const check = trustIn([set])
      for (const address of inside) expect(check(address), address).toBe(true)
      for (const address of outside) expect(check(address), address).toBe(false)
    })

  it('what is no range is a problem at its index, all of them at once', () => {
    const wrong = [
      '',
      'localhost',
      '10.0.0.0/33',
      '10.0.0.0/',
      '10.0.0.0/-1',
      '10.0.0.0/8/8',
      '10.0.0.0/x',
      '::/129',
      '10.0.0',
      '10.0.0.0 /8',
      'constructor',
      '__proto__',
      5,
      null,
      undefined,
    ]
    const read = new OptionReader('createProxy')
    compileTrust(['10.0.0.0/8', ...wrong], read)
    try {
      read.check()
      expect.unreachable()
    } catch (error) {
      expect((error as OptionsError).problems.map(({ path }) => path)).toEqual(wrong.map((_, index) => `trustedProxies[${index + 1}]`))
    }
  })

  for (const value of ['loopback', true, {}, null, 5])
    it(`${JSON.stringify(value)} is no list`, () => expect(() => trustIn(value)).toThrow(OptionsError))
})

describe('a connection', () => {
  const trusting = new Forwarding(trustIn(['loopback', '10.0.0.0/8']), {})

  it('is judged once', () => {
    let asked = 0
    const counting = new Forwarding(() => ++asked > 0, {})
    const req = request('10.0.0.1')
    const first = counting.connection(req)
    expect(counting.connection(Object.assign(request('10.9.9.9'), { socket: req.socket }))).toBe(first)
    expect(asked).toBe(1)
    expect(counting.connection(request('10.0.0.1'))).not.toBe(first)
  })

  it('of HTTP/2 is its session: every stream has a socket stand-in of its own', () => {
    const session = {}
    const stream = (): IncomingMessage => Object.assign(request('10.0.0.1', true), { httpVersionMajor: 2, stream: { session } })
    expect(trusting.connection(stream())).toBe(trusting.connection(stream()))
  })

  const rows: [remote: string | undefined, encrypted: boolean, expected: Partial<Connection>][] = [
    ['127.0.0.1', false, { peer: '127.0.0.1', trusted: true, proto: 'http' }],
    ['::ffff:10.1.2.3', true, { peer: '10.1.2.3', trusted: true, proto: 'https' }],
    ['::1', false, { peer: '::1', trusted: true }],
    ['11.0.0.1', false, { peer: '11.0.0.1', trusted: false }],
    ['fe80::1%eth0', false, { peer: 'fe80::1', trusted: false }],
    [undefined, false, { peer: '', trusted: false }],
  ]
  for (const [remote, encrypted, expected] of rows)
    it(`from ${remote}`, () => expect(trusting.connection(request(remote, encrypted))).toMatchObject(expected))

  it('without an address nobody is trusted, not even by a function that trusts all', () => {
    expect(new Forwarding(() => true, {}).connection(request(undefined)).trusted).toBe(false)
  })
})
