/** Who the client is: trust, the walk through the chain, every way to write a hop, and what the upstream is told. */
import type { IncomingMessage } from 'node:http'
import { BlockList } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type Connection,
  compileTrust,
  Forwarding,
  type ForwardingOptions,
  foldAddress,
  forwardedFor,
  parseHop,
  type TrustCheck,
} from './forwarded.ts'
import { HeaderList } from './headers.ts'
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
const nobody = new Forwarding(undefined, {})

describe('hops', () => {
  const rows: [hop: string, address: string | undefined][] = [
    ['192.0.2.1', '192.0.2.1'],
    ['  192.0.2.1\t', '192.0.2.1'],
    ['192.0.2.1:8080', '192.0.2.1'],
    ['"192.0.2.1:8080"', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[2001:db8::1]:8080', '2001:db8::1'],
    ['"[2001:db8::1]:8080"', '2001:db8::1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:192.0.2.1', '192.0.2.1'],
    ['[::ffff:192.0.2.1]:80', '192.0.2.1'],
    ['64:ff9b::192.0.2.1', '64:ff9b::192.0.2.1'],
    ['', undefined],
    ['unknown', undefined],
    ['_hidden', undefined],
    ['"_gazonk"', undefined],
    ['example.com', undefined],
    ['192.0.2', undefined],
    ['192.0.2.256', undefined],
    ['192.0.2.1:', undefined],
    ['192.0.2.1:123456', undefined],
    ['192.0.2.1:http', undefined],
    ['192.0.2.1 192.0.2.2', undefined],
    ['0300.0.2.1', undefined],
    ['[2001:db8::1', undefined],
    ['[2001:db8::1]8080', undefined],
    ['[2001:db8::1]:', undefined],
    ['[]', undefined],
    ['"', undefined],
    ['"192.0.2.1', undefined],
    ['<script>', undefined],
  ]
  for (const [hop, address] of rows) it(`${JSON.stringify(hop)} is ${address}`, () => expect(parseHop(hop)).toBe(address))

  it('every address in every notation is read back', () => {
    const port = fc.nat(65_535)
    fc.assert(
      fc.property(v4, port, (address, p) => {
        for (const hop of [address, `${address}:${p}`, `"${address}:${p}"`, `::ffff:${address}`, `"[::ffff:${address}]:${p}"`])
          expect(parseHop(hop)).toBe(address)
      }),
    )
    fc.assert(
      fc.property(
        v6.filter((address) => !address.startsWith('0:0:0:0:0:ffff:')),
        port,
        (address, p) => {
          for (const hop of [address, `[${address}]`, `[${address}]:${p}`, `"[${address}]:${p}"`]) expect(parseHop(hop)).toBe(address)
        },
      ),
    )
  })
})

describe('addresses', () => {
  const rows: [address: string, folded: string][] = [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::1', '::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::ffff:192.0.2.1%eth0', '192.0.2.1'],
    ['', ''],
    // RFC 4291 §2.2: one address, however it is spelt.
    ['::ffff:c000:201', '192.0.2.1'],
    ['::FFFF:C000:0201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1'],
    ['0000::ffff:192.0.2.1', '192.0.2.1'],
  ]
  for (const [address, folded] of rows) it(`${address} folds to ${folded}`, () => expect(foldAddress(address)).toBe(folded))
})

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
    expect(counting.connection({ ...req, socket: req.socket } as IncomingMessage)).toBe(first)
    expect(asked).toBe(1)
    expect(counting.connection(request('10.0.0.1'))).not.toBe(first)
  })

  it('of HTTP/2 is its session: every stream has a socket stand-in of its own', () => {
    const session = {}
    const stream = (): IncomingMessage =>
      ({ ...request('10.0.0.1', true), httpVersionMajor: 2, stream: { session } }) as unknown as IncomingMessage
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

describe('the client', () => {
  const proxies = new Forwarding(trustIn(['10.0.0.0/8', 'fd00::/8']), {})
  const clientIp = (peer: string, fields: readonly string[], forwarding = proxies): string =>
    forwarding.clientIp(forwarding.connection(request(peer)), new HeaderList(fields))

  const rows: [what: string, peer: string, fields: string[], client: string][] = [
    ['no field', '10.0.0.1', [], '10.0.0.1'],
    ['one hop', '10.0.0.1', ['X-Forwarded-For', '192.0.2.1'], '192.0.2.1'],
    ['behind two of ours', '10.0.0.1', ['X-Forwarded-For', '192.0.2.1, 10.0.0.2'], '192.0.2.1'],
    ['a spoofed leftmost', '10.0.0.1', ['X-Forwarded-For', '6.6.6.6, 192.0.2.1, 10.0.0.2'], '192.0.2.1'],
    ['a spoofed one of ours', '10.0.0.1', ['X-Forwarded-For', '10.9.9.9, 192.0.2.1'], '192.0.2.1'],
    ['all ours', '10.0.0.1', ['X-Forwarded-For', '10.0.0.3, 10.0.0.2'], '10.0.0.3'],
    [
      'several lines are one chain',
      '10.0.0.1',
      ['X-Forwarded-For', '6.6.6.6', 'Via', 'x', 'x-forwarded-FOR', '192.0.2.1,10.0.0.2'],
      '192.0.2.1',
    ],
    ['junk ends the walk', '10.0.0.1', ['X-Forwarded-For', '192.0.2.1, junk, 10.0.0.2'], '10.0.0.2'],
    ['junk at the right', '10.0.0.1', ['X-Forwarded-For', '192.0.2.1, '], '10.0.0.1'],
    ['an empty chain', '10.0.0.1', ['X-Forwarded-For', ''], '10.0.0.1'],
    ['a port and v4-mapping', '10.0.0.1', ['X-Forwarded-For', '192.0.2.1:99, [::ffff:10.0.0.2]:80'], '192.0.2.1'],
    ['a stranger who claims', '192.0.2.9', ['X-Forwarded-For', '10.0.0.5', 'Forwarded', 'for=10.0.0.5'], '192.0.2.9'],
    ['Forwarded', '10.0.0.1', ['Forwarded', 'for=192.0.2.1;proto=https, for=10.0.0.2'], '192.0.2.1'],
    ['Forwarded with IPv6', 'fd00::1', ['Forwarded', 'for="[2001:db8::1]:4711", for="[fd00::2]"'], '2001:db8::1'],
    ['Forwarded that hides', '10.0.0.1', ['Forwarded', 'for=192.0.2.1, for=_hidden, for=10.0.0.2'], '10.0.0.2'],
    ['an element without for', '10.0.0.1', ['Forwarded', 'for=192.0.2.1, proto=https'], '10.0.0.1'],
  ]
  for (const [what, peer, fields, client] of rows) it(what, () => expect(clientIp(peer, fields)).toBe(client))

  it('nobody is believed without trust', () => {
    expect(clientIp('10.0.0.1', ['X-Forwarded-For', '192.0.2.1'], nobody)).toBe('10.0.0.1')
  })

  it('is the first from the right who is not ours, whatever stands to the left', () => {
    const hop = fc.oneof(
      fc.nat(9).map((n) => `10.0.0.${n}`),
      fc.nat(9).map((n) => `192.0.2.${n}`),
      fc.constantFrom('junk', '', 'unknown'),
    )
    fc.assert(
      fc.property(fc.array(hop, { maxLength: 7 }), (hops) => {
        let expected = '10.0.0.99'
        for (const address of hops.toReversed()) {
          if (!/^\d/.test(address)) break
          expected = address
          if (!address.startsWith('10.')) break
        }
        if (hops.length > 0) expect(clientIp('10.0.0.99', ['X-Forwarded-For', hops.join(', ')])).toBe(expected)
        const elements = hops.map((address, index) => (index % 2 === 0 ? `for=${address}` : `proto=http; For="${address}"`))
        if (hops.length > 0) expect(clientIp('10.0.0.99', ['Forwarded', elements.join(',')])).toBe(expected)
      }),
    )
  })
})

describe('Forwarded, as RFC 7239 writes it', () => {
  const rows: [value: string | undefined, hops: string[]][] = [
    [undefined, []],
    ['for="_gazonk"', ['"_gazonk"']],
    ['For="[2001:db8:cafe::17]:4711"', ['"[2001:db8:cafe::17]:4711"']],
    ['for=192.0.2.60;proto=http;by=203.0.113.43', ['192.0.2.60']],
    ['for=192.0.2.43, for=198.51.100.17', ['192.0.2.43', '198.51.100.17']],
    ['proto=http;by=203.0.113.43;for=192.0.2.60', ['192.0.2.60']],
    ['by=_a', ['']],
    ['for=1.1.1.1,,for=2.2.2.2', ['1.1.1.1', '2.2.2.2']],
    ['host="a,b";for=192.0.2.1, for=192.0.2.2', ['192.0.2.1', '192.0.2.2']],
    ['host="a\\"b,c";for=192.0.2.1', ['192.0.2.1']],
    ['xfor=6.6.6.6;for=192.0.2.1', ['192.0.2.1']],
    // What a client wrote into Host ends up here, in quotes: it must not read as a parameter.
    ['host="a;for=6.6.6.6;b";for=192.0.2.1', ['192.0.2.1']],
    ['by="a; for=6.6.6.6 ;b"', ['']],
  ]
  for (const [value, hops] of rows) it(String(value), () => expect(forwardedFor(value)).toEqual(hops))
})

describe('what the upstream is told', () => {
  const write = (options: ForwardingOptions, peer: string, fields: readonly string[], host?: string, prefix?: string): string[] => {
    const forwarding = new Forwarding(trustIn(['10.0.0.0/8', 'fd00::/8']), options)
    const out = [...fields]
    forwarding.write(out, forwarding.connection(request(peer, peer.endsWith('9'))), host, prefix)
    return out
  }

  it('by default the X-Forwarded fields', () => {
    expect(write({}, '192.0.2.1', ['Via', 'x'], 'a:8080')).toEqual([
      'Via',
      'x',
      'X-Forwarded-For',
      '192.0.2.1',
      'X-Forwarded-Proto',
      'http',
      'X-Forwarded-Host',
      'a:8080',
    ])
    expect(write({}, '192.0.2.9', [], 'a', '/api')).toEqual([
      'X-Forwarded-For',
      '192.0.2.9',
      'X-Forwarded-Proto',
      'https',
      'X-Forwarded-Host',
      'a',
      'X-Forwarded-Prefix',
      '/api',
    ])
  })

  it('no Host, no X-Forwarded-Host', () =>
    expect(write({}, '192.0.2.1', [])).toEqual(['X-Forwarded-For', '192.0.2.1', 'X-Forwarded-Proto', 'http']))

  it('all of it can be off', () => expect(write({ xForwarded: false }, '192.0.2.1', ['Via', 'x'], 'a', '/api')).toEqual(['Via', 'x']))

  it('behind one of ours the chain goes on where it stands, and proto and host stay as they were', () => {
    const fields = [
      'x-forwarded-proto',
      'https',
      'X-FORWARDED-FOR',
      '192.0.2.1',
      'Via',
      'x',
      'x-forwarded-for',
      '10.0.0.2',
      'X-Forwarded-Host',
      'public',
    ]
    expect(write({}, '10.0.0.1', fields, 'a')).toEqual([
      'x-forwarded-proto',
      'https',
      'X-FORWARDED-FOR',
      '192.0.2.1, 10.0.0.2, 10.0.0.1',
      'Via',
      'x',
      'X-Forwarded-Host',
      'public',
    ])
    expect(write({}, '10.0.0.1', [], 'a')).toEqual(['X-Forwarded-For', '10.0.0.1', 'X-Forwarded-Proto', 'http', 'X-Forwarded-Host', 'a'])
  })

  const elements: [options: ForwardingOptions, peer: string, host: string | undefined, element: string][] = [
    [{}, '192.0.2.1', 'a', 'for=192.0.2.1;host=a;proto=http'],
    [{}, '192.0.2.1', undefined, 'for=192.0.2.1;proto=http'],
    [{}, '2001:db8::9', 'a:8080', 'for="[2001:db8::9]";host="a:8080";proto=https'],
    [{ by: '_edge1' }, '192.0.2.1', 'a', 'for=192.0.2.1;host=a;proto=http;by=_edge1'],
    [{ by: '[::1]' }, '192.0.2.1', 'a', 'for=192.0.2.1;host=a;proto=http;by="[::1]"'],
    [{}, '', 'a', 'for=unknown;host=a;proto=http'],
  ]
  for (const [options, peer, host, element] of elements)
    it(`Forwarded: ${element}`, () => {
      expect(write({ ...options, xForwarded: false, forwarded: true }, peer, [], host)).toEqual(['Forwarded', element])
    })

  it('Forwarded over several lines is one chain', () => {
    const fields = ['forwarded', 'for=192.0.2.1', 'Via', 'x', 'Forwarded', 'for=10.0.0.2']
    expect(write({ xForwarded: false, forwarded: true }, '10.0.0.1', fields)).toEqual([
      'forwarded',
      'for=192.0.2.1, for=10.0.0.2, for=10.0.0.1;proto=http',
      'Via',
      'x',
    ])
  })

  it('what one proxy writes, the next one reads: the client survives any number of hops of ours', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          v4.filter((a) => !a.startsWith('10.')),
          v6.filter((a) => !a.startsWith('fd') && !a.startsWith('0:0:0:0:0:ffff:')),
        ),
        fc.nat(4),
        fc.boolean(),
        (client, hops, standard) => {
          const options = { xForwarded: !standard, forwarded: standard }
          const forwarding = new Forwarding(trustIn(['10.0.0.0/8', 'fd00::/8']), options)
          let fields: string[] = []
          for (let hop = 0; hop <= hops; hop++) {
            const peer = hop === 0 ? client : hop % 2 === 0 ? `10.0.0.${hop}` : `fd00::${hop}`
            forwarding.write(fields, forwarding.connection(request(peer)), 'a;for=6.6.6.6;b', undefined)
            fields = [...fields]
          }
          const last = forwarding.connection(request('10.0.0.100'))
          expect(forwarding.clientIp(last, new HeaderList(fields))).toBe(client)
        },
      ),
    )
  })
})
