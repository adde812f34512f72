/**
 * What `ipAccess` costs a request with ever more ranges: a binary search, so it grows by a step when they double. Time is measured in many short rounds
 * and the quickest counts, as in pick.ts.
 *
 * Run it after a build: `node test/bench/ranges.ts`.
 */
import { ipAccess } from '@weir/access'
import type { Exchange } from '@weir/core'
import { seededRandom, stubExchange } from '@weir/testing'

const sizes = [1, 100, 10_000, 100_000]
const perRound = 20_000
const rounds = 60

const random = seededRandom(1)
const octets = (): string => Array.from({ length: 4 }, () => Math.floor(random() * 256)).join('.')
const exchanges = Array.from({ length: 4096 }, () => stubExchange({ clientIp: octets() }))

function quickest(size: number): number {
  // Spread over all addresses.
  const step = 2 ** 32 / size
  const ranges = Array.from(
    { length: size },
    (_, i) => `${[24, 16, 8].map((shift) => (Math.floor(i * step) >>> shift) & 255).join('.')}.0/24`,
  )
  // One in 170 is denied: nearly all are looked for in vain, as in a service that is not under attack.
  const stage = ipAccess({ deny: ranges })
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < rounds; round++) {
    const start = process.hrtime.bigint()
    for (let i = 0; i < perRound; i++) void stage.handle?.(exchanges[i & 4095] as Exchange)
    least = Math.min(least, Number(process.hrtime.bigint() - start) / perRound)
  }
  return least
}

console.log('| ranges | ns per request, quickest of 60 rounds | × one |')
console.log('|--:|--:|--:|')
const one = quickest(1)
for (const size of sizes) {
  const cost = size === 1 ? one : quickest(size)
  console.log(`| ${size.toLocaleString('en')} | ${cost.toFixed(0)} | ${(cost / one).toFixed(1)} |`)
}
