import { OptionsError } from '@weir/core'
import { stubExchange, stubUpstreams } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { maglev } from './maglev.ts'
import { isPrime, type MaglevServer, MaglevTable } from './maglev-table.ts'
import { hashText } from './text-hash.ts'

function counts(servers: readonly MaglevServer[], size: number): number[] {
  const table = new MaglevTable(servers, size)
  const counts = servers.map(() => 0)
  for (let cell = 0; cell < size; cell++) counts[table.owner(cell)] = (counts[table.owner(cell)] ?? 0) + 1
  return counts
}

const equal = (n: number): MaglevServer[] => Array.from({ length: n }, (_, i) => ({ id: `http://10.0.0.${i}:3000`, weight: 1 }))

describe('the table', () => {
  it('is, with equal weights, the one of the paper', () => {
    // Listing 1 of the paper, on the same permutations.
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.constantFrom(13, 101, 251), (n, size) => {
        const servers = equal(n)
        const next = servers.map(() => 0)
        const entry: number[] = new Array(size).fill(-1)
        let filled = 0
        fill: for (;;)
          for (let i = 0; i < n; i++) {
            const offset = (hashText(servers[i]?.id as string, 5) >>> 0) % size
            const skip = ((hashText(servers[i]?.id as string, 6) >>> 0) % (size - 1)) + 1
            let cell = (offset + (next[i] as number) * skip) % size
            while (entry[cell] !== -1) {
              next[i] = (next[i] as number) + 1
              cell = (offset + (next[i] as number) * skip) % size
            }
            entry[cell] = i
            next[i] = (next[i] as number) + 1
            filled++
            if (filled === size) break fill
          }
        const table = new MaglevTable(servers, size)
        expect(entry.map((_, cell) => table.owner(cell))).toEqual(entry)
      }),
    )
  })

  it('gives equal servers shares that differ by one cell at most', () => {
    for (const n of [1, 2, 3, 10, 500, 5_000]) {
      const all = counts(equal(n), 65_537)
      expect(Math.max(...all) - Math.min(...all)).toBeLessThanOrEqual(1)
    }
  })

  it('gives everybody a share by weight, and at least one cell', () => {
    const weight = fc.oneof(fc.constantFrom(0.1, 0.55, 0.001), fc.integer({ min: 1, max: 65_535 }))
    fc.assert(
      fc.property(fc.array(weight, { minLength: 1, maxLength: 40 }), fc.constantFrom(101, 1_009), (weights, size) => {
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        const got = counts(
          weights.map((weight, i) => ({ id: `s${i}`, weight })),
          size,
        )
        for (const [i, weight] of weights.entries()) {
          const fraction = weight / total
          const n = weights.length
          expect(got[i]).toBeGreaterThanOrEqual(Math.max(1, fraction * (size - n) - 0.5 - 1e-6))
          expect(got[i]).toBeLessThanOrEqual(Math.max(1, fraction * (size + n / 2) + 0.5 + 1e-6))
        }
      }),
    )
  })
})

describe('maglev', () => {
  it('decides the same in every process, whatever the order of the list', () => {
    const upstreams = stubUpstreams([1, 3, 2, 1])
    const [here, there] = [maglev({ key: 'hashKey' }), maglev({ key: 'hashKey' })]
    here.update(upstreams)
    there.update(upstreams.toReversed())
    for (let i = 0; i < 500; i++) {
      const exchange = stubExchange({ hashKey: `k${i}` })
      expect(here.pick(exchange)).toBe(there.pick(exchange))
    }
  })

  it('serves also those for whom a table that is too small has no cell', () => {
    const upstreams = stubUpstreams(new Array(8).fill(1))
    const balancer = maglev({ key: 'hashKey', tableSize: 5 })
    balancer.update(upstreams)
    for (const left of upstreams)
      expect(balancer.pick(stubExchange({ hashKey: 'x', tried: upstreams.filter((upstream) => upstream !== left) }))).toBe(left)
  })

  it('refuses sizes that are no primes, and says so in the place', () => {
    for (const tableSize of [65_536, 65_535, 1, 0, 4, 1e9, 2.5, Number.NaN])
      expect(() => maglev({ key: 'path', tableSize }), String(tableSize)).toThrow(OptionsError)
    for (const tableSize of [2, 3, 251, 65_537, 655_373, 5_000_011]) expect(() => maglev({ key: 'path', tableSize })).not.toThrow()
    // @ts-expect-error: no such option
    expect(() => maglev({ key: 'path', size: 7 })).toThrow(OptionsError)
  })

  it('knows primes', () => {
    expect(Array.from({ length: 60 }, (_, n) => n).filter(isPrime)).toEqual([
      2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59,
    ])
  })
})
