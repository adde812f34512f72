/** Services against a DNS server of the test's own, in virtual time. */
import { createPool, OptionsError, type UpstreamOptions } from '@weir/core'
import { fakeTransport, type VirtualClock, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { a, aaaa, type DnsServer, dnsServer, srv, type Zone, zoneOf } from './fixtures/dns-server.ts'
import { type Reading, read, until } from './fixtures/reading.ts'
import { type SrvSourceOptions, srvSource } from './srv-source.ts'

const service = '_http._tcp.app.test'
const one = [srv(service, 'a.test', 8001, 10, 5), a('a.test', '10.0.0.1', 20)] as const
const two = [...one, srv(service, 'b.test', 8002, 20, 0), a('b.test', '10.0.0.2', 10)] as const

async function rig(
  zone: Zone,
  options: Partial<SrvSourceOptions> = {},
): Promise<{ dns: DnsServer; clock: VirtualClock; reading: Reading; later(ms: number): Promise<void> } & AsyncDisposable> {
  const dns = await dnsServer(zone)
  const clock = virtualClock()
  const reading = read(
    srvSource({ service, servers: [dns.address], family: 4, jitter: 0, timeout: 60, tries: 1, clock, firstFailure: 'wait', ...options }),
  )
  const settled = (): Promise<unknown> => until('the next round is set', () => clock.pending === 1)
  await settled()
  return {
    dns,
    clock,
    reading,
    /** Nothing is asked until `ms` have passed, and then something is. */
    later: async (ms) => {
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

describe('a service', () => {
  it('gives servers with port, tier, weight and name, as a pool takes them', async () => {
    await using t = await rig(zoneOf(...two), { meta: { from: 'srv' } })
    const list = (await t.reading.list(1)) as readonly UpstreamOptions[]
    expect(list).toEqual([
      { url: 'http://10.0.0.1:8001/', id: 'http://10.0.0.1:8001', host: 'a.test:8001', priority: 0, weight: 5, meta: { from: 'srv' } },
      { url: 'http://10.0.0.2:8002/', id: 'http://10.0.0.2:8002', host: 'b.test:8002', priority: 1, weight: 1, meta: { from: 'srv' } },
    ])
    const pool = createPool({ upstreams: list, transport: fakeTransport() })
    expect(pool.upstreams.map(({ id, host, priority, weight }) => [id, host, priority, weight])).toEqual(
      list.map(({ id, host, priority, weight }) => [id, host, priority, weight]),
    )
    await pool.close()
  })

  it('has targets with addresses of both families', async () => {
    await using t = await rig(zoneOf(...one, aaaa('a.test', 'fd00::1')), { family: 'both', protocol: 'https' })
    expect(await t.reading.urls(1)).toEqual(['https://10.0.0.1:8001', 'https://[fd00::1]:8001'])
  })

  it('of more targets than a datagram holds comes over TCP, with every target asked once', async () => {
    const records = Array.from({ length: 100 }, (_, i) => [srv(service, `t${i}.test`, 80, 1, 1), a(`t${i}.test`, `10.0.1.${i}`)]).flat()
    await using t = await rig(zoneOf(...records))
    expect(await t.reading.list(1)).toHaveLength(100)
    expect(t.dns.questions.filter((question) => question.startsWith('tcp SRV'))).toHaveLength(1)
    expect(new Set(t.dns.questions).size).toBe(102)
    expect(t.dns.questions).toHaveLength(102)
  })

  it('is asked again when the addresses of its targets expire, and after 30 s at the latest', async () => {
    await using t = await rig(zoneOf(...two))
    await t.later(10_000)
    t.dns.zone = zoneOf(...one)
    await t.later(10_000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.1:8001'])
    t.dns.zone = zoneOf(one[0], a('a.test', '10.0.0.1', 3600))
    await t.later(20_000)
    await t.later(30_000)
    expect(t.reading.lists).toHaveLength(2)
  })

  it('that changes weights gives another list', async () => {
    await using t = await rig(zoneOf(...one))
    t.dns.zone = zoneOf(srv(service, 'a.test', 8001, 10, 9), one[1])
    await t.later(20_000)
    expect(await t.reading.list(2)).toMatchObject([{ id: 'http://10.0.0.1:8001', weight: 9 }])
  })
})

describe('no good answer', () => {
  it.each([
    ['SERVFAIL', { [`SRV ${service}`]: 'SERVFAIL' }, 'ERR_DISCOVERY_DNS'],
    ['silence', { [`SRV ${service}`]: 'hang' }, 'ERR_DISCOVERY_DNS'],
    ['NXDOMAIN', {}, 'ERR_DISCOVERY_EMPTY'],
    ['no records', { [`TXT ${service}`]: [] }, 'ERR_DISCOVERY_EMPTY'],
    ['no target has an address', zoneOf(one[0]), 'ERR_DISCOVERY_EMPTY'],
  ] as const)('%s: the last good list stays', async (_case, zone, code) => {
    await using t = await rig(zoneOf(...one))
    t.dns.zone = zone
    await t.later(20_000)
    await t.later(1000)
    expect([t.reading.lists.length, t.reading.failures]).toEqual([1, [code, code]])
    t.dns.zone = zoneOf(...two)
    await t.later(2000)
    expect(await t.reading.list(2)).toHaveLength(2)
  })

  it.each([
    ['NXDOMAIN', {}],
    ['no target has an address', zoneOf(one[0])],
  ] as const)('%s clears the list with onEmpty: "clear"', async (_case, zone) => {
    await using t = await rig(zoneOf(...one), { onEmpty: 'clear' })
    t.dns.zone = zone
    await t.later(20_000)
    expect(await t.reading.list(2)).toEqual([])
  })

  it('for all targets, which are new: the last good list stays, also with onEmpty: "clear"', async () => {
    await using t = await rig(zoneOf(...one), { onEmpty: 'clear' })
    t.dns.zone = { ...zoneOf(two[2]), 'A b.test': 'SERVFAIL' }
    await t.later(20_000)
    expect([t.reading.lists.length, t.reading.failures]).toEqual([1, ['ERR_DISCOVERY_DNS']])
  })

  it('a target "." means that the service is not there, and is no failure', async () => {
    await using t = await rig(zoneOf(...one))
    t.dns.zone = zoneOf(srv(service, '.', 0))
    await t.later(20_000)
    expect([await t.reading.list(2), t.reading.failures]).toEqual([[], []])
    t.dns.zone = zoneOf(...one)
    await t.later(30_000)
    expect(await t.reading.list(3)).toHaveLength(1)
  })

  it('for one target: it keeps its addresses, the others are as they are now', async () => {
    await using t = await rig(zoneOf(...two))
    t.dns.zone = { ...zoneOf(one[0], two[2], a('a.test', '10.0.0.9', 20)), 'A b.test': 'SERVFAIL' }
    await t.later(10_000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.2:8002', 'http://10.0.0.9:8001'])
    expect(t.reading.failures).toEqual(['ERR_DISCOVERY_DNS'])
    // The DNS knows nothing of it any more: that is an answer.
    t.dns.zone = zoneOf(one[0], two[2], a('a.test', '10.0.0.9', 20))
    await t.later(1000)
    expect(await t.reading.urls(3)).toEqual(['http://10.0.0.9:8001'])
  })

  it('for a target that had left: its old addresses are forgotten', async () => {
    await using t = await rig(zoneOf(...two))
    t.dns.zone = zoneOf(...one)
    await t.later(10_000)
    expect(await t.reading.urls(2)).toEqual(['http://10.0.0.1:8001'])
    t.dns.zone = { ...zoneOf(one[0], one[1], two[2]), 'A b.test': 'SERVFAIL' }
    await t.later(20_000)
    expect([t.reading.lists.length, t.reading.failures]).toEqual([2, ['ERR_DISCOVERY_DNS']])
  })
})

it('the guard drops addresses of targets', async () => {
  await using t = await rig(zoneOf(...one, srv(service, 'evil.test', 80, 10, 5), a('evil.test', '169.254.169.254')))
  expect(await t.reading.urls(1)).toEqual(['http://10.0.0.1:8001'])
  expect(t.reading.told[0]).toEqual({ type: 'refused', source: `srv:${service}`, address: '169.254.169.254' })
})

it('ends while targets are being asked', async () => {
  await using dns = await dnsServer({ ...zoneOf(one[0]), 'A a.test': 'hang' })
  const clock = virtualClock()
  const iterator = srvSource({ service, servers: [dns.address], family: 4, clock })[Symbol.asyncIterator]()
  const pending = iterator.next()
  await dns.asked(2)
  await iterator.return?.()
  expect((await pending).done).toBe(true)
  await new Promise((resolve) => setImmediate(resolve))
  expect(clock.pending).toBe(0)
})

it('takes wrong options all at once', () => {
  const make = (): unknown => srvSource({ service: 'a b', weight: 1, maxConcurrent: 0, meta: 3, minTtl: '2m', maxTtl: '1m' } as never)
  const paths = ['maxConcurrent', 'maxTtl', 'meta', 'service', 'weight']
  expect(make).toThrow(OptionsError)
  try {
    make()
  } catch (error) {
    expect((error as OptionsError).problems.map(({ path }) => path).toSorted()).toEqual(paths)
  }
})
