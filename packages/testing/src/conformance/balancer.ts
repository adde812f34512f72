/**
 * What every balancing strategy must do, as cases that run under any test runner. A strategy declares how near it keeps to the weights and
 * what it promises about load; everything else is the port's contract and not negotiable.
 *
 * The heart is `play`: a pool played at random. Upstreams join, leave, change weight and fill up; exchanges start with and without a pick and
 * end in any order; and each pick is held against the whole truth, which the player knows. All chance is seeded, so a case that passes, passes
 * always.
 *
 * ```ts
 * for (const { name, run } of balancerConformance('mine', (options) => mine(options), traits)) test(name, run)
 * ```
 */
import assert from 'node:assert/strict'
import { getHeapStatistics } from 'node:v8'
import { type Balancer, type Exchange, isPickable, type Upstream } from '@weir/core'
import { type StubUpstream, stubExchange, stubOutcome, stubUpstream } from '../balancer-fixtures.ts'
import { seededRandom } from '../random.ts'
import type { ConformanceCase } from './transport/rig.ts'

export interface BalancerTraits {
  /**
   * How far, at most, the number of picks that an upstream gets may be from its share by weight, when every exchange ends before the next
   * begins. In picks; `expected` is the share, `picks` the length of the run (1,000 or more). Exact rotation: `() => 1`. Independent draws:
   * `(expected) => 5 * Math.sqrt(expected)`, five standard deviations.
   */
  readonly deviation: (expected: number, picks: number) => number
  /**
   * `least`: always the fewest in flight per weight, of those that are pickable. `compared`: never one that has more in flight per weight than
   * all other pickable ones. `ignored`: no promise.
   */
  readonly load: 'least' | 'compared' | 'ignored'
}

type NamedCheck = readonly [title: string, run: () => void]

export type BalancerFactory = (options: { random: () => number }) => Balancer

/** @param factory makes a new instance that draws from `random` and from nothing else */
export function balancerConformance(name: string, factory: BalancerFactory, traits: BalancerTraits): ConformanceCase[] {
  const make = (seed: number): Balancer => factory({ random: seededRandom(seed) })
  const cases: NamedCheck[] = [
    ['returns undefined while there are no upstreams', () => nobody(make(1))],
    ...[1, 2, 3, 1_000, 10_000].map(
      (n): NamedCheck => [`finds the only one of ${n.toLocaleString('en')} that has room`, () => onlyOneHasRoom(make(n), n)],
    ),
    ...[1, 2, 3, 100].map((n): NamedCheck => [`finds the only one of ${n} that was not tried`, () => onlyOneUntried(make(n), n)]),
    ...weightings.map(
      ([title, weights]): NamedCheck => [
        `shares by weight: ${title}`,
        () => {
          const balancer = make(7)
          const upstreams = weights.map((weight, i) => stubUpstream({ id: `s${i}`, weight }))
          balancer.update(upstreams)
          checkShares(balancer, upstreams, seededRandom(8), traits.deviation)
        },
      ],
    ),
    ...[1, 2, 3].flatMap((seed) =>
      histories.map(
        (history): NamedCheck => [
          `picks nobody excluded, and somebody whenever it can: ${history.title}, seed ${seed}`,
          () => void play(make(seed), seededRandom(100 + seed), history, traits),
        ],
      ),
    ),
    ['comes back to its shares after churn with exchanges in flight', () => sharesAfterChurn(make(9), traits)],
    ['chooses the same with the same seed', () => sameSeed(make, traits)],
    ['allocates nothing', () => allocatesNothing(factory)],
  ]
  return cases.map(([title, run]) => ({ name: `${name} ${title}`, run: async () => run() }))
}

const weightings: readonly (readonly [string, readonly number[]])[] = [
  ['two equal', [1, 1]],
  ['5, 1, 1', [5, 1, 1]],
  ['1 to 10', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
  ['100 to 1', [100, 1]],
  ['one heavy among fifty', [50, ...new Array<number>(50).fill(1)]],
  ['a hundred equal', new Array<number>(100).fill(3)],
]

interface History {
  readonly title: string
  readonly upstreams: number
  readonly steps: number
  /** Chance of a step that changes membership or weights. */
  readonly churn: number
  /** About so many exchanges are in flight. */
  readonly inflight: number
}

const histories: readonly History[] = [
  { title: 'few upstreams, calm', upstreams: 4, steps: 4_000, churn: 0.01, inflight: 6 },
  { title: 'few upstreams, much churn', upstreams: 6, steps: 1_500, churn: 0.2, inflight: 12 },
  { title: 'many upstreams, busy', upstreams: 60, steps: 4_000, churn: 0.02, inflight: 150 },
]

function nobody(balancer: Balancer): void {
  assert.equal(balancer.pick(stubExchange()), undefined)
  balancer.update([])
  assert.equal(balancer.pick(stubExchange()), undefined)
  const upstream = stubUpstream()
  balancer.update([upstream])
  assert.equal(balancer.pick(stubExchange()), upstream)
  balancer.update([])
  assert.equal(balancer.pick(stubExchange()), undefined)
}

function onlyOneHasRoom(balancer: Balancer, n: number): void {
  const random = seededRandom(n)
  const upstreams = Array.from({ length: n }, (_, i) => stubUpstream({ id: `s${i}`, maxConcurrent: 1 }))
  const exchange = stubExchange()
  balancer.update(upstreams)
  for (let i = 0; i < Math.min(n, 100); i++) begin(balancer, checked(balancer, exchange, upstreams) as StubUpstream)
  for (const upstream of upstreams) if (!upstream.full) begin(balancer, upstream)
  assert.equal(balancer.pick(exchange), undefined, 'all are full')
  for (let i = 0; i < 20; i++) {
    const free = upstreams[Math.floor(random() * n)] as StubUpstream
    end(balancer, free)
    assert.equal(balancer.pick(exchange), free, 'one has room')
    begin(balancer, free)
    assert.equal(balancer.pick(exchange), undefined, 'all are full again')
  }
}

function onlyOneUntried(balancer: Balancer, n: number): void {
  const upstreams = Array.from({ length: n }, (_, i) => stubUpstream({ id: `s${i}`, weight: 1 + (i % 7) }))
  balancer.update(upstreams)
  assert.equal(balancer.pick(stubExchange({ tried: upstreams })), undefined)
  for (const left of upstreams) {
    const exchange = stubExchange({ tried: upstreams.filter((upstream) => upstream !== left) })
    assert.equal(balancer.pick(exchange), left)
    assert.equal(balancer.pick(exchange), left, 'asked again')
  }
}

function checkShares(
  balancer: Balancer,
  upstreams: readonly StubUpstream[],
  random: () => number,
  deviation: BalancerTraits['deviation'],
): void {
  const total = upstreams.reduce((sum, { weight }) => sum + weight, 0)
  const counts = new Map(upstreams.map((upstream) => [upstream, 0]))
  const lengths = [1_000, 5_000, 20_000]
  for (let picks = 1; picks <= 20_000; picks++) {
    const upstream = balancer.pick(stubClient(random)) as StubUpstream
    begin(balancer, upstream)
    end(balancer, upstream)
    counts.set(upstream, (counts.get(upstream) ?? 0) + 1)
    if (!lengths.includes(picks)) continue
    for (const [{ id, weight }, count] of counts) {
      const expected = (picks * weight) / total
      const allowed = deviation(expected, picks)
      assert.ok(
        Math.abs(count - expected) <= allowed,
        `${id} (weight ${weight}) got ${count} of ${picks}; ${expected} ± ${allowed} expected`,
      )
    }
  }
}

/** Plays a pool, checks every pick, and ends what was in flight. Returns all upstreams that took part. */
function play(balancer: Balancer, random: () => number, history: History, traits: BalancerTraits): StubUpstream[] {
  const below = (n: number): number => Math.floor(random() * n)
  const all = Array.from({ length: history.upstreams }, (_, i) =>
    stubUpstream({ id: `s${i}`, weight: 1 + below(4) * below(4), maxConcurrent: [1, 3, 10, Number.POSITIVE_INFINITY][below(4)] as number }),
  )
  let available = all.filter(() => random() < 0.7)
  const running: StubUpstream[] = []
  balancer.update([...available])

  for (let step = 0; step < history.steps; step++) {
    const upstream = all[below(all.length)] as StubUpstream
    if (random() < history.churn) {
      if (random() < 0.3) upstream.weight = 1 + below(20)
      else if (available.includes(upstream)) available = available.filter((other) => other !== upstream)
      else available = [...available, upstream]
      balancer.update([...available])
    } else if (random() < running.length / (2 * history.inflight)) {
      const [ended] = running.splice(below(running.length), 1)
      end(balancer, ended as StubUpstream)
    } else if (random() < 0.1) {
      // Affinity: no pick, and not even a member for certain. But never beyond the cap.
      if (!upstream.full) {
        running.push(upstream)
        begin(balancer, upstream)
      }
    } else {
      const tried = all.filter(() => random() < (random() < 0.5 ? 0 : 2 / all.length))
      const picked = checked(balancer, stubClient(random, tried), available, traits, `step ${step}`)
      if (picked !== undefined) {
        running.push(picked)
        begin(balancer, picked)
      }
    }
  }
  for (const upstream of running) end(balancer, upstream)
  return all
}

/** One pick, held against what may be picked. */
function checked(
  balancer: Balancer,
  exchange: Exchange,
  available: readonly StubUpstream[],
  traits?: BalancerTraits,
  where: string = '',
): StubUpstream | undefined {
  const picked = balancer.pick(exchange) as StubUpstream | undefined
  const pickable = available.filter((upstream) => isPickable(upstream, exchange))
  if (picked === undefined) {
    assert.equal(pickable.length, 0, `${where}: undefined, though ${pickable.length} are pickable`)
    return undefined
  }
  assert.ok(available.includes(picked), `${where}: ${picked.id} is not available`)
  assert.ok(isPickable(picked, exchange), `${where}: ${picked.id} is tried or full`)
  const load = ({ inflight, weight }: StubUpstream): number => inflight / weight
  const others = pickable.filter((upstream) => upstream !== picked)
  if (traits?.load === 'least')
    for (const other of others)
      assert.ok(load(picked) <= load(other), `${where}: ${picked.id} has more in flight per weight than ${other.id}`)
  if (traits?.load === 'compared' && others.length > 0)
    assert.ok(
      others.some((other) => load(other) >= load(picked)),
      `${where}: ${picked.id} is the busiest of all`,
    )
  return picked
}

function sharesAfterChurn(balancer: Balancer, traits: BalancerTraits): void {
  const history = { title: '', upstreams: 8, steps: 2_000, churn: 0.1, inflight: 20 }
  const random = seededRandom(10)
  const upstreams = play(balancer, random, history, traits)
  balancer.update(upstreams)
  // Twice the bound: the history may have ended at any point of a rotation.
  checkShares(balancer, upstreams, random, (expected, picks) => 2 * traits.deviation(expected, picks))
}

function sameSeed(make: (seed: number) => Balancer, traits: BalancerTraits): void {
  const record = (): string => {
    const ids: string[] = []
    const balancer = make(11)
    const recording: Balancer = {
      name: balancer.name,
      update: (available) => balancer.update(available),
      pick: (exchange) => {
        const picked = balancer.pick(exchange)
        ids.push(picked?.id ?? '-')
        return picked
      },
      acquire: (upstream) => balancer.acquire?.(upstream),
      release: (upstream, outcome) => balancer.release?.(upstream, outcome),
    }
    play(recording, seededRandom(12), { title: '', upstreams: 20, steps: 2_000, churn: 0.02, inflight: 40 }, traits)
    return ids.join(' ')
  }
  assert.equal(record(), record())
}

/**
 * An object is at least 16 bytes, so a strategy that makes one per pick uses 80 KB per round; one that makes none uses nothing, and the statistics
 * themselves about 1 KB. Rounds are repeated until five in a row are quiet: what the compiler allocates while it warms up passes, what a
 * strategy allocates does not; and a collection cannot hide it, since one that small comes only every many rounds.
 */
function allocatesNothing(factory: BalancerFactory): void {
  const picksPerRound = 5_000
  const mostRounds = 400
  const numbers = boxedNumbers()
  let drawn = 0
  const balancer = factory({ random: () => numbers[drawn++ & 1023] as number })
  const upstreams = Array.from({ length: 50 }, (_, i) =>
    stubUpstream({ id: `s${i}`, weight: 1 + (i % 3), maxConcurrent: i % 5 === 0 ? 2 : Number.POSITIVE_INFINITY }),
  )
  balancer.update(upstreams)
  const random = seededRandom(13)
  const exchanges = Array.from({ length: 64 }, (_, i) => stubClient(random, i % 4 === 0 ? upstreams.slice(i % 40, (i % 40) + 2) : []))
  const outcomes = new Map(upstreams.map((upstream) => [upstream, stubOutcome(upstream)]))
  const running: (StubUpstream | undefined)[] = new Array(64).fill(undefined)

  const round = (): number => {
    const before = getHeapStatistics().used_heap_size
    for (let i = 0; i < picksPerRound; i++) {
      const at = i & 63
      const ended = running[at]
      if (ended !== undefined) {
        ended.inflight--
        balancer.release?.(ended, outcomes.get(ended) as ReturnType<typeof stubOutcome>)
      }
      const picked = balancer.pick(exchanges[at] as Exchange) as StubUpstream | undefined
      running[at] = picked
      if (picked !== undefined) {
        picked.inflight++
        balancer.acquire?.(picked)
      }
    }
    return getHeapStatistics().used_heap_size - before
  }

  let quiet = 0
  let bytes = 0
  for (let rounds = 0; rounds < mostRounds && quiet < 5; rounds++) {
    bytes = round()
    quiet = Math.abs(bytes) < 2 * picksPerRound ? quiet + 1 : 0
  }
  assert.equal(quiet, 5, `a pick allocates: ${(bytes / picksPerRound).toFixed(1)} bytes each in the last round`)
}

/** A number that a function returns may itself be an allocation; numbers that lie in a mixed array are objects already. */
function boxedNumbers(): readonly unknown[] {
  const random = seededRandom(14)
  const numbers: unknown[] = ['']
  for (let i = 0; i < 1024; i++) numbers[i] = random()
  return numbers
}

/** Request, headers and signal are the same for all: a strategy may read them, and making them a hundred thousand times takes seconds. */
const template = stubExchange()

function stubClient(random: () => number, tried: readonly Upstream[] = []): Exchange {
  const bits = Math.floor(random() * 0x1_0000_0000)
  const clientIp = `${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`
  return { ...template, clientIp, tried }
}

function begin(balancer: Balancer, upstream: StubUpstream): void {
  upstream.inflight++
  balancer.acquire?.(upstream)
}

function end(balancer: Balancer, upstream: StubUpstream): void {
  upstream.inflight--
  balancer.release?.(upstream, stubOutcome(upstream))
}
