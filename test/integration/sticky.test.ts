/**
 * Session persistence on real sockets: clients that keep their cookies, servers that die and drain, two proxies that share nothing but a secret,
 * WebSockets, HTTP/2, TLS.
 */
import { createPool, failureMemory, type Pool, type ProxyOptions } from '@weir/core'
import { keyAffinity, learnSession, memorySessionStore, type SessionStore, type StickySessionOptions, stickySession } from '@weir/sticky'
import {
  certificates,
  type RawConnectOptions,
  type RawResponse,
  rawConnect,
  rawRequest,
  type TestUpstream,
  testUpstream,
  type WsUpstream,
  wsConnect,
  wsUpstream,
} from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { h2Client } from './h2.ts'
import { get } from './messages.ts'
import { type Mounting, type RunningProxy, startProxy, transports } from './setup.ts'

const secret = 'sixty-four characters would be better than these forty-eight ones'

async function servers(names = ['a', 'b', 'c']): Promise<Map<string, TestUpstream>> {
  const started = await Promise.all(names.map((name) => testUpstream({ '*': name }, { name })))
  onTestFinished(async () => void (await Promise.all(started.map((upstream) => upstream.close()))))
  return new Map(names.map((name, i) => [name, started[i] as TestUpstream]))
}

function poolOf(upstreams: ReadonlyMap<string, { url: string }>, options: { transport?: Mounting['transport'] } = {}): Pool {
  const transport = options.transport?.()
  const pool = createPool({
    upstreams: [...upstreams].map(([id, { url }]) => ({ id, url })),
    health: [failureMemory({ penalty: '1h' })],
    ...(transport === undefined ? {} : { transport }),
  })
  onTestFinished(async () => {
    await pool.close()
    await transport?.close?.()
  })
  return pool
}

async function proxyOn(
  pool: Pool,
  options: Partial<StickySessionOptions> = {},
  mounting: Mounting = {},
  rest: Omit<ProxyOptions, 'pool' | 'upstreams'> = {},
): Promise<RunningProxy> {
  const stage = stickySession({ secret, ...options } as StickySessionOptions)
  const running = await startProxy({ ...rest, pool, use: [stage] }, mounting)
  onTestFinished(() => running[Symbol.asyncDispose]())
  return running
}

/** Keeps its connection and its cookies, as a browser does. */
class Browser {
  readonly statuses: number[] = []
  readonly answered: string[] = []
  cookies = 0
  cookie: string | undefined

  async visit(port: number, times = 1, options: RawConnectOptions = {}, path = '/'): Promise<RawResponse> {
    await using connection = await rawConnect(port, options)
    let response: RawResponse | undefined
    for (let i = 0; i < times; i++) {
      void connection.write(get(path, ...(this.cookie === undefined ? [] : [`Cookie: theme=dark; ${this.cookie}`])))
      response = await connection.readResponse()
      this.statuses.push(response.status)
      this.answered.push(response.text())
      for (const line of response.all('set-cookie')) {
        this.cookies++
        this.cookie = line.split(';')[0] as string
      }
    }
    return response as RawResponse
  }
}

describe.each(transports)('stickySession over %s', (_, transport) => {
  it('keeps every session where it began, through hundreds of requests', async () => {
    const upstreams = await servers()
    const running = await proxyOn(poolOf(upstreams, { transport }))
    const browsers = Array.from({ length: 6 }, () => new Browser())
    for (const browser of browsers) await browser.visit(running.port)
    await Promise.all(browsers.map((browser) => browser.visit(running.port, 60)))
    expect(browsers.map(({ answered }) => new Set(answered).size)).toEqual([1, 1, 1, 1, 1, 1])
    expect(browsers.map(({ cookies }) => cookies)).toEqual([1, 1, 1, 1, 1, 1])
    expect(new Set(browsers.map(({ answered }) => answered[0])).size).toBe(3)
    for (const { requests } of upstreams.values())
      for (const { rawHeaders } of requests) expect(rawHeaders.join()).not.toContain('weir_sticky')
  })

  it('moves the sessions of a server that is killed: one new cookie each, and not one GET fails', async () => {
    const upstreams = await servers()
    const running = await proxyOn(poolOf(upstreams, { transport }))
    const browsers = Array.from({ length: 6 }, () => new Browser())
    for (const browser of browsers) await browser.visit(running.port, 3)
    const victim = browsers[0]?.answered[0] as string
    await upstreams.get(victim)?.kill()
    await Promise.all(browsers.map((browser) => browser.visit(running.port, 30)))
    for (const { statuses, answered, cookies } of browsers) {
      const began = answered[0] as string
      expect(new Set(statuses)).toEqual(new Set([200]))
      const after = new Set(answered.slice(3))
      expect([after.size, cookies]).toEqual([1, began === victim ? 2 : 1])
      expect(after.has(began)).toBe(began !== victim)
    }
  })

  it('keeps sessions on a server that drains, and begins new ones elsewhere', async () => {
    const upstreams = await servers()
    const pool = poolOf(upstreams, { transport })
    const running = await proxyOn(pool)
    const old = new Browser()
    await old.visit(running.port)
    const [draining] = old.answered as [string]
    void pool.drain(draining)
    for (let i = 0; i < 4; i++) {
      const browser = new Browser()
      await browser.visit(running.port, 2)
      expect(browser.answered).not.toContain(draining)
    }
    await old.visit(running.port, 20)
    expect([new Set(old.answered).size, old.cookies]).toEqual([1, 1])
    // It is gone now, for good.
    await pool.remove(draining)
    await old.visit(running.port, 5)
    expect([new Set(old.answered.slice(-5)).size, old.answered.at(-1) === draining, old.cookies]).toEqual([1, false, 2])
  })

  it('is understood by a second proxy that shares the secret and nothing else', async () => {
    const upstreams = await servers()
    const one = await proxyOn(poolOf(upstreams, { transport }))
    const two = await proxyOn(poolOf(new Map([...upstreams].toReversed()), { transport }))
    const stranger = await proxyOn(poolOf(upstreams, { transport }), { secret: `${secret}, but another` })
    for (let i = 0; i < 3; i++) {
      const browser = new Browser()
      for (let turn = 0; turn < 10; turn++) await browser.visit(turn % 2 === 0 ? one.port : two.port, 2)
      expect([new Set(browser.answered).size, browser.cookies]).toEqual([1, 1])
      await browser.visit(stranger.port)
      expect(browser.cookies).toBe(2)
    }
  })

  it('gives the session to the server that answered a retry', async () => {
    const upstreams = await servers()
    const running = await proxyOn(poolOf(upstreams, { transport }), {}, {}, { retry: { on: ['connect', 503], attempts: 2 } })
    const browser = new Browser()
    await browser.visit(running.port)
    const [first] = browser.answered as [string]
    upstreams.get(first)?.route('*', 503)
    await browser.visit(running.port)
    const second = browser.answered.at(-1)
    expect([second === first, browser.cookies, browser.statuses.at(-1)]).toEqual([false, 2, 200])
    upstreams.get(first)?.route('*', first)
    await browser.visit(running.port, 5)
    expect([new Set(browser.answered.slice(1)), browser.cookies]).toEqual([new Set([second]), 2])
  })

  it('sets the cookie on the 101 of a WebSocket, and honours it there', async () => {
    const names = ['a', 'b', 'c']
    const started = await Promise.all(names.map((name) => wsUpstream({ first: [name] })))
    onTestFinished(async () => void (await Promise.all(started.map((upstream) => upstream.close()))))
    const running = await proxyOn(poolOf(new Map(names.map((name, i) => [name, started[i] as WsUpstream])), { transport }))
    const open = async (cookie?: string): Promise<{ name: unknown; set: string | undefined; control: string | undefined }> => {
      await using peer = await wsConnect(running.port, { headers: cookie === undefined ? [] : ['Cookie', cookie] })
      const field = (lower: string): string | undefined => {
        const { headers } = peer.head
        for (let i = 0; i < headers.length; i += 2) if (headers[i]?.toLowerCase() === lower) return headers[i + 1]
        return undefined
      }
      const message = await peer.next()
      return { name: message.kind === 'text' ? message.text : undefined, set: field('set-cookie'), control: field('cache-control') }
    }
    const { name, set, control } = await open()
    expect(names).toContain(name)
    expect(set).toMatch(/^weir_sticky=[\w-]{76}; Path=\/; HttpOnly; SameSite=Lax$/)
    expect(control).toBeUndefined()
    const cookie = (set as string).split(';')[0] as string
    for (let i = 0; i < 4; i++) expect(await open(cookie)).toMatchObject({ name, set: undefined })
    expect(started.flatMap(({ requests }) => requests.filter(({ fields }) => fields.some((line) => line.includes('weir_sticky'))))).toEqual(
      [],
    )
  })

  it('refuses a WebSocket of a strict session whose server is gone, with a real 503', async () => {
    const upstreams = await servers()
    const pool = poolOf(upstreams, { transport })
    const running = await proxyOn(pool, { strict: true, retryAfter: '5s' })
    const browser = new Browser()
    await browser.visit(running.port)
    await pool.remove(browser.answered[0] as string)
    const refused = wsConnect(running.port, { headers: ['Cookie', browser.cookie as string] })
    await expect(refused).rejects.toMatchObject({ response: { status: 503 } })
    expect((await browser.visit(running.port)).status).toBe(503)
  })
})

describe('the cookie', () => {
  it.each([
    ['in clear', false],
    ['over TLS', true],
  ])('%s has the attributes that belong there', async (_, https) => {
    const running = await proxyOn(poolOf(await servers()), {}, { https })
    const tls = https ? { tls: { ca: certificates().ca } } : {}
    const browser = new Browser()
    const response = await browser.visit(running.port, 1, tls)
    expect(response.header('set-cookie')).toMatch(
      https
        ? /^weir_sticky=[\w-]{76}; Path=\/; HttpOnly; SameSite=Lax; Secure$/
        : /^weir_sticky=[\w-]{76}; Path=\/; HttpOnly; SameSite=Lax$/,
    )
    expect(response.header('cache-control')).toBe('private')
    await browser.visit(running.port, 5, tls)
    expect([new Set(browser.answered).size, browser.cookies]).toEqual([1, 1])
  })

  it.each([false, true])('is Secure over TLS also where upstreams are told nothing of it; HTTP/2: %s', async (http2) => {
    const running = await proxyOn(poolOf(await servers()), {}, { https: true, http2 }, { forwarding: { xForwarded: false } })
    if (http2) {
      await using client = await h2Client(running.port, 'https')
      expect((await client.request()).all('set-cookie')[0]).toMatch(/; Secure$/)
    } else {
      const response = await new Browser().visit(running.port, 1, { tls: { ca: certificates().ca } })
      expect(response.header('set-cookie')).toMatch(/; Secure$/)
    }
  })

  it.each([
    ['in clear', false],
    ['over TLS', true],
  ])('works over HTTP/2 %s, beside cookie crumbs', async (_, https) => {
    const upstreams = await servers()
    const running = await proxyOn(poolOf(upstreams), {}, { http2: true, https })
    await using client = await h2Client(running.port, https ? 'https' : 'http')
    const first = await client.request()
    const [set] = first.all('set-cookie') as [string]
    expect(set.endsWith('; Secure')).toBe(https)
    for (let i = 0; i < 6; i++) {
      const next = await client.request({ cookie: ['a=1', set.split(';')[0] as string, 'b=2'] })
      expect([next.body.toString(), next.all('set-cookie')]).toEqual([first.body.toString(), []])
    }
    const seen = upstreams.get(first.body.toString())?.requests.at(-1)?.req.headers.cookie
    expect(seen).toBe('a=1; b=2')
  })

  it('of a hostile client costs that client its session, and nobody else', async () => {
    const running = await proxyOn(poolOf(await servers()))
    const good = new Browser()
    await good.visit(running.port)
    for (const line of [
      'weir_sticky=',
      `weir_sticky=${'A'.repeat(76)}`,
      `weir_sticky=${'A'.repeat(8000)}`,
      ';'.repeat(8000),
      '=;=;"',
      'weir_sticky="\\"',
    ])
      expect((await rawRequest(running.port, get('/', `Cookie: ${line}`, 'Cookie: x=1'))).status).toBe(200)
    await good.visit(running.port, 5)
    expect([new Set(good.answered).size, good.cookies]).toEqual([1, 1])
  })
})

/** Answers a turn later, as over a network: requests and heads have to wait for it. */
function farStore(): SessionStore {
  const table = memorySessionStore({ max: 100 })
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return {
    get: (key) => turn().then(() => table.get(key)),
    set: (...write) => turn().then(() => table.set(...write)),
    delete: (key) => turn().then(() => table.delete(key)),
  }
}

describe.each(transports)('a table over %s', (_, transport) => {
  it('that two proxies share keeps a key on one server', async () => {
    const upstreams = await servers()
    const store = farStore()
    const start = async (): Promise<RunningProxy> => {
      const running = await startProxy({ pool: poolOf(upstreams, { transport }), use: [keyAffinity({ key: 'x-tenant', store })] })
      onTestFinished(() => running[Symbol.asyncDispose]())
      return running
    }
    const ports = [(await start()).port, (await start()).port] as const
    for (const name of ['t', 'u', 'v']) {
      const answered = new Set<string>()
      for (let i = 0; i < 10; i++) answered.add((await rawRequest(ports[i % 2] as number, get('/', `X-Tenant: ${name}`))).text())
      expect(answered.size).toBe(1)
    }
  })

  it('learns the sessions of a WebSocket handshake, too', async () => {
    const names = ['a', 'b', 'c']
    const started = await Promise.all(names.map((name) => wsUpstream({ first: [name], headers: ['Set-Cookie', `SID=of-${name}; Path=/`] })))
    onTestFinished(async () => void (await Promise.all(started.map((upstream) => upstream.close()))))
    const pool = poolOf(new Map(names.map((name, i) => [name, started[i] as WsUpstream])), { transport })
    await using running = await startProxy({ pool, use: [learnSession({ cookie: 'SID', store: farStore() })] })
    const open = async (headers: string[]): Promise<unknown> => {
      await using peer = await wsConnect(running.port, { headers })
      const message = await peer.next()
      return message.kind === 'text' ? message.text : undefined
    }
    const first = await open([])
    for (let i = 0; i < 4; i++) expect(await open(['Cookie', `SID=of-${first}`])).toBe(first)
  })
})
