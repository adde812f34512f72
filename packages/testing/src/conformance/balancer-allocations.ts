/** A pick, an `acquire` and a `release` allocate nothing: at ten thousand a second, one object each is what the collector then lives on. */
import assert from 'node:assert/strict'
import { getHeapStatistics } from 'node:v8'
import type { Exchange } from '@weir/core'
import { type StubUpstream, stubOutcome, stubUpstream } from '../balancer-fixtures.ts'
import { seededRandom } from '../random.ts'
import { stubClient } from './balancer-moves.ts'
import type { BalancerFactory } from './balancer-traits.ts'

/**
 * An object is at least 16 bytes, so a strategy that makes one per pick uses 80 KB per round; one that makes none uses nothing, and the statistics
 * themselves about 1 KB. Rounds are repeated until five in a row are quiet: what the compiler allocates while it warms up passes, what a
 * strategy allocates does not; and a collection cannot hide it, since one that small comes only every many rounds.
 */
export function allocatesNothing(factory: BalancerFactory): void {
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
