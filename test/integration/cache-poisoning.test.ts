/** What attackers try with shared caches (E36): to have one client's answer served to another, or an answer of their making to everybody. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { rawRequest } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type Asking, ask, cachedSite, numbered } from './caching.ts'

const minute = { 'Cache-Control': 'max-age=60' }

describe('what is not in the key does not change the answer', () => {
  // The kind of origin that makes links of what it is told.
  const reflecting = (req: IncomingMessage, res: ServerResponse): void => {
    const told = [
      'x-forwarded-host',
      'x-forwarded-server',
      'x-forwarded-port',
      'x-forwarded-proto',
      'x-forwarded-prefix',
      'x-forwarded-scheme',
      'x-forwarded-ssl',
      'forwarded',
      'x-original-url',
      'x-rewrite-url',
      'x-http-method-override',
      'x-http-method',
      'x-method-override',
    ]
    const seen = told.map((name) => String(req.headers[name] ?? '')).join('|')
    res.writeHead(200, minute).end(seen)
  }

  const forwarding: readonly Record<string, string>[] = [
    { 'x-forwarded-host': 'evil.example' },
    { 'x-forwarded-server': 'evil.example' },
    { 'x-forwarded-port': '666evil' },
    { 'x-forwarded-proto': 'evil' },
    { 'x-forwarded-proto': 'http, evil' },
    { 'x-forwarded-prefix': '/evil' },
    { 'x-forwarded-scheme': 'evil' },
    { 'x-forwarded-ssl': 'evil' },
    { forwarded: 'host=evil.example;proto=evil' },
    { forwarded: 'for=192.0.2.1;Host="evil.example:80"' },
  ]

  it('fields that origins reflect, or that replace the target or the method', async () => {
    await using site = await cachedSite(reflecting)
    const attacks: readonly Record<string, string>[] = [
      ...forwarding,
      { 'x-original-url': '/evil' },
      { 'X-Rewrite-Url': '/evil' },
      { 'x-http-method-override': 'evil' },
      { 'x-http-method': 'evil' },
      { 'x-method-override': 'evil' },
    ]
    for (const [i, headers] of attacks.entries()) {
      await site.get(`/${i}`, headers)
      expect((await site.get(`/${i}`)).body, JSON.stringify(headers)).not.toContain('evil')
    }
  })

  it('what a trusted proxy says of the request is part of what is asked for', async () => {
    await using site = await cachedSite(reflecting, {}, { trustedProxies: ['loopback'] })
    for (const [i, headers] of forwarding.entries()) {
      const first = await site.get(`/${i}`, headers)
      expect(first.body).toContain('evil')
      expect((await site.get(`/${i}`)).body, JSON.stringify(headers)).not.toContain('evil')
      expect((await site.get(`/${i}`, headers)).body).toBe(first.body)
    }
    expect(site.seen).toBe(2 * forwarding.length)
    expect(site.cache.stats().hits).toBe(forwarding.length)
  })

  it('behind a proxy that has one Host for all sites, each site has its own; a purge of the URL finds them all', async () => {
    await using site = await cachedSite(reflecting, {}, { trustedProxies: ['loopback'] })
    const sites = ['a.example', 'b.example', 'shop.example']
    for (let round = 0; round < 2; round++)
      for (const host of sites)
        expect((await site.get('/', { 'x-forwarded-host': host, 'x-forwarded-for': `192.0.2.${round}` })).body).toContain(host)
    // The site's own name is no news: the third is what is stored without it.
    await site.get('/')
    expect([site.seen, site.cache.stats().entries]).toEqual([3, 3])
    expect(await site.cache.purge('http://shop.example/')).toBe(3)
    expect(site.cache.stats().entries).toBe(0)
  })

  it('two hosts, two spellings of a path, and a path that some servers would tidy up', async () => {
    await using site = await cachedSite((req, res) => void res.writeHead(200, minute).end(`${req.headers.host} ${req.url}`))
    for (const path of ['/a/../b', '/b', '//b', '/%62', '/b;x', '/b%00', '/b#x', '/b%3fx', '/b?x', '/b?X', '/B']) {
      const sent = path.split('#')[0]
      for (const host of ['shop.example', 'evil.example', 'shop.example.', 'shop.example:8080'])
        for (const _ of [1, 2]) expect((await site.get(path === '/b#x' ? '/b' : path, {}, host)).body).toBe(`${host} ${sent}`)
    }
  })

  it('an absolute target names the same resource as its origin form', async () => {
    await using site = await cachedSite(numbered(minute))
    await site.get('/a')
    const line = (target: string, host: string) =>
      rawRequest(site.port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    expect((await line('http://shop.example/a', 'shop.example')).body.toString()).toBe('answer 1')
    expect((await line('http://evil.example/a', 'shop.example')).status).toBe(400)
    expect((await site.get('/a')).body).toBe('answer 1')
  })

  it('a GET with a body is not what everybody asks for', async () => {
    await using site = await cachedSite((req, res) => {
      let body = ''
      req.on('data', (chunk) => {
        body += chunk
      })
      req.on('end', () => res.writeHead(200, minute).end(`got ${body}`))
    })
    expect((await ask(site.port, '/', { body: 'evil', headers: { 'content-length': '4' } })).body).toBe('got evil')
    expect((await site.get()).body).toBe('got ')
    expect((await ask(site.port, '/', { body: 'evil', headers: { 'content-length': '4' } })).body).toBe('got evil')
  })

  it('routes that are told apart by a field do not share answers', async () => {
    await using beta = await cachedSite((_req, res) => void res.writeHead(200, minute).end('beta'))
    const { responseCache } = await import('@weir/cache')
    const { startProxy } = await import('./observed.ts')
    const cache = responseCache({ maxSize: '1MiB' })
    await using stable = await cachedSite((_req, res) => void res.writeHead(200, minute).end('stable'))
    const { createPool } = await import('@weir/core')
    await using proxy = await startProxy({
      use: [cache],
      routes: [
        { name: 'beta', match: { header: { 'x-beta': '1' } }, pool: createPool({ upstreams: [beta.upstream.url] }) },
        { name: 'stable', pool: createPool({ upstreams: [stable.upstream.url] }) },
      ],
    })
    const get = async (headers?: Asking['headers']) => (await ask(proxy.port, '/', headers === undefined ? {} : { headers })).body
    expect([await get({ 'x-beta': '1' }), await get(), await get({ 'x-beta': '1' }), await get()]).toEqual([
      'beta',
      'stable',
      'beta',
      'stable',
    ])
    expect(await cache.purge('http://shop.example/')).toBe(2)
  })
})

describe('what must not be kept is not kept', () => {
  const forbidden: readonly { readonly what: string; readonly fields: Record<string, string | string[]>; readonly status?: number }[] = [
    { what: 'private', fields: { 'Cache-Control': 'private, max-age=60' } },
    { what: 'no-store', fields: { 'Cache-Control': 'no-store, max-age=60' } },
    { what: 'no-cache', fields: { 'Cache-Control': 'no-cache, max-age=60' } },
    { what: 'Vary: *', fields: { ...minute, Vary: '*' } },
    { what: 'Vary with * in it', fields: { ...minute, Vary: 'Accept, *' } },
    { what: 'Set-Cookie', fields: { ...minute, 'Set-Cookie': ['session=1', 'b=2'] } },
    { what: 'nothing said', fields: {} },
    { what: 'nothing said, an error', fields: {}, status: 400 },
    { what: 'nothing said, fields too large', fields: {}, status: 431 },
    { what: 'nothing said, forbidden', fields: {}, status: 403 },
    { what: 'a part', fields: { ...minute, 'Content-Range': 'bytes 0-3/10' }, status: 206 },
    { what: 'in another field of the same name', fields: { 'Cache-Control': ['max-age=60', 'no-store'] } },
    { what: 'private by a targeted field', fields: { 'CDN-Cache-Control': 'private', 'Cache-Control': 'max-age=60' } },
  ]
  it.each(forbidden)('$what', async ({ fields, status = 200 }) => {
    await using site = await cachedSite((_req, res, count) => void res.writeHead(status, fields).end(`a ${count}`))
    for (const headers of [{}, { 'cache-control': 'max-stale' }, { 'cache-control': 'max-stale=1000, only-if-cached' }])
      expect((await site.get('/account.css', headers)).body).toBe(`a ${site.seen}`)
    expect(site.seen).toBe(3)
  })

  it('no request directive takes what a response withholds', async () => {
    for (const stale of ['must-revalidate', 'proxy-revalidate', 's-maxage=0', 'no-cache']) {
      await using site = await cachedSite(numbered({ 'Cache-Control': `max-age=0, ${stale}`, ETag: '"1"' }), { clientControl: true })
      await site.get()
      expect((await site.get('/', { 'cache-control': 'max-stale=1000' })).body, stale).toBe('answer 2')
    }
  })

  it('an answer to somebody who is authorised', async () => {
    await using site = await cachedSite(
      (req, res) =>
        void res.writeHead(200, { 'Cache-Control': `max-age=60${req.url?.slice(1) ?? ''}` }).end(`for ${req.headers.authorization}`),
    )
    for (const [path, shared] of [
      ['/', false],
      ['/,public', true],
      ['/,s-maxage=60', true],
      ['/,must-revalidate', true],
    ] as const) {
      const alice = (await site.get(path, { authorization: 'alice' })).body
      expect(alice).toBe('for alice')
      expect((await site.get(path, { authorization: 'bob' })).body === alice, path).toBe(shared)
      expect((await site.get(path)).body === alice, path).toBe(shared)
    }
  })

  it('an error that an attacker provoked', async () => {
    // As with servers that refuse large fields: the next one asks in vain if that was kept.
    await using site = await cachedSite((req, res) =>
      req.headers['x-big'] === undefined
        ? void res.writeHead(200, minute).end('fine')
        : void res.writeHead(400, { 'Content-Type': 'text/html' }).end('too large'),
    )
    expect((await site.get('/', { 'x-big': 'x'.repeat(8000) })).status).toBe(400)
    expect(await site.get()).toMatchObject({ status: 200, body: 'fine' })
    expect(await site.get('/', { 'x-big': 'x'.repeat(8000) })).toMatchObject({ status: 200, body: 'fine' })
  })

  it('a head that is split in two', async () => {
    // An origin that writes what it is given into a field, line breaks and all.
    await using site = await cachedSite((req, res) => {
      const { socket } = req as IncomingMessage & { socket: Socket }
      const name = decodeURIComponent(req.url?.slice(1) ?? '')
      res.detachSocket(socket)
      socket.end(`HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-Name: ${name}\r\nContent-Length: 4\r\n\r\nmine`)
    })
    const split =
      '/%0d%0aContent-Length:%200%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0aCache-Control:%20max-age=999%0d%0aContent-Length:%204%0d%0a%0d%0aevil'
    await site.get(split).catch(() => undefined)
    for (const path of ['/other', '/evil', '/']) expect((await site.get(path)).body).toBe('mine')
  })
})

it('a thousand users at once, each of whom gets what is theirs', { timeout: 60_000 }, async () => {
  const kinds: readonly Record<string, string>[] = [
    { 'Cache-Control': 'private, max-age=60' },
    { 'Cache-Control': 'no-store' },
    { 'Cache-Control': 'max-age=60', Vary: 'Cookie' },
    { 'Cache-Control': 'max-age=60', Vary: 'X-User' },
    { 'Cache-Control': 'max-age=60', 'Set-Cookie': 'seen=1' },
    { 'Cache-Control': 'no-cache', ETag: '"same"' },
    {},
  ]
  await using site = await cachedSite((req, res) => {
    const kind = Number(req.url?.slice(1))
    // Late enough for others to come meanwhile, and in another order.
    setTimeout(() => res.writeHead(200, kinds[kind]).end(`${req.headers.cookie} ${kind}`), Math.random() * 20)
  })
  let wrong = 0
  const user = async (id: number): Promise<void> => {
    for (let i = 0; i < 3; i++) {
      const kind = (id + i * 3) % kinds.length
      const { body, status } = await site.get(`/${kind}`, {
        cookie: `user=${id}`,
        'x-user': String(id),
        'accept-encoding': id % 2 ? 'gzip' : 'br',
      })
      if (status !== 200 || body !== `user=${id} ${kind}`) wrong++
    }
  }
  const ids = Array.from({ length: 1000 }, (_, id) => id)
  const worker = async (): Promise<void> => {
    for (let id = ids.pop(); id !== undefined; id = ids.pop()) await user(id)
  }
  await Promise.all(Array.from({ length: 150 }, worker))
  expect(wrong).toBe(0)
  expect(site.seen).toBeGreaterThan(2000)
})
