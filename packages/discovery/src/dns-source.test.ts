/** Names against a DNS server of the test's own, in virtual time: when it is asked, what is made of each answer, and what of none. */
import { createPool, OptionsError, type UpstreamOptions } from '@weir/core'
import { fakeTransport, type VirtualClock, virtualClock } from '@weir/testing'
import { describe, expect, it, vi } from 'vitest'
import { addressGuard } from './address-guard.ts'
import { type DnsSourceOptions, dnsSource } from './dns-source.ts'
import { a, aaaa, type DnsServer, dnsServer, zoneOf } from './fixtures/dns-server.ts'
import { type Reading, read, until } from './fixtures/reading.ts'

const name = 'app.test'

interface Rig extends AsyncDisposable {
  readonly dns: DnsServer
  readonly clock: VirtualClock
  readonly reading: Reading
  /** The round is over and the next is set. */
  settled(): Promise<void>
  /** Nothing is asked until `ms` have passed, and then something is. */
  asksAfter(ms: number): Promise<void>
}

async function rig(zone: DnsServer['zone'], options: Partial<DnsSourceOptions> = {}): Promise<Rig> {
  const dns = await dnsServer(zone)
  const clock = virtualClock()
  const reading = read(
    dnsSource({
      host: name,
      servers: [dns.address],
      port: 3000,
      jitter: 0,
      timeout: 60,
      tries: 1,
      clock,
      firstFailure: 'wait',
      ...options,
    }),
  )
  const settled = async (): Promise<void> => void (await until('the next round is set', () => clock.pending === 1))
  await settled()
  return {
    dns,
    clock,
    reading,
    settled,
    asksAfter: async (ms) => {
      await settled()
      const before = dns.questions.length
      await clock.advance(ms - 1)
      expect([dns.questions.length, clock.pending]).toEqual([before, 1])
      await clock.advance(1)
      await dns.asked(before + 1)
      await settled()
    },
    [Symbol.asyncDispose]: async () => {
      await reading[Symbol.asyncDispose]()
      await dns[Symbol.asyncDispose]()
      expect(clock.pending).toBe(0)
    },
  }
}

describe('addresses', () => {
  it('of both families are upstreams, each by its address, that go by the name', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.2'), a(name, '10.0.0.1'), aaaa(name, 'fd00::1')))
    const list = (await t.reading.list(1)) as readonly UpstreamOptions[]
    expect(list.toSorted((x, y) => (String(x.id) < String(y.id) ? -1 : 1))).toEqual(
      ['http://10.0.0.1:3000', 'http://10.0.0.2:3000', 'http://[fd00::1]:3000'].map((id) => ({ url: `${id}/`, id, host: 'app.test:3000' })),
    )
    expect(t.dns.questions.toSorted()).toEqual(['udp A app.test', 'udp AAAA app.test'])
  })

  it('are taken by a pool as they are', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1'), aaaa(name, 'fd00::1')), {
      protocol: 'https',
      port: 443,
      meta: { zone: 'b' },
      weight: 3,
    })
    const pool = createPool({ upstreams: await t.reading.list(1), transport: fakeTransport() })
    expect(pool.upstreams.map(({ id, host, weight, meta }) => [id, host, weight, meta])).toEqual([
      ['https://10.0.0.1', 'app.test', 3, { zone: 'b' }],
      ['https://[fd00::1]', 'app.test', 3, { zone: 'b' }],
    ])
    await pool.close()
  })

  it.each([
    [4, ['http://10.0.0.1:3000'], ['udp A app.test']],
    [6, ['http://[fd00::1]:3000'], ['udp AAAA app.test']],
  ] as const)('of family %d alone, when asked for', async (family, urls, questions) => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1'), aaaa(name, 'fd00::1')), { family })
    expect(await t.reading.urls(1)).toEqual(urls)
    expect(t.dns.questions).toEqual(questions)
  })

  it('that are said twice are one upstream', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1'), a(name, '10.0.0.1'), aaaa(name, 'fd00::1'), aaaa(name, 'fd00:0::1')))
    expect(await t.reading.urls(1)).toEqual(['http://10.0.0.1:3000', 'http://[fd00::1]:3000'])
  })

  it('that do not fit a datagram are fetched over TCP', async () => {
    const many = Array.from({ length: 100 }, (_, i) => a(name, `10.0.1.${i + 1}`))
    await using t = await rig(zoneOf(...many), { family: 4 })
    expect(await t.reading.list(1)).toHaveLength(100)
    expect(t.dns.questions).toEqual(['udp A app.test', 'tcp A app.test'])
  })

  it('are told of once more only when they have changed: their order does not matter', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1', 5), a(name, '10.0.0.2', 5)), { family: 4 })
    t.dns.zone = zoneOf(a(name, '10.0.0.2', 5), a(name, '10.0.0.1', 5), a(name, '10.0.0.1', 5))
    await t.asksAfter(5000)
    expect(t.reading.lists).toHaveLength(1)
    t.dns.zone = zoneOf(a(name, '10.0.0.2', 5), a(name, '10.0.0.3', 5))
    await t.asksAfter(5000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.2:3000', 'http://10.0.0.3:3000'])
    expect(t.reading.told.map(({ type }) => type)).toEqual(['list', 'list'])
  })
})

describe('the TTL', () => {
  it('is waited for, the lowest of all', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1', 30), a(name, '10.0.0.2', 30), aaaa(name, 'fd00::1', 7)))
    await t.asksAfter(7000)
    await t.asksAfter(7000)
    t.dns.zone = zoneOf(a(name, '10.0.0.1', 12))
    await t.asksAfter(7000)
    await t.asksAfter(12_000)
  })

  it('has a lower and an upper bound', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1', 0)), { minTtl: '5s', maxTtl: '1m' })
    await t.asksAfter(5000)
    t.dns.zone = zoneOf(a(name, '10.0.0.1', 86_400))
    await t.asksAfter(5000)
    await t.asksAfter(60_000)
  })

  it('of 0 and of a day are a second and a minute by default', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1', 0)))
    await t.asksAfter(1000)
    t.dns.zone = zoneOf(a(name, '10.0.0.1', 86_400))
    await t.asksAfter(1000)
    await t.asksAfter(60_000)
  })

  it('gets chance added, and none taken away', async () => {
    let chance = 0.5
    await using t = await rig(zoneOf(a(name, '10.0.0.1', 10)), { jitter: 0.2, random: () => chance })
    chance = 0
    await t.asksAfter(11_000)
    await t.asksAfter(10_000)
  })
})

describe('no good answer', () => {
  const good = zoneOf(a(name, '10.0.0.1', 10), aaaa(name, 'fd00::1', 10))
  const urls = ['http://10.0.0.1:3000', 'http://[fd00::1]:3000']
  const both = (failure: 'SERVFAIL' | 'NXDOMAIN' | 'REFUSED' | 'hang'): DnsServer['zone'] => ({
    'A app.test': failure,
    'AAAA app.test': failure,
  })

  it.each([
    ['SERVFAIL', both('SERVFAIL'), 'ERR_DISCOVERY_DNS', 'ESERVFAIL'],
    ['REFUSED', both('REFUSED'), 'ERR_DISCOVERY_DNS', 'EREFUSED'],
    ['silence', both('hang'), 'ERR_DISCOVERY_DNS', 'ETIMEOUT'],
    ['NXDOMAIN', both('NXDOMAIN'), 'ERR_DISCOVERY_EMPTY', 'ENOTFOUND'],
    ['no records', { 'TXT app.test': [] }, 'ERR_DISCOVERY_EMPTY', 'ENODATA'],
  ] as const)('%s: the last good list stays, it is reported, and asked again with pauses that grow', async (_case, zone, code, cause) => {
    const onError = vi.fn()
    await using t = await rig(good, { onError, retry: { min: 100, max: 350 } })
    t.dns.zone = zone
    await t.asksAfter(10_000)
    for (const pause of [100, 200, 350, 350]) await t.asksAfter(pause)
    expect(t.reading.lists).toHaveLength(1)
    expect(t.reading.failures).toEqual(Array(5).fill(code))
    expect(onError.mock.calls.map(([error]) => [error.code, error.source, error.cause.code])).toEqual(
      Array(5).fill([code, `dns:${name}`, cause]),
    )
    t.dns.zone = good
    await t.asksAfter(350)
    // The same as before: nothing to tell, and the pauses are forgotten.
    expect(t.reading.lists).toHaveLength(1)
    t.dns.zone = zone
    await t.asksAfter(10_000)
    await t.asksAfter(100)
  })

  it.each([
    ['NXDOMAIN', both('NXDOMAIN')],
    ['no records', { 'TXT app.test': [] }],
  ] as const)('%s clears the list with onEmpty: "clear"', async (_case, zone) => {
    await using t = await rig(good, { onEmpty: 'clear' })
    t.dns.zone = zone
    await t.asksAfter(10_000)
    expect(await t.reading.list(2)).toEqual([])
    t.dns.zone = good
    await t.asksAfter(1000)
    expect(await t.reading.urls(3)).toEqual(urls)
  })

  it.each(['SERVFAIL', 'hang', 'REFUSED'] as const)('%s never clears it', async (failure) => {
    await using t = await rig(good, { onEmpty: 'clear' })
    t.dns.zone = both(failure)
    await t.asksAfter(10_000)
    t.dns.zone = { 'A app.test': 'NXDOMAIN', 'AAAA app.test': failure }
    await t.asksAfter(1000)
    expect(t.reading.lists.flat()).toHaveLength(2)
  })

  it('of one family: the other is used as it is now, and this one as it was', async () => {
    await using t = await rig(good)
    t.dns.zone = { ...zoneOf(a(name, '10.0.0.9', 10)), 'AAAA app.test': 'SERVFAIL' }
    await t.asksAfter(10_000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.9:3000', 'http://[fd00::1]:3000'])
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_DNS'])
    t.dns.zone = zoneOf(a(name, '10.0.0.9', 10))
    await t.asksAfter(1000)
    expect(await t.reading.urls(3)).toEqual(['http://10.0.0.9:3000'])
  })

  it('of a family that had no addresses any more: the old ones do not come back', async () => {
    await using t = await rig(good)
    t.dns.zone = zoneOf(a(name, '10.0.0.1', 10))
    await t.asksAfter(10_000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.1:3000'])
    t.dns.zone = { ...zoneOf(a(name, '10.0.0.1', 10)), 'AAAA app.test': 'SERVFAIL' }
    await t.asksAfter(10_000)
    expect([t.reading.lists.length, t.reading.failures]).toEqual([2, ['ERR_DISCOVERY_DNS']])
  })

  it('at the very first throws, asks no more, and is opened anew by the next reader', async () => {
    await using dns = await dnsServer(both('SERVFAIL'))
    const clock = virtualClock()
    const source = dnsSource({ host: name, port: 3000, servers: [dns.address], clock })
    await expect(source[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'ERR_DISCOVERY_DNS', source: 'dns:app.test' })
    expect(clock.pending).toBe(0)
    dns.zone = good
    await using reading = read(source)
    expect(await reading.urls(1)).toEqual(urls)
  })

  it('at the very first waits, with firstFailure: "wait"', async () => {
    await using t = await rig(both('SERVFAIL'))
    expect([t.reading.lists, t.reading.thrown, t.reading.failures]).toEqual([[], undefined, ['ERR_DISCOVERY_DNS']])
    t.dns.zone = good
    await t.asksAfter(1000)
    expect(await t.reading.urls(1)).toEqual(urls)
  })

  it('of one family at the very first: the other is used', async () => {
    await using t = await rig({ ...zoneOf(a(name, '10.0.0.1')), 'AAAA app.test': 'SERVFAIL' }, { firstFailure: 'throw' })
    expect(await t.reading.urls(1)).toEqual(['http://10.0.0.1:3000'])
    t.dns.zone = zoneOf(a(name, '10.0.0.1'), aaaa(name, 'fd00::1'))
    await t.asksAfter(1000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.1:3000', 'http://[fd00::1]:3000'])
  })

  it('and a callback that throws: the source goes on', async () => {
    const warned = new Promise((resolve) => void process.once('warning', resolve))
    const onError = (): never => {
      throw new Error('in the callback')
    }
    await using t = await rig(both('SERVFAIL'), { onError })
    expect(String(await warned)).toContain('in the callback')
    t.dns.zone = good
    await t.asksAfter(1000)
    expect(await t.reading.urls(1)).toEqual(urls)
  })
})

describe('the guard', () => {
  it('drops addresses and reports each once, as long as it is found', async () => {
    const zone = zoneOf(
      a(name, '10.0.0.1', 10),
      a(name, '127.0.0.1', 10),
      a(name, '169.254.169.254', 10),
      aaaa(name, '::ffff:127.0.0.1', 10),
    )
    await using t = await rig(zone)
    expect(await t.reading.urls(1)).toEqual(['http://10.0.0.1:3000'])
    await t.asksAfter(10_000)
    const refused = ['127.0.0.1', '169.254.169.254', '::ffff:7f00:1'].map((address) => ({
      type: 'refused',
      source: `dns:${name}`,
      address,
    }))
    expect(t.reading.told.filter(({ type }) => type === 'refused')).toEqual(refused)
    t.dns.zone = zoneOf(a(name, '10.0.0.1', 10))
    await t.asksAfter(10_000)
    t.dns.zone = zone
    await t.asksAfter(10_000)
    expect(t.reading.told.filter(({ type }) => type === 'refused')).toEqual([...refused, ...refused])
    expect(t.reading.lists).toHaveLength(1)
  })

  it('that refuses all of them leaves those that were there before', async () => {
    await using t = await rig(zoneOf(a(name, '10.0.0.1', 10)), { guard: addressGuard({ deny: ['10.1.0.0/16'] }) })
    t.dns.zone = zoneOf(a(name, '10.1.0.1', 10))
    await t.asksAfter(10_000)
    expect(t.reading.lists).toHaveLength(1)
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_REFUSED'])
  })

  it('that throws refuses; `false` is none', async () => {
    const zone = zoneOf(a(name, '127.0.0.1'), a(name, '10.0.0.1'))
    const guard = (address: string): boolean => {
      if (address === '10.0.0.1') throw new Error('broken')
      return true
    }
    await using t = await rig(zone, { guard })
    expect(await t.reading.urls(1)).toEqual(['http://127.0.0.1:3000'])
    await using open = await rig(zone, { guard: false })
    expect(await open.reading.urls(1)).toEqual(['http://10.0.0.1:3000', 'http://127.0.0.1:3000'])
  })
})

describe('the life of a source', () => {
  it('asks nothing before it is read, and nothing after', async () => {
    await using dns = await dnsServer(zoneOf(a(name, '10.0.0.1')))
    const clock = virtualClock()
    const source = dnsSource({ host: name, servers: [dns.address], family: 4, clock })
    const iterator = source[Symbol.asyncIterator]()
    await new Promise((resolve) => setImmediate(resolve))
    expect([dns.questions.length, clock.pending]).toEqual([0, 0])
    expect((await iterator.next()).value).toHaveLength(1)
    const pending = iterator.next()
    await until('the next round is set', () => clock.pending === 1)
    await iterator.return?.()
    expect(await pending).toEqual({ done: true, value: undefined })
    expect(clock.pending).toBe(0)
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
    expect(dns.questions).toHaveLength(1)
  })

  it('ends while a question is under way', async () => {
    await using dns = await dnsServer({ 'A app.test': 'hang' })
    const clock = virtualClock()
    const iterator = dnsSource({ host: name, servers: [dns.address], family: 4, clock })[Symbol.asyncIterator]()
    const pending = iterator.next()
    await dns.asked(1)
    await iterator.return?.()
    expect((await pending).done).toBe(true)
    await new Promise((resolve) => setImmediate(resolve))
    expect(clock.pending).toBe(0)
  })

  it('is one per reader: each asks for itself', async () => {
    await using dns = await dnsServer(zoneOf(a(name, '10.0.0.1')))
    const source = dnsSource({ host: name, servers: [dns.address], family: 4 })
    await using first = read(source)
    await using second = read(source)
    expect(await first.list(1)).toEqual(await second.list(1))
    expect(dns.questions).toHaveLength(2)
  })
})

describe('options', () => {
  it('that are wrong are all reported at once', () => {
    const make = (): unknown =>
      dnsSource({
        host: '10.0.0.1',
        port: 0,
        protocol: 'ftp',
        family: 5,
        minTtl: '10s',
        maxTtl: '5s',
        jitter: 2,
        servers: ['nobody'],
        weight: -1,
        guard: 'private',
        onEmpty: 'drop',
        retry: { min: '10s', max: '1s' },
        clock: {},
        firstFailure: 'cry',
        prot: 'http',
      } as never)
    expect(make).toThrow(OptionsError)
    try {
      make()
    } catch (error) {
      expect((error as OptionsError).problems.map(({ path }) => path).toSorted()).toEqual(
        [
          'host',
          'port',
          'protocol',
          'family',
          'maxTtl',
          'jitter',
          'servers',
          'weight',
          'guard',
          'onEmpty',
          'retry.max',
          'clock',
          'firstFailure',
          'prot',
        ].toSorted(),
      )
    }
  })

  it.each([
    ['App.Test.', 'app.test'],
    ['bücher.test', 'xn--bcher-kva.test'],
    ['_x.app.test', '_x.app.test'],
  ])('a host %s is asked for as %s', async (host, asked) => {
    await using t = await rig(zoneOf(a(asked, '10.0.0.1')), { host, family: 4 })
    expect((await t.reading.list(1))[0]).toMatchObject({ host: `${asked}:3000` } satisfies Partial<UpstreamOptions>)
  })

  it.each(['', 'a..b', 'a b', 'http://app.test', 'app.test:80', '::1', '[::1]', '127.1', 'x'.repeat(64), '*.app.test'])(
    'a host %j is none',
    (host) => {
      expect(() => dnsSource({ host })).toThrow(OptionsError)
    },
  )
})
