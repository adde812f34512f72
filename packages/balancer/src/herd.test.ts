// Many at once, in virtual time: the strategies themselves, in front of servers with queues, against what the theory says of them.
//
// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (IEEE TPDS 12(10), 2001), and Azar, Broder, Karlin, Upfal, "Balanced
// Allocations" (SIAM J. Comput. 29(1), 1999): with n balls in n bins the fullest bin holds ln n / ln ln n (1 + o(1)) by one random choice, and
// ln ln n / ln 2 + O(1) by the better of two. With queues, exponential service and load ρ, the fraction of servers that have i or more is
// ρ^i by one choice, and ρ^(2^i - 1) by two.
import type { Balancer } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubOutcome, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { leastConnections } from './least-connections.ts'
import { leastTime } from './least-time.ts'
import { peakEwma } from './peak-ewma.ts'
import { powerOfTwo } from './power-of-two.ts'
import { random } from './random.ts'

type Make = (options: { random: () => number; clock: { now: () => number } }) => Balancer
const makes = {
  random: ({ random: draw }) => random({ random: draw }),
  leastConnections: ({ random }) => leastConnections({ random }),
  powerOfTwo: ({ random }) => powerOfTwo({ random }),
  peakEwma: (options) => peakEwma(options),
  leastTime: (options) => leastTime(options),
} satisfies Record<string, Make>

const exchange = stubExchange()

interface World {
  readonly make: Make
  readonly seed: number
  readonly servers: number
  /** Each knows what it sent itself, and nothing of the others. */
  readonly proxies?: number
  /** Arrivals per server and service time. Service takes 1 on average, exponentially distributed. */
  readonly load: number
  readonly arrivals: number
  /** How many arrive at a time. */
  readonly burst?: number
  /** How much later than the server a proxy knows that an exchange has ended. */
  readonly delay?: number
  /** The first server takes so many times as long. */
  readonly slowdown?: number
}

interface Seen {
  /** Average fraction of servers with at least i exchanges. */
  readonly tail: readonly number[]
  readonly longestQueue: number
  /** Average time from arrival to departure. */
  readonly time: number
  /** Most arrivals at one server within one burst, as a fraction of the burst. */
  readonly rush: number
}

/** Events by time, in a binary heap; of equal times, in any order that depends on nothing but the events. */
class Agenda {
  readonly #times: number[] = []
  readonly #events: (() => void)[] = []

  get next(): number {
    return this.#times[0] ?? Number.POSITIVE_INFINITY
  }

  add(time: number, event: () => void): void {
    let at = this.#times.push(time) - 1
    this.#events.push(event)
    for (; at > 0 && (this.#times[(at - 1) >> 1] as number) > time; at = (at - 1) >> 1) this.#swap(at, (at - 1) >> 1)
  }

  take(): () => void {
    const event = this.#events[0] as () => void
    this.#swap(0, this.#times.length - 1)
    this.#times.pop()
    this.#events.pop()
    for (let at = 0; ; ) {
      let least = at
      for (const child of [2 * at + 1, 2 * at + 2])
        if (child < this.#times.length && (this.#times[child] as number) < (this.#times[least] as number)) least = child
      if (least === at) return event
      this.#swap(at, least)
      at = least
    }
  }

  #swap(a: number, b: number): void {
    ;[this.#times[a], this.#times[b]] = [this.#times[b] as number, this.#times[a] as number]
    ;[this.#events[a], this.#events[b]] = [this.#events[b] as () => void, this.#events[a] as () => void]
  }
}

function run({ make, seed, servers, proxies = 1, load, arrivals, burst = 1, delay = 0, slowdown = 1 }: World): Seen {
  const chance = seededRandom(seed)
  const exponential = (mean: number): number => -Math.log(1 - chance()) * mean
  let now = 0
  const agenda = new Agenda()
  const pools = Array.from({ length: proxies }, (_, i) => {
    const upstreams = stubUpstreams(new Array(servers).fill(1))
    const balancer = make({ random: seededRandom(1_000 * seed + i), clock: { now: () => now } })
    balancer.update(upstreams)
    return { upstreams, balancer, indexes: new Map(upstreams.map((upstream, index) => [upstream, index])) }
  })
  const queues = new Int32Array(servers)
  const freeAt = new Float64Array(servers)
  const atLeast: number[] = [servers]
  const tail: number[] = []
  let longestQueue = 0
  let rush = 0
  let time = 0
  let samples = 0
  const advance = (until: number): void => {
    while (agenda.next <= until) {
      now = agenda.next
      agenda.take()()
    }
    now = until
  }

  const warm = arrivals / 5
  for (let done = 0; done < arrivals; done += burst) {
    advance(now + exponential(burst / (load * servers)))
    const hits = new Int32Array(servers)
    for (let i = 0; i < burst; i++) {
      const pool = pools[Math.floor(chance() * proxies)] as (typeof pools)[number]
      const upstream = pool.balancer.pick(exchange) as StubUpstream
      upstream.inflight++
      pool.balancer.acquire?.(upstream)
      const server = pool.indexes.get(upstream) as number
      hits[server] = (hits[server] as number) + 1
      const queue = (queues[server] as number) + 1
      queues[server] = queue
      longestQueue = Math.max(longestQueue, queue)
      atLeast[queue] = (atLeast[queue] ?? 0) + 1
      const startedAt = now
      const endsAt = Math.max(now, freeAt[server] as number) + exponential(server === 0 ? slowdown : 1)
      freeAt[server] = endsAt
      agenda.add(endsAt, () => {
        const before = queues[server] as number
        atLeast[before] = (atLeast[before] as number) - 1
        queues[server] = before - 1
      })
      agenda.add(endsAt + delay, () => {
        upstream.inflight--
        const durationMs = now - startedAt
        pool.balancer.release?.(upstream, { ...stubOutcome(upstream), startedAt, headMs: durationMs, durationMs })
      })
      if (done >= warm) time += endsAt - startedAt
    }
    rush = Math.max(rush, Math.max(...hits) / burst)
    if (done < warm || done % 8 !== 0) continue
    samples++
    atLeast.forEach((count, i) => {
      tail[i] = (tail[i] ?? 0) + count / servers
    })
  }
  return { tail: tail.map((sum) => sum / samples), longestQueue, time: time / (arrivals - warm), rush }
}

describe('as many exchanges as servers, none of which ends', () => {
  const n = 10_000
  const fullest = (make: Make, seed: number): number => {
    const upstreams = stubUpstreams(new Array(n).fill(1))
    const balancer = make({ random: seededRandom(seed), clock: { now: () => 0 } })
    balancer.update(upstreams)
    for (let i = 0; i < n; i++) {
      const upstream = balancer.pick(exchange) as StubUpstream
      upstream.inflight++
      balancer.acquire?.(upstream)
    }
    return Math.max(...upstreams.map(({ inflight }) => inflight))
  }
  const one = Math.log(n) / Math.log(Math.log(n))
  const two = Math.log(Math.log(n)) / Math.log(2)

  it.each([1, 2, 3, 4, 5])(
    'the fullest has ln ln n / ln 2 + 1 at most by two choices, and more than ln n / ln ln n by one: seed %i',
    (seed) => {
      expect(fullest(makes.powerOfTwo, seed)).toBeLessThanOrEqual(two + 1)
      expect(fullest(makes.peakEwma, seed)).toBeLessThanOrEqual(two + 1)
      expect(fullest(makes.random, seed)).toBeGreaterThan(one)
      expect(fullest(makes.random, seed)).toBeGreaterThan(two + 1)
    },
  )
})

describe('queues with exponential service', () => {
  const world = { servers: 300, load: 0.8, arrivals: 80_000, seed: 1 }

  it('are as short by two choices as the theory of infinitely many servers says', () => {
    const { tail, longestQueue } = run({ ...world, make: makes.powerOfTwo })
    for (let i = 1; i <= 6; i++) expect(Math.abs((tail[i] ?? 0) - 0.8 ** (2 ** i - 1))).toBeLessThan(0.02)
    // ln ln n / ln 2 + O(1): 0.8^63 of the servers, less than one in a million, have 6 or more.
    expect(longestQueue).toBeLessThanOrEqual(Math.log(Math.log(300)) / Math.log(2) + 4)
  })

  it('are as long by one choice as that theory says', () => {
    const { tail, longestQueue } = run({ ...world, make: makes.random })
    for (let i = 1; i <= 6; i++) expect(Math.abs((tail[i] ?? 0) - 0.8 ** i)).toBeLessThan(0.04)
    expect(longestQueue).toBeGreaterThan(20)
  })

  it('are hardly longer by peak EWMA, which goes by more than length', () => {
    const { tail, longestQueue, time } = run({ ...world, make: makes.peakEwma })
    expect(tail[6] as number).toBeLessThan(0.8 ** 6 / 3)
    expect(longestQueue).toBeLessThan(12)
    expect(time).toBeLessThan(run({ ...world, make: makes.random }).time / 2)
  })
})

describe('bursts on twenty proxies that do not know of each other, and learn late', () => {
  const world = { servers: 40, proxies: 20, load: 0.8, arrivals: 60_000, burst: 200, delay: 0.5, seed: 2 }

  it('do not all go to one server by two choices', () => {
    const worst = { powerOfTwo: run({ ...world, make: makes.powerOfTwo }), peakEwma: run({ ...world, make: makes.peakEwma }) }
    // A server is one of the two with a chance of 2 / n, so it gets that fraction of a burst at most: five standard deviations above it.
    const chance = 2 / world.servers
    for (const { rush } of Object.values(worst)) expect(rush).toBeLessThan(chance + 5 * Math.sqrt((chance * (1 - chance)) / world.burst))
  })
})

describe('a server that joins proxies which are all busy', () => {
  const proxies = 20
  const servers = 40
  /** The newcomer's fraction of the next burst. */
  const rush = (make: Make): number => {
    let onNewcomer = 0
    const burst = 10
    for (let i = 0; i < proxies; i++) {
      const upstreams = stubUpstreams(new Array(servers).fill(1))
      const balancer = make({ random: seededRandom(i), clock: { now: () => 0 } })
      const newcomer = upstreams[0] as StubUpstream
      for (const upstream of upstreams.slice(1)) upstream.inflight = 20
      balancer.update(upstreams)
      for (let j = 0; j < burst; j++) {
        const picked = balancer.pick(exchange) as StubUpstream
        picked.inflight++
        balancer.acquire?.(picked)
        if (picked === newcomer) onNewcomer++
      }
    }
    return onNewcomer / (proxies * burst)
  }

  it('gets the whole of the next burst by least connections or least time, and 2 / n of it by two choices', () => {
    expect(rush(makes.leastConnections)).toBe(1)
    expect(rush(makes.leastTime)).toBe(1)
    const chance = 2 / servers
    for (const make of [makes.powerOfTwo, makes.peakEwma])
      expect(rush(make)).toBeLessThan(chance + 5 * Math.sqrt((chance * (1 - chance)) / (proxies * 10)))
  })
})

describe('one server that is ten times as slow', () => {
  const world = { servers: 20, proxies: 5, load: 0.6, arrivals: 40_000, burst: 10, delay: 0.2, slowdown: 10, seed: 3 }

  it('is buried by random choice, and left with what it can do by two choices', () => {
    const [one, two, peak] = [makes.random, makes.powerOfTwo, makes.peakEwma].map((make) => run({ ...world, make })) as [Seen, Seen, Seen]
    // It is offered 0.6 and serves 0.1 per unit of time: all that it cannot serve is in its queue at the end.
    expect(one.longestQueue).toBeGreaterThan(0.4 * (world.arrivals / (world.load * world.servers)))
    expect(two.longestQueue).toBeLessThan(one.longestQueue / 20)
    expect(peak.longestQueue).toBeLessThan(two.longestQueue)
    expect(peak.time).toBeLessThan(two.time)
    expect(two.time).toBeLessThan(one.time / 20)
  })
})

it('is the same every time', () => {
  const world = { servers: 20, proxies: 3, load: 0.8, arrivals: 3_000, burst: 5, delay: 0.3, seed: 9, make: makes.peakEwma }
  expect(run(world)).toEqual(run(world))
})
