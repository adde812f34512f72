/** Compression dictionaries (RFC 9842) with who they are for: a real browser, and a cache that must not be split by whoever invents a hash. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { zstdDecompressSync } from 'node:zlib'
import { responseCache } from '@weir/cache'
import { compress, compressionDictionaries } from '@weir/compress'
import type { Exchange } from '@weir/core'
import { testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser } from './browser.ts'
import { ask } from './caching.ts'
import { startProxy, until } from './observed.ts'

/** Half of it is another in each release, half the same. */
const common = Array.from({ length: 300 }, (_, line) => `/* ${line} ${createHash('sha256').update(`${line}`).digest('base64')} */`).join(
  '\n',
)
const release = (version: number): string => `${common}\ndocument.title = 'release ${version}'\n`
const sha256 = (content: string): string => createHash('sha256').update(content).digest('base64')

async function shop() {
  let seen = 0
  const upstream = await testUpstream({
    '/': (_req, res) =>
      void res.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>shop</title><link rel="icon" href="data:,">'),
    '*': (req, res) => {
      seen++
      const version = Number(/app\.(\d+)\.js/.exec(req.url ?? '')?.[1])
      res.writeHead(200, { 'Content-Type': 'text/javascript', 'Cache-Control': 'public, max-age=3600' }).end(release(version))
    },
  })
  const dictionaries = compressionDictionaries({ offers: [{ match: '/assets/app.*.js' }] })
  const cache = responseCache({ maxSize: '16MiB' })
  const compression = compress({ overload: false, dictionaries })
  const proxy = await startProxy({ upstreams: [upstream.url], use: [dictionaries, cache, compression] })
  return {
    proxy,
    dictionaries,
    compression,
    get seen() {
      return seen
    },
  }
}

describe('dictionaries', () => {
  it.skipIf(!hasBrowser)('a real browser keeps a release, and reads the next one as the difference', { timeout: 60_000 }, async () => {
    const { proxy, dictionaries, compression } = await shop()
    const browser = await launchBrowser()
    try {
      const page = await browser.newPage()
      await page.goto(`http://localhost:${proxy.port}/`)
      const load = (version: number) => page.evaluate(`import('/assets/app.${version}.js').then(() => document.title)`)
      expect(await load(1)).toBe('release 1')
      expect(dictionaries.has(sha256(release(1)))).toBe(true)
      // The browser takes the dictionary in on its own time, so it asks until it names one. Each number is a release of its own.
      for (let version = 2; version < 100 && compression.stats().compressed.dcz === 0; version++) {
        expect(await load(version)).toBe(`release ${version}`)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      expect(compression.stats().compressed.dcz).toBe(1)
      expect(dictionaries.stats()).toMatchObject({ known: expect.any(Number), unknown: 0 })
      const again = await page.evaluate(`fetch('/assets/app.1000.js').then((response) => response.text())`)
      expect(again).toBe(release(1000))
      expect(compression.stats().compressed.dcz).toBe(2)
    } finally {
      await browser.close()
    }
  })

  it('a cache keeps one variant for each release that clients have, and none for what they invent', async () => {
    const site = await shop()
    const fetchWith = (has?: string, accept = 'gzip, br, zstd, dcb, dcz') =>
      ask(site.proxy.port, '/assets/app.2.js', {
        headers: { 'Accept-Encoding': accept, ...(has === undefined ? {} : { 'Available-Dictionary': `:${has}:` }) },
      })
    const hash = site.dictionaries.add(Buffer.from(release(1)), '/assets/*')
    for (let round = 0; round < 3; round++) {
      const { headers, body } = await fetchWith(hash)
      expect(headers).toMatchObject({ 'content-encoding': 'dcz', 'use-as-dictionary': 'match="/assets/app.*.js"' })
      const packed = Buffer.from(body, 'latin1')
      expect(packed.subarray(8, 40).toString('base64')).toBe(hash)
      expect(zstdDecompressSync(packed.subarray(40), { dictionary: Buffer.from(release(1)) }).toString()).toBe(release(2))
    }
    expect(site.seen).toBe(1)
    for (let round = 0; round < 20; round++) {
      const { headers } = await fetchWith(randomBytes(32).toString('base64'))
      expect(headers['content-encoding']).toBe('zstd')
    }
    expect(site.seen).toBe(2)
    expect((await fetchWith(hash, 'gzip')).headers['content-encoding']).toBe('gzip')
    expect((await fetchWith(hash)).headers['content-encoding']).toBe('dcz')
    expect(site.seen).toBe(3)
  })

  it('a hash that is known makes no variant of what it is not for, nor of what a page of another origin asks for', async () => {
    const site = await shop()
    const hashes = Array.from({ length: 40 }, (_, i) => site.dictionaries.add(Buffer.from(release(1000 + i)), '/other/*'))
    const known = site.dictionaries.add(Buffer.from(release(1)), '/assets/*')
    const codingFor = async (has: string, more: Readonly<Record<string, string>> = {}) => {
      const headers = { 'Accept-Encoding': 'zstd, dcz', 'Available-Dictionary': `:${has}:`, ...more }
      return (await ask(site.proxy.port, '/assets/app.2.js', { headers })).headers['content-encoding']
    }
    for (const hash of hashes) expect(await codingFor(hash)).toBe('zstd')
    expect(site.seen).toBe(1)
    expect(await codingFor(known)).toBe('dcz')
    for (const mode of ['no-cors', 'cors'])
      expect(await codingFor(known, { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': mode })).toBe('zstd')
    expect(await codingFor(known)).toBe('dcz')
    expect(site.seen).toBe(2)
  })

  it("what somebody gets who has said who he is is nobody's dictionary, though a stage takes the field off", async () => {
    const upstream = await testUpstream({ '*': (_req, res) => void res.writeHead(200, { 'Content-Type': 'text/html' }).end(release(1)) })
    const dictionaries = compressionDictionaries({ offers: [{ match: '/*' }] })
    const takesOff = { name: 'takes-off', handle: ({ headers }: Exchange) => void headers.delete('authorization') }
    const proxy = await startProxy({ upstreams: [upstream.url], use: [takesOff, compress({ overload: false, dictionaries })] })
    const answer = await ask(proxy.port, '/account', { headers: { Authorization: 'Basic eA==' } })
    expect(answer.headers['use-as-dictionary']).toBeUndefined()
    expect(dictionaries.stats().dictionaries).toBe(0)
    await ask(proxy.port, '/account')
    expect(dictionaries.stats().dictionaries).toBe(1)
  })

  it('no more of them are at work than may be, and each is given back, whoever leaves', async () => {
    const upstream = await testUpstream({
      '*': (_req, res) => void res.writeHead(200, { 'Content-Type': 'text/javascript' }).write(release(2)),
    })
    const dictionaries = compressionDictionaries({ maxActive: 2 })
    const hash = dictionaries.add(Buffer.from(release(1)), '/*')
    const proxy = await startProxy({ upstreams: [upstream.url], use: [compress({ overload: false, dictionaries })] })
    const clients = []
    const codings: unknown[] = []
    for (let client = 0; client < 4; client++) {
      const request = get({
        port: proxy.port,
        host: '127.0.0.1',
        agent: false,
        headers: { 'Accept-Encoding': client === 3 ? 'dcz' : 'zstd, dcz', 'Available-Dictionary': `:${hash}:` },
      })
      request.on('error', () => undefined)
      clients.push(request)
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      codings.push(response.headers['content-encoding'])
      response.on('error', () => undefined).resume()
    }
    expect(codings).toEqual(['dcz', 'dcz', 'zstd', undefined])
    expect(dictionaries.stats().active).toBe(2)
    for (const client of clients) client.destroy()
    await until('all given back', () => dictionaries.stats().active === 0)
  })
})
