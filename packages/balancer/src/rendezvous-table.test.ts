import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bidder, RendezvousTable } from './rendezvous-table.ts'

const cells = 65_536

/** The id of each cell's owner. */
function owners(bidders: readonly Bidder[]): string[] {
  const table = new RendezvousTable(bidders)
  return Array.from({ length: cells }, (_, cell) => (bidders[table.owner(cell * 2 ** 16)] as Bidder).id)
}

function shares(bidders: readonly Bidder[]): Map<string, number> {
  const counts = new Map(bidders.map(({ id }) => [id, 0]))
  for (const id of owners(bidders)) counts.set(id, (counts.get(id) as number) + 1)
  return counts
}

const servers = (n: number): Bidder[] => Array.from({ length: n }, (_, i) => ({ id: `http://10.0.${i >> 8}.${i & 255}:3000`, weight: 1 }))

const bidders = fc.uniqueArray(
  fc.record({
    id: fc.string({ minLength: 1, maxLength: 12 }),
    weight: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 1_000 })),
  }),
  { selector: ({ id }) => id, minLength: 2, maxLength: 8 },
)

describe('the table', () => {
  it('does not depend on the order of the list', () => {
    fc.assert(
      fc.property(bidders, (bidders) => {
        expect(owners(bidders.toReversed())).toEqual(owners(bidders))
      }),
      { numRuns: 15 },
    )
  })

  it('moves only the cells of one that leaves, and only cells to one that joins', () => {
    fc.assert(
      fc.property(bidders, fc.nat(), (bidders, choice) => {
        const gone = bidders[choice % bidders.length] as Bidder
        const before = owners(bidders)
        const after = owners(bidders.filter((bidder) => bidder !== gone))
        expect(before.filter((id, cell) => id !== after[cell] && id !== gone.id).length).toBe(0)
      }),
      { numRuns: 15 },
    )
  })

  it('moves cells only towards one whose weight grows', () => {
    fc.assert(
      fc.property(bidders, fc.nat(), fc.integer({ min: 1, max: 100 }), (bidders, choice, more) => {
        const grown = choice % bidders.length
        const before = owners(bidders)
        const after = owners(bidders.map(({ id, weight }, i) => ({ id, weight: i === grown ? weight + more : weight })))
        expect(before.filter((id, cell) => id !== after[cell] && after[cell] !== bidders[grown]?.id).length).toBe(0)
      }),
      { numRuns: 15 },
    )
  })

  it('changes nothing when all weights change in proportion', () => {
    const some = servers(5).map(({ id }, i) => ({ id, weight: i + 1 }))
    const before = owners(some)
    const after = owners(some.map(({ id, weight }) => ({ id, weight: 64 * weight })))
    // Powers of two, so that times are scaled without rounding.
    expect(after).toEqual(before)
  })

  it('gives shares by weight', () => {
    fc.assert(
      fc.property(bidders, (bidders) => {
        const total = bidders.reduce((sum, { weight }) => sum + weight, 0)
        for (const [id, count] of shares(bidders)) {
          const expected = (cells * (bidders.find((bidder) => bidder.id === id) as Bidder).weight) / total
          // Five standard deviations, and one cell for very small shares.
          expect(Math.abs(count - expected)).toBeLessThan(5 * Math.sqrt(expected) + 1)
        }
      }),
      { numRuns: 15 },
    )
  })

  it.each([
    [10, 0.015],
    [100, 0.04],
    [1_000, 0.12],
    [10_000, 0.39],
  ])('spreads shares of %i equal upstreams by no more than %f', (n, spread) => {
    const mean = cells / n
    const variance = [...shares(servers(n)).values()].reduce((sum, count) => sum + (count - mean) ** 2, 0) / n
    expect(Math.sqrt(variance) / mean).toBeLessThan(spread)
  })

  it('has no owner without bidders', () => {
    expect(new RendezvousTable([]).owner(2 ** 32 - 1)).toBe(-1)
  })

  it('has an owner for every hash', () => {
    const table = new RendezvousTable(servers(3))
    for (const hash of [0, 1, 2 ** 31, 2 ** 32 - 1]) expect([0, 1, 2]).toContain(table.owner(hash))
  })
})
