/**
 * A primary with stores in its memory and two workers that use them. Prints what the workers found: which cases of the conformance suites failed, and how many
 * requests each of them let through of a limit that both share.
 */
import cluster from 'node:cluster'
import { setTimeout as pause } from 'node:timers/promises'
import { fromPrimary, serveStores } from '@weir/cluster'
import { createProxy } from '@weir/core'
import { memoryStore, type RateLimitStore, rateLimit, rateLimitStoreConformance } from '@weir/rate-limit'
import { memorySessionStore, type SessionStore, sessionStoreConformance } from '@weir/sticky'
import { fakeTransport } from '@weir/testing'

interface Report {
  readonly admitted: number
  readonly refused: number
  readonly cases: number
  readonly failed: readonly string[]
  readonly errors: readonly string[]
}

if (cluster.isPrimary) {
  const service = serveStores({
    limits: memoryStore(),
    sessions: memorySessionStore({ max: 10_000 }),
    broken: { take: () => Promise.reject(new Error('out of order')) },
  })
  const reports: Report[] = []
  for (let i = 0; i < 2; i++)
    cluster.fork().on('message', (message: { report?: Report }) => {
      if (message.report !== undefined) reports.push(message.report)
      if (reports.length === 2) {
        service.close()
        cluster.disconnect(() => process.stdout.write(JSON.stringify(reports)))
      }
    })
} else {
  const limits = fromPrimary<RateLimitStore>('limits', ['take', 'adjust'], { maxPending: 10_000 })
  const sessions = fromPrimary<SessionStore>('sessions', ['get', 'set', 'delete'])
  const proxy = createProxy({
    upstreams: ['http://app.test'],
    transport: fakeTransport(),
    use: [rateLimit({ limit: 300, window: '1h', key: () => 'everybody', store: limits, storeTimeout: '10s', onStoreError: 'deny' })],
  })
  const answers = await Promise.all(Array.from({ length: 250 }, () => proxy.inject({ url: '/' })))
  const count = (wanted: number): number => answers.filter(({ status }) => status === wanted).length
  const failed: string[] = []
  const errors: string[] = []
  let runs = 0
  const limitCases = rateLimitStoreConformance('limits', () => ({ store: limits, sleep: (ms) => pause(ms) }))
  const sessionCases = sessionStoreConformance(
    () => {
      // Every case wants an empty store: keys of its own do as well.
      const mine = `${process.pid}-${runs++}-`
      const store: SessionStore = {
        get: (key) => sessions.get(mine + key),
        set: (key, id, write) => sessions.set(mine + key, id, write),
        delete: (key) => sessions.delete(mine + key),
      }
      return { store, now: Date.now, wait: (ms) => pause(ms) }
    },
    { unit: 500 },
  )
  // One suite after the other: the second one looks at the time, and the first keeps the processor busy.
  for (const cases of [limitCases, sessionCases])
    await Promise.all(
      cases.map(({ name, run }) =>
        run().catch((error: Error) => {
          failed.push(`${name}: ${error.message}`)
        }),
      ),
    )
  for (const [name, methods] of [
    ['broken', ['take']],
    ['broken', ['adjust']],
    ['nowhere', ['take']],
  ] as const) {
    const store = fromPrimary<Record<string, () => Promise<unknown>>>(name, methods)
    await store[methods[0]]?.().catch((error: Error) => errors.push(error.message))
  }
  const bounded = fromPrimary<RateLimitStore>('limits', ['take'], { maxPending: 2 })
  const flood = await Promise.allSettled([1, 2, 3].map(async () => bounded.take([])))
  for (const result of flood) if (result.status === 'rejected') errors.push((result.reason as Error).message)
  for (const store of [limits, sessions, bounded]) await store.close?.()
  await proxy.close()
  process.send?.({
    report: { admitted: count(200), refused: count(429), cases: limitCases.length + sessionCases.length, failed, errors } satisfies Report,
  })
}
