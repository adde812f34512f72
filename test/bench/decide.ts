/**
 * P9: what one decision of a rate limit costs in memory, with a million clients, each algorithm beside the least that any memory of clients can do: a
 * `Map` that is read and written. Time is measured in many short rounds and the quickest counts, as in pick.ts. And what ten million clients leave in
 * memory, when no more than a million are to be remembered.
 *
 * In a proxy a decision is made at the time at which its request came, which has been read for all that is done with the request (core's clock stands still in
 * that turn). So it is here: the time moves on between the rounds. What it costs to read it is told beside.
 *
 * Run it after a build: `node --expose-gc test/bench/decide.ts`. The number of clients may follow.
 */
import type { Clock } from '@weir/core'
import { type AlgorithmName, type Limit, memoryStore } from '@weir/rate-limit'

const clients = Number(process.argv[2] ?? 1_000_000)
const perRound = 50_000
const rounds = 40
const names: readonly AlgorithmName[] = ['gcra', 'token-bucket', 'fixed-window', 'sliding-window', 'leaky-bucket']

let time = performance.now()
const clock: Clock = { now: () => time, setTimeout: () => undefined, clearTimeout: () => undefined }

const keyOf = (i: number): string => `${(i >> 24) & 255}.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`
function quickest(n: number, run: (key: string) => void): number {
  // Keys are made beforehand, as a request's are: what is measured is the decision. In no order that the memory has been filled in.
  const keys = Array.from({ length: perRound }, (_, i) => keyOf((i * 2_654_435_761) % n))
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < rounds; round++) {
    time = performance.now()
    const start = process.hrtime.bigint()
    for (let i = 0; i < perRound; i++) run(keys[i] as string)
    least = Math.min(least, Number(process.hrtime.bigint() - start) / perRound)
  }
  return least
}

function used(): number {
  for (let i = 0; i < 3; i++) globalThis.gc?.()
  const { heapUsed, external, arrayBuffers } = process.memoryUsage()
  return heapUsed + Math.max(external, arrayBuffers)
}

function floor(n: number): number {
  const map = new Map<string, number>()
  for (let i = 0; i < n; i++) map.set(keyOf(i), i)
  return quickest(n, (key) => void map.set(key, (map.get(key) ?? 0) + 1))
}

/** Few enough to stay in the processor's caches, and as many as asked for. */
const sizes = [Math.min(1000, clients), clients]
const bases = sizes.map(floor)
const cell = (ns: number, i: number): string => `${ns.toFixed(0)} | ${(ns / (bases[i] as number)).toFixed(1)}`
console.log(`Nanoseconds per decision, each client with a limit that is never reached; quickest of ${rounds} rounds.`)
console.log()
console.log(`| ${sizes.map((n) => `| ${n.toLocaleString('en')} clients | × floor `).join('')}|`)
console.log('|---|--:|--:|--:|--:|')
console.log(`| Map get and set (floor) | ${bases.map(cell).join(' | ')} |`)
for (const algorithm of names) {
  const limit: Limit = { id: 'bench', name: 'bench', algorithm, quota: 1e9, windowMs: 3_600_000, burst: 1e9, maxDelayMs: 3_600_000 }
  const costs = sizes.map((n) => {
    const store = memoryStore({ maxEntries: n, clock })
    for (let i = 0; i < n; i++) store.take([{ limit, key: keyOf(i), cost: 1 }])
    return quickest(n, (key) => void store.take([{ limit, key, cost: 1 }]))
  })
  console.log(`| ${algorithm} | ${costs.map(cell).join(' | ')} |`)
}
const reading = quickest(1, () => void performance.now())
console.log()
console.log(`Time is that of the request; to read the clock for each decision would cost another ${reading.toFixed(0)} ns.`)

function memoryOf(algorithm: AlgorithmName): string {
  const before = used()
  const store = memoryStore({ maxEntries: clients, clock })
  const limit: Limit = { id: 'bench', name: 'bench', algorithm, quota: 10, windowMs: 3_600_000, burst: 10, maxDelayMs: 3_600_000 }
  const grown: number[] = []
  for (let wave = 0; wave < 10; wave++) {
    for (let i = wave * clients; i < (wave + 1) * clients; i++) store.take([{ limit, key: keyOf(i), cost: 1 }])
    grown.push(used() - before)
  }
  const { entries, evictions } = store.stats()
  const mebibytes = grown.map((bytes) => (bytes / 2 ** 20).toFixed(0))
  const each = ((grown.at(-1) as number) / entries).toFixed(0)
  return `${mebibytes[0]} MiB | ${mebibytes.at(-1)} MiB | ${each} | ${evictions.toLocaleString('en')}`
}
console.log()
console.log(`${(10 * clients).toLocaleString('en')} clients, ${clients.toLocaleString('en')} remembered:`)
console.log()
console.log('| | when it was full for the first time | at the end | bytes per client | evictions, counted |')
console.log('|---|--:|--:|--:|--:|')
// The others have rows as wide as one of these: leaky-bucket as gcra, fixed-window as token-bucket.
for (const algorithm of ['gcra', 'token-bucket', 'sliding-window'] as const) console.log(`| ${algorithm} | ${memoryOf(algorithm)} |`)
