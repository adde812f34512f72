/** So much at once, so much waiting, and no more. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { WorkQueue } from './work-queue.ts'

describe('the queue', () => {
  it('never runs more than it may, keeps nobody beyond what may wait, and forgets nobody', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.nat(3),
        fc.array(fc.constantFrom('come', 'go', 'fail'), { maxLength: 40 }),
        async (most, longest, steps) => {
          const queue = new WorkQueue(most, longest)
          const running: { readonly end: () => void; readonly fail: () => void }[] = []
          const results: Promise<unknown>[] = []
          let taken = 0
          let refused = 0
          const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
          for (const step of [...steps, ...steps.map(() => 'go')]) {
            if (step === 'come') {
              const room = queue.running < most || queue.waiting < longest
              const work = queue.run(
                () => new Promise<void>((resolve, reject) => running.push({ end: resolve, fail: () => reject(new Error('failed')) })),
              )
              expect(work !== undefined).toBe(room)
              if (work === undefined) refused++
              else {
                taken++
                results.push(work.catch(() => {}))
              }
            } else if (step === 'go') running.shift()?.end()
            else running.shift()?.fail()
            await turn()
            expect(running.length).toBe(queue.running)
            expect(running.length).toBeLessThanOrEqual(most)
            expect(queue.waiting).toBeLessThanOrEqual(longest)
          }
          await Promise.all(results)
          expect([queue.running, queue.waiting, taken + refused]).toEqual([0, 0, steps.filter((step) => step === 'come').length])
        },
      ),
      { numRuns: 50 },
    )
  })
})
