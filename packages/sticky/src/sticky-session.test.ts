/** The signed cookie as clients and upstreams see it, over proxies without a network. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import {
  createPool,
  createProxy,
  type HealthControl,
  type HealthPolicy,
  type InjectedResponse,
  type Pool,
  type ProxyOptions,
  type ReverseProxy,
  type StageLike,
} from '@weir/core'
import { type FakeTransport, fakeTransport, type Respond, virtualClock } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { SessionMessage } from './journal.ts'
import type { StickyStage } from './stage-options.ts'
import type { InsertOptions } from './sticky-options.ts'
import { stickySession } from './sticky-session.ts'

const secret = 'a secret that is long enough for the test'
const start = 1_800_000_000_000

interface Rig {
  readonly proxy: ReverseProxy
  readonly pool: Pool
  readonly transport: FakeTransport
  readonly stage: StickyStage
  time: number
  get(cookie?: string | readonly string[], url?: string, headers?: Record<string, string>): Promise<InjectedResponse>
}

interface RigOptions {
  readonly respond?: Respond
  readonly proxy?: Omit<ProxyOptions, 'pool' | 'upstreams' | 'transport' | 'use'>
  readonly inside?: readonly StageLike[]
  readonly ids?: readonly string[]
  readonly maxConcurrent?: number
  readonly health?: HealthPolicy
}

const named: Respond = (_, upstream) => ({ headers: { 'X-Upstream': upstream.id } })

function rig(options: Partial<InsertOptions> = {}, { respond = named, inside = [], ids = ['a', 'b', 'c'], ...rest }: RigOptions = {}): Rig {
  const transport = fakeTransport(respond)
  const pool = createPool({
    upstreams: ids.map((id) => ({ id, url: `http://${id}.test` })),
    transport,
    health: rest.health === undefined ? [] : [rest.health],
    maxConcurrent: rest.maxConcurrent ?? 100,
  })
  const stage = stickySession({ secret, now: () => made.time, ...options })
  const proxy = createProxy({ pool, use: [stage, ...inside], ...rest.proxy })
  onTestFinished(() => proxy.close())
  const made: Rig = {
    proxy,
    pool,
    transport,
    stage,
    time: start,
    get: (cookie, url = '/', headers = {}) =>
      proxy.inject({ url, headers: { Host: 'localhost', ...headers, ...(cookie === undefined ? {} : { Cookie: cookie }) } }),
  }
  return made
}

/** Says what the test says. */
function verdict(): { policy: HealthPolicy; down(id: string): void; up(id: string): void; failOpen(): void } {
  let control: HealthControl | undefined
  const policy: HealthPolicy = {
    name: 'verdict',
    attach(pool) {
      control = pool
    },
  }
  const find = (id: string) => control?.upstreams.find((upstream) => upstream.id === id) as never
  return {
    policy,
    down: (id) => void control?.setDown(find(id), policy, 'the test'),
    up: (id) => control?.setUp(find(id), policy, 'the test'),
    failOpen: () => control?.setFailOpen(policy, true, 'the test'),
  }
}

const cookieOf = (response: InjectedResponse): string | undefined => response.headers.get('set-cookie')?.split(';')[0]
const by = (response: InjectedResponse): string | undefined => response.headers.get('x-upstream')

async function begin(made: Rig): Promise<{ cookie: string; upstream: string }> {
  const response = await made.get()
  return { cookie: cookieOf(response) as string, upstream: by(response) as string }
}

function listen(): SessionMessage[] {
  const seen: SessionMessage[] = []
  const hear = (message: unknown): void => void seen.push(message as SessionMessage)
  subscribe('weir:sticky:session', hear)
  onTestFinished(() => void unsubscribe('weir:sticky:session', hear))
  return seen
}

describe('a session', () => {
  it('stays where it began, and gets one cookie', async () => {
    const made = rig()
    const { cookie, upstream } = await begin(made)
    for (let i = 0; i < 12; i++) {
      const response = await made.get(cookie)
      expect([by(response), response.headers.get('set-cookie')]).toEqual([upstream, undefined])
    }
    expect(made.stage.stats()).toMatchObject({ new: 1, pinned: 12, moved: 0, rejected: 0, issued: 1 })
  })

  it('is balanced when it is new', async () => {
    const made = rig()
    const begun = new Set<string>()
    for (let i = 0; i < 3; i++) begun.add((await begin(made)).upstream)
    expect(begun).toEqual(new Set(['a', 'b', 'c']))
  })

  it('is known to a second proxy with the secret, and its upstreams in another order', async () => {
    const one = rig()
    const two = rig({}, { ids: ['c', 'b', 'd', 'a'] })
    for (let i = 0; i < 6; i++) {
      const { cookie, upstream } = await begin(one)
      const response = await two.get(cookie)
      expect([by(response), response.headers.get('set-cookie')]).toEqual([upstream, undefined])
    }
  })

  it('is stamped again only after a share of its idle time, and keeps its beginning', async () => {
    const made = rig({ idle: '10m', absolute: '30m', refresh: 0.5 })
    const { cookie, upstream } = await begin(made)
    made.time = start + 299_000
    expect((await made.get(cookie)).headers.has('set-cookie')).toBe(false)
    made.time = start + 300_000
    let current = cookieOf(await made.get(cookie)) as string
    expect(current).not.toBe(cookie)
    for (let minute = 10; minute < 30; minute += 5) {
      made.time = start + minute * 60_000
      const response = await made.get(current)
      expect(by(response)).toBe(upstream)
      current = cookieOf(response) as string
    }
    made.time = start + 30 * 60_000
    await made.get(current)
    expect(made.stage.stats()).toMatchObject({ new: 2, moved: 0, rejected: 1 })
  })

  it('has the lifetimes of the documentation', async () => {
    const hour = 3_600_000
    const made = rig()
    const { cookie } = await begin(made)
    const at = async (ms: number, carried: string): Promise<string | undefined> => {
      made.time = start + ms
      return cookieOf(await made.get(carried))
    }
    expect(await at(hour / 10 - 1000, cookie)).toBeUndefined()
    let current = (await at(hour / 10, cookie)) as string
    expect(current).toBeDefined()
    for (let ms = hour; ms < 24 * hour; ms += hour / 2) current = (await at(ms, current)) as string
    expect(made.stage.stats()).toMatchObject({ new: 1, rejected: 0 })
    await at(24 * hour, current)
    await at(25 * hour, (await at(24 * hour, current)) as string)
    expect(made.stage.stats()).toMatchObject({ new: 4, rejected: 3 })
  })

  it('ends when it is idle: a replayed cookie is replaced and chooses nothing', async () => {
    const heard = listen()
    const made = rig({ idle: '1m' })
    const { cookie } = await begin(made)
    made.time = start + 60_000
    const answered = new Set<string | undefined>()
    for (let i = 0; i < 3; i++) {
      const response = await made.get(cookie)
      answered.add(by(response))
      expect(cookieOf(response)).not.toBe(undefined)
    }
    expect(answered.size).toBe(3)
    expect(heard.filter(({ event }) => event === 'rejected').map(({ reason }) => reason)).toEqual(['expired', 'expired', 'expired'])
  })

  it.each([
    ['forged', 'A'.repeat(76)],
    ['an address', 'http://169.254.169.254/'],
    ['an index', '1'],
    ['an id', 'a'],
    ['huge', 'A'.repeat(8000)],
    ['empty', ''],
  ])('does not come from a cookie that is %s', async (_, value) => {
    const made = rig()
    const answered = new Set<string | undefined>()
    for (let i = 0; i < 3; i++) {
      const response = await made.get(`weir_sticky=${value}`)
      expect(response.status).toBe(200)
      expect(cookieOf(response)).toMatch(/^weir_sticky=[\w-]{76}$/)
      answered.add(by(response))
    }
    expect(answered.size).toBe(3)
    expect(made.stage.stats()).toMatchObject({ new: 3, rejected: 3, pinned: 0 })
  })

  it('is found behind a forged cookie of its name', async () => {
    const made = rig()
    const { cookie, upstream } = await begin(made)
    for (let i = 0; i < 3; i++) expect(by(await made.get(`weir_sticky=${'A'.repeat(76)}; ${cookie}`))).toBe(upstream)
    expect(made.stage.stats().rejected).toBe(0)
  })

  it('signed with an older secret goes on, and is signed anew once', async () => {
    const before = rig()
    const { cookie, upstream } = await begin(before)
    const after = rig({ secret: [`${secret}, the next`, secret] })
    const response = await after.get(cookie)
    const anew = cookieOf(response) as string
    expect([by(response), anew === cookie]).toEqual([upstream, false])
    const again = await after.get(anew)
    expect([by(again), again.headers.has('set-cookie')]).toEqual([upstream, false])
  })
})

describe('a session whose upstream', () => {
  it('has left moves, with one new cookie', async () => {
    const heard = listen()
    const made = rig()
    const { cookie, upstream } = await begin(made)
    await made.pool.remove(upstream)
    const response = await made.get(cookie)
    const moved = cookieOf(response) as string
    expect(by(response)).not.toBe(upstream)
    for (let i = 0; i < 4; i++) {
      const next = await made.get(moved)
      expect([by(next), next.headers.has('set-cookie')]).toEqual([by(response), false])
    }
    expect(heard.map(({ event, reason, upstream: to }) => [event, reason, to]).slice(0, 2)).toEqual([
      ['new', undefined, upstream],
      ['moved', 'gone', by(response)],
    ])
  })

  it('is down moves, and does not come back when that is up again', async () => {
    const heard = listen()
    const health = verdict()
    const made = rig({}, { health: health.policy })
    const { cookie, upstream } = await begin(made)
    health.down(upstream)
    const response = await made.get(cookie)
    expect(by(response)).not.toBe(upstream)
    expect(heard.at(-1)).toMatchObject({ event: 'moved', reason: 'down', from: upstream, upstream: by(response) })
    health.up(upstream)
    for (let i = 0; i < 3; i++) expect(by(await made.get(cookieOf(response)))).toBe(by(response))
  })

  it('is slow belongs to the one that answered a hedge', async () => {
    const heard = listen()
    const clock = virtualClock()
    let slow = ''
    const made = rig(
      {},
      {
        proxy: { clock, retry: { hedge: { after: 50 } } },
        respond: (request, upstream) => (upstream.id === slow ? new Promise(() => {}) : named(request, upstream)),
      },
    )
    const { cookie, upstream } = await begin(made)
    slow = upstream
    const asked = made.get(cookie)
    await clock.advance(50)
    const response = await asked
    expect([response.status, by(response) === upstream]).toEqual([200, false])
    expect(heard.at(-1)).toMatchObject({ event: 'moved', from: upstream, upstream: by(response) })
    expect(by(await made.get(cookieOf(response)))).toBe(by(response))
  })

  it('failed and was retried elsewhere belongs to who answered, and not to the dead one', async () => {
    let dead = ''
    const heard = listen()
    const made = rig(
      {},
      {
        proxy: { retry: { attempts: 2 } },
        respond: (request, upstream) => (upstream.id === dead ? { error: 'ERR_CONNECT_REFUSED' } : (named(request, upstream) as never)),
      },
    )
    const { cookie, upstream } = await begin(made)
    dead = upstream
    const response = await made.get(cookie)
    expect([response.status, made.transport.requests.at(-2)?.upstream.id]).toEqual([200, upstream])
    const moved = cookieOf(response) as string
    const asked = made.transport.requests.length
    for (let i = 0; i < 4; i++) expect(by(await made.get(moved))).toBe(by(response))
    expect(made.transport.requests.length).toBe(asked + 4)
    expect(heard.find(({ event }) => event === 'moved')).toMatchObject({ from: upstream, reason: 'failed', upstream: by(response) })
  })

  it('is full is served elsewhere', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const made = rig(
      {},
      {
        maxConcurrent: 1,
        respond: async (request, upstream) => {
          if (request.path === '/slow') await promise
          return await named(request, upstream)
        },
      },
    )
    const { cookie, upstream } = await begin(made)
    const slow = made.get(cookie, '/slow')
    const other = await made.get(cookie)
    expect(by(other)).not.toBe(upstream)
    expect(cookieOf(other)).toBeDefined()
    resolve()
    expect(by(await slow)).toBe(upstream)
  })

  it('drains stays on it, and new ones begin elsewhere', async () => {
    const made = rig()
    const { cookie, upstream } = await begin(made)
    void made.pool.drain(upstream)
    for (let i = 0; i < 6; i++) {
      const old = await made.get(cookie)
      expect([by(old), old.headers.has('set-cookie')]).toEqual([upstream, false])
      expect((await begin(made)).upstream).not.toBe(upstream)
    }
    expect(made.stage.stats()).toMatchObject({ pinned: 6, moved: 0 })
  })

  it('begins to drain while the first answer is on its way gets no session', async () => {
    const made: Rig = rig(
      {},
      {
        respond: (request, upstream) => {
          if (request.path === '/drain') void made.pool.drain(upstream.id)
          return named(request, upstream)
        },
      },
    )
    const response = await made.get(undefined, '/drain')
    expect([response.status, response.headers.has('set-cookie')]).toEqual([200, false])
  })
})

describe('strict', () => {
  const strict = { strict: true, retryAfter: '7s' } as const
  const refused = (response: InjectedResponse): unknown[] => [
    response.status,
    response.headers.get('retry-after'),
    response.headers.has('set-cookie'),
  ]

  it('answers 503 when the upstream has left, and serves others', async () => {
    const made = rig(strict)
    const { cookie, upstream } = await begin(made)
    await made.pool.remove(upstream)
    expect(refused(await made.get(cookie))).toEqual([503, '7', false])
    expect((await made.get()).status).toBe(200)
    expect(made.stage.stats()).toMatchObject({ refused: 1, moved: 0 })
  })

  it('answers 503 when a retry would go elsewhere, and sends nothing there', async () => {
    let dead = ''
    const made = rig(strict, {
      proxy: { retry: { attempts: 3 } },
      respond: (request, upstream) => (upstream.id === dead ? { error: 'ERR_CONNECT_REFUSED' } : named(request, upstream)),
    })
    const { cookie, upstream } = await begin(made)
    dead = upstream
    expect(refused(await made.get(cookie))).toEqual([503, '7', false])
    expect(made.transport.requests.slice(1).map(({ upstream: { id } }) => id)).toEqual([upstream])
    dead = ''
    expect(by(await made.get(cookie))).toBe(upstream)
  })

  it('answers 503 when the upstream is down, and nothing is sent', async () => {
    const health = verdict()
    const made = rig(strict, { health: health.policy })
    const { cookie, upstream } = await begin(made)
    health.down(upstream)
    expect(refused(await made.get(cookie))).toEqual([503, '7', false])
    expect(made.transport.requests.length).toBe(1)
    for (const id of ['a', 'b', 'c']) health.down(id)
    expect(refused(await made.get(cookie))).toEqual([503, '7', false])
    expect(made.stage.stats().refused).toBe(2)
    health.up(upstream)
    expect(by(await made.get(cookie))).toBe(upstream)
    made.pool.setWeight(upstream, 0)
    expect(by(await made.get(cookie))).toBe(upstream)
  })

  it('answers 503 when the upstream is full, for as long as it is', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const made = rig(strict, {
      maxConcurrent: 1,
      respond: async (request, upstream) => {
        if (request.path === '/slow') await promise
        return await named(request, upstream)
      },
    })
    const { cookie, upstream } = await begin(made)
    const slow = made.get(cookie, '/slow')
    expect(refused(await made.get(cookie))).toEqual([503, '7', false])
    resolve()
    await slow
    expect(by(await made.get(cookie))).toBe(upstream)
  })

  it('uses an upstream that is down when the pool fails open', async () => {
    const health = verdict()
    const made = rig(strict, { health: health.policy })
    const { cookie, upstream } = await begin(made)
    for (const id of ['a', 'b', 'c']) health.down(id)
    health.failOpen()
    for (let i = 0; i < 3; i++) expect(by(await made.get(cookie))).toBe(upstream)
  })

  it('stays on an upstream that drains', async () => {
    const made = rig(strict)
    const { cookie, upstream } = await begin(made)
    void made.pool.drain(upstream)
    expect(by(await made.get(cookie))).toBe(upstream)
  })

  it('lets a retry of a new session go anywhere', async () => {
    const made = rig(strict, {
      proxy: { retry: { attempts: 3 } },
      respond: (request, upstream) => (upstream.id === 'a' ? { error: 'ERR_CONNECT_REFUSED' } : named(request, upstream)),
    })
    for (let i = 0; i < 3; i++) expect((await made.get()).status).toBe(200)
  })
})

describe('the cookie', () => {
  const attributes = async (
    options: Partial<InsertOptions>,
    headers?: Record<string, string>,
    proxy?: RigOptions['proxy'],
  ): Promise<string[]> => {
    const made = rig(options, { proxy: proxy ?? {} })
    return ((await made.get(undefined, '/', headers)).headers.get('set-cookie') as string).split('; ').slice(1)
  }

  it('is strict by default', async () => {
    expect(await attributes({})).toEqual(['Path=/', 'HttpOnly', 'SameSite=Lax'])
  })

  it('has what was asked for', async () => {
    expect(
      await attributes({
        secure: true,
        sameSite: 'strict',
        path: '/app',
        domain: 'example.com',
        persistent: true,
        idle: '10m',
        httpOnly: false,
      }),
    ).toEqual(['Path=/app', 'Domain=example.com', 'SameSite=Strict', 'Secure', 'Max-Age=600'])
    expect(await attributes({ partitioned: true, sameSite: 'none' })).toEqual([
      'Path=/',
      'HttpOnly',
      'SameSite=None',
      'Partitioned',
      'Secure',
    ])
  })

  it('is Secure when a trusted proxy says so, and not when anybody does', async () => {
    const said = { 'X-Forwarded-Proto': 'https, http' }
    expect(await attributes({}, said, { trustedProxies: ['loopback'] })).toContain('Secure')
    expect(await attributes({}, { 'X-Forwarded-Proto': 'http, https' }, { trustedProxies: ['loopback'] })).not.toContain('Secure')
    expect(await attributes({}, said)).not.toContain('Secure')
    expect(await attributes({}, said, { forwarding: { xForwarded: false } })).not.toContain('Secure')
    expect(await attributes({}, said, { forwarding: { xForwarded: false }, trustedProxies: ['loopback'] })).toContain('Secure')
    expect(await attributes({ secure: false }, said, { trustedProxies: ['loopback'] })).not.toContain('Secure')
  })

  it('may have a prefix', async () => {
    const made = rig({ cookie: '__Host-s', secure: true })
    const { cookie, upstream } = await begin(made)
    expect(cookie).toMatch(/^__Host-s=/)
    expect(by(await made.get(cookie))).toBe(upstream)
  })

  it('persists as long as the session has left', async () => {
    const made = rig({ persistent: true, idle: '1h', absolute: '70m', refresh: 0.5 })
    const { cookie } = await begin(made)
    made.time = start + 40 * 60_000
    expect((await made.get(cookie)).headers.get('set-cookie')).toContain('; Max-Age=1800')
  })

  it('does not reach the upstream; others do, as they were sent', async () => {
    const made = rig()
    const { cookie } = await begin(made)
    await made.get([`a=1;b="x y" ; ${cookie}`, 'c=\xe4'])
    expect(made.transport.requests.at(-1)?.headers.getAll('cookie')).toEqual(['a=1;b="x y" ', 'c=\xe4'])
    await made.get(cookie)
    expect(made.transport.requests.at(-1)?.headers.has('cookie')).toBe(false)
  })

  it('reaches the upstream where that is wanted', async () => {
    const made = rig({ forward: true })
    const { cookie } = await begin(made)
    await made.get(`a=1; ${cookie}`)
    expect(made.transport.requests.at(-1)?.headers.get('cookie')).toBe(`a=1; ${cookie}`)
  })

  it('stands beside those of the application', async () => {
    const made = rig({}, { respond: () => ({ headers: ['Set-Cookie', 'a=1; Path=/', 'Set-Cookie', 'b=2'] }) })
    expect((await made.get()).headers.getAll('set-cookie')).toEqual(['a=1; Path=/', 'b=2', expect.stringMatching(/^weir_sticky=/)])
  })
})

describe('caches', () => {
  const respond: Respond = () => ({ headers: { 'Cache-Control': 'public, max-age=60' } })

  it('are told that a response with the cookie is private, and only such a one', async () => {
    const made = rig({}, { respond })
    const { cookie } = await begin(made)
    const control = async (carried?: string): Promise<string | undefined> => (await made.get(carried)).headers.get('cache-control')
    expect(await control()).toBe('public, max-age=60, private')
    expect(await control(cookie)).toBe('public, max-age=60')
  })

  it('are told nothing where that is switched off', async () => {
    expect((await rig({ cachePrivate: false }, { respond }).get()).headers.get('cache-control')).toBe('public, max-age=60')
  })

  it.each(['cache', 'response-cache', 'responseCache'])('stand inside: a stage %s outside is refused', (name) => {
    const cache: StageLike = { name, handle() {} }
    const stage = stickySession({ secret })
    const transport = fakeTransport()
    expect(() => createProxy({ upstreams: ['http://a.test'], transport, use: [cache, stage] })).toThrow(
      expect.objectContaining({ code: 'ERR_OPTIONS', problems: [expect.objectContaining({ path: 'use' })] }),
    )
    expect(() => createProxy({ upstreams: ['http://a.test'], transport, use: [stage, cache] })).not.toThrow()
  })

  it('see no cookie of ours in request or response', async () => {
    const seen: unknown[] = []
    const cache: StageLike = (exchange) => {
      seen.push(exchange.headers.get('cookie'))
      return { onResponse: (response) => void seen.push(response.headers.get('set-cookie')) }
    }
    const made = rig({}, { inside: [cache] })
    await made.get((await begin(made)).cookie)
    expect(seen).toEqual([undefined, undefined, undefined, undefined])
  })

  it('that answer themselves give nobody a session', async () => {
    const made = rig({}, { inside: [() => ({ status: 200, body: 'stored' })] })
    expect((await made.get()).headers.raw.filter((name) => /set-cookie|cache-control/i.test(name))).toEqual([])
  })
})

describe('bypass', () => {
  it('gives no cookie and asks for no upstream, but still hides the cookie', async () => {
    const made = rig({ bypass: (exchange) => exchange.headers.get('user-agent') === 'bot' })
    const { cookie } = await begin(made)
    const answered = new Set<string | undefined>()
    for (let i = 0; i < 3; i++) {
      const response = await made.get(cookie, '/', { 'User-Agent': 'bot' })
      answered.add(by(response))
      expect(response.headers.has('set-cookie')).toBe(false)
    }
    expect(answered.size).toBe(3)
    expect(made.transport.requests.at(-1)?.headers.has('cookie')).toBe(false)
    expect(made.stage.stats().bypassed).toBe(3)
  })

  it('of all paths but some', async () => {
    const made = rig({ only: ['/app', '/api/'] })
    const got = async (url: string): Promise<boolean> => (await made.get(undefined, url)).headers.has('set-cookie')
    for (const url of ['/app', '/app/', '/app/x', '/app?x', '/api/1']) expect([url, await got(url)]).toEqual([url, true])
    for (const url of ['/', '/apps', '/x/app', '/ap']) expect([url, await got(url)]).toEqual([url, false])
  })
})

describe('events', () => {
  it('say what became of each session', async () => {
    const heard = listen()
    const made = rig({ name: 'front' })
    const { cookie, upstream } = await begin(made)
    await made.get(cookie)
    await made.get('weir_sticky=x')
    expect(heard.map(({ event, reason }) => [event, reason])).toEqual([
      ['new', undefined],
      ['pinned', undefined],
      ['rejected', 'malformed'],
      ['new', undefined],
    ])
    expect(heard[1]).toMatchObject({ stage: 'front', upstream, exchange: { url: '/' } })
  })
})
