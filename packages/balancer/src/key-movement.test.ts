// How many keys change upstream when one of N joins or leaves, and where they go, against what theory says of each strategy.
import type { Balancer, Upstream } from '@weir/core'
import { stubExchange, stubUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { boundedLoad } from './bounded-load.ts'
import { hash } from './hash.ts'
import { ipHash } from './ip-hash.ts'
import { ketama } from './ketama.ts'
import { maglev } from './maglev.ts'

const exchanges = Array.from({ length: 20_000 }, (_, i) =>
  stubExchange({ hashKey: `user ${i}`, clientIp: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}` }),
)
const servers = (n: number): Upstream[] =>
  Array.from({ length: n }, (_, i) => stubUpstream({ id: `http://10.0.${i >> 8}.${i & 255}:3000` }))

function homes(balancer: Balancer, upstreams: readonly Upstream[]): (Upstream | undefined)[] {
  balancer.update(upstreams)
  return exchanges.map((exchange) => balancer.pick(exchange))
}

/** Fractions of the keys when the last of `n` leaves: those it had, and those that moved though it had not. */
function movement(balancer: Balancer, n: number): { own: number; others: number } {
  const all = servers(n)
  const gone = all.at(-1)
  const before = homes(balancer, all)
  const after = homes(balancer, all.slice(0, -1))
  expect(after).not.toContain(gone)
  // Joining is leaving backwards: the same table for the same members, whatever was before.
  expect(homes(balancer, all)).toEqual(before)
  const own = before.filter((upstream) => upstream === gone).length
  const others = before.filter((upstream, i) => upstream !== gone && upstream !== after[i]).length
  return { own: own / exchanges.length, others: others / exchanges.length }
}

/** Five standard deviations of a share of 1/n: of the keys that fall into it, and of its size where that is drawn too (relative). */
const spread = (n: number, size: number): number => 5 * Math.sqrt(1 / n / exchanges.length + (size / n) ** 2)

interface Theory {
  readonly make: () => Balancer
  /** Relative standard deviation of a share of 1/n. */
  readonly size: (n: number) => number
  /** Most keys that move without need, as a fraction of all. */
  readonly others: (n: number) => number
}

const theories: Record<string, Theory> = {
  // A share is a number of cells of 65,536, independently won.
  hash: { make: () => hash({ key: 'hashKey' }), size: (n) => Math.sqrt(n / 65_536), others: () => 0 },
  ipHash: { make: () => ipHash(), size: (n) => Math.sqrt(n / 65_536), others: () => 0 },
  // 160 stretches of exponential length.
  ketama: { make: () => ketama({ key: 'hashKey' }), size: () => 1 / Math.sqrt(160), others: () => 0 },
  // Shares are exact. As many again as must move, move because turns are shifted: twice the least in all.
  maglev: { make: () => maglev({ key: 'hashKey' }), size: () => 0, others: (n) => 1 / n },
  'boundedLoad, idle': { make: () => boundedLoad({ key: 'hashKey' }), size: (n) => Math.sqrt(n / 65_536), others: () => 0 },
}

describe.each(Object.entries(theories))('when one of N leaves or joins, with %s', (name, { make, size, others }) => {
  it.each([2, 5, 10, 50])('about 1/N of the keys move: N = %i', (n) => {
    const moved = movement(make(), n)
    expect(Math.abs(moved.own - 1 / n)).toBeLessThan(spread(n, size(n)))
    expect(moved.others).toBeLessThanOrEqual(others(n))
    // Were there none, it would not be Maglev's table.
    if (name === 'maglev' && n > 2) expect(moved.others).toBeGreaterThan(0)
  })

  it('a weight that grows takes keys in proportion', () => {
    const all = servers(5)
    const balancer = make()
    const before = homes(balancer, all)
    const [first, ...rest] = all as [Upstream, ...Upstream[]]
    const heavier = { ...first, full: false, weight: 1.5 }
    const after = homes(balancer, [heavier, ...rest])
    const taken = after.filter((upstream, i) => upstream === heavier && before[i] !== first).length / exchanges.length
    const lost = after.filter((upstream, i) => upstream !== heavier && upstream !== before[i]).length / exchanges.length
    expect(Math.abs(taken - (1.5 / 5.5 - 1 / 5))).toBeLessThan(spread(4, size(4)))
    expect(lost).toBeLessThanOrEqual(others(5))
  })
})
