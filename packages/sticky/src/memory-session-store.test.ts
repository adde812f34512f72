/** The store in memory: the suite of the port, its bound, and that it never makes a promise. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { memorySessionStore } from './memory-session-store.ts'
import type { SessionStore } from './session-store.ts'
import { sessionStoreConformance } from './session-store-conformance.ts'

const forever = { idleMs: Number.POSITIVE_INFINITY, absolute: Number.MAX_SAFE_INTEGER, replaces: undefined }

/** The same, but every answer comes a turn later, in any order that the event loop likes. */
function later(store: SessionStore): SessionStore {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return {
    get: (key) => turn().then(() => store.get(key)),
    set: (...write) => turn().then(() => store.set(...write)),
    delete: (key) => turn().then(() => store.delete(key)),
  }
}

describe.each([
  ['at once', (store: SessionStore) => store],
  ['later', later],
])('memorySessionStore, answering %s, passes the suite:', (_, wrap) => {
  const cases = sessionStoreConformance(() => {
    let now = 1_800_000_000_000
    return {
      store: wrap(memorySessionStore({ max: 100, now: () => now })),
      now: () => now,
      wait: (ms) => {
        now += ms
      },
    }
  })
  for (const { name, run } of cases) it(name, run)
})

describe('sessionStoreConformance', () => {
  it('finds a store that lets the last write win, one that forgets nothing, and one that forgets everything', async () => {
    const failures = async (store: Parameters<typeof wrong>[0]): Promise<number> => {
      let failed = 0
      for (const { run } of sessionStoreConformance(() => wrong(store)))
        await run().catch(() => {
          failed++
        })
      return failed
    }
    const map = (): Map<string, string> => new Map()
    expect(await failures({ map, keep: () => false })).toBeGreaterThan(3)
    expect(await failures({ map, keep: (stored) => stored !== undefined })).toBeGreaterThan(3)
    expect(
      await failures({ map: () => ({ get: () => undefined, set: () => {}, delete: () => {} }) as never, keep: () => false }),
    ).toBeGreaterThan(3)
  })
})

function wrong({ map, keep }: { map: () => Map<string, string>; keep: (stored: string | undefined) => boolean }) {
  const entries = map()
  let now = 0
  return {
    store: {
      get: (key: string) => entries.get(key),
      set: (key: string, id: string) => {
        if (!keep(entries.get(key))) entries.set(key, id)
        return entries.get(key) ?? id
      },
      delete: (key: string) => void entries.delete(key),
    },
    now: () => now,
    wait: (ms: number) => {
      now += ms
    },
  }
}

describe('memorySessionStore', () => {
  it('forgets the one that was used longest ago', () => {
    const store = memorySessionStore({ max: 2 })
    store.set('a', '1', forever)
    store.set('b', '2', forever)
    store.get('a')
    store.set('c', '3', forever)
    expect([store.get('a'), store.get('b'), store.get('c'), store.size]).toEqual(['1', undefined, '3', 2])
  })

  it('takes no room for what has ended', () => {
    let now = 10
    const store = memorySessionStore({ max: 2, now: () => now })
    expect(store.set('a', '1', { ...forever, absolute: 10 })).toBe('1')
    expect(store.size).toBe(0)
    store.set('a', '1', { ...forever, absolute: 11 })
    expect(store.size).toBe(1)
    now = 11
    store.get('a')
    expect(store.size).toBe(0)
  })

  it('agrees with a table that knows no bound, at any time', () => {
    const key = fc.constantFrom('k', 'l')
    const id = fc.constantFrom('a', 'b', 'c')
    const step = fc.oneof(
      fc.record({ kind: fc.constant('get' as const), key }),
      fc.record({ kind: fc.constant('delete' as const), key }),
      fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(30) }),
      fc.record({
        kind: fc.constant('set' as const),
        key,
        id,
        idleMs: fc.integer({ min: 1, max: 40 }),
        lifetime: fc.integer({ min: 0, max: 100 }),
        replaces: fc.option(id, { nil: undefined }),
      }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let now = 0
        const store = memorySessionStore({ max: 10, now: () => now })
        const model = new Map<string, { id: string; idleMs: number; absolute: number; used: number }>()
        const alive = (name: string) => {
          const entry = model.get(name)
          return entry !== undefined && now < entry.used + entry.idleMs && now < entry.absolute ? entry : undefined
        }
        for (const step of steps) {
          if (step.kind === 'wait') now += step.ms
          else if (step.kind === 'delete') {
            store.delete(step.key)
            model.delete(step.key)
          } else if (step.kind === 'get') {
            const entry = alive(step.key)
            expect(store.get(step.key)).toBe(entry?.id)
            if (entry !== undefined) entry.used = now
          } else {
            const entry = alive(step.key)
            const write = { idleMs: step.idleMs, absolute: now + step.lifetime, replaces: step.replaces }
            const winner = store.set(step.key, step.id, write)
            if (entry === undefined || (entry.id !== step.id && entry.id === step.replaces)) {
              expect(winner).toBe(step.id)
              model.set(step.key, { id: step.id, idleMs: write.idleMs, absolute: write.absolute, used: now })
            } else {
              expect(winner).toBe(entry.id)
              if (entry.id === step.id) entry.used = now
            }
          }
        }
      }),
    )
  })
})
