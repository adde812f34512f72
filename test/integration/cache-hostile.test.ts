/** What a hostile reader of docs/caching.md tried: each of these broke a promise of that page, or of RFC 9111, once. */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { basicAuth, hashPassword, minBodyRate } from '@weir/access'
import { type CacheStore, memoryStore, responseCache } from '@weir/cache'
import { compress } from '@weir/compress'
import { rawConnect } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { ask, type CachedSite, cachedSite, numbered, type Origin } from './caching.ts'
import { manualClock } from './manual-clock.ts'
import { transports, until } from './observed.ts'

const minute = { 'Cache-Control': 'max-age=60' }
const shop = 'GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n'

/** A memory store of which some methods are replaced. */
function storeWith(change: (plain: CacheStore) => Partial<CacheStore>): CacheStore {
  const plain = memoryStore({ maxSize: '16MiB' })
  const face: CacheStore = {
    name: 'wrapped',
    find: (key) => plain.find(key),
    body: (entry, start, end) => plain.body(entry, start, end),
    put: (entry, body) => plain.put(entry, body),
    update: (entry) => plain.update(entry),
    remove: (entry) => plain.remove(entry),
    invalidate: (key, how) => plain.invalidate(key, how),
    invalidateTag: (tag, how) => plain.invalidateTag(tag, how),
    entries: () => plain.entries(),
    clear: () => plain.clear(),
    stats: () => plain.stats(),
  }
  return Object.assign(face, change(plain))
}

async function held(options?: Parameters<typeof cachedSite>[1], proxied?: Parameters<typeof cachedSite>[2]) {
  const waiting: ServerResponse[] = []
  const site = await cachedSite((_req, res) => void waiting.push(res), options, proxied)
  return { site, waiting, arrived: (count: number) => until(`${count} at the origin`, () => waiting.length >= count) }
}

const inflight = (site: CachedSite, count: number) => until(`${count} in flight`, () => site.proxy.proxy.stats().inflight === count)

describe('lost requests', () => {
  it('a third variant while two others stream', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const clients = ['a', 'b'].map((v) => site.get('/', { 'x-v': v }).catch(() => undefined))
    await arrived(1)
    await inflight(site, 2)
    waiting[0]?.writeHead(200, { ...minute, Vary: 'X-V' }).write('part ')
    await arrived(2)
    waiting[1]?.writeHead(200, { ...minute, Vary: 'X-V' }).write('part ')
    await pause(50)
    const third = site.get('/', { 'x-v': 'c' })
    await pause(100)
    for (const res of waiting) {
      if (!res.headersSent) res.writeHead(200, { ...minute, Vary: 'X-V' })
      res.end('end')
    }
    expect((await third).status).toBe(200)
    await Promise.all(clients)
  })
})

describe('wrong answers', () => {
  it('a QUERY is not refreshed by a GET', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      (req, res) => {
        req.resume()
        res.writeHead(200, { 'Cache-Control': 'max-age=60, stale-while-revalidate=600' }).end(req.method)
      },
      { clock },
    )
    const query = async () => (await ask(site.port, '/', { method: 'QUERY', body: '{}', headers: { 'content-length': '2' } })).body
    expect(await query()).toBe('QUERY')
    clock.advance(61_000)
    expect(await query()).toBe('QUERY')
    await until('refreshed', () => site.seen === 2 && site.cache.stats().stored === 2)
    expect(await query()).toBe('QUERY')
  })

  it("a key of one's own keeps users apart whatever No-Vary-Search says", async () => {
    await using site = await cachedSite(
      (req, res) => void res.writeHead(200, { ...minute, 'No-Vary-Search': 'params' }).end(`for ${req.headers.cookie}`),
      { key: (exchange, key) => `${key} ${exchange.headers.get('cookie')}` },
    )
    expect((await site.get('/account?tab=1', { cookie: 'user=alice' })).body).toBe('for user=alice')
    expect((await site.get('/account?tab=1', { cookie: 'user=bob' })).body).toBe('for user=bob')
  })

  it('a fork knows what outer stages have found out about its client', async () => {
    type Known = { tenant?: string | undefined }
    const cache = responseCache({ maxSize: '1MiB', key: (exchange, key) => `${(exchange.locals as Known).tenant} ${key}` })
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    await using upstream = await testUpstream({ '/': (req, res) => void res.writeHead(200, minute).end(`of ${req.headers['x-tenant']}`) })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      use: [
        { name: 'who', handle: (exchange) => void Object.assign(exchange.locals, { tenant: exchange.headers.get('x-key') }) },
        cache,
        { name: 'tell', handle: (exchange) => void exchange.headers.set('X-Tenant', (exchange.locals as Known).tenant ?? 'public') },
      ],
    })
    await ask(proxy.port, '/', { headers: { 'x-key': 'acme', 'if-none-match': '"x"' } })
    await until('stored', () => cache.stats().entries === 1)
    expect((await ask(proxy.port, '/', { headers: { 'x-key': 'acme' } })).body).toBe('of acme')
  })
})

describe('invalidation', () => {
  const actions: readonly (readonly [string, (site: CachedSite) => Promise<unknown>])[] = [
    ['purge', (site) => site.cache.purge('http://shop.example/')],
    ['invalidateTag', (site) => site.cache.invalidateTag('t')],
    ['POST', (site) => ask(site.port, '/', { method: 'POST', body: '' })],
  ]
  const tagged = { ...minute, 'Cache-Tag': 't' }

  it.each(actions)('what was on its way alone is not stored after %s', async (_name, act) => {
    const waiting: ServerResponse[] = []
    await using site = await cachedSite(
      (req, res, count) => {
        if (req.method === 'POST') res.writeHead(204).end()
        else if (count === 1) waiting.push(res)
        else res.writeHead(200, tagged).end('new')
      },
      { collapse: false },
    )
    const old = site.get()
    await until('asked', () => waiting.length === 1)
    await act(site)
    waiting[0]?.writeHead(200, tagged).end('old')
    await old
    expect((await site.get()).body).toBe('new')
  })

  it.each(actions)('the same while a key counts as not for sharing (uncacheableFor), after %s', async (_name, act) => {
    const waiting: ServerResponse[] = []
    await using site = await cachedSite((req, res, count) => {
      if (req.method === 'POST') res.writeHead(204).end()
      else if (count === 1) res.writeHead(404).end()
      else if (count === 2) waiting.push(res)
      else res.writeHead(200, tagged).end('new')
    })
    await site.get()
    const old = site.get()
    await until('asked', () => waiting.length === 1)
    await act(site)
    waiting[0]?.writeHead(200, tagged).end('old')
    await old
    expect((await site.get()).body).toBe('new')
  })

  it.each(actions)('who comes after %s does not get what was on its way', async (_name, act) => {
    for (const when of ['head', 'body'] as const) {
      const waiting: ServerResponse[] = []
      await using site = await cachedSite((req, res, count) => {
        if (req.method === 'POST') res.writeHead(204).end()
        else if (count === 1) waiting.push(res)
        else res.writeHead(200, tagged).end('new')
      })
      const old = site.get()
      await until('asked', () => waiting.length === 1)
      if (when === 'body') {
        waiting[0]?.writeHead(200, { ...tagged, 'Content-Length': '3' }).write('o')
        await pause(30)
      }
      await act(site)
      const after = site.get()
      await pause(50)
      if (when === 'head') waiting[0]?.writeHead(200, tagged).end('old')
      else waiting[0]?.end('ld')
      await old
      expect((await after).body, when).toBe('new')
    }
  })

  it('a put that takes its time does not come after a purge', async () => {
    const store = storeWith((plain) => ({
      put: async (entry, body) => {
        await pause(60)
        return plain.put(entry, body)
      },
    }))
    await using site = await cachedSite(numbered(tagged), { store })
    expect((await site.get()).body).toBe('answer 1')
    await site.cache.purge('http://shop.example/')
    await pause(100)
    expect((await site.get()).body).toBe('answer 2')
  })

  it('an update that takes its time does not undo a soft purge', async () => {
    const clock = manualClock()
    const store = storeWith((plain) => ({
      update: async (entry) => {
        await pause(60)
        return plain.update(entry)
      },
    }))
    let version = '1'
    await using site = await cachedSite(
      (req, res) =>
        req.headers['if-none-match'] === `"${version}"`
          ? void res.writeHead(304, { ...minute, ETag: `"${version}"` }).end()
          : void res.writeHead(200, { ...minute, ETag: `"${version}"` }).end(`v${version}`),
      { store, clock },
    )
    await site.get()
    clock.advance(61_000)
    expect((await site.get()).body).toBe('v1')
    version = '2'
    await site.cache.purge('http://shop.example/', { soft: true })
    await pause(100)
    expect((await site.get()).body).toBe('v2')
  })

  it('a purge takes what was stored under another No-Vary-Search rule of the path', async () => {
    let rule = 'params=("utm")'
    await using site = await cachedSite(
      (_req, res, count) => void res.writeHead(200, { ...minute, 'No-Vary-Search': rule }).end(`answer ${count}`),
    )
    expect((await site.get('/?a=1')).body).toBe('answer 1')
    rule = 'params=("ref")'
    await site.get('/?a=2')
    await site.cache.purge('http://shop.example/?a=1')
    rule = 'params=("utm")'
    await site.get('/?a=3')
    expect((await site.get('/?a=1')).body).not.toBe('answer 1')
  })

  it('purge takes every variant of a URL: those of key.headers and key.cookies', async () => {
    await using site = await cachedSite(numbered(minute), { key: { headers: ['X-Tenant'] } })
    await site.get('/', { 'x-tenant': 'acme' })
    await site.cache.purge('http://shop.example/')
    expect((await site.get('/', { 'x-tenant': 'acme' })).body).toBe('answer 2')
  })

  it('a write by one takes what others have of the same URL (key.cookies)', async () => {
    await using site = await cachedSite(
      (req, res, count) => void res.writeHead(200, req.method === 'GET' ? minute : {}).end(`answer ${count}`),
      {
        key: { cookies: ['theme'] },
      },
    )
    await site.get('/', { cookie: 'theme=dark' })
    await ask(site.port, '/', { method: 'POST', body: 'x', headers: { cookie: 'theme=light' } })
    expect((await site.get('/', { cookie: 'theme=dark' })).body).toBe('answer 3')
  })

  it('purge, and a write, take what a QUERY of the URL has brought', async () => {
    await using site = await cachedSite(
      (req, res, count) => void res.writeHead(200, req.method === 'POST' ? {} : minute).end(`answer ${count}`),
    )
    const query = async () => (await ask(site.port, '/', { method: 'QUERY', body: '{}', headers: { 'content-length': '2' } })).body
    expect(await query()).toBe('answer 1')
    await site.cache.purge('http://shop.example/')
    expect.soft(await query(), 'purge').not.toBe('answer 1')
    const before = await query()
    await ask(site.port, '/', { method: 'POST', body: 'x' })
    expect.soft(await query(), 'POST').not.toBe(before)
  })
})

describe('requests that go on for nobody', () => {
  /** Writes for ever, as fast as it is read, until it is closed. */
  const endless =
    (sent: { bytes: number; closed: number }): Origin =>
    (_req, res) => {
      res.writeHead(200, minute)
      const piece = Buffer.alloc(16_384, 'x')
      const timer = setInterval(() => {
        if (res.writableNeedDrain) return
        sent.bytes += piece.length
        res.write(piece)
      }, 1)
      res.on('close', () => {
        clearInterval(timer)
        sent.closed++
      })
    }

  it('a range of an endless response, whose client leaves', async () => {
    const sent = { bytes: 0, closed: 0 }
    await using site = await cachedSite(endless(sent), { maxObjectSize: '64KiB' })
    const client = await rawConnect(site.port)
    await client.write('GET / HTTP/1.1\r\nHost: shop.example\r\nRange: bytes=0-9\r\n\r\n')
    await client.sees('xxxx')
    client.reset()
    await pause(300)
    expect({ inflight: site.proxy.proxy.stats().inflight, closed: sent.closed }).toEqual({ inflight: 0, closed: site.seen })
  })

  it('a leader and then its follower leave', async () => {
    const sent = { bytes: 0, closed: 0 }
    await using site = await cachedSite(endless(sent), { maxObjectSize: '64KiB' })
    const first = await rawConnect(site.port)
    await first.write(shop)
    const second = await rawConnect(site.port)
    await second.write(shop)
    await Promise.all([first.sees('xxxx'), second.sees('xxxx')])
    first.reset()
    await pause(30)
    second.reset()
    await pause(300)
    expect({ inflight: site.proxy.proxy.stats().inflight, closed: sent.closed }).toEqual({ inflight: 0, closed: site.seen })
  })

  it('a refresh in the background that turns out to be endless', async () => {
    const clock = manualClock()
    const sent = { bytes: 0, closed: 0 }
    const swr = { 'Cache-Control': 'max-age=60, stale-while-revalidate=600' }
    await using site = await cachedSite(
      (req, res, count) => (count === 1 ? void res.writeHead(200, swr).end('short') : endless(sent)(req, res, count)),
      {
        maxObjectSize: '64KiB',
        clock,
      },
    )
    await site.get()
    clock.advance(70_000)
    expect((await site.get()).body).toBe('short')
    await until('too large', () => site.cache.stats().notStored['too-large'] === 1)
    await pause(300)
    expect({ inflight: site.proxy.proxy.stats().inflight, closed: sent.closed }).toEqual({ inflight: 0, closed: 1 })
  })

  it('finishAborted does not finish what is too large to be kept', async () => {
    const sent = { bytes: 0, closed: 0 }
    await using site = await cachedSite(endless(sent), { maxObjectSize: '64KiB', finishAborted: true })
    const client = await rawConnect(site.port)
    await client.write(shop)
    await until('too large', () => site.cache.stats().notStored['too-large'] === 1)
    client.reset()
    await pause(300)
    expect({ inflight: site.proxy.proxy.stats().inflight, closed: sent.closed }).toEqual({ inflight: 0, closed: 1 })
  })

  it('an inner stage that answers a refresh with a stream', async () => {
    const clock = manualClock()
    let streaming = false
    let destroyed = false
    await using site = await cachedSite(
      numbered({ 'Cache-Control': 'max-age=60, stale-while-revalidate=600' }),
      { clock },
      {
        inner: [
          {
            name: 'events',
            handle: () => {
              if (!streaming) return undefined
              const body = new Readable({ read() {} })
              body.push('x')
              body.on('close', () => {
                destroyed = true
              })
              return { status: 200, body }
            },
          },
        ],
      },
    )
    await site.get()
    clock.advance(70_000)
    streaming = true
    await site.get()
    await pause(200)
    expect({ inflight: site.proxy.proxy.stats().inflight, destroyed }).toEqual({ inflight: 0, destroyed: true })
  })
})

describe('clients that wait for, or are broken off because of, others', () => {
  it('a slow leader does not slow the others when compress stands inside', async () => {
    const body = randomBytes(6 << 20).toString('hex')
    const { site, waiting, arrived } = await held({ maxObjectSize: '32MiB' }, { inner: [compress()] })
    await using _ = site
    const slow = await rawConnect(site.port)
    await slow.write('GET / HTTP/1.1\r\nHost: shop.example\r\nAccept-Encoding: gzip\r\n\r\n')
    await arrived(1)
    waiting[0]?.writeHead(200, { ...minute, 'Content-Type': 'text/plain' })
    waiting[0]?.write(body.slice(0, 100_000))
    await slow.sees('200 OK')
    slow.pause()
    const quick = site.get('/', { 'accept-encoding': 'gzip' })
    await until('somebody reads along', () => site.cache.stats().collapsed === 1)
    waiting[0]?.end(body.slice(100_000))
    const done = await Promise.race([quick.then(({ status }) => status), pause(4000, 'still waiting')])
    slow.reset()
    await quick.catch(() => undefined)
    expect(done).toBe(200)
  })

  it('a client alone, with a validator, gets all of what is too large to be kept', async () => {
    const size = 24 << 20
    await using site = await cachedSite(
      (_req, res) => {
        res.writeHead(200, minute)
        const piece = Buffer.alloc(1 << 20, 'z')
        for (let i = 0; i < 24; i++) res.write(piece)
        res.end()
      },
      { maxObjectSize: '256KiB' },
    )
    const client = await rawConnect(site.port)
    await client.write('GET / HTTP/1.1\r\nHost: shop.example\r\nIf-None-Match: "old"\r\n\r\n')
    await client.sees('200 OK')
    client.pause()
    await pause(200)
    client.resume()
    expect((await client.readResponse({ deadline: 5000 })).body.length).toBe(size)
  })

  it('those who want other variants do not wait one after the other', async () => {
    await using site = await cachedSite((req, res) => {
      setTimeout(() => res.writeHead(200, { ...minute, Vary: 'X-V' }).end(`v${req.headers['x-v']}`), 200)
    })
    const start = performance.now()
    await Promise.all(Array.from({ length: 16 }, (_, i) => site.get('/', { 'x-v': String(i) })))
    expect(performance.now() - start).toBeLessThan(1500)
  })

  it('nobody waits longer than collapse.timeout', async () => {
    await using site = await cachedSite(
      (req, res) => {
        setTimeout(() => res.writeHead(200, { ...minute, Vary: 'X-V' }).end(`v${req.headers['x-v']}`), 150)
      },
      { collapse: { timeout: '200ms' } },
    )
    const start = performance.now()
    await Promise.all(Array.from({ length: 16 }, (_, i) => site.get('/', { 'x-v': String(i) })))
    expect(performance.now() - start).toBeLessThan(1000)
  })

  it('a leader whose answer an outer stage replaces does not break off the others', async () => {
    const waiting: ServerResponse[] = []
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const cache = responseCache({ maxSize: '1MiB' })
    await using upstream = await testUpstream({ '/': (_req: IncomingMessage, res: ServerResponse) => void waiting.push(res) })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      retry: false,
      use: [
        {
          name: 'replacing',
          handle: (exchange) =>
            exchange.headers.has('x-bad') ? { onResponse: (response) => response.replace({ status: 403, body: 'not you' }) } : undefined,
        },
        cache,
      ],
    })
    const bad = ask(proxy.port, '/', { headers: { 'x-bad': '1' } })
    await until('asked', () => waiting.length === 1)
    const good = ask(proxy.port, '/').then(
      ({ status, body }) => ({ status, body }),
      (error: Error) => error.message,
    )
    await until('two', () => proxy.proxy.stats().inflight === 2)
    waiting[0]?.writeHead(200, { ...minute, 'Content-Length': '8' }).write('good')
    await pause(50)
    waiting[0]?.end('good')
    await pause(50)
    waiting[1]?.writeHead(200, minute).end('goodgood')
    expect((await bad).status).toBe(403)
    expect(await good).toEqual({ status: 200, body: 'goodgood' })
  })

  it('a leader that a stage inside answers with a stream does not keep the others waiting', async () => {
    await using site = await cachedSite(
      numbered(minute),
      {},
      {
        inner: [
          {
            name: 'events',
            handle: (exchange) => {
              if (!exchange.headers.has('x-stream')) return undefined
              const body = new Readable({ read() {} })
              body.push('x')
              return { status: 200, body }
            },
          },
        ],
      },
    )
    const first = await rawConnect(site.port)
    await first.write('GET / HTTP/1.1\r\nHost: shop.example\r\nX-Stream: 1\r\n\r\n')
    await first.sees('200 OK')
    const answered = await Promise.race([site.get().then(({ body }) => body), pause(1500, 'still waiting')])
    first.reset()
    expect(answered).toBe('answer 1')
  })

  it('a 304 whose body has gone, when the upstream then fails: nobody waits for it afterwards', async () => {
    const clock = manualClock()
    let gone = false
    const store = storeWith((plain) => ({ body: (entry, start, end) => (gone ? undefined : plain.body(entry, start, end)) }))
    await using site = await cachedSite(
      (req, res, count) => {
        if (count === 3) res.destroy()
        else if (count === 2 && req.headers['if-none-match'] === '"1"') res.writeHead(304, { 'Cache-Control': 'max-age=60' }).end()
        else res.writeHead(200, { ...minute, ETag: '"1"' }).end(`answer ${count}`)
      },
      { store, staleIfError: 0, clock },
    )
    await site.get()
    clock.advance(61_000)
    gone = true
    expect.soft((await site.get()).status).toBe(502)
    gone = false
    clock.advance(61_000)
    await inflight(site, 0)
    const next = await Promise.race([site.get().then(({ status }) => status), pause(1000, 'still waiting')])
    clock.advance(10_000)
    expect(next).toBe(200)
  })

  it('within another stage (handle called by a function): a range request is answered, and leaves nothing behind', async () => {
    const cache = responseCache({ maxSize: '1MiB' })
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    await using upstream = await testUpstream({ '/': (_req, res) => void res.writeHead(200, minute).end('0123456789') })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [(exchange) => cache.handle(exchange)] })
    expect.soft((await ask(proxy.port, '/', { headers: { range: 'bytes=0-1' } })).status).toBeLessThan(300)
    const start = performance.now()
    expect((await ask(proxy.port, '/')).status).toBe(200)
    expect(performance.now() - start).toBeLessThan(1000)
  })
})

/** What would have ended the process while `act` ran. */
async function uncaught(act: () => Promise<void>): Promise<string[]> {
  const seen: string[] = []
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  const note = (error: Error): void => void seen.push(error.message)
  process.on('uncaughtException', note)
  try {
    await act()
  } finally {
    process.off('uncaughtException', note)
    for (const listener of listeners) process.on('uncaughtException', listener)
  }
  return seen
}

describe('the end of the process', () => {
  it('an outer stage replaces what the leader got: the follower is told, and the process lives', async () => {
    const waiting: ServerResponse[] = []
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const cache = responseCache({ maxSize: '1MiB' })
    await using upstream = await testUpstream({ '/': (_req: IncomingMessage, res: ServerResponse) => void waiting.push(res) })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      retry: false,
      use: [
        {
          name: 'replacing',
          handle: (exchange) =>
            exchange.headers.has('x-bad') ? { onResponse: (response) => response.replace({ status: 403, body: 'not you' }) } : undefined,
        },
        cache,
      ],
    })
    const errors = await uncaught(async () => {
      const bad = ask(proxy.port, '/', { headers: { 'x-bad': '1' } })
      await until('asked', () => waiting.length === 1)
      ask(proxy.port, '/').catch(() => undefined)
      await until('two', () => proxy.proxy.stats().inflight === 2)
      waiting[0]?.writeHead(200, { ...minute, 'Content-Length': '8' }).write('good')
      await bad
      await pause(50)
      waiting[0]?.end('good')
      await pause(50)
      waiting[1]?.writeHead(200, minute).end('goodgood')
      await pause(100)
    })
    expect.soft(errors).toEqual([])
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it.each(transports)(
    'over %s: an upstream that breaks off in the packet of its head, a client that asks for a part',
    async (_name, transport) => {
      const { startProxy } = await import('./observed.ts')
      const { everyRequest, rawUpstream } = await import('@weir/testing')
      const cache = responseCache({ maxSize: '1MiB' })
      await using upstream = await rawUpstream(
        everyRequest(() => 'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n'),
      )
      await using proxy = await startProxy({ upstreams: [upstream.url], retry: false, use: [cache] }, { transport })
      let answer: unknown
      const errors = await uncaught(async () => {
        const asked = ask(proxy.port, '/', { headers: { range: 'bytes=0-1' } }).then(
          ({ status }) => status,
          (error: Error) => error.message,
        )
        answer = await Promise.race([asked, pause(1500, 'still waiting')])
      })
      expect.soft(errors).toEqual([])
      expect.soft(answer).not.toBe('still waiting')
      await pause(100)
      expect(proxy.proxy.stats().inflight).toBe(0)
    },
  )
})

describe('what one client can do to all', () => {
  it('spaces in a field that Vary names do not hold the event loop', async () => {
    await using site = await cachedSite((_req, res) => void res.writeHead(200, { ...minute, Vary: 'User-Agent' }).end('x'))
    for (let i = 0; i < 32; i++) await site.get('/', { 'user-agent': `agent ${i}` })
    const start = performance.now()
    await site.get('/', { 'user-agent': `a${' '.repeat(15_000)}b` })
    expect(performance.now() - start).toBeLessThan(200)
  })

  it('a client that says no-store does not take a stale response away from the others (refresh)', async () => {
    const clock = manualClock()
    await using site = await cachedSite(numbered({ 'Cache-Control': 'max-age=60, stale-while-revalidate=600' }), { clock })
    await site.get()
    clock.advance(70_000)
    expect((await site.get('/', { 'cache-control': 'no-store' })).body).toBe('answer 1')
    await until('asked', () => site.seen === 2)
    await inflight(site, 0)
    expect(site.cache.stats().entries).toBe(1)
  })

  it('a client that says no-store does not take a confirmed response away from the others (304)', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      (req, res) =>
        req.headers['if-none-match'] ? void res.writeHead(304, minute).end() : void res.writeHead(200, { ...minute, ETag: '"1"' }).end('x'),
      { clock },
    )
    await site.get()
    clock.advance(70_000)
    await site.get('/', { 'cache-control': 'no-store' })
    expect(site.cache.stats().entries).toBe(1)
  })

  it('a client that is refused (401, 429) does not take what is stored away from the others', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      (req, res) =>
        req.headers['x-bad']
          ? void res.writeHead(429).end()
          : void res.writeHead(200, { 'Cache-Control': 'max-age=60, stale-if-error=600', ETag: '"1"' }).end('x'),
      { clock },
    )
    await site.get()
    clock.advance(70_000)
    expect((await site.get('/', { 'x-bad': '1' })).status).toBe(429)
    expect(site.cache.stats().entries).toBe(1)
  })

  it('long URLs that cannot be cached do not fill the memory', { timeout: 60_000 }, async () => {
    const { setFlagsFromString } = await import('node:v8')
    const { runInNewContext } = await import('node:vm')
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    await using site = await cachedSite((_req, res) => void res.writeHead(404).end(), { maxSize: '64KiB' })
    const { Agent, request } = await import('node:http')
    const agent = new Agent({ keepAlive: true, maxSockets: 8 })
    const get = (path: string) =>
      new Promise<void>((resolve, reject) => {
        const req = request({ port: site.port, host: '127.0.0.1', path, agent, headers: { host: 'shop.example' } }, (res) => {
          res.resume()
          res.on('end', () => resolve())
        })
        req.on('error', reject)
        req.end()
      })
    const pad = 'x'.repeat(14_000)
    for (let i = 0; i < 100; i++) await get(`/${i}`)
    ;(site.upstream.requests as unknown as unknown[]).length = 0
    gc()
    const before = process.memoryUsage().heapUsed
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < 2000) {
        await get(`/${next++}/${pad}`)
        ;(site.upstream.requests as unknown as unknown[]).length = 0
        ;(site.proxy.outcomes as unknown as unknown[]).length = 0
        ;(site.proxy.exchanges as unknown as unknown[]).length = 0
      }
    }
    await Promise.all(Array.from({ length: 8 }, worker))
    agent.destroy()
    await pause(50)
    gc()
    const grown = process.memoryUsage().heapUsed - before
    console.log(`2000 requests: ${(grown / 1048576).toFixed(1)} MiB`)
    expect(grown).toBeLessThan(10 << 20)
  })

  it('tags that are invalidated while something is always being fetched do not pile up', async () => {
    const { setFlagsFromString } = await import('node:v8')
    const { runInNewContext } = await import('node:vm')
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const { site, waiting, arrived } = await held()
    await using _ = site
    const open = site.get()
    await arrived(1)
    gc()
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 200_000; i++) await site.cache.invalidateTag(`product-${i}-of-the-shop`)
    gc()
    const grown = process.memoryUsage().heapUsed - before
    waiting[0]?.end()
    await open
    console.log(`200000 tags: ${(grown / 1048576).toFixed(1)} MiB`)
    expect(grown).toBeLessThan(4 << 20)
  })
})

describe('stores', () => {
  it('a body that comes when its client has left is closed', async () => {
    const streams: Readable[] = []
    const store = storeWith((plain) => ({
      body: async (entry, start, end) => {
        await pause(80)
        const stream = Readable.from([plain.body(entry, start, end) as Uint8Array])
        streams.push(stream)
        return stream
      },
    }))
    await using site = await cachedSite(numbered(minute), { store })
    await site.get()
    const client = await rawConnect(site.port)
    await client.write(shop)
    await pause(30)
    client.reset()
    await until('opened', () => streams.length === 1)
    await pause(50)
    expect(streams[0]?.destroyed).toBe(true)
  })

  it('a body that an outer stage replaces is closed', async () => {
    const streams: Readable[] = []
    const store = storeWith((plain) => ({
      body: (entry, start, end) => {
        const stream = Readable.from([plain.body(entry, start, end) as Uint8Array])
        streams.push(stream)
        return stream
      },
    }))
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    await using upstream = await testUpstream({ '/': (_req, res) => void res.writeHead(200, minute).end('x') })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      use: [
        {
          name: 'replacing',
          handle: (exchange) =>
            exchange.headers.has('x-bad') ? { onResponse: (response) => response.replace({ status: 403, body: '' }) } : undefined,
        },
        responseCache({ store }),
      ],
    })
    await ask(proxy.port, '/')
    await until('stored', () => store.stats().entries === 1)
    expect((await ask(proxy.port, '/', { headers: { 'x-bad': '1' } })).status).toBe(403)
    await pause(30)
    expect(streams.map(({ destroyed }) => destroyed)).toEqual([true])
  })

  it('a store that never says that something is gone does not keep the answer to a write for ever', async () => {
    const store = storeWith(() => ({ invalidate: () => new Promise<number>(() => {}) }))
    await using site = await cachedSite((_req, res) => void res.writeHead(200).end('done'), { store })
    const answer = await Promise.race([
      ask(site.port, '/', { method: 'POST', body: '' }).then(({ body }) => body),
      pause(3000, 'still waiting'),
    ])
    await site.proxy.proxy.close({ deadline: 10 })
    expect(answer).toBe('done')
  })

  it('a lookup that never ends counts as a miss', async () => {
    const store = storeWith(() => ({ find: () => new Promise<never>(() => {}) }))
    await using site = await cachedSite(numbered(minute), { store, collapse: { timeout: '200ms' } })
    const answer = await Promise.race([site.get().then(({ body }) => body), pause(3000, 'still waiting')])
    await site.proxy.proxy.close({ deadline: 10 })
    expect(answer).toBe('answer 1')
  })

  it('an event for a hit whose body comes later', async () => {
    const { subscribe, unsubscribe } = await import('node:diagnostics_channel')
    const outcomes: string[] = []
    const note = (message: unknown): void => void outcomes.push((message as { outcome: string }).outcome)
    subscribe('weir:cache:decision', note)
    const store = storeWith((plain) => ({ body: async (entry, start, end) => await plain.body(entry, start, end) }))
    await using site = await cachedSite(numbered(minute), { store })
    await site.get()
    await site.get()
    unsubscribe('weir:cache:decision', note)
    expect(outcomes).toEqual(['miss', 'hit'])
  })
})

describe('smaller ones', () => {
  it('get takes the fields that are in the key', async () => {
    await using site = await cachedSite(numbered(minute), { key: { headers: ['X-Tenant'] } })
    await site.get('/', { 'x-tenant': 'acme' })
    expect(await site.cache.get('http://shop.example/', { 'X-Tenant': 'acme' })).toBeDefined()
  })

  it('tags are hidden in every answer, and Cache-Status is in every answer', async () => {
    await using site = await cachedSite((_req, res) => void res.writeHead(200, { ...minute, 'Cache-Tag': 'secret' }).end('x'), {
      bypass: (exchange) => exchange.url === '/bypass',
    })
    for (const [method, path] of [
      ['POST', '/'],
      ['GET', '/bypass'],
      ['OPTIONS', '/'],
    ] as const) {
      const { headers } = await ask(site.port, path, { method })
      expect.soft(headers['cache-tag'], `${method} ${path} tags`).toBeUndefined()
      expect.soft(headers['cache-status'], `${method} ${path} status`).toBeDefined()
    }
  })

  it('a POST that bypasses the cache, or has an override, is not stored', async () => {
    await using site = await cachedSite(
      (req, res) => void res.writeHead(200, { ...minute, 'Content-Location': req.url as string }).end(req.method),
      { bypass: (exchange) => exchange.url === '/bypass' },
    )
    await ask(site.port, '/bypass', { method: 'POST', body: 'x' })
    await ask(site.port, '/a', { method: 'POST', body: 'x', headers: { 'x-http-method-override': 'DELETE' } })
    await pause(20)
    expect(site.cache.stats().entries).toBe(0)
  })
})

describe('keys and variants', () => {
  it('cookies of the key in a second Cookie line count (HTTP/1.1)', async () => {
    await using site = await cachedSite(
      (req, res) => void res.writeHead(200, minute).end(/theme=(\w+)/.exec(req.headers.cookie ?? '')?.[1] ?? 'plain'),
      {
        key: { cookies: ['theme'] },
      },
    )
    await using evil = await rawConnect(site.port)
    await evil.write('GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: id=1\r\nCookie: theme=evil\r\n\r\n')
    expect((await evil.readResponse()).body.toString()).toBe('evil')
    expect((await site.get()).body).toBe('plain')
  })

  it('cookies of the key that come in crumbs count (HTTP/2)', async () => {
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const { h2Client } = await import('./h2.ts')
    await using upstream = await testUpstream({
      '/': (req, res) => void res.writeHead(200, minute).end(/theme=(\w+)/.exec(req.headers.cookie ?? '')?.[1] ?? 'plain'),
    })
    await using proxy = await startProxy(
      { upstreams: [upstream.url], use: [responseCache({ maxSize: '1MiB', key: { cookies: ['theme'] } })] },
      { http2: true },
    )
    await using client = await h2Client(proxy.port)
    const get = async (...cookie: string[]) => await client.request({ ':path': '/', ':authority': 'shop.example', cookie })
    expect((await get('id=1', 'theme=dark')).body.toString()).toBe('dark')
    expect((await get('id=1', 'theme=dark')).all('cache-status')[0]).toMatch(/hit/)
    expect((await get('id=1', 'theme=light')).body.toString()).toBe('light')
  })

  it('a QUERY with an override is not what everybody asks for', async () => {
    await using site = await cachedSite(
      (req, res) => void res.writeHead(200, minute).end(String(req.headers['x-http-method-override'] ?? 'QUERY')),
    )
    const query = async (headers: Record<string, string>) =>
      (await ask(site.port, '/', { method: 'QUERY', body: '{}', headers: { 'content-length': '2', ...headers } })).body
    await query({ 'x-http-method-override': 'evil' })
    expect(await query({})).toBe('QUERY')
  })

  it('a host cannot be made to look like a part of the path', async () => {
    await using site = await cachedSite((req, res) => void res.writeHead(200, minute).end(`${req.headers.host} ${req.url}`))
    for (const [host, path] of [
      ['shop.example/a', '/b'],
      ['shop.example?', '/b'],
      ['x@shop.example', '/b'],
    ] as const)
      await site.get(path, {}, host).catch(() => undefined)
    expect((await site.get('/a/b')).body).toBe('shop.example /a/b')
  })

  it('a variant is named by what its client sent, whatever a stage inside does to the fields later', async () => {
    const clock = manualClock()
    const waiting: ServerResponse[] = []
    await using site = await cachedSite(
      (req, res, count) =>
        count === 1 ? void waiting.push(res) : void res.writeHead(200, { 'Cache-Control': 'no-store' }).end(`for ${req.headers['x-lang']}`),
      { clock },
      {
        inner: [
          {
            name: 'consumes',
            handle: (exchange) => {
              exchange.headers.set('X-Lang', exchange.headers.get('x-v') ?? 'none')
              exchange.headers.delete('x-v')
            },
          },
        ],
      },
    )
    const first = site.get('/', { 'x-v': 'alice', 'if-none-match': '"x"' })
    await until('asked', () => waiting.length === 1)
    await until('waits', () => clock.pending.includes(5000))
    clock.advance(5000)
    await first
    waiting[0]?.writeHead(200, { ...minute, Vary: 'X-V', 'Content-Length': '9' }).end('for alice')
    await until('stored', () => site.cache.stats().entries === 1)
    expect((await site.get('/')).body).toBe('for none')
  })

  it('HEAD is served stale when the upstream fails, as GET is', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      (_req, res, count) => (count === 1 ? void res.writeHead(200, minute).end('x') : void res.destroy()),
      { clock, staleIfError: '1m' },
    )
    await site.get()
    clock.advance(70_000)
    expect((await ask(site.port, '/', { method: 'HEAD' })).status).toBe(200)
  })

  it('who has waited for too long is still served stale when the upstream fails', async () => {
    const clock = manualClock()
    const waiting: ServerResponse[] = []
    await using site = await cachedSite(
      (_req, res, count) =>
        count === 1 ? void res.writeHead(200, minute).end('x') : count === 2 ? void waiting.push(res) : void res.destroy(),
      { clock, staleIfError: '1m' },
    )
    await site.get()
    clock.advance(70_000)
    const first = site.get()
    await until('asked', () => waiting.length === 1)
    const second = site.get()
    await until('waits', () => clock.pending.includes(5000))
    clock.advance(5000)
    expect.soft((await second).status).toBe(200)
    waiting[0]?.destroy()
    expect((await first).status).toBe(200)
  })

  it('compress outside, a range that nothing is stored for, and a range of what is', async () => {
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const text = 'so it goes '.repeat(2000)
    await using upstream = await testUpstream({
      '/': (_req, res) =>
        void res.writeHead(200, { ...minute, 'Content-Type': 'text/plain', ETag: '"1"', 'Content-Length': String(text.length) }).end(text),
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [compress(), responseCache({ maxSize: '1MiB' })] })
    const fields = { range: 'bytes=0-9', 'accept-encoding': 'gzip' }
    for (const turn of [1, 2]) {
      const part = await ask(proxy.port, '/', { headers: fields })
      expect.soft(part, `${turn}`).toMatchObject({ status: 206, body: text.slice(0, 10) })
      expect.soft(part.headers['content-encoding']).toBeUndefined()
      const beyond = await ask(proxy.port, '/', { headers: { ...fields, range: 'bytes=99999-' } })
      expect.soft(beyond.status).toBe(416)
      const whole = await ask(proxy.port, '/', { headers: { 'accept-encoding': 'gzip' } })
      expect.soft(whole.headers['content-encoding']).toBe('gzip')
      const again = await ask(proxy.port, '/', { headers: { 'accept-encoding': 'gzip', 'if-none-match': String(whole.headers.etag) } })
      expect.soft(again.status).toBe(304)
    }
  })

  it('HTTP/1.0: what breaks off is seen to be broken, and an answer of a fill is whole', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const first = site.get()
    await arrived(1)
    const old = await rawConnect(site.port)
    await old.write('GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n')
    await inflight(site, 2)
    waiting[0]?.writeHead(200, minute).write('one ')
    await old.sees('one ')
    waiting[0]?.end('two')
    expect((await old.readResponse()).body.toString()).toBe('one two')
    await first
  })

  it('the answer to a POST (201) is not the answer to a GET', async () => {
    await using site = await cachedSite(
      (req, res) =>
        void (req.method === 'POST'
          ? res.writeHead(201, { ...minute, 'Content-Location': '/', Location: '/' }).end('made')
          : res.writeHead(200, minute).end('all')),
    )
    await ask(site.port, '/', { method: 'POST', body: 'x' })
    await pause(20)
    expect((await site.get()).status).toBe(200)
  })
})

describe('who is authorised', () => {
  it('basicAuth outside, with its defaults: an answer to one user is not for another', async () => {
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const users = { alice: await hashPassword('a', { cost: 10 }), bob: await hashPassword('b', { cost: 10 }) }
    await using upstream = await testUpstream({ '/': (req, res) => void res.writeHead(200, minute).end(`for ${req.headers['x-user']}`) })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      use: [basicAuth({ users, userHeader: 'X-User' }), responseCache({ maxSize: '1MiB' })],
    })
    const get = async (name: string) =>
      (await ask(proxy.port, '/', { headers: { authorization: `Basic ${Buffer.from(name).toString('base64')}` } })).body
    expect(await get('alice:a')).toBe('for alice')
    expect(await get('bob:b')).toBe('for bob')
  })

  it('a stage inside takes Authorization off: what a fork brings is still an answer to somebody authorised', async () => {
    const clock = manualClock()
    const waiting: ServerResponse[] = []
    await using site = await cachedSite(
      (_req, res, count) =>
        count === 1 ? void waiting.push(res) : void res.writeHead(200, { 'Cache-Control': 'no-store' }).end('for anybody'),
      { clock },
      { inner: [{ name: 'strips', handle: (exchange) => void exchange.headers.delete('authorization') }] },
    )
    const first = site.get('/', { authorization: 'alice', 'if-none-match': '"x"' })
    await until('asked', () => waiting.length === 1)
    await until('waits', () => clock.pending.includes(5000))
    clock.advance(5000)
    await first
    waiting[0]?.writeHead(200, minute).end('for alice')
    await pause(50)
    expect((await site.get('/')).body).toBe('for anybody')
  })

  it('a stage inside takes Authorization off a POST: its answer is not stored for all', async () => {
    await using site = await cachedSite(
      (req, res) =>
        void res
          .writeHead(200, req.method === 'POST' ? { ...minute, 'Content-Location': '/' } : {})
          .end(req.method === 'POST' ? 'for alice' : 'for anybody'),
      {},
      { inner: [{ name: 'strips', handle: (exchange) => void exchange.headers.delete('authorization') }] },
    )
    await ask(site.port, '/', { method: 'POST', body: 'x', headers: { authorization: 'alice' } })
    await pause(20)
    expect((await site.get('/')).body).toBe('for anybody')
  })
})

describe('more', () => {
  it('a long Accept-Encoding does not hold the event loop', async () => {
    await using site = await cachedSite((_req, res) => void res.writeHead(200, { ...minute, Vary: 'Accept-Encoding' }).end('x'))
    for (let i = 0; i < 32; i++) await site.get('/', { 'accept-encoding': `x-${i}` })
    const long = Array.from({ length: 5000 }, (_, i) => i.toString(36))
      .toReversed()
      .join(',')
      .slice(0, 15_000)
    await site.get('/warm', { 'accept-encoding': long })
    const start = performance.now()
    await site.get('/', { 'accept-encoding': long })
    const took = performance.now() - start
    console.log(`long Accept-Encoding: ${took.toFixed(0)} ms`)
    expect(took).toBeLessThan(60)
  })

  it('nobody is asked for a part that a client wanted who has left while it was looked up', async () => {
    const store = storeWith((plain) => ({
      find: async (key) => {
        await pause(80)
        return plain.find(key)
      },
    }))
    await using site = await cachedSite(numbered(minute), { store })
    const client = await rawConnect(site.port)
    await client.write('GET / HTTP/1.1\r\nHost: shop.example\r\nRange: bytes=0-1\r\n\r\n')
    await pause(20)
    client.reset()
    await inflight(site, 0)
    await pause(150)
    expect(site.seen).toBe(0)
  })

  it('HTTP/2 clients and HTTP/1.1 clients share', async () => {
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const { h2Client } = await import('./h2.ts')
    await using upstream = await testUpstream({ '/': (_req, res) => void res.writeHead(200, minute).end('x') })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [responseCache({ maxSize: '1MiB' })] }, { http2: true })
    await using client = await h2Client(proxy.port)
    await client.request({ ':path': '/', ':authority': 'shop.example' })
    const second = await client.request({ ':path': '/', ':authority': 'shop.example' })
    expect(second.all('cache-status')).toEqual(['weir; hit; ttl=60'])
  })

  it('a rule that throws does not spoil the answer to a write that has happened', async () => {
    await using site = await cachedSite((_req, res) => void res.writeHead(200, { ...minute, 'Content-Location': '/' }).end('done'), {
      noStore: () => {
        throw new Error('rule')
      },
    })
    expect((await ask(site.port, '/', { method: 'POST', body: 'x' })).status).toBe(200)
  })

  it('a refresh in the background does not keep close waiting', async () => {
    const clock = manualClock()
    const { site, waiting, arrived } = await held({ clock })
    const first = site.get()
    await arrived(1)
    waiting[0]?.writeHead(200, { 'Cache-Control': 'max-age=60, stale-while-revalidate=600' }).end('x')
    await first
    clock.advance(70_000)
    await site.get()
    await arrived(2)
    const start = performance.now()
    await site.proxy.proxy.close({ deadline: 1500 })
    expect(performance.now() - start).toBeLessThan(1000)
    await site[Symbol.asyncDispose]()
  })

  it('a 206 or a 416 that the upstream makes of a stale response does not end what is stored', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      (req, res, count) =>
        count === 1
          ? void res.writeHead(200, { 'Cache-Control': 'max-age=60, stale-if-error=600', ETag: '"1"' }).end('0123456789')
          : void res.writeHead(req.headers.range ? 206 : 304, minute).end(),
      { clock },
    )
    await site.get()
    clock.advance(70_000)
    expect(await site.get('/', { range: 'bytes=0-1' })).toMatchObject({ status: 206, body: '01' })
    expect(site.cache.stats().entries).toBe(1)
  })

  it('followers of a leader that is ended by a deadline, by a stage, or by close, end', async () => {
    for (const how of ['fail', 'close'] as const) {
      const { ProxyError } = await import('@weir/core')
      const { site, waiting, arrived } = await held()
      const clients = [site.get(), site.get(), site.get('/', { range: 'bytes=0-1' })].map((client) => client.catch(() => undefined))
      await arrived(1)
      await inflight(site, 3)
      if (how === 'close') await site.proxy.proxy.close({ deadline: 50 })
      else {
        waiting[0]?.writeHead(503).end()
        void ProxyError
        await pause(50)
        for (const res of waiting.slice(1)) res.writeHead(503).end()
        await pause(50)
        for (const res of waiting.slice(1)) if (!res.headersSent) res.writeHead(503).end()
        await pause(50)
        for (const res of waiting.slice(1)) if (!res.headersSent) res.writeHead(503).end()
      }
      await Promise.all(clients)
      await inflight(site, 0)
      await site[Symbol.asyncDispose]()
    }
  })
})

describe('what ends one exchange', () => {
  it('the deadline of a leader does not break off a follower that has time left', async () => {
    const { site, waiting, arrived } = await held({}, { timeouts: { total: 400 } })
    await using _ = site
    const first = site.get().catch(() => undefined)
    await arrived(1)
    waiting[0]?.writeHead(200, minute).write('one ')
    await pause(250)
    const second = site.get().then(
      ({ body }) => body,
      (error: Error) => error.message,
    )
    setTimeout(() => waiting[0]?.end('two'), 250)
    setTimeout(() => waiting[1]?.writeHead(200, minute).end('one two'), 250)
    await first
    expect(await second).toBe('one two')
  })

  it('a stage that ends the leader in the middle does not break off the others', async () => {
    const { ProxyError } = await import('@weir/core')
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    const waiting: ServerResponse[] = []
    await using upstream = await testUpstream({ '/': (_req: IncomingMessage, res: ServerResponse) => void waiting.push(res) })
    let end: () => void = () => {}
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      retry: false,
      use: [
        {
          name: 'guard',
          handle: (exchange) => {
            if (exchange.headers.has('x-slow')) end = () => exchange.fail(new ProxyError('ERR_DEADLINE'))
          },
        },
        responseCache({ maxSize: '1MiB' }),
      ],
    })
    const slow = ask(proxy.port, '/', { headers: { 'x-slow': '1' } }).catch(() => undefined)
    await until('asked', () => waiting.length === 1)
    const good = ask(proxy.port, '/').then(
      ({ body }) => body,
      (error: Error) => error.message,
    )
    await until('two', () => proxy.proxy.stats().inflight === 2)
    waiting[0]?.writeHead(200, minute).write('one ')
    await pause(50)
    end()
    await slow
    await pause(30)
    waiting[0]?.end('two')
    expect(await good).toBe('one two')
  })

  it('a QUERY that trickles is ended by minBodyRate, as any other upload', async () => {
    const { startProxy } = await import('./observed.ts')
    const { testUpstream } = await import('@weir/testing')
    await using upstream = await testUpstream()
    const stage = minBodyRate({ rate: 1000, grace: 200 })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage, responseCache({ maxSize: '1MiB' })] })
    const client = await rawConnect(proxy.port)
    await client.write('QUERY / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 50000\r\n\r\n')
    const trickle = setInterval(() => void client.write('x').catch(() => undefined), 20)
    const status = await Promise.race([client.readResponse().then((response) => response.status), pause(2000, 'still reading')])
    clearInterval(trickle)
    client.reset()
    expect(status).toBe(408)
  })

  it('a QUERY whose client leaves while its body comes ends', async () => {
    await using site = await cachedSite(numbered(minute))
    const client = await rawConnect(site.port)
    await client.write('QUERY / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 50\r\n\r\nabc')
    await inflight(site, 1)
    client.reset()
    await inflight(site, 0)
    expect(site.seen).toBe(0)
  })
})
