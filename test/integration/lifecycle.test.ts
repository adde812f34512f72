/**
 * From `createProxy` to `close`: nothing is opened early, stages start and close in order, and nothing is left behind, however often.
 */
import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createPool, createProxy, type HealthPolicy, type Stage, type Transport, undiciTransport } from '@weir/core'
import { rawRequest, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { runChild } from './children/run.ts'
import { get, upgradeHead } from './messages.ts'
import { gate, listen, observer, startProxy, until } from './observed.ts'

/** A stage that writes down what happens to it. */
function told(name: string, log: string[], more: Partial<Stage> = {}): Stage {
  return {
    name,
    handle: () => {
      log.push(`handle ${name}`)
      return undefined
    },
    start: () => void log.push(`start ${name}`),
    close: () => void log.push(`close ${name}`),
    ...more,
  }
}

const later = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))

describe('lifecycle', () => {
  interface Held {
    readonly handles: string[]
    readonly connections: number
    readonly timers: number
    readonly process: string[]
    readonly server: string[]
    readonly channels: boolean[]
    readonly proxies: number
  }

  it('a thousand proxies, created, used and closed, leave no handle, timer or listener', { timeout: 60_000 }, async () => {
    const { before, after, statuses } = await runChild<{ before: Held; after: Held; statuses: string[] }>('thousand-proxies', ['1000'], {
      flags: ['--expose-gc'],
      deadline: 50_000,
    })
    // They were proxies, not just objects.
    expect(statuses).toEqual(['GET /: 200', 'GET /reset: 200', 'GET /tunnel: 101', 'POST /: 200'])
    expect(after).toEqual(before)
    expect(after.connections).toBe(0)
    // And nothing global holds on to one: the collector has taken them all.
    expect(after.proxies).toBe(0)
  })

  it('createProxy opens nothing: no connection, no timer, no start', async () => {
    await using upstream = await testUpstream()
    const log: string[] = []
    const timers: number[] = []
    const health: HealthPolicy = { name: 'idle', attach() {} }
    const proxy = createProxy({
      upstreams: [upstream.url],
      health: [health],
      use: [told('a', log)],
      clock: { now: () => 0, setTimeout: (_fn, ms) => timers.push(ms), clearTimeout() {} },
    })
    await later()
    expect([upstream.accepted, log, timers]).toEqual([0, [], []])
    await proxy.close()
  })

  it('starts stages in list order and closes them in reverse, each once, however many routes they serve', async () => {
    const log: string[] = []
    const shared = told('shared', log, {
      start: () => later().then(() => void log.push('start shared')),
      close: () => later().then(() => void log.push('close shared')),
    })
    const proxy = createProxy({
      use: [told('first', log), shared],
      routes: [
        { match: { path: '/a' }, pool: { upstreams: [] }, use: [told('a', log)] },
        { match: { path: '/b' }, pool: { upstreams: [] }, use: [told('b', log)] },
      ],
    })
    await proxy.start()
    await proxy.start()
    expect(log).toEqual(['start first', 'start shared', 'start a', 'start b'])
    log.length = 0
    await proxy.close()
    expect(log).toEqual(['close b', 'close a', 'close shared', 'close first'])
  })

  it('stages close when the proxy has drained, and hear of the beginning by their signal at the end of it', async () => {
    const log: string[] = []
    const answer = gate()
    await using upstream = await testUpstream({ '/': (_req, res) => answer.opened.then(() => void res.end('done')) })
    let signal: AbortSignal | undefined
    const stage = told('stage', log, {
      start: (context) => {
        signal = context.signal
      },
      close: () => void log.push(`close, aborted: ${signal?.aborted}`),
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] })
    const response = rawRequest(proxy.port, get())
    await until('it is at work', () => upstream.active === 1)
    const closing = proxy.proxy.close()
    await later()
    expect(log).toEqual(['handle stage'])
    answer.open()
    expect((await response).text()).toBe('done')
    await closing
    expect(log).toEqual(['handle stage', 'close, aborted: true'])
  })

  it('the first request starts the stages, and waits for them, as do all that come meanwhile', async () => {
    const log: string[] = []
    const ready = gate()
    await using upstream = await testUpstream({ '*': 'fine' })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      use: [
        told('slow', log, {
          start: async () => {
            log.push('start slow')
            await ready.opened
            log.push('ready')
          },
        }),
        told('next', log),
      ],
    })
    const answers = [rawRequest(proxy.port, get('/1')), rawRequest(proxy.port, get('/2')), rawRequest(proxy.port, upgradeHead('/3'))]
    await until('all three wait', () => proxy.proxy.stats().inflight === 3)
    expect(log).toEqual(['start slow'])
    expect(upstream.accepted).toBe(0)
    ready.open()
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200)
    expect(log.slice(0, 3)).toEqual(['start slow', 'ready', 'start next'])
    expect(log.filter((line) => line === 'start slow')).toHaveLength(1)
  })

  it('a client that leaves while the stages start is forgotten', async () => {
    const ready = gate()
    const log: string[] = []
    await using upstream = await testUpstream({ '*': 'fine' })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [told('slow', log, { start: () => ready.opened })] })
    const gone = new AbortController()
    const answer = fetch(`http://127.0.0.1:${proxy.port}/`, { signal: gone.signal }).catch(() => 'gone')
    await until('it waits', () => proxy.proxy.stats().inflight === 1)
    gone.abort()
    expect(await answer).toBe('gone')
    await until('it is forgotten', () => proxy.proxy.stats().inflight === 0)
    ready.open()
    await proxy.proxy.start()
    expect(log).toEqual([])
    expect((await rawRequest(proxy.port, get())).status).toBe(200)
  })

  it('a start that fails is told to whoever called it, and to requests as a 500', async () => {
    const log: string[] = []
    const failing = told('failing', log, {
      start: () => {
        throw new Error('no connection to the store')
      },
    })
    await using upstream = await testUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [told('fine', log), failing, told('never', log)] })
    await expect(proxy.proxy.start()).rejects.toThrow('no connection to the store')
    const response = await rawRequest(proxy.port, get())
    expect([response.status, response.header('proxy-status')]).toEqual([500, 'weir; error=proxy_internal_error; details="ERR_STAGE"'])
    expect(response.raw.toString()).not.toContain('connection to')
    expect(log).toEqual(['start fine'])
    expect(upstream.accepted).toBe(0)
    await proxy.proxy.close()
  })

  it('a close that fails is told, after everything else has been closed', async () => {
    const log: string[] = []
    await using upstream = await testUpstream({ '*': 'fine' })
    const failing = told('failing', log, {
      close: () => {
        throw new Error('could not flush')
      },
    })
    const proxy = createProxy({ upstreams: [upstream.url], use: [told('outer', log), failing, told('inner', log)] })
    await using server = await listen(proxy.attach(createServer()))
    expect((await rawRequest(server.port, get())).status).toBe(200)
    log.length = 0
    await expect(proxy.close()).rejects.toThrow('could not flush')
    expect(log).toEqual(['close inner', 'close outer'])
    await upstream.until((seen) => seen.sockets === 0)
    await expect(proxy.close()).rejects.toThrow('could not flush')
  })

  it('closing before the first request starts nothing', async () => {
    const log: string[] = []
    const proxy = createProxy({ upstreams: [], use: [told('stage', log)] })
    await proxy.close()
    expect(log).not.toContain('start stage')
  })

  it('who creates a resource closes it', async () => {
    const log: string[] = []
    const transport: Transport = { ...undiciTransport(), close: () => void log.push('transport') }
    const policy = (name: string): HealthPolicy => ({ name, attach() {}, close: () => void log.push(name) })
    const pool = createPool({ upstreams: [], health: [policy('lent')], transport })
    const proxy = createProxy({
      pool,
      routes: [
        { match: { path: '/own' }, pool: { upstreams: [], health: [policy('own')], transport } },
        { match: { path: '/lent' }, pool },
      ],
    })
    await proxy.close()
    expect(log).toEqual(['own'])
    await pool.close()
    await pool.close()
    expect(log).toEqual(['own', 'lent'])
  })

  it('`await using` drains at the end of the scope', async () => {
    const answer = gate()
    await using upstream = await testUpstream({ '/': (_req, res) => answer.opened.then(() => void res.end('done')) })
    const { stage, outcome } = observer()
    const server = createServer()
    await using listening = await listen(server)
    let response: ReturnType<typeof rawRequest> | undefined
    {
      await using proxy = createProxy({ upstreams: [upstream.url], use: [stage] })
      proxy.attach(server)
      response = rawRequest(listening.port, get())
      await until('it is at work', () => upstream.active === 1)
      setTimeout(() => answer.open(), 20)
    }
    // The scope has ended only now that the response was sent.
    expect((await outcome()).reason).toBe('completed')
    expect((await response).text()).toBe('done')
  })

  it('a closed proxy makes room for the next one on the same server', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    const server = createServer()
    await using listening = await listen(server)
    for (let round = 0; round < 3; round++) {
      const proxy = createProxy({ upstreams: [upstream.url] })
      proxy.attach(server)
      const response = await rawRequest(listening.port, get())
      expect([response.status, response.text()]).toEqual([200, 'fine'])
      await proxy.close()
      expect((await rawRequest(listening.port, get())).status).toBe(503)
    }
    expect(['checkContinue', 'upgrade', 'connect', 'session'].map((name) => server.listenerCount(name))).toEqual([0, 0, 0, 0])
    expect(server.listenerCount('request')).toBeLessThanOrEqual(1)
  })

  it('does not touch what an embedder had on its server', async () => {
    const own = (): void => {}
    const choose = (): boolean => true
    const server = createServer(own)
    server.on('upgrade', own)
    const chooser = server as unknown as { shouldUpgradeCallback: () => boolean }
    chooser.shouldUpgradeCallback = choose
    await using listening = await listen(server)
    expect(listening.port).toBeGreaterThan(0)
    const proxy = createProxy({ upstreams: [] })
    proxy.attach(server)
    await proxy.close()
    expect([server.listeners('request'), server.listeners('upgrade')]).toEqual([[own], [own]])
    expect(chooser.shouldUpgradeCallback).toBe(choose)
  })

  it('`await using` compiles to what Node 22 can parse, by way of tslib', { timeout: 60_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weir-using-'))
    try {
      const source = `
        import type { ReverseProxy } from '@weir/core'
        export async function drain(create: () => ReverseProxy, log: string[]): Promise<void> {
          await using proxy: AsyncDisposable = create()
          log.push(typeof proxy)
        }
      `
      await writeFile(join(folder, 'drain.ts'), source)
      const compiler = fileURLToPath(new URL('../../node_modules/.bin/tsc', import.meta.url))
      // Types are checked by the repository's own build; here it is the output that matters.
      const flags = ['--target', 'es2023', '--module', 'nodenext', '--importHelpers', '--noCheck', '--types', '', '--outDir', folder]
      const { status, stdout } = spawnSync(compiler, [join(folder, 'drain.ts'), ...flags], { encoding: 'utf8', cwd: folder })
      const script = await readFile(join(folder, 'drain.js'), 'utf8').catch(() => `no output: ${status} ${stdout}`)
      expect(script).toMatch(/tslib/)
      expect(script).toMatch(/__disposeResources/)
      expect(script).not.toMatch(/\busing\b/)
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
