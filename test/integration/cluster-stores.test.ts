/** Workers of one cluster share what its primary remembers: exactly, and in every point of the stores' suites. */
import { fromPrimary, serveStores } from '@weir/cluster'
import { OptionsError } from '@weir/core'
import { memoryStore, type RateLimitStore } from '@weir/rate-limit'
import { expect, it } from 'vitest'
import { runChild } from './children/run.ts'

interface Report {
  readonly admitted: number
  readonly refused: number
  readonly cases: number
  readonly failed: readonly string[]
  readonly errors: readonly string[]
}

it('two workers, one limit, both suites', async () => {
  const reports = await runChild<Report[]>('cluster-stores', [], { deadline: 60_000 })
  expect(reports).toHaveLength(2)
  expect(reports.reduce((sum, { admitted }) => sum + admitted, 0)).toBe(300)
  expect(reports.reduce((sum, { refused }) => sum + refused, 0)).toBe(200)
  for (const { cases, failed, errors } of reports) {
    expect(failed).toEqual([])
    expect(cases).toBeGreaterThan(50)
    expect(errors).toEqual([
      'the store in the primary: out of order',
      'the store in the primary: the store broken has no method adjust',
      'the store in the primary: no store named nowhere is served',
      '2 calls wait for the primary already',
    ])
  }
})

it('a process that is no worker is told so, and wrong options by name', () => {
  expect(() => fromPrimary<RateLimitStore>('limits', ['take'])).toThrow(TypeError)
  const paths = (make: () => unknown): string[] => {
    try {
      make()
    } catch (error) {
      return error instanceof OptionsError ? error.problems.map(({ path }) => path) : [String(error)]
    }
    return []
  }
  expect(paths(() => fromPrimary('', [], { maxPending: 0 })).toSorted()).toEqual(['maxPending', 'methods', 'name'])
  // @ts-expect-error a method that the store does not have
  expect(() => fromPrimary<RateLimitStore>('limits', ['get'])).toThrow(TypeError)
})

it('a name is served once, and free again afterwards; what is no store is not served', () => {
  using service = serveStores({ limits: memoryStore() })
  expect(() => serveStores({ limits: memoryStore() })).toThrow(/limits/)
  expect(() => serveStores({ other: 7 as never })).toThrow(/other/)
  service.close()
  serveStores({ limits: memoryStore() }).close()
})
