/**
 * E27. `X-Forwarded-For` from an untrusted peer is replaced, from a trusted one appended; the client address is the first untrusted hop with
 * ports and brackets parsed off and v4-mapped forms unified.
 *
 * The leftmost entry of a chain is what anybody can write. Only what our own proxies have appended, from the right, is evidence.
 */
import { createServer } from 'node:net'
import type { ProxyOptions } from '@weir/core'
import { certificates, everyRequest, type RawUpstream, rawRequest, rawUpstream } from '@weir/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, ok, switching, upgradeHead } from './messages.ts'
import { listen, type ObservedProxy, startProxy, transports } from './observed.ts'

/** The forwarding fields that the upstream got, in order, names in lower case. */
function forwarding(upstream: RawUpstream, number = upstream.requests.length): [string, string][] {
  const { headers } = upstream.requests[number - 1] as { headers: readonly string[] }
  const out: [string, string][] = []
  for (let i = 0; i < headers.length; i += 2)
    if (/^(x-forwarded|forwarded|x-real-ip|via)/i.test(headers[i] as string))
      out.push([(headers[i] as string).toLowerCase(), headers[i + 1] as string])
  return out
}

const spoofed = [
  'X-Forwarded-For: 6.6.6.6',
  'x-forwarded-for: 7.7.7.7',
  'X-Forwarded-Proto: https',
  'X-Forwarded-Host: evil.example',
  'X-Forwarded-Port: 666',
  'X-Forwarded-Prefix: /evil',
  'X-Forwarded-Server: evil',
  'X-Real-IP: 6.6.6.6',
  'Forwarded: for=6.6.6.6;proto=https;host=evil.example',
]

describe.each(transports)('E27 over %s', (_name, transport) => {
  const start = async (options: Partial<ProxyOptions> = {}): Promise<{ upstream: RawUpstream; proxy: ObservedProxy } & AsyncDisposable> => {
    const upstream = await rawUpstream(everyRequest(() => ok('ok')))
    const proxy = await startProxy({ upstreams: [upstream.url], ...options }, { transport })
    return {
      upstream,
      proxy,
      [Symbol.asyncDispose]: async () => {
        await proxy[Symbol.asyncDispose]()
        await upstream.close()
      },
    }
  }

  it('nobody is trusted by default: whatever a client claims is thrown away, all of it', async () => {
    for (const options of [{}, { trustedProxies: [] }, { trustedProxies: ['10.0.0.0/8', '::1'] }, { trustedProxies: () => false }]) {
      await using both = await start(options)
      await rawRequest(both.proxy.port, get('/', ...spoofed))
      expect(forwarding(both.upstream)).toEqual([
        ['x-forwarded-for', '127.0.0.1'],
        ['x-forwarded-proto', 'http'],
        ['x-forwarded-host', 'localhost'],
      ])
      await both.proxy.outcome()
      expect(both.proxy.exchanges[0]?.clientIp).toBe('127.0.0.1')
    }
  })

  it.each([
    [['loopback']],
    [['127.0.0.1']],
    [['127.0.0.0/8']],
    [['10.0.0.1', '127.0.0.1/32']],
    [(address: string) => address === '127.0.0.1'],
  ])('a trusted peer (%s) is believed, and appended', async (trustedProxies) => {
    await using both = await start({ trustedProxies })
    await rawRequest(
      both.proxy.port,
      get('/', 'X-Forwarded-For: 203.0.113.7', 'X-Forwarded-Proto: https', 'X-Forwarded-Host: public.example'),
    )
    expect(forwarding(both.upstream)).toEqual([
      ['x-forwarded-for', '203.0.113.7, 127.0.0.1'],
      ['x-forwarded-proto', 'https'],
      ['x-forwarded-host', 'public.example'],
    ])
    await both.proxy.outcome()
    expect(both.proxy.exchanges[0]?.clientIp).toBe('203.0.113.7')
  })

  it('a trusted peer that says nothing gets the fields of a first hop', async () => {
    await using both = await start({ trustedProxies: ['loopback'] })
    await rawRequest(both.proxy.port, get())
    expect(forwarding(both.upstream)).toEqual([
      ['x-forwarded-for', '127.0.0.1'],
      ['x-forwarded-proto', 'http'],
      ['x-forwarded-host', 'localhost'],
    ])
  })

  it('a client behind a trusted peer that hands its Connection on takes nothing off of what that peer tells', async () => {
    const seen: [string, string][] = []
    await using both = await start({
      trustedProxies: ['loopback'],
      use: [({ clientIp, scheme }) => void seen.push([clientIp, scheme])],
    })
    const told = ['X-Forwarded-For: 203.0.113.66', 'X-Forwarded-Proto: https', 'X-Forwarded-Host: shop.test', 'Forwarded: for=203.0.113.66']
    const nominated = 'Connection: keep-alive, X-Forwarded-For, x-forwarded-proto, X-FORWARDED-HOST, Forwarded, X-Real-IP, X-Other'
    await rawRequest(both.proxy.port, get('/', ...told, 'X-Other: 1', nominated))
    expect(seen).toEqual([['203.0.113.66', 'https']])
    expect(forwarding(both.upstream)).toEqual(
      expect.arrayContaining([
        ['x-forwarded-for', '203.0.113.66, 127.0.0.1'],
        ['x-forwarded-proto', 'https'],
        ['x-forwarded-host', 'shop.test'],
      ]),
    )
    // Anything else that is nominated does end here.
    expect(both.upstream.requests[0]?.all('x-other')).toEqual([])
  })

  it('a chain over several lines is one chain', async () => {
    await using both = await start({ trustedProxies: ['loopback', '10.0.0.0/8'] })
    await rawRequest(
      both.proxy.port,
      get('/', 'X-Forwarded-For: 6.6.6.6, 203.0.113.7', 'X-Other: 1', 'x-forwarded-for: 10.0.0.1', 'X-FORWARDED-FOR: 10.0.0.2'),
    )
    expect(forwarding(both.upstream)[0]).toEqual(['x-forwarded-for', '6.6.6.6, 203.0.113.7, 10.0.0.1, 10.0.0.2, 127.0.0.1'])
    expect(both.upstream.requests[0]?.all('x-forwarded-for')).toHaveLength(1)
    await both.proxy.outcome()
    expect(both.proxy.exchanges[0]?.clientIp).toBe('203.0.113.7')
  })

  it('can be switched off, or written as RFC 7239 has it, or both', async () => {
    await using off = await start({ forwarding: { xForwarded: false } })
    await rawRequest(off.proxy.port, get('/', ...spoofed))
    expect(forwarding(off.upstream)).toEqual([])
    await using standard = await start({ forwarding: { xForwarded: false, forwarded: true, by: '_edge1' } })
    await rawRequest(standard.proxy.port, get('/', ...spoofed).replace('Host: localhost', 'Host: public.example:8080'))
    expect(forwarding(standard.upstream)).toEqual([['forwarded', 'for=127.0.0.1;host="public.example:8080";proto=http;by=_edge1']])
    await using both = await start({ forwarding: { forwarded: true }, trustedProxies: ['loopback'] })
    await rawRequest(
      both.proxy.port,
      get('/', 'Forwarded: for=203.0.113.7;proto=https', 'X-Forwarded-For: 203.0.113.7', 'forwarded: for=10.0.0.1'),
    )
    expect(forwarding(both.upstream)).toEqual([
      ['forwarded', 'for=203.0.113.7;proto=https, for=10.0.0.1, for=127.0.0.1;host=localhost;proto=http'],
      ['x-forwarded-for', '203.0.113.7, 127.0.0.1'],
      ['x-forwarded-proto', 'http'],
      ['x-forwarded-host', 'localhost'],
    ])
  })

  it('a prefix that was taken off is told', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
    await using proxy = await startProxy(
      { routes: [{ match: { path: '/api' }, stripPrefix: true, pool: { upstreams: [upstream.url] } }] },
      { transport },
    )
    await rawRequest(proxy.port, get('/api/x', ...spoofed))
    expect(upstream.requests[0]?.target).toBe('/x')
    expect(forwarding(upstream).at(-1)).toEqual(['x-forwarded-prefix', '/api'])
    expect(upstream.requests[0]?.all('x-forwarded-prefix')).toHaveLength(1)
  })

  it('https, HTTP/2 and upgrades are told like the rest', async () => {
    const { ca } = certificates()
    await using upstream = await rawUpstream(everyRequest((request) => (request.header('upgrade') === undefined ? ok('ok') : switching())))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, https: true, http2: true })
    await rawRequest(proxy.port, get('/', ...spoofed), { tls: { ca } })
    await using client = await h2Client(proxy.port, 'https')
    await client.request({ 'x-forwarded-for': '6.6.6.6', 'x-forwarded-proto': 'http', ':authority': 'public.example' })
    await rawRequest(proxy.port, upgradeHead('/', ...spoofed), { tls: { ca } })
    const secure = (host: string): [string, string][] => [
      ['x-forwarded-for', '127.0.0.1'],
      ['x-forwarded-proto', 'https'],
      ['x-forwarded-host', host],
    ]
    expect(forwarding(upstream, 1)).toEqual(secure('localhost'))
    expect(forwarding(upstream, 2)).toEqual(secure('public.example'))
    expect(forwarding(upstream, 3)).toEqual(secure('localhost'))
  })

  it('a retry tells the same, once', async () => {
    await using failing = await rawUpstream(async (connection) => {
      await connection.readRequest()
      connection.reset()
    })
    await using both = await start()
    await using proxy = await startProxy(
      { upstreams: [failing.url, { url: both.upstream.url, backup: true }], trustedProxies: ['loopback'], forwarding: { forwarded: true } },
      { transport },
    )
    await rawRequest(proxy.port, get('/', 'X-Forwarded-For: 203.0.113.7'))
    expect(forwarding(both.upstream)).toEqual(forwarding(failing))
    expect(both.upstream.requests[0]?.header('x-forwarded-for')).toBe('203.0.113.7, 127.0.0.1')
  })
})

describe('E27 the client address', () => {
  let upstream: RawUpstream
  beforeAll(async () => {
    upstream = await rawUpstream(everyRequest(() => ok('ok')))
  })
  afterAll(() => upstream.close())

  /** What stages see, and what the upstream is told, of a request from `peer` with these fields. */
  async function seen(
    peer: string,
    headers: Readonly<Record<string, string | readonly string[]>>,
    trustedProxies: ProxyOptions['trustedProxies'],
  ): Promise<[string | undefined, string | undefined]> {
    let clientIp: string | undefined
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      ...(trustedProxies === undefined ? {} : { trustedProxies }),
      use: [
        (exchange) => {
          clientIp = exchange.clientIp
        },
      ],
    })
    await proxy.proxy.inject({ headers, remoteAddress: peer })
    return [clientIp, upstream.requests.at(-1)?.header('x-forwarded-for')]
  }

  const trusted = ['10.0.0.0/8', '2001:db8::/32', 'loopback']

  it.each([
    // One of our proxies in front.
    ['203.0.113.7', '203.0.113.7'],
    // What the client wrote stands left of what our proxy appended, and is not looked at.
    ['6.6.6.6, 203.0.113.7', '203.0.113.7'],
    ['1.1.1.1, 6.6.6.6, 203.0.113.7', '203.0.113.7'],
    // Several of ours.
    ['203.0.113.7, 10.0.0.2', '203.0.113.7'],
    ['6.6.6.6, 203.0.113.7, 10.0.0.2, 10.0.0.3', '203.0.113.7'],
    // Only ours: then the first of them is the client.
    ['10.0.0.4, 10.0.0.3', '10.0.0.4'],
    ['10.0.0.4', '10.0.0.4'],
    // Ports.
    ['203.0.113.7:1234', '203.0.113.7'],
    ['[2001:db9::7]:1234', '2001:db9::7'],
    ['[2001:db9::7]', '2001:db9::7'],
    ['2001:db9::7', '2001:db9::7'],
    ['203.0.113.7, 10.0.0.2:4711, [2001:db8::1]:80', '203.0.113.7'],
    // v4-mapped, in every spelling, is IPv4: also where it decides about trust.
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['[::ffff:203.0.113.7]:80', '203.0.113.7'],
    ['::FFFF:203.0.113.7', '203.0.113.7'],
    ['::ffff:cb00:7107', '203.0.113.7'],
    ['0:0:0:0:0:ffff:cb00:7107', '203.0.113.7'],
    ['6.6.6.6, 203.0.113.7, ::ffff:10.0.0.2', '203.0.113.7'],
    // Quotes, blanks, empty places.
    ['"203.0.113.7"', '203.0.113.7'],
    ['"[2001:db9::7]:80"', '2001:db9::7'],
    ['   203.0.113.7   ', '203.0.113.7'],
    // A zone is no part of an address.
    ['fe80::1%eth0', 'fe80::1'],
    // What cannot be read ends the walk: nothing left of it is evidence, and the last good hop is the client.
    ['203.0.113.7, unknown', '10.0.0.1'],
    ['203.0.113.7, _hidden, 10.0.0.2', '10.0.0.2'],
    ['203.0.113.7, junk, 10.0.0.2', '10.0.0.2'],
    ['203.0.113.7, , 10.0.0.2', '10.0.0.2'],
    ['203.0.113.7, 10.0.0.2, ', '10.0.0.1'],
    ['203.0.113.7, 300.1.1.1', '10.0.0.1'],
    ['203.0.113.7, 10.0.0.2.evil.example', '10.0.0.1'],
    ['203.0.113.7, 10.0.0.2:port', '10.0.0.1'],
    ['203.0.113.7, [10.0.0.2', '10.0.0.1'],
    ['203.0.113.7, [2001:db8::1]x', '10.0.0.1'],
    ['', '10.0.0.1'],
  ])('X-Forwarded-For: %j is %s', async (chain, expected) => {
    expect((await seen('10.0.0.1', { 'X-Forwarded-For': chain }, trusted))[0]).toBe(expected)
  })

  it.each([
    ['for=203.0.113.7', '203.0.113.7'],
    ['For=203.0.113.7;proto=https;by=10.0.0.1', '203.0.113.7'],
    ['proto=https; for=203.0.113.7 ;host=a', '203.0.113.7'],
    ['for="203.0.113.7:1234"', '203.0.113.7'],
    ['for="[2001:db9::7]:1234"', '2001:db9::7'],
    ['for="[2001:db9::7]"', '2001:db9::7'],
    ['for=6.6.6.6, for=203.0.113.7, for=10.0.0.2', '203.0.113.7'],
    ['for=6.6.6.6,for=203.0.113.7;by="a, for=7.7.7.7",for=10.0.0.2', '203.0.113.7'],
    ['for=203.0.113.7;x="\\"", for=10.0.0.2', '203.0.113.7'],
    ['for=203.0.113.7, for=unknown', '10.0.0.1'],
    ['for=203.0.113.7, for=_secret, for=10.0.0.2', '10.0.0.2'],
    ['for=203.0.113.7, proto=http', '10.0.0.1'],
    ['xfor=203.0.113.7', '10.0.0.1'],
  ])('Forwarded: %j is %s', async (chain, expected) => {
    expect((await seen('10.0.0.1', { Forwarded: chain }, trusted))[0]).toBe(expected)
  })

  it.each([
    ['10.0.0.1', true],
    ['::ffff:10.0.0.1', true],
    ['2001:db8::5', true],
    ['::1', true],
    ['11.0.0.1', false],
    ['::ffff:11.0.0.1', false],
    ['2001:db9::5', false],
    ['', false],
  ])('the peer %j is trusted: %s', async (peer, isTrusted) => {
    const [clientIp, told] = await seen(peer, { 'X-Forwarded-For': '203.0.113.7' }, trusted)
    const folded = peer.replace('::ffff:', '')
    expect(clientIp).toBe(isTrusted ? '203.0.113.7' : folded)
    expect(told).toBe(isTrusted ? `203.0.113.7, ${folded}` : peer === '' ? undefined : folded)
  })

  it.each([
    ['loopback', ['127.0.0.1', '127.9.9.9', '::1'], ['128.0.0.1', '::2']],
    ['linklocal', ['169.254.1.1', 'fe80::1', 'febf::1'], ['169.255.0.1', 'fec0::1']],
    [
      'private',
      ['10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.1.1', '100.64.0.1', 'fd00::1'],
      ['172.32.0.1', '192.169.0.1', '100.128.0.1', 'fe00::1'],
    ],
    ['192.0.2.0/24', ['192.0.2.0', '192.0.2.255', '::ffff:192.0.2.1'], ['192.0.3.0']],
    ['192.0.2.7', ['192.0.2.7'], ['192.0.2.8']],
    ['2001:db8::/33', ['2001:db8:7fff::1'], ['2001:db8:8000::1', '32.1.13.184']],
    ['0.0.0.0/0', ['1.2.3.4', '::ffff:1.2.3.4'], ['::1']],
  ])('%s covers what it should and nothing else', async (range, inside, outside) => {
    for (const peer of inside)
      expect([peer, (await seen(peer, { 'X-Forwarded-For': '203.0.113.7' }, [range]))[0]]).toEqual([peer, '203.0.113.7'])
    for (const peer of outside) expect([peer, (await seen(peer, { 'X-Forwarded-For': '203.0.113.7' }, [range]))[0]]).toEqual([peer, peer])
  })

  it('X-Forwarded-For is asked first, Forwarded only without it', async () => {
    expect((await seen('10.0.0.1', { 'X-Forwarded-For': '203.0.113.7', Forwarded: 'for=203.0.113.8' }, trusted))[0]).toBe('203.0.113.7')
  })

  it('a client on a dual-stack socket is the IPv4 client that it is', async () => {
    const dual = await new Promise<boolean>((resolve) => {
      const probe = createServer().once('error', () => resolve(false))
      probe.listen(0, '::', () => probe.close(() => resolve(true)))
    })
    // Without IPv6 on this machine the case cannot arise.
    if (!dual) return
    await using proxy = await startProxy({ upstreams: [upstream.url], trustedProxies: ['127.0.0.1'] }, { mount: 'listener' })
    const { createServer: createHttpServer } = await import('node:http')
    await using server = await listen(createHttpServer(proxy.proxy), '::')
    await rawRequest(server.port, get('/', 'X-Forwarded-For: 203.0.113.7'))
    expect(upstream.requests.at(-1)?.header('x-forwarded-for')).toBe('203.0.113.7, 127.0.0.1')
    await proxy.outcome()
    expect(proxy.exchanges[0]?.clientIp).toBe('203.0.113.7')
  })
})
