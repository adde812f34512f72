/**
 * P7: what one pick costs, for every strategy, at 10, 1,000 and 10,000 upstreams: alone, and with all that a pool does with a strategy for one
 * exchange, which is pick, count, `acquire`, and later, when the exchange ends, count and `release`. Two exchanges per upstream are in flight all the time
 * and end in the order in which they began, so the structures are as full, and memory as cold, as in a busy pool.
 *
 * Each strategy runs in a process of its own, as in a service, which has one or two: with all sixteen in one, the calls that a strategy makes would be compiled
 * for whatever the others do in the same places.
 *
 * The machine is shared, so time is measured in many short rounds and the quickest counts: whatever disturbs a round only ever makes it
 * longer. The last column sets 10,000 upstreams against 10: what is O(1) but for caches stays small, and a scan would show as hundreds.
 *
 * Run it after a build: `node test/bench/pick.ts`, or with the name of one strategy: `node test/bench/pick.ts ipHash`.
 */
import { spawnSync } from 'node:child_process'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import {
  boundedLoad,
  fallback,
  hash,
  ipHash,
  ketama,
  leastConnections,
  leastTime,
  locality,
  maglev,
  peakEwma,
  powerOfTwo,
  random,
  reportedLoad,
  roundRobin,
  split,
  subsets,
} from '@weir/balancer'
import { type Balancer, type Exchange, HeaderList } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubOutcome, stubUpstream } from '@weir/testing'

const sizes = [10, 1_000, 10_000]
const picksPerRound = 20_000
const rounds = 60
/** Everything is measured so often, from its making on, some seconds apart: a neighbour who takes the caches stays longer than a round. */
const passes = 4

const strategies: readonly (readonly [string, () => Balancer])[] = [
  ['roundRobin', roundRobin],
  ['leastConnections', leastConnections],
  ['random', random],
  ['powerOfTwo', powerOfTwo],
  ['ipHash', ipHash],
  ['hash', () => hash({ key: 'header:x-user' })],
  ['ketama', () => ketama({ key: 'header:x-user' })],
  ['maglev', () => maglev({ key: 'header:x-user' })],
  ['boundedLoad', () => boundedLoad({ key: 'header:x-user' })],
  ['peakEwma', peakEwma],
  ['leastTime', leastTime],
  ['reportedLoad', reportedLoad],
  ['fallback', () => fallback(hash({ key: 'cookie:uid', missing: 'none' }), random())],
  ['subsets', () => subsets({ labels: { version: 'header:x-version' }, balancer: () => random() })],
  [
    'split',
    () =>
      split({
        key: 'header:x-user',
        arms: [
          { weight: 95, labels: { version: '1' } },
          { weight: 5, labels: { version: '2' } },
        ],
      }),
  ],
  ['locality', () => locality({ zone: 'a' })],
]

const weightings: readonly (readonly [string, (i: number) => number])[] = [
  ['equal', () => 1],
  ['1 to 5', (i) => 1 + (i % 5)],
  ['all different', (i) => 1 + i],
]

/** Three of four are the stable version, and two of four are in the zone of the proxy. */
const metas = [
  { version: 1, zone: 'a' },
  { version: 1, zone: 'b' },
  { version: 2, zone: 'a' },
  { version: 1, zone: 'b' },
]

/** Nanoseconds in the quickest round: of a pick alone, and of a whole exchange. */
interface Cost {
  readonly alone: number
  readonly whole: number
}

function measure(make: () => Balancer, n: number, weight: (i: number) => number): Cost {
  const upstreams = Array.from({ length: n }, (_, i) =>
    stubUpstream({ id: `http://10.0.${i >> 8}.${i & 255}:3000`, weight: weight(i), meta: metas[i & 3] ?? {} }),
  )
  const outcomes = new Map(upstreams.map((upstream) => [upstream, stubOutcome(upstream)]))
  const [anyOutcome] = [...outcomes.values()]
  const exchanges = clients(1_024)
  const balancer = make()
  balancer.update(upstreams)
  const running: (StubUpstream | undefined)[] = new Array(2 * n).fill(undefined)
  let at = 0

  const round = (): number => {
    const start = process.hrtime.bigint()
    for (let i = 0; i < picksPerRound; i++) {
      const ended = running[at]
      if (ended !== undefined) {
        ended.inflight--
        balancer.release?.(ended, anyOutcome as ReturnType<typeof stubOutcome>)
      }
      const picked = balancer.pick(exchanges[i & 1_023] as Exchange) as StubUpstream
      picked.inflight++
      balancer.acquire?.(picked)
      running[at] = picked
      at = at + 1 === running.length ? 0 : at + 1
    }
    return Number(process.hrtime.bigint() - start) / picksPerRound
  }

  const picks = (): number => {
    const start = process.hrtime.bigint()
    for (let i = 0; i < picksPerRound; i++) balancer.pick(exchanges[i & 1_023] as Exchange)
    return Number(process.hrtime.bigint() - start) / picksPerRound
  }

  // The compiler settles, and the number in flight reaches its level.
  for (let i = 0; i < 10; i++) round()
  return { whole: quickest(round), alone: quickest(picks) }
}

function quickest(run: () => number): number {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < rounds; i++) least = Math.min(least, run())
  return least
}

function clients(n: number): Exchange[] {
  const draw = seededRandom(1)
  const octet = (): number => Math.floor(draw() * 256)
  return Array.from({ length: n }, () => ({
    ...stubExchange({ clientIp: `${octet()}.${octet()}.${octet()}.${octet()}` }),
    headers: new HeaderList(['Host', 'app.test', 'Accept', '*/*', 'X-Version', '1', 'X-User', `user-${octet()}-${octet()}`]),
  }))
}

const nothing: Balancer = { name: 'nothing', update: () => undefined, pick: () => undefined }

/** What the loop itself costs, with a strategy that only goes round a list. */
function floor(n: number): Cost {
  let upstreams: readonly StubUpstream[] = []
  let next = 0
  const rotating: Balancer = {
    ...nothing,
    update(available) {
      upstreams = available as readonly StubUpstream[]
    },
    pick: () => upstreams[next++ % upstreams.length],
  }
  return measure(
    () => rotating,
    n,
    () => 1,
  )
}

const ns = (value: number): string => value.toFixed(0)

function quickestOf(passes: readonly (readonly Cost[])[]): Cost[] {
  return sizes.map((_, i) => ({
    alone: Math.min(...passes.map((pass) => (pass[i] as Cost).alone)),
    whole: Math.min(...passes.map((pass) => (pass[i] as Cost).whole)),
  }))
}

function header(): void {
  console.log(
    `Node ${process.version}, ${cpus()[0]?.model ?? 'unknown processor'}. Nanoseconds, quickest of ${passes * rounds} rounds. "Pick" is a pick alone with 10 upstreams; the others include acquire and release.`,
  )
  console.log()
  console.log(`| strategy | weights | pick | ${sizes.map((n) => n.toLocaleString('en')).join(' | ')} | 10,000 : 10 |`)
  console.log(`|---|---|--:|${sizes.map(() => '--:|').join('')}--:|`)
}

function row(name: string, weights: string, costs: readonly Cost[]): void {
  const [ten, last] = [costs[0] as Cost, costs.at(-1) as Cost]
  console.log(
    `| ${name} | ${weights} | ${ns(ten.alone)} | ${costs.map(({ whole }) => ns(whole)).join(' | ')} | ${(last.whole / ten.whole).toFixed(1)} |`,
  )
}

/** Its rows, on standard output. */
function inProcess(args: readonly string[]): void {
  const { status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...args], { stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) process.exit(1)
}

const [, , only, part] = process.argv
if (part === undefined) {
  header()
  inProcess(['floor', 'rows'])
  for (const [name] of strategies) if (only === undefined || name === only) inProcess([name, 'rows'])
} else if (only === 'floor') row('(the loop alone)', 'equal', quickestOf(Array.from({ length: passes }, () => sizes.map(floor))))
else
  for (const [name, make] of strategies)
    if (name === only) {
      const table = Array.from({ length: passes }, () => weightings.map(([, weight]) => sizes.map((n) => measure(make, n, weight))))
      for (const [i, [title]] of weightings.entries()) row(name, title, quickestOf(table.map((pass) => pass[i] as Cost[])))
    }
