/** One request to the upstream for many clients (E37): who waits, who reads along, and that nobody's end is the end of others. */
import type { ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { type CacheStore, memoryStore } from '@weir/cache'
import { rawConnect } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { ask, type CachedSite, cachedSite } from './caching.ts'
import { manualClock } from './manual-clock.ts'
import { until } from './observed.ts'

const minute = { 'Cache-Control': 'max-age=60' }
const shop = 'GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n'

/** An origin that answers when the test says so. */
async function held(options?: Parameters<typeof cachedSite>[1]) {
  const waiting: ServerResponse[] = []
  const site = await cachedSite((_req, res) => void waiting.push(res), options)
  return { site, waiting, arrived: (count: number) => until(`${count} at the origin`, () => waiting.length === count) }
}

/** So many exchanges have reached the proxy. */
const inflight = (site: CachedSite, count: number) => until(`${count} in flight`, () => site.proxy.proxy.stats().inflight === count)

describe('collapsing', () => {
  it('sends one request for a hundred clients', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const clients = Array.from({ length: 100 }, () => site.get())
    await arrived(1)
    await inflight(site, 100)
    waiting[0]?.writeHead(200, minute).end('shared')
    const answers = await Promise.all(clients)
    expect(new Set(answers.map(({ body }) => body))).toEqual(new Set(['shared']))
    expect(answers.filter(({ headers }) => headers['cache-status'] === 'weir; fwd=uri-miss; collapsed').length).toBe(99)
    expect(site.seen).toBe(1)
    expect(site.cache.stats()).toMatchObject({ misses: 1, collapsed: 99, stored: 1 })
  })

  it('gives followers what has come, while it comes', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    await using first = await rawConnect(site.port)
    await first.write(shop)
    await arrived(1)
    waiting[0]?.writeHead(200, minute).write('one ')
    await first.sees('one ')
    await using late = await rawConnect(site.port)
    await late.write(shop)
    await late.sees('one ')
    waiting[0]?.write('two ')
    await Promise.all([first.sees('two '), late.sees('two ')])
    waiting[0]?.end('three')
    const bodies = [await first.readResponse(), await late.readResponse()].map(({ body }) => body.toString())
    expect(bodies).toEqual(['one two three', 'one two three'])
    expect((await site.get()).body).toBe('one two three')
    expect(site.seen).toBe(1)
  })

  it('lets all go on as soon as the head says that it cannot be shared, and remembers it', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const clients = Array.from({ length: 10 }, () => site.get())
    await arrived(1)
    await inflight(site, 10)
    waiting[0]?.writeHead(200, { 'Cache-Control': 'private' }).write('mine ')
    // The first body is not there yet.
    await arrived(10)
    for (const [i, res] of waiting.entries()) {
      if (i > 0) res.writeHead(200, { 'Cache-Control': 'private' })
      res.end(`${i}`)
    }
    expect(new Set((await Promise.all(clients)).map(({ body }) => body)).size).toBe(10)
    const more = [site.get(), site.get()]
    await arrived(12)
    for (const res of waiting.slice(10)) res.writeHead(200, minute).end('now it can')
    await Promise.all(more)
    expect((await site.get()).body).toBe('now it can')
    expect(site.seen).toBe(12)
  })

  it('goes on when the first client leaves, before the head and in the middle of the body', async () => {
    for (const when of ['before', 'middle']) {
      const { site, waiting, arrived } = await held()
      await using _ = site
      const first = await rawConnect(site.port)
      await first.write(shop)
      await arrived(1)
      const follower = site.get()
      await inflight(site, 2)
      if (when === 'middle') {
        waiting[0]?.writeHead(200, minute).write('a')
        await first.sees('a')
      }
      first.reset()
      await pause(30)
      if (when === 'before') waiting[0]?.writeHead(200, minute)
      waiting[0]?.end('b')
      expect((await follower).body, when).toBe(when === 'before' ? 'b' : 'ab')
      await until('it is stored', () => site.cache.stats().stored === 1)
      expect(site.seen).toBe(1)
    }
  })

  it('stops when the only one who wants it leaves, unless told to finish', async () => {
    for (const finishAborted of [false, true]) {
      const { site, waiting, arrived } = await held({ finishAborted })
      await using _ = site
      const first = await rawConnect(site.port)
      await first.write(shop)
      await arrived(1)
      waiting[0]?.writeHead(200, minute).write('a')
      await first.sees('a')
      first.reset()
      if (finishAborted) {
        await pause(30)
        waiting[0]?.end('b')
        await until('it is stored', () => site.cache.stats().stored === 1)
        expect((await site.get()).body).toBe('ab')
      } else {
        await until('the origin hears of it', () => waiting[0]?.destroyed)
        expect(site.cache.stats()).toMatchObject({ stored: 0, notStored: { incomplete: 1 } })
      }
      await inflight(site, 0)
    }
  })

  it('a follower who leaves is not missed', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const first = site.get()
    await arrived(1)
    const waits = await rawConnect(site.port)
    await waits.write(shop)
    await inflight(site, 2)
    waits.reset()
    await inflight(site, 1)
    const reads = await rawConnect(site.port)
    await reads.write(shop)
    await inflight(site, 2)
    waiting[0]?.writeHead(200, minute).write('a')
    await reads.sees('a')
    reads.reset()
    await inflight(site, 1)
    waiting[0]?.end('b')
    expect((await first).body).toBe('ab')
    await inflight(site, 0)
  })

  it('one failed request does not fail those who waited for it', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const clients = Array.from({ length: 5 }, () => site.get())
    await arrived(1)
    await inflight(site, 5)
    waiting[0]?.destroy()
    // One of the four asks again, for all of them.
    await arrived(2)
    await pause(20)
    expect(site.seen).toBe(2)
    waiting[1]?.writeHead(200, minute).end('good')
    const answers = (await Promise.all(clients)).map(({ status }) => status).toSorted((a, b) => a - b)
    expect(answers).toEqual([200, 200, 200, 200, 502])
  })

  it('does not let many wait for one failure after the other', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const clients = Array.from({ length: 6 }, () => site.get())
    await arrived(1)
    await inflight(site, 6)
    waiting[0]?.destroy()
    await arrived(2)
    waiting[1]?.destroy()
    await arrived(6)
    for (const res of waiting.slice(2)) res.destroy()
    expect((await Promise.all(clients)).map(({ status }) => status)).toEqual([502, 502, 502, 502, 502, 502])
  })

  it('a body that breaks off is broken off for all who read along, and is not stored', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const first = site.get()
    const second = site.get()
    await arrived(1)
    await inflight(site, 2)
    waiting[0]?.writeHead(200, { ...minute, 'Content-Length': '10' }).write('half ')
    await until('somebody reads along', () => site.cache.stats().collapsed === 1)
    waiting[0]?.destroy()
    await expect(first).rejects.toThrow()
    await expect(second).rejects.toThrow()
    expect(site.cache.stats().entries).toBe(0)
  })

  it('a slow first client does not slow the others', async () => {
    const size = 4 << 20
    const { site, waiting, arrived } = await held()
    await using _ = site
    await using slow = await rawConnect(site.port)
    await slow.write(shop)
    await arrived(1)
    waiting[0]?.writeHead(200, minute).write('x')
    await slow.sees('x')
    slow.pause()
    const quick = site.get()
    await until('somebody reads along', () => site.cache.stats().collapsed === 1)
    waiting[0]?.end(Buffer.alloc(size - 1, 'y'))
    expect((await quick).body.length).toBe(size)
    expect((await site.get()).body.length).toBe(size)
    slow.resume()
    expect((await slow.readResponse()).body.length).toBe(size)
  })

  it('waits no longer than it was told to', async () => {
    const clock = manualClock()
    const { site, waiting, arrived } = await held({ clock, collapse: { timeout: '3s' } })
    await using _ = site
    const first = site.get()
    await arrived(1)
    const second = site.get()
    await inflight(site, 2)
    await until('it waits', () => clock.pending.includes(3000))
    clock.advance(3000)
    await arrived(2)
    waiting[1]?.writeHead(200, minute).end('second')
    expect((await second).body).toBe('second')
    waiting[0]?.writeHead(200, minute).end('first')
    expect((await first).body).toBe('first')
  })

  it('does not make those wait who want another variant', async () => {
    await using site = await cachedSite((req, res) => {
      setTimeout(() => res.writeHead(200, { ...minute, Vary: 'X-V' }).end(`v${req.headers['x-v']}`), 30)
    })
    const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => site.get('/', { 'x-v': String(i % 3) })))
    expect(answers.map(({ body }) => body)).toEqual(Array.from({ length: 30 }, (_, i) => `v${i % 3}`))
    expect(site.seen).toBe(3)
  })

  it('asks for all of it for many who want parts, and for some who have it', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const part = site.get('/', { range: 'bytes=1-2' })
    const known = site.get('/', { 'if-none-match': '"v1"' })
    const whole = site.get()
    await arrived(1)
    await inflight(site, 4)
    expect(waiting[0]?.req.headers).not.toHaveProperty('range')
    waiting[0]?.writeHead(200, { ...minute, ETag: '"v1"', 'Content-Length': '5' }).end('01234')
    expect(await part).toMatchObject({ status: 206, body: '12' })
    expect(await known).toMatchObject({ status: 304 })
    expect(await whole).toMatchObject({ status: 200, body: '01234' })
    expect(site.seen).toBe(1)
  })

  it('passes a part of what cannot be shared on', async () => {
    await using site = await cachedSite((req, res) => {
      if (req.headers.range === 'bytes=1-2') res.writeHead(206, { 'Content-Range': 'bytes 1-2/5' }).end('12')
      else res.writeHead(200, { 'Content-Length': '5' }).end('01234')
    })
    expect(await site.get('/', { range: 'bytes=1-2' })).toMatchObject({ status: 206, body: '12' })
    expect(await site.get('/', { range: 'bytes=1-2' })).toMatchObject({ status: 206, body: '12' })
    await inflight(site, 0)
    // The first was preceded by an attempt to get all of it.
    expect(site.seen).toBe(3)
  })

  it('a body that grows too large goes to all who read along, and is let go behind them', async () => {
    const { site, waiting, arrived } = await held({ maxObjectSize: '64KiB' })
    await using _ = site
    const first = site.get()
    const second = site.get()
    await arrived(1)
    await inflight(site, 2)
    waiting[0]?.writeHead(200, minute)
    const piece = Buffer.alloc(32_768, 'z')
    for (let i = 0; i < 20; i++) waiting[0]?.write(piece)
    waiting[0]?.end()
    expect((await Promise.all([first, second])).map(({ body }) => body.length)).toEqual([20 * 32_768, 20 * 32_768])
    expect(site.cache.stats()).toMatchObject({ entries: 0, notStored: { 'too-large': 1 } })
  })

  it('does not join those who are authorised to those who are not', async () => {
    const { site, waiting, arrived } = await held()
    await using _ = site
    const anonymous = site.get()
    await arrived(1)
    const alice = site.get('/', { authorization: 'alice' })
    await arrived(2)
    waiting[0]?.writeHead(200, minute).end('for all')
    waiting[1]?.writeHead(200, minute).end('for alice')
    expect((await anonymous).body).toBe('for all')
    expect((await alice).body).toBe('for alice')
    expect((await site.get()).body).toBe('for all')
  })

  it('leaves nothing behind that counts as in flight when it is closed in the middle', async () => {
    const { site, arrived } = await held()
    const clients = [site.get(), site.get()].map((client) => client.catch(() => undefined))
    await arrived(1)
    await inflight(site, 2)
    await site.proxy.proxy.close({ deadline: 50 })
    await Promise.all(clients)
    expect(site.proxy.proxy.stats().inflight).toBe(0)
    await site[Symbol.asyncDispose]()
  })
})

it('a HEAD that nothing is stored for goes through', async () => {
  await using site = await cachedSite((req, res) => void res.writeHead(200, { ...minute, 'X-Method': req.method }).end('x'))
  expect((await ask(site.port, '/', { method: 'HEAD' })).headers['x-method']).toBe('HEAD')
  expect((await site.get()).headers['x-method']).toBe('GET')
  expect((await ask(site.port, '/', { method: 'HEAD' })).headers['x-method']).toBe('GET')
})

describe('what is invalidated while it is on its way', () => {
  it('is not had by those who come afterwards', async () => {
    for (const act of ['purge', 'tag'] as const) {
      const { site, waiting, arrived } = await held()
      await using _ = site
      const fields = { ...minute, 'Cache-Tag': 't' }
      const invalidate = () => (act === 'purge' ? site.cache.purge('http://shop.example/') : site.cache.invalidateTag('t'))
      // Before the head, and in the middle of the body.
      for (const [n, begun] of [
        [1, false],
        [3, true],
      ] as const) {
        const before = site.get()
        await arrived(n)
        if (begun) {
          waiting[n - 1]?.writeHead(200, fields).write('old')
          await pause(20)
        }
        await invalidate()
        const after = site.get()
        await inflight(site, 2)
        if (!begun) waiting[n - 1]?.writeHead(200, fields).write('old')
        waiting[n - 1]?.end()
        expect((await before).body).toBe('old')
        await arrived(n + 1)
        waiting[n]?.writeHead(200, fields).end('new')
        expect((await after).body, `${act} ${begun}`).toBe('new')
        await invalidate()
      }
    }
  })

  it('is had from the fetch while a slow store takes it, and once only from the upstream', async () => {
    const inner = memoryStore({ maxSize: '1MiB' })
    const slow = { ...methodsOf(inner), put: async (...args: Parameters<typeof inner.put>) => pause(100).then(() => inner.put(...args)) }
    const { site, waiting, arrived } = await held({ store: slow })
    await using _ = site
    const first = site.get()
    await arrived(1)
    waiting[0]?.writeHead(200, minute).end('once')
    await first
    expect((await site.get()).body).toBe('once')
    await until('it is stored', () => site.cache.stats().stored === 1)
    expect((await site.get()).headers['cache-status']).toMatch(/hit/)
    expect(site.seen).toBe(1)
  })
})

function methodsOf(store: CacheStore): CacheStore {
  return {
    name: store.name,
    find: (key) => store.find(key),
    body: (entry, start, end) => store.body(entry, start, end),
    put: (entry, body) => store.put(entry, body),
    update: (entry) => store.update(entry),
    remove: (entry) => store.remove(entry),
    invalidate: (key, how) => store.invalidate(key, how),
    invalidateTag: (tag, how) => store.invalidateTag(tag, how),
    entries: () => store.entries(),
    clear: () => store.clear(),
    stats: () => store.stats(),
  }
}
