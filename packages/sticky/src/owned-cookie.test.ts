/** `prefix` and `rewrite`: our value in a cookie that is the application's. */
import { createPool, createProxy, type InjectedResponse, type Pool } from '@weir/core'
import { type FakeTransport, fakeTransport } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stickySession } from './sticky-session.ts'

const secret = 'a secret that is long enough for the test'

interface Rig {
  readonly pool: Pool
  readonly transport: FakeTransport
  time: number
  get(cookie?: string, url?: string): Promise<InjectedResponse>
  seen(): string | undefined
}

/** An application that begins a session `SID` at `/login`, and ends it at `/logout`. */
function rig(mode: 'prefix' | 'rewrite', ids = ['a', 'b', 'c'], key = secret): Rig {
  const transport = fakeTransport(({ path }, upstream) => ({
    headers: [
      'X-Upstream',
      upstream.id,
      ...(path === '/login' ? ['Set-Cookie', `SID=sid-of-${upstream.id}; Path=/; HttpOnly`, 'Set-Cookie', 'other=1'] : []),
      ...(path === '/logout' ? ['Set-Cookie', 'SID=; Max-Age=0'] : []),
    ],
  }))
  const pool = createPool({ upstreams: ids.map((id) => ({ id, url: `http://${id}.test` })), transport, health: [] })
  const stage = stickySession({ mode, cookie: 'SID', secret: key, absolute: '1h', now: () => made.time })
  const proxy = createProxy({ pool, use: [stage] })
  onTestFinished(() => proxy.close())
  const made: Rig = {
    pool,
    transport,
    time: 1_800_000_000_000,
    get: (cookie, url = '/') => proxy.inject({ url, headers: { Host: 'localhost', ...(cookie === undefined ? {} : { Cookie: cookie }) } }),
    seen: () => transport.requests.at(-1)?.headers.get('cookie'),
  }
  return made
}

const cookieOf = (response: InjectedResponse): string => (response.headers.get('set-cookie') as string).split(';')[0] as string
const by = (response: InjectedResponse): string | undefined => response.headers.get('x-upstream')
const spread = async (made: Rig, cookie: string): Promise<number> => {
  const answered = new Set<string | undefined>()
  for (let i = 0; i < 3; i++) answered.add(by(await made.get(cookie)))
  return answered.size
}

describe('prefix', () => {
  it('adds no cookie of its own', async () => {
    const response = await rig('prefix').get()
    expect([response.headers.has('set-cookie'), response.headers.has('cache-control')]).toEqual([false, false])
  })

  it('stands before the value of the application, which keeps its attributes, and never sees it', async () => {
    const made = rig('prefix')
    const login = await made.get(undefined, '/login')
    const upstream = by(login)
    expect(login.headers.getAll('set-cookie')).toEqual([
      expect.stringMatching(new RegExp(`^SID=[\\w-]{76}~sid-of-${upstream}; Path=/; HttpOnly$`)),
      'other=1',
    ])
    expect(login.headers.get('cache-control')).toBe('private')
    for (let i = 0; i < 6; i++) {
      expect(by(await made.get(`x=1; ${cookieOf(login)}; y=2`))).toBe(upstream)
      expect(made.seen()).toBe(`x=1; SID=sid-of-${upstream}; y=2`)
    }
  })

  it('belongs to one value: before another one it selects nothing, and that one still arrives', async () => {
    const made = rig('prefix')
    const spliced = cookieOf(await made.get(undefined, '/login')).replace(/~.*/, '~sid-of-somebody')
    expect(await spread(made, spliced)).toBe(3)
    expect(made.seen()).toBe('SID=sid-of-somebody')
  })

  it('runs out, and the value of the application still arrives', async () => {
    const made = rig('prefix')
    const cookie = cookieOf(await made.get(undefined, '/login'))
    made.time += 3_600_000
    expect(await spread(made, cookie)).toBe(3)
    expect(made.seen()).toMatch(/^SID=sid-of-.$/)
  })

  it('leaves a session from before it, and a logout, alone', async () => {
    const made = rig('prefix')
    const response = await made.get('SID=plain', '/logout')
    expect([made.seen(), response.headers.get('set-cookie')]).toEqual(['SID=plain', 'SID=; Max-Age=0'])
  })

  it('names the upstream that the session moved to', async () => {
    const made = rig('prefix')
    const login = await made.get(undefined, '/login')
    await made.pool.remove(by(login) as string)
    const moved = await made.get(cookieOf(login), '/login')
    expect(by(moved)).not.toBe(by(login))
    for (let i = 0; i < 3; i++) expect(by(await made.get(cookieOf(moved)))).toBe(by(moved))
  })

  it('is known to a second proxy with the secret, and to none with another', async () => {
    const login = await rig('prefix').get(undefined, '/login')
    expect(by(await rig('prefix', ['c', 'b', 'a']).get(cookieOf(login)))).toBe(by(login))
    expect(await spread(rig('prefix', ['a', 'b', 'c'], `${secret}, another`), cookieOf(login))).toBe(3)
  })
})

describe('rewrite', () => {
  it('takes the place of the value, and only when the application sets the cookie', async () => {
    const made = rig('rewrite')
    expect((await made.get()).headers.has('set-cookie')).toBe(false)
    const login = await made.get(undefined, '/login')
    expect(login.headers.getAll('set-cookie')).toEqual([expect.stringMatching(/^SID=[\w-]{76}; Path=\/; HttpOnly$/), 'other=1'])
    for (let i = 0; i < 6; i++) {
      expect(by(await made.get(cookieOf(login)))).toBe(by(login))
      expect(made.seen()).toBe(cookieOf(login))
    }
  })

  it('does not take values of the prefix mode', async () => {
    const prefixed = cookieOf(await rig('prefix').get(undefined, '/login')).replace(/~.*/, '')
    expect(await spread(rig('rewrite'), prefixed)).toBe(3)
  })
})
