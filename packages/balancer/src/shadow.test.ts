import { channel } from 'node:diagnostics_channel'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, type ProxyOptions } from '@weir/core'
import { faults, rawRequest, type TestUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type ShadowStage, shadow } from './shadow.ts'
import type { ShadowOptions, ShadowResult } from './shadow-options.ts'

interface Rig extends AsyncDisposable {
  readonly port: number
  readonly stage: ShadowStage
  readonly results: ShadowResult[]
  /** So many results are there, or so many requests have been copied or not. */
  settled(count: number, withSkipped?: boolean): Promise<void>
}

/** A real proxy whose answers are compared; `results` in order of arrival. */
async function rig(primary: TestUpstream, options: Omit<ShadowOptions, 'onResult'>, more: Partial<ProxyOptions> = {}): Promise<Rig> {
  const results: ShadowResult[] = []
  let changed = (): void => {}
  const stage = shadow({
    ...options,
    onResult: (result) => {
      results.push(result)
      changed()
    },
  })
  const proxy = createProxy({ upstreams: [primary.url], use: [stage], ...more })
  const server = createServer(proxy)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    stage,
    results,
    settled: (count, withSkipped = false) =>
      new Promise((resolve) => {
        changed = () => {
          if (results.length + (withSkipped ? stage.stats().skipped : 0) >= count) resolve()
        }
        changed()
      }),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await proxy.close()
    },
  }
}

const get = (path = '/'): string => `GET ${path} HTTP/1.1\r\nHost: shop.test\r\n\r\n`
const send = (method: string, body: string): string =>
  `${method} /things HTTP/1.1\r\nHost: shop.test\r\nContent-Length: ${body.length}\r\n\r\n${body}`

describe('shadow', () => {
  it('sends the request as the upstream got it, marked, and tells where the answers differ', async () => {
    await using primary = await testUpstream({ '*': { status: 200, headers: { 'X-Version': '1' }, body: 'hello old' } })
    await using other = await testUpstream({ '*': { status: 201, headers: { 'X-Version': '2' }, body: 'hello new' } })
    await using on = await rig(primary, { upstreams: [other.url] })
    expect((await rawRequest(on.port, get('/a?b=c'))).body.toString()).toBe('hello old')
    await on.settled(1)
    const [seen] = other.requests
    expect([seen?.url, seen?.req.headers.host, seen?.req.headers['x-shadow'], seen?.req.headers['x-forwarded-host']]).toEqual([
      '/a?b=c',
      'shop.test',
      '1',
      'shop.test',
    ])
    expect(on.results[0]?.differences.filter((found) => found.kind !== 'header' || found.name === 'x-version')).toEqual([
      { kind: 'status', primary: 200, shadow: 201 },
      { kind: 'header', name: 'x-version', primary: ['1'], shadow: ['2'] },
      { kind: 'body', offset: 6 },
    ])
    expect(on.stage.stats()).toEqual({ sent: 1, failed: 0, different: 1, skipped: 0, inflight: 0 })
  })

  it('equal answers have no differences; `normalise` and `ignoreHeaders` even out what is known', async () => {
    await using primary = await testUpstream({ '*': { headers: { 'X-Id': 'a' }, body: 'at 12:00' } })
    await using other = await testUpstream({ '*': { headers: { 'X-Id': 'b' }, body: 'at 13:00' } })
    await using on = await rig(primary, {
      upstreams: [other.url],
      ignoreHeaders: ['date', 'x-id'],
      normalise: (answer) => ({ ...answer, body: Buffer.from(answer.body.toString().replace(/\d+:\d+/, 'T')) }),
    })
    await rawRequest(on.port, get())
    await on.settled(1)
    expect(on.results[0]?.differences).toEqual([])
  })

  it('copies a body as it passes, and only up to its cap', async () => {
    await using primary = await testUpstream()
    await using other = await testUpstream({
      '*': (req: IncomingMessage, res) => {
        const chunks: Buffer[] = []
        req.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => res.end(Buffer.concat(chunks)))
      },
    })
    await using on = await rig(primary, { upstreams: [other.url], methods: ['POST'], maxBody: 1000 })
    expect((await rawRequest(on.port, send('POST', 'x'.repeat(1001)))).status).toBe(200)
    expect((await rawRequest(on.port, send('POST', 'y'.repeat(1000)))).status).toBe(200)
    await on.settled(1)
    const { shadow: answer } = on.results[0] as ShadowResult
    expect('body' in answer && answer.body.toString()).toBe('y'.repeat(1000))
    expect(other.count()).toBe(1)
    expect(on.stage.stats()).toMatchObject({ sent: 1, skipped: 1 })
  })

  it('stays below the path of its URL', async () => {
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': 'ok' })
    await using on = await rig(primary, { upstreams: [`${other.url}/base/`] })
    await rawRequest(on.port, get('/a?b'))
    await on.settled(1)
    expect(other.requests[0]?.url).toBe('/base/a?b')
  })

  it('copies only methods that are listed, and only its share', async () => {
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': 'ok' })
    const draws = [0.05, 0.5, 0.09, 0.1, 0.99]
    await using on = await rig(primary, { upstreams: [other.url], share: 0.1, random: () => draws.shift() as number })
    for (let i = 0; i < 5; i++) await rawRequest(on.port, get())
    await rawRequest(on.port, send('POST', 'body'))
    await on.settled(2)
    expect(other.count()).toBe(2)
  })

  it.each([
    ['hangs', faults.stall(60_000)],
    ['resets', faults.reset()],
    ['answers nonsense', faults.garbage()],
  ] as const)('a shadow that %s never delays or fails the primary', async (_title, answer) => {
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': answer })
    await using on = await rig(primary, { upstreams: [other.url], maxConcurrent: 3, timeout: 200 })
    for (let i = 0; i < 10; i++) expect((await rawRequest(on.port, get())).body.toString()).toBe('ok')
    await on.settled(10, true)
    const { sent, failed, skipped, inflight } = on.stage.stats()
    expect(sent).toBe(failed)
    expect(sent + skipped).toBe(10)
    expect(inflight).toBe(0)
    expect(on.results.every(({ shadow: result }) => result instanceof Error)).toBe(true)
  })

  it('a client of the primary gets its answer while the shadow still holds the request', async () => {
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': faults.stall(60_000) })
    await using on = await rig(primary, { upstreams: [other.url] })
    expect((await rawRequest(on.port, get())).status).toBe(200)
    await other.until(({ active }) => active === 1)
    expect(on.results).toEqual([])
  })

  it('a primary that lasts holds no place of a copy that has been answered, and no more than so many wait to be compared', async () => {
    const ends: (() => void)[] = []
    await using primary = await testUpstream({
      '/stream': (_req, res) => {
        res.write('first part')
        ends.push(() => res.end())
      },
      '*': 'ok',
    })
    await using other = await testUpstream({ '/stream': 'first part', '*': 'ok' })
    await using on = await rig(primary, { upstreams: [other.url], maxConcurrent: 2 })
    const streams: Promise<unknown>[] = []
    for (let i = 1; i <= 3; i++) {
      streams.push(rawRequest(on.port, get('/stream')))
      await other.until((seen) => seen.count('/stream') === i && seen.active === 0)
    }
    // Two wait; for the third the first has made room.
    await on.settled(1)
    expect(on.results.map((result) => [result.url, result.primary, result.differences])).toEqual([['/stream', undefined, []]])
    await rawRequest(on.port, get('/plain'))
    await on.settled(2)
    for (const end of ends) end()
    await Promise.all(streams)
    await on.settled(4)
    // At least the last one was still waited for.
    expect(on.results.find(({ url }) => url === '/plain')?.primary).toMatchObject({ status: 200 })
    const compared = on.results.filter(({ url, primary: answer }) => url === '/stream' && answer !== undefined)
    expect(compared.length).toBeGreaterThanOrEqual(1)
    for (const { differences } of on.results) expect(differences).toEqual([])
    expect(on.stage.stats()).toEqual({ sent: 4, failed: 0, different: 0, skipped: 0, inflight: 0 })
  })

  it('functions that throw harm nobody but the copy', async () => {
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': 'ok' })
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    const fail = (): never => {
      throw new Error('mine')
    }
    for (const broken of [{ share: fail }, { rewrite: fail }, { normalise: fail }]) {
      await using on = await rig(primary, { upstreams: [other.url], ...broken })
      expect((await rawRequest(on.port, get())).status).toBe(200)
      if (!('share' in broken)) await on.settled(1)
    }
    await new Promise((resolve) => setImmediate(resolve))
    process.off('warning', note)
    expect(warnings.filter(({ message }) => message.includes('mine'))).toHaveLength(3)
  })

  it('closing the proxy ends copies in flight', async () => {
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': faults.stall(60_000) })
    const on = await rig(primary, { upstreams: [other.url] })
    await rawRequest(on.port, get())
    await other.until(({ active }) => active === 1)
    await on[Symbol.asyncDispose]()
    await other.until(({ sockets }) => sockets === 0)
    expect(on.results.map(({ shadow: result }) => (result as { code?: string }).code)).toEqual(['ERR_DRAINING'])
  })

  it('a request that never reaches an upstream is not copied, and gives its place back', async () => {
    await using other = await testUpstream({ '*': 'ok' })
    await using primary = await testUpstream({ '*': 'ok' })
    await using on = await rig(primary, { upstreams: [other.url], maxConcurrent: 1 }, { upstreams: [] })
    for (let i = 0; i < 3; i++) expect((await rawRequest(on.port, get())).status).toBe(503)
    expect(on.stage.stats()).toEqual({ sent: 0, failed: 0, different: 0, skipped: 3, inflight: 0 })
  })

  it('publishes results', async () => {
    const seen: unknown[] = []
    const listener = (message: unknown): void => void seen.push(message)
    channel('weir:shadow').subscribe(listener)
    await using primary = await testUpstream({ '*': 'ok' })
    await using other = await testUpstream({ '*': 'ok' })
    await using on = await rig(primary, { upstreams: [other.url] })
    await rawRequest(on.port, get())
    await on.settled(1)
    channel('weir:shadow').unsubscribe(listener)
    expect(seen).toEqual(on.results)
  })

  it('names every wrong option', () => {
    const wrong = { upstreams: [], share: 2, methods: 'GET', maxConcurrent: 0, maxBody: 'big', timeout: -1, onResult: 1, unknown: true }
    expect.assertions(1)
    try {
      shadow(wrong as unknown as ShadowOptions)
    } catch (error) {
      expect((error as { problems: { path: string }[] }).problems.map(({ path }) => path).sort()).toEqual(
        ['maxBody', 'maxConcurrent', 'methods', 'onResult', 'share', 'timeout', 'unknown', 'upstreams'].sort(),
      )
    }
  })
})
