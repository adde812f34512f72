import { type Balancer, OptionsError, type Upstream } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type IpHashOptions, ipHash } from './ip-hash.ts'

function pool(upstreams: readonly Upstream[], options: IpHashOptions = {}): Balancer {
  const balancer = ipHash({ random: seededRandom(1), ...options })
  balancer.update(upstreams)
  return balancer
}

const at = (balancer: Balancer, clientIp: string, ...tried: Upstream[]): string | undefined =>
  balancer.pick(stubExchange({ clientIp, tried }))?.id

const clients = Array.from({ length: 2_000 }, (_, i) => `198.51.${i >> 8}.${i & 255}`)

describe('a client', () => {
  it('goes to the same upstream each time, and in every process', () => {
    const upstreams = stubUpstreams([1, 1, 1, 1])
    const here = pool(upstreams)
    const there = pool(upstreams.toReversed(), { random: seededRandom(2) })
    for (const client of clients) expect(at(there, client)).toBe(at(here, client))
    for (const client of clients) expect(at(here, client)).toBe(at(there, client))
  })

  it('is its whole IPv4 address: a /24 is spread over all', () => {
    const balancer = pool(stubUpstreams([1, 1, 1, 1]))
    const hits = new Map<string | undefined, number>()
    for (let host = 0; host < 256; host++) {
      const id = at(balancer, `192.0.2.${host}`)
      hits.set(id, (hits.get(id) ?? 0) + 1)
    }
    expect(hits.size).toBe(4)
    expect(Math.min(...hits.values())).toBeGreaterThan(30)
  })

  it('is a /64 of IPv6 by default', () => {
    const balancer = pool(stubUpstreams(new Array(20).fill(1)))
    const home = at(balancer, '2001:db8:1:2::1')
    for (const address of ['2001:db8:1:2:ffff::9', '2001:0DB8:1:2:a:b:c:d', '2001:db8:1:2::']) expect(at(balancer, address)).toBe(home)
    const nets = new Set(Array.from({ length: 50 }, (_, net) => at(balancer, `2001:db8:1:${net.toString(16)}::1`)))
    expect(nets.size).toBeGreaterThan(10)
  })

  it('is as much of IPv6 as `ipv6Prefix` says', () => {
    const upstreams = stubUpstreams(new Array(20).fill(1))
    const hosts = Array.from({ length: 50 }, (_, host) => `2001:db8:1:2::${host.toString(16)}`)
    const nets = Array.from({ length: 50 }, (_, net) => `2001:db8:1:${net.toString(16)}::1`)
    const spread = (ipv6Prefix: number, addresses: readonly string[]): number => {
      const balancer = pool(upstreams, { ipv6Prefix })
      return new Set(addresses.map((address) => at(balancer, address))).size
    }
    expect(spread(128, hosts)).toBeGreaterThan(10)
    expect(spread(48, nets)).toBe(1)
    expect(spread(48, hosts)).toBe(1)
  })

  it('without an address is placed by chance', () => {
    const upstreams = stubUpstreams([1, 3])
    const balancer = pool(upstreams)
    let a = 0
    for (let i = 0; i < 4_000; i++) if (at(balancer, '') === 'a') a++
    expect(Math.abs(a - 1_000)).toBeLessThan(5 * Math.sqrt(750))
  })
})

describe('when upstreams come and go', () => {
  it('only the clients of one that leaves move, and come back with it', () => {
    const upstreams = stubUpstreams(new Array(10).fill(1))
    const balancer = pool(upstreams)
    const before = clients.map((client) => at(balancer, client))
    balancer.update(upstreams.filter(({ id }) => id !== 'd'))
    const without = clients.map((client) => at(balancer, client))
    for (const [i, id] of before.entries()) if (id !== 'd') expect(without[i]).toBe(id)
    expect(without).not.toContain('d')
    balancer.update(upstreams)
    expect(clients.map((client) => at(balancer, client))).toEqual(before)
  })

  it('about 1/n of the clients move to one that joins, from everywhere', () => {
    const upstreams = stubUpstreams(new Array(10).fill(1))
    const balancer = pool(upstreams.slice(0, 9))
    const before = clients.map((client) => at(balancer, client))
    balancer.update(upstreams)
    const moved = clients.flatMap((client, i) => (at(balancer, client) === before[i] ? [] : [before[i]]))
    expect(Math.abs(moved.length - 200)).toBeLessThan(70)
    expect(new Set(moved).size).toBe(9)
  })
})

describe('a client whose upstream cannot be picked', () => {
  it('goes to the same next best each time, and comes back', () => {
    const upstreams = stubUpstreams([1, 1, 1, 1])
    const balancer = pool(upstreams)
    for (const client of clients.slice(0, 200)) {
      const home = upstreams.find(({ id }) => id === at(balancer, client)) as StubUpstream
      const next = at(balancer, client, home)
      expect(next).not.toBe(home.id)
      home.maxConcurrent = 0
      expect(at(balancer, client)).toBe(next)
      home.maxConcurrent = Number.POSITIVE_INFINITY
      expect(at(balancer, client)).toBe(home.id)
    }
  })

  it('shares the others by weight with its neighbours', () => {
    const [a, ...others] = stubUpstreams([1, 1, 2, 3])
    const balancer = pool([a as StubUpstream, ...others])
    const hits: Record<string, number> = { b: 0, c: 0, d: 0 }
    for (const client of clients) {
      const id = at(balancer, client, a as StubUpstream) as string
      hits[id] = (hits[id] as number) + 1
    }
    for (const { id, weight } of others) {
      const expected = (clients.length * weight) / 6
      expect(Math.abs((hits[id] as number) - expected)).toBeLessThan(5 * Math.sqrt(expected))
    }
  })

  it('is found a place without a search among all', () => {
    let looks = 0
    const upstreams = stubUpstreams(new Array(10_000).fill(1))
    for (const upstream of upstreams) Object.defineProperty(upstream, 'full', { get: () => ++looks < 0 })
    const balancer = pool(upstreams)
    for (const client of clients) {
      const home = balancer.pick(stubExchange({ clientIp: client })) as Upstream
      expect(at(balancer, client, home)).not.toBe(home.id)
    }
    // One look for the first pick, two for the second, and now and then a cell of the same owner.
    expect(looks).toBeLessThan(3 * clients.length + 20)
  })

  it('finds the last ones left by weight, too', () => {
    const upstreams = stubUpstreams([1, 3, ...new Array(998).fill(1)])
    const balancer = pool(upstreams)
    for (const upstream of upstreams.slice(2)) upstream.maxConcurrent = 0
    const b = clients.filter((client) => at(balancer, client) === 'b').length
    expect(Math.abs(b - 1_500)).toBeLessThan(5 * Math.sqrt(375))
    expect(clients.slice(0, 50).map((client) => at(balancer, client))).toEqual(clients.slice(0, 50).map((client) => at(balancer, client)))
  })
})

describe('options', () => {
  it('are refused when wrong, in the editor and at run time', () => {
    // @ts-expect-error: no such option
    expect(() => ipHash({ ipv4Prefix: 24 })).toThrow(OptionsError)
    // @ts-expect-error: not a number
    expect(() => ipHash({ ipv6Prefix: '/64' })).toThrow(OptionsError)
    for (const ipv6Prefix of [0, 129, 64.5, Number.NaN]) expect(() => ipHash({ ipv6Prefix })).toThrow(OptionsError)
    expect(() => ipHash({ ipv6Prefix: 1 })).not.toThrow()
  })

  it('are reported all at once', () => {
    let paths: string[] = []
    try {
      ipHash({ random: 1, ipv6Prefix: 0, prefix: 3 } as never)
    } catch (error) {
      paths = (error as OptionsError).problems.map(({ path }) => path)
    }
    expect(paths.sort()).toEqual(['ipv6Prefix', 'prefix', 'random'])
  })
})
