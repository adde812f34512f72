/** What the upstream is told about the client: the X-Forwarded fields and `Forwarded`, written anew or added to a chain that is believed. */
import type { IncomingMessage } from 'node:http'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { compileTrust, Forwarding, type ForwardingOptions } from './forwarded.ts'
import { HeaderList } from './headers.ts'
import { OptionReader } from './options.ts'

const trust = compileTrust(['10.0.0.0/8', 'fd00::/8'], new OptionReader('test'))
const v4 = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((parts) => parts.join('.'))
const v6 = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 }).map((parts) => parts.map((part) => part.toString(16)).join(':'))
const request = (remoteAddress: string | undefined, encrypted = false): IncomingMessage =>
  ({ httpVersionMajor: 1, socket: { remoteAddress, encrypted } }) as unknown as IncomingMessage

const write = (options: ForwardingOptions, peer: string, fields: readonly string[], host?: string, prefix?: string): string[] => {
  const forwarding = new Forwarding(trust, options)
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
        const forwarding = new Forwarding(trust, options)
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
