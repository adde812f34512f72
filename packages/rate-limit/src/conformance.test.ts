/** The suite that stores of others run, on the memory under the virtual clock, on real time, and on stores that each break one rule. */
import { setTimeout as sleep } from 'node:timers/promises'
import { virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { rateLimitStoreConformance } from './conformance.ts'
import { memoryStore } from './memory-store.ts'
import type { RateLimitStore } from './store.ts'

const virtual = (change: (store: RateLimitStore) => Partial<RateLimitStore> = () => ({})) => {
  const clock = virtualClock(1000)
  const store = memoryStore({ clock })
  const bound: RateLimitStore = { name: 'bound', take: (charges) => store.take(charges), adjust: (...call) => store.adjust(...call) }
  return { store: { ...bound, ...change(bound) }, sleep: (ms: number) => clock.advance(ms) }
}

for (const { name, run } of rateLimitStoreConformance('memory', () => virtual())) it(name, run)
for (const { name, run } of rateLimitStoreConformance('memory in real time', () => ({ store: memoryStore(), sleep: (ms) => sleep(ms) })))
  it.concurrent(name, run)
for (const { name, run } of rateLimitStoreConformance('a store of promises', () =>
  virtual(({ take, adjust }) => ({ take: async (charges) => take(charges), adjust: async (...call) => adjust(...call) })),
))
  it(name, run)

describe('finds a store that', () => {
  const broken: readonly (readonly [string, string, (store: RateLimitStore) => Partial<RateLimitStore>])[] = [
    [
      'charges one limit although another refused',
      'all limits or none',
      ({ take }) => ({
        take: async (charges) => (await Promise.all(charges.map(async (charge) => take([charge])))).flat(),
      }),
    ],
    ['mixes keys', 'apart', ({ take }) => ({ take: (charges) => take(charges.map((charge) => ({ ...charge, key: 'same' }))) })],
    [
      'mixes limits',
      'apart',
      ({ take }) => ({ take: (charges) => take(charges.map((c) => ({ ...c, limit: { ...c.limit, id: 'same' } }))) }),
    ],
    ['ignores costs', 'costs', ({ take }) => ({ take: (charges) => take(charges.map((charge) => ({ ...charge, cost: 1 }))) })],
    ['does not give back', 'gives back', () => ({ adjust: () => {} })],
    [
      'reads first and writes later',
      'at once',
      ({ take }) => {
        let last: ReturnType<typeof take> | undefined
        return {
          take: async (charges) => {
            last ??= take(charges)
            const seen = await last
            queueMicrotask(() => {
              last = undefined
            })
            return seen
          },
        }
      },
    ],
    [
      'takes keys as text of another encoding',
      'any characters',
      ({ take }) => ({
        take: (charges) => take(charges.map((charge) => ({ ...charge, key: charge.key.replace(/[^ -~]/g, '?') }))),
      }),
    ],
  ]
  it.each(broken)('%s', async (_, title, change) => {
    const cases = rateLimitStoreConformance('broken', () => virtual(change)).filter(({ name }) => name.includes(title))
    const failed = await Promise.all(
      cases.map(({ run }) =>
        run().then(
          () => 0,
          () => 1,
        ),
      ),
    )
    expect(failed.filter((one) => one === 1).length).toBeGreaterThan(0)
  })
})
