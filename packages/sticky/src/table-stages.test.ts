/** Sessions in a table, learned or by key, in memory and in stores that answer later, badly or never. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createPool, createProxy, type InjectedResponse, type Pool, type ProxyOptions, type Stage } from '@weir/core'
import { type FakeTransport, fakeTransport, type Respond, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { SessionMessage } from './journal.ts'
import { keyAffinity } from './key-affinity.ts'
import { learnSession } from './learn-session.ts'
import { memorySessionStore } from './memory-session-store.ts'
import type { SessionStore } from './session-store.ts'

interface Rig {
  readonly pool: Pool
  readonly transport: FakeTransport
  get(headers?: Record<string, string>, url?: string): Promise<InjectedResponse>
}

const named: Respond = (_, upstream) => ({ headers: { 'X-Upstream': upstream.id } })

function rig(stage: Stage, respond: Respond = named, options: Omit<ProxyOptions, 'pool' | 'upstreams' | 'transport'> = {}): Rig {
  const transport = fakeTransport(respond)
  const pool = createPool({ upstreams: ['a', 'b', 'c'].map((id) => ({ id, url: `http://${id}.test` })), transport, health: [] })
  const proxy = createProxy({ retry: { attempts: 2 }, ...options, pool, use: [stage, ...(options.use ?? [])] })
  onTestFinished(() => proxy.close())
  return { pool, transport, get: (headers = {}, url = '/') => proxy.inject({ url, headers: { Host: 'localhost', ...headers } }) }
}

const by = (response: InjectedResponse): string => response.headers.get('x-upstream') as string
const tenant = (name: string): Record<string, string> => ({ 'X-Tenant': name })

/** The same, but every answer comes a turn later, as over a network. */
function later(store: SessionStore): SessionStore {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return {
    get: (key) => turn().then(() => store.get(key)),
    set: (key, id, write) => turn().then(() => store.set(key, id, write)),
    delete: (key) => turn().then(() => store.delete(key)),
  }
}

const stores: readonly (readonly [string, () => { store?: SessionStore }])[] = [
  ['in memory', () => ({})],
  ['in a store that answers later', () => ({ store: later(memorySessionStore({ max: 1000 })) })],
]

describe.each(stores)('keyAffinity %s', (_, table) => {
  it('keeps a key where it began', async () => {
    const stage = keyAffinity({ key: 'x-tenant', ...table() })
    const made = rig(stage)
    const first = new Map<string, string>()
    for (let i = 0; i < 30; i++) {
      const name = `t${i % 5}`
      const upstream = by(await made.get(tenant(name)))
      expect(first.get(name) ?? upstream).toBe(upstream)
      first.set(name, upstream)
    }
    expect(new Set(first.values()).size).toBe(3)
    expect(stage.stats()).toMatchObject({ new: 5, pinned: 25, moved: 0 })
  })

  it('balances requests without a key', async () => {
    const made = rig(keyAffinity({ key: (exchange) => exchange.headers.get('x-tenant'), ...table() }))
    const answered = [await made.get(), await made.get(tenant('')), await made.get()].map(by)
    expect(new Set(answered).size).toBe(3)
  })

  it('sends requests of one new key that come at once to one upstream', async () => {
    const stage = keyAffinity({ key: 'x-tenant', ...table() })
    const made = rig(stage)
    // The first has chosen before the others look; with a store that answers later it has not been written yet.
    const answers = await Promise.all(Array.from({ length: 8 }, () => made.get(tenant('t'))))
    const settled = by(await made.get(tenant('t')))
    expect(new Set(answers.map(by))).toEqual(new Set([settled]))
  })

  it('moves a key whose upstream failed, to who answered', async () => {
    let dead = ''
    const stage = keyAffinity({ key: 'x-tenant', ...table() })
    const made = rig(stage, (request, upstream) => (upstream.id === dead ? { error: 'ERR_CONNECT_REFUSED' } : named(request, upstream)))
    dead = by(await made.get(tenant('t')))
    const moved = await made.get(tenant('t'))
    expect([moved.status, by(moved) === dead]).toEqual([200, false])
    dead = ''
    for (let i = 0; i < 4; i++) expect(by(await made.get(tenant('t')))).toBe(by(moved))
    expect(stage.stats()).toMatchObject({ new: 1, moved: 1, pinned: 4 })
  })

  it('moves a key whose upstream has left, and not one that drains', async () => {
    const made = rig(keyAffinity({ key: 'x-tenant', ...table() }))
    const first = by(await made.get(tenant('t')))
    void made.pool.drain(first)
    for (let i = 0; i < 4; i++) {
      expect(by(await made.get(tenant('t')))).toBe(first)
      expect(by(await made.get(tenant(`new${i}`)))).not.toBe(first)
    }
    await made.pool.remove(first)
    const moved = by(await made.get(tenant('t')))
    expect(moved).not.toBe(first)
    expect(by(await made.get(tenant('t')))).toBe(moved)
  })

  it('strict: answers 503 instead', async () => {
    const made = rig(keyAffinity({ key: 'x-tenant', strict: true, ...table() }))
    await made.pool.remove(by(await made.get(tenant('t'))))
    const response = await made.get(tenant('t'))
    expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1'])
    expect((await made.get(tenant('u'))).status).toBe(200)
  })
})

describe('keyAffinity', () => {
  it('of two proxies that begin one key at once ends on one upstream: the first write', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), async (scheduler) => {
        const table = memorySessionStore({ max: 10 })
        const shared: SessionStore = {
          get: scheduler.scheduleFunction(async (key: string) => table.get(key)) as SessionStore['get'],
          set: scheduler.scheduleFunction(async (...args: Parameters<SessionStore['set']>) => table.set(...args)) as SessionStore['set'],
          delete: (key) => table.delete(key),
        }
        const clock = virtualClock()
        const made = Array.from({ length: 3 }, (_, i) => {
          const node = rig(keyAffinity({ key: 'x-tenant', store: shared, clock }))
          // So that their balancers begin at different upstreams.
          return { ...node, skip: i }
        })
        for (const { get, skip } of made) for (let i = 0; i < skip; i++) await get()
        const racing = Promise.all(made.map(({ get }) => get(tenant('t'))))
        await scheduler.waitFor(racing)
        const answers = (await racing).map(by)
        const after = Promise.all(made.map(({ get }) => get(tenant('t'))))
        await scheduler.waitFor(after)
        const settled = new Set((await after).map(by))
        expect(settled.size).toBe(1)
        expect(answers).toContain([...settled][0])
      }),
      { numRuns: 30 },
    )
  })

  it.each([0, 1, 0, 1])('that somebody else wrote first is written once, and a retry goes where the session is (%i)', async (other) => {
    const writes: string[] = []
    const failing = Promise.withResolvers<void>()
    let winner: string | undefined
    const store: SessionStore = {
      get: () => undefined,
      set: async (_, id) => {
        writes.push(id)
        winner ??= ['a', 'b', 'c'].filter((candidate) => candidate !== id)[other]
        setImmediate(failing.resolve)
        return winner as string
      },
      delete: () => {},
    }
    const made = rig(keyAffinity({ key: 'x-tenant', store }), async (request, upstream) => {
      if (upstream.id === winner) return await named(request, upstream)
      await failing.promise
      return { error: 'ERR_CONNECT_REFUSED' }
    })
    // Whom the balancer would try next is one of the two others: one run in two shows that it was not asked.
    expect(by(await made.get(tenant('t')))).toBe(winner)
    expect(writes.length).toBe(1)
    expect(writes).not.toContain(winner)
    expect(made.transport.requests.length).toBe(2)
  })

  it.each(stores)('%s belongs to the one that won against a hedge', async (_, options) => {
    const clock = virtualClock()
    const slow = Promise.withResolvers<void>()
    let first: string | undefined
    const stage = keyAffinity({ key: 'x-tenant', ...options() })
    const made = rig(
      stage,
      async (request, upstream) => {
        if (request.path !== '/slow') return await named(request, upstream)
        first ??= upstream.id
        // The hedge has been sent, and is slower still.
        if (upstream.id !== first) return await new Promise(() => {})
        await slow.promise
        return await named(request, upstream)
      },
      { clock, retry: { attempts: 2, hedge: { after: 50 } } },
    )
    const asked = made.get(tenant('t'), '/slow')
    while (made.transport.requests.length === 0) await clock.advance(0)
    await clock.advance(50)
    expect(made.transport.requests.length).toBe(2)
    slow.resolve()
    expect(by(await asked)).toBe(first)
    for (let i = 0; i < 3; i++) expect(by(await made.get(tenant('t')))).toBe(first)
    expect(stage.stats()).toMatchObject({ new: 1, pinned: 3, moved: 0 })
  })

  it.each([
    ['1m', 60_000],
    [undefined, 600_000],
  ] as const)('ends a session that is idle: %s', async (idle, ms) => {
    let now = 0
    const stage = keyAffinity({ key: 'x-tenant', now: () => now, ...(idle === undefined ? {} : { idle }) })
    const made = rig(stage)
    await made.get(tenant('t'))
    now = ms - 1
    await made.get(tenant('t'))
    now += ms
    await made.get(tenant('t'))
    expect(stage.stats()).toMatchObject({ new: 2, pinned: 1 })
  })

  it('is bounded: the key used longest ago is forgotten', async () => {
    const stage = keyAffinity({ key: 'x-tenant', max: 2 })
    const made = rig(stage)
    for (const name of ['t', 'u', 'v', 't']) await made.get(tenant(name))
    expect(stage.stats()).toMatchObject({ new: 4, pinned: 0 })
  })

  it('shows the store neither keys nor long ones', async () => {
    const keys: string[] = []
    const table = memorySessionStore({ max: 10 })
    const get = (key: string): string | undefined => {
      keys.push(key)
      return table.get(key)
    }
    const spy: SessionStore = { ...table, get }
    const made = rig(keyAffinity({ key: 'x-tenant', store: spy }))
    await made.get(tenant('secret'))
    await made.get(tenant('x'.repeat(8000)))
    expect(keys.map((key) => key.length)).toEqual([43, 43])
  })

  it('keeps stages of different names apart in one store', async () => {
    const store = memorySessionStore({ max: 10 })
    const one = rig(keyAffinity({ key: 'x-tenant', store, name: 'one' }))
    await one.get(tenant('t'))
    const stage = keyAffinity({ key: 'x-tenant', store, name: 'two' })
    await rig(stage).get(tenant('t'))
    expect(stage.stats()).toMatchObject({ new: 1, pinned: 0 })
  })
})

describe.each(stores)('learnSession %s', (_, table) => {
  /** `/login` begins the session that it is asked for, `/logout` ends it. */
  const application: Respond = ({ path, headers }, upstream) => {
    const id = headers.get('x-new-id') ?? 'sid'
    return {
      headers: [
        'X-Upstream',
        upstream.id,
        ...(path === '/login' ? ['Set-Cookie', `SID=${id}; Path=/`, 'Mcp-Session-Id', id] : []),
        ...(path === '/logout' ? ['Set-Cookie', 'SID=; Max-Age=0'] : []),
      ],
    }
  }

  it('learns from Set-Cookie, and changes nothing', async () => {
    const stage = learnSession({ cookie: 'SID', ...table() })
    const made = rig(stage, application)
    const login = await made.get({}, '/login')
    expect(login.headers.getAll('set-cookie')).toEqual(['SID=sid; Path=/'])
    for (let i = 0; i < 6; i++) expect(by(await made.get({ Cookie: 'x=1; SID=sid' }))).toBe(by(login))
    expect(made.transport.requests.at(-1)?.headers.get('cookie')).toBe('x=1; SID=sid')
    expect(stage.stats()).toMatchObject({ new: 1, pinned: 6 })
  })

  it('learns from a field', async () => {
    const made = rig(learnSession({ header: 'mcp-session-id', ...table() }), application)
    const login = await made.get({}, '/login')
    for (let i = 0; i < 6; i++) expect(by(await made.get({ 'Mcp-Session-Id': 'sid' }))).toBe(by(login))
  })

  it('learns nothing from requests', async () => {
    const stage = learnSession({ cookie: 'SID', ...table() })
    const made = rig(stage, application)
    const answered = new Set<string>()
    for (let i = 0; i < 3; i++) answered.add(by(await made.get({ Cookie: 'SID=invented' })))
    expect([answered.size, stage.stats().new]).toEqual([3, 0])
  })

  it('follows a session that gets another id', async () => {
    const made = rig(learnSession({ cookie: 'SID', ...table() }), application)
    const login = await made.get({}, '/login')
    await made.get({ Cookie: 'SID=sid', 'X-New-Id': 'next' }, '/login')
    for (let i = 0; i < 3; i++) expect(by(await made.get({ Cookie: 'SID=next' }))).toBe(by(login))
  })

  it('writes nothing for a session that stays', async () => {
    let writes = 0
    const store = table().store ?? memorySessionStore({ max: 10 })
    const counting: SessionStore = {
      get: (key) => store.get(key),
      set: (...write) => {
        writes++
        return store.set(...write)
      },
      delete: (key) => store.delete(key),
    }
    const made = rig(learnSession({ cookie: 'SID', store: counting }), application)
    await made.get({}, '/login')
    for (let i = 0; i < 3; i++) await made.get({ Cookie: 'SID=sid' }, '/login')
    expect(writes).toBe(1)
  })

  it('forgets a session that the application ends', async () => {
    const stage = learnSession({ cookie: 'SID', ...table() })
    const made = rig(stage, application)
    await made.get({}, '/login')
    await made.get({ Cookie: 'SID=sid' }, '/logout')
    await made.get({ Cookie: 'SID=sid' })
    expect(stage.stats()).toMatchObject({ new: 1, pinned: 0 })
  })

  it('moves a session whose upstream has left to who answers', async () => {
    const stage = learnSession({ cookie: 'SID', ...table() })
    const made = rig(stage, application)
    const first = by(await made.get({}, '/login'))
    await made.pool.remove(first)
    const moved = by(await made.get({ Cookie: 'SID=sid' }))
    expect(moved).not.toBe(first)
    for (let i = 0; i < 3; i++) expect(by(await made.get({ Cookie: 'SID=sid' }))).toBe(moved)
    expect(stage.stats()).toMatchObject({ new: 1, moved: 1, pinned: 3 })
  })
})

describe('a store that fails', () => {
  const hung: SessionStore = { get: () => new Promise(() => {}), set: () => new Promise(() => {}), delete: () => new Promise(() => {}) }
  const fail = (): never => {
    throw new Error('store')
  }
  const throwing: SessionStore = { get: fail, set: fail, delete: fail }
  const rejecting: SessionStore = { get: async () => fail(), set: async () => fail(), delete: async () => fail() }
  const odd = { get: () => null, set: () => undefined, delete: () => 5 } as unknown as SessionStore

  it.each([
    ['throws', throwing, 'error'],
    ['rejects', rejecting, 'error'],
  ] as const)('and %s costs the affinity and nothing else', async (_, store, reason) => {
    const heard: SessionMessage[] = []
    const hear = (message: unknown): void => void heard.push(message as SessionMessage)
    subscribe('weir:sticky:session', hear)
    onTestFinished(() => void unsubscribe('weir:sticky:session', hear))
    const stage = keyAffinity({ key: 'x-tenant', store })
    const made = rig(stage)
    const answers = [await made.get(tenant('t')), await made.get(tenant('t')), await made.get(tenant('t'))]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(new Set(answers.map(by)).size).toBe(3)
    expect(stage.stats().storeErrors).toBe(3)
    expect(heard[0]).toMatchObject({ event: 'store-error', reason, stage: 'keyAffinity', error: new Error('store') })
  })

  it('by answering nonsense costs the affinity and nothing else', async () => {
    const made = rig(keyAffinity({ key: 'x-tenant', store: odd }))
    for (let i = 0; i < 3; i++) expect((await made.get(tenant('t'))).status).toBe(200)
    const stage = learnSession({ cookie: 'SID', store: odd })
    const learning = rig(stage, (_, upstream) => ({ headers: ['X-Upstream', upstream.id, 'Set-Cookie', 'SID=s'] }))
    expect((await learning.get({ Cookie: 'SID=s' })).status).toBe(200)
    expect(stage.stats()).toMatchObject({ new: 1, moved: 0 })
  })

  it('late is counted once, as late', async () => {
    const clock = virtualClock()
    const late = Promise.withResolvers<string | undefined>()
    const stage = keyAffinity({ key: 'x-tenant', store: { ...hung, get: () => late.promise }, clock })
    const asked = rig(stage).get(tenant('t'))
    await clock.advance(100)
    expect((await asked).status).toBe(200)
    late.reject(new Error('late'))
    await clock.advance(0)
    expect(stage.stats()).toMatchObject({ storeTimeouts: 1, storeErrors: 0 })
  })

  it('in time leaves no timer behind', async () => {
    const clock = virtualClock()
    const stage = keyAffinity({ key: 'x-tenant', store: later(memorySessionStore({ max: 10 })), clock })
    const made = rig(stage)
    for (let i = 0; i < 3; i++) expect((await made.get(tenant('t'))).status).toBe(200)
    expect(clock.pending).toBe(0)
    expect((await rig(keyAffinity({ key: 'x-tenant', store: rejecting, clock })).get(tenant('t'))).status).toBe(200)
    expect(clock.pending).toBe(0)
  })

  it('and hangs is waited for as long as was said', async () => {
    const clock = virtualClock()
    const stage = keyAffinity({ key: 'x-tenant', store: hung, clock })
    const made = rig(stage)
    let answer: InjectedResponse | undefined
    const asked = made.get(tenant('t')).then((response) => {
      answer = response
    })
    await clock.advance(99)
    expect([made.transport.requests.length, clock.pending]).toEqual([0, 1])
    await clock.advance(1)
    await asked
    expect(answer?.status).toBe(200)
    expect(stage.stats().storeTimeouts).toBe(1)
    expect(clock.pending).toBe(0)
  })

  it('when it is written to is waited for as long, and the client gets its answer', async () => {
    const clock = virtualClock()
    const stage = keyAffinity({ key: 'x-tenant', store: { ...hung, get: () => undefined }, clock, timeout: '1s' })
    let answer: InjectedResponse | undefined
    const asked = rig(stage)
      .get(tenant('t'))
      .then((response) => {
        answer = response
      })
    // Turns enough for an answer that waits for nobody.
    for (let turn = 0; turn < 100; turn++) await clock.advance(0)
    await clock.advance(999)
    // Until then a next request might not find what this one wrote.
    expect([answer, stage.stats().storeTimeouts]).toEqual([undefined, 0])
    await clock.advance(1)
    await asked
    expect([answer?.status, stage.stats().storeTimeouts]).toEqual([200, 1])
  })

  it('may refuse instead', async () => {
    const stage = keyAffinity({ key: 'x-tenant', store: throwing, onStoreError: 'refuse' })
    const made = rig(stage)
    const response = await made.get(tenant('t'))
    expect([response.status, response.headers.get('retry-after'), made.transport.requests.length]).toEqual([503, '1', 0])
    expect((await made.get()).status).toBe(200)
    expect(stage.stats()).toMatchObject({ refused: 1, storeErrors: 1 })
  })

  it('and is a learned table balances, and learns again when it is back', async () => {
    let broken = true
    const table = memorySessionStore({ max: 10 })
    const store: SessionStore = {
      get: (key) => (broken ? fail() : table.get(key)),
      set: (...args) => (broken ? fail() : table.set(...args)),
      delete: () => {},
    }
    const stage = learnSession({ cookie: 'SID', store })
    const made = rig(stage, (_, upstream) => ({ headers: ['X-Upstream', upstream.id, 'Set-Cookie', 'SID=s'] }))
    expect((await made.get({ Cookie: 'SID=s' })).status).toBe(200)
    expect(stage.stats().storeErrors).toBe(2)
    broken = false
    const learnt = by(await made.get({ Cookie: 'SID=s' }))
    for (let i = 0; i < 3; i++) expect(by(await made.get({ Cookie: 'SID=s' }))).toBe(learnt)
    const refusing = rig(learnSession({ cookie: 'SID', store: throwing, onStoreError: 'refuse' }))
    expect((await refusing.get({ Cookie: 'SID=s' })).status).toBe(503)
  })
})
