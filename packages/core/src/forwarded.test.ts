/** Who the client is: every way to write a hop, and the walk through the chain from the right. */
import type { IncomingMessage } from 'node:http'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileTrust, Forwarding, foldAddress, forwardedFor, parseHop } from './forwarded.ts'
import { HeaderList } from './headers.ts'
import { OptionReader } from './options.ts'

const v4 = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((parts) => parts.join('.'))
const v6 = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 }).map((parts) => parts.map((part) => part.toString(16)).join(':'))
const request = (remoteAddress: string | undefined, encrypted = false): IncomingMessage =>
  ({ httpVersionMajor: 1, socket: { remoteAddress, encrypted } }) as unknown as IncomingMessage

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

describe('the client', () => {
  const proxies = new Forwarding(compileTrust(['10.0.0.0/8', 'fd00::/8'], new OptionReader('test')), {})
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
    expect(clientIp('10.0.0.1', ['X-Forwarded-For', '192.0.2.1'], new Forwarding(undefined, {}))).toBe('10.0.0.1')
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
