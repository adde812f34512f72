/** The cache on real sockets: what is stored, what is served of it, what is asked again, and what becomes of it when something is written. */
import { setTimeout as pause } from 'node:timers/promises'
import { compress } from '@weir/compress'
import { describe, expect, it } from 'vitest'
import { ask, cachedSite, numbered } from './caching.ts'
import { manualClock } from './manual-clock.ts'
import { until } from './observed.ts'

const minute = { 'Cache-Control': 'max-age=60' }

describe('storing and serving', () => {
  it('answers the second request itself, with the age and its own word on it', async () => {
    const clock = manualClock()
    // A date has no fractions of a second, and one that has just passed would make the answer a second older.
    const date = new Date(Date.now() + 2000).toUTCString()
    await using site = await cachedSite(numbered({ ...minute, Date: date, 'X-Two': ['a', 'b'], ETag: '"1"' }), {
      clock,
    })
    const first = await site.get('/a?b=c')
    expect(first).toMatchObject({ status: 200, body: 'answer 1' })
    expect(first.headers['cache-status']).toBe('weir; fwd=uri-miss; stored')
    expect(first.headers.age).toBeUndefined()
    clock.advance(7000)
    const second = await site.get('/a?b=c')
    expect(second).toMatchObject({ status: 200, body: 'answer 1' })
    expect(second.headers).toMatchObject({
      age: '7',
      'cache-status': 'weir; hit; ttl=53',
      'content-length': '8',
      'x-two': 'a, b',
      etag: '"1"',
    })
    expect(second.headers.date).toBe(first.headers.date)
    expect(site.seen).toBe(1)
    clock.advance(54_000)
    expect((await site.get('/a?b=c')).headers['cache-status']).toBe('weir; fwd=stale; stored')
    expect(site.cache.stats()).toMatchObject({ hits: 1, misses: 2, stored: 2, entries: 1 })
  })

  it('answers with the same octets however often it is asked, whole, in part, and for the head alone', async () => {
    const octets = Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 7) & 255))
    await using site = await cachedSite((_req, res) => {
      res.writeHead(200, { ...minute, ETag: '"1"', 'Content-Type': 'image/png' })
      res.end(octets)
    })
    for (let i = 0; i < 5; i++) {
      expect((await site.get()).body).toBe(octets.toString('latin1'))
      const part = await site.get('/', { range: 'bytes=10-19' })
      expect([part.status, part.body]).toEqual([206, octets.subarray(10, 20).toString('latin1')])
      const head = await ask(site.port, '/', { method: 'HEAD' })
      expect([head.headers['content-length'], head.body]).toEqual(['1000', ''])
    }
    expect(site.seen).toBe(1)
    expect(site.cache.stats().hits).toBe(14)
  })

  it('says what holds at that second, and has the newest head, also of what is asked for all the time', async () => {
    const clock = manualClock()
    let confirmed = 0
    await using site = await cachedSite(
      (req, res) => {
        if (req.headers['if-none-match'] === undefined) res.writeHead(200, { ...minute, ETag: '"1"', 'X-Head': 'first' })
        else res.writeHead(304, { ...minute, ETag: '"1"', 'X-Head': `confirmed ${++confirmed}` })
        res.end(req.headers['if-none-match'] === undefined ? 'body' : undefined)
      },
      { clock },
    )
    const seen = async (times: number) => {
      const answers = []
      for (let i = 0; i < times; i++) {
        const { headers, body } = await site.get()
        answers.push([headers.age, headers['cache-status'], headers['x-head'], body].join(' | '))
      }
      return [...new Set(answers)]
    }
    await site.get()
    expect(await seen(4)).toEqual(['0 | weir; hit; ttl=60 | first | body'])
    clock.advance(999)
    expect(await seen(3)).toEqual(['0 | weir; hit; ttl=60 | first | body'])
    clock.advance(1)
    expect(await seen(3)).toEqual(['1 | weir; hit; ttl=59 | first | body'])
    // In the middle of the answers that stay the same for a second.
    const part = await site.get('/', { range: 'bytes=1-2' })
    expect([part.status, part.headers.age, part.body]).toEqual([206, '1', 'od'])
    expect((await site.get('/', { 'if-none-match': '"1"' })).status).toBe(304)
    expect(await ask(site.port, '/', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' })
    for (let round = 1; round <= 2; round++) {
      clock.advance(61_000)
      expect(await seen(1)).toEqual([`0 | weir; fwd=stale; fwd-status=304 | confirmed ${round} | body`])
      expect(await seen(3)).toEqual([`0 | weir; hit; ttl=60 | confirmed ${round} | body`])
    }
    await site.cache.purge('http://shop.example/')
    expect((await seen(1))[0]).toContain('weir; fwd=uri-miss')
  })

  it('keeps apart what differs in host, path or query, and by how the client came', async () => {
    await using site = await cachedSite(numbered(minute), {}, { trustedProxies: ['127.0.0.1'] })
    const bodies = [
      await site.get('/a'),
      await site.get('/A'),
      await site.get('/a?'),
      await site.get('/a?x'),
      await site.get('/a%2F'),
      await site.get('/a', {}, 'other.example'),
      await site.get('/a', {}, 'shop.example:81'),
      await site.get('/a', { 'x-forwarded-proto': 'https' }),
      // The same as the first.
      await site.get('/a', {}, 'SHOP.example:80'),
    ].map(({ body }) => body)
    expect(bodies).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 1].map((count) => `answer ${count}`))
  })

  it('finds, and fetches beforehand, what clients behind a trusted proxy are served', async () => {
    await using site = await cachedSite(numbered(minute), {}, { trustedProxies: ['127.0.0.1'] })
    // As most balancers send them.
    const told = { 'x-forwarded-for': '203.0.113.1', 'x-forwarded-proto': 'https', 'x-forwarded-port': '443' }
    expect((await site.get('/a', told)).body).toBe('answer 1')
    const found = async (url: string, fields?: Record<string, string>) => (await site.cache.get(url, fields))?.body.toString()
    expect(await found('https://shop.example/a')).toBe('answer 1')
    expect(await found('https://shop.example/a', told)).toBe('answer 1')
    expect(await found('http://shop.example/a')).toBeUndefined()
    expect(await found('https://shop.example/a', { ...told, 'x-forwarded-port': '8443' })).toBeUndefined()
    expect(await site.cache.warm(site.proxy.proxy, ['https://shop.example/w'], { headers: { 'X-Forwarded-Proto': 'https' } })).toBe(1)
    expect((await site.get('/w', told)).headers['cache-status']).toMatch(/hit/)
    // A port, or a prefix, of its own is another answer, and is found by who says so.
    const prefixed = { ...told, 'x-forwarded-prefix': '/shop' }
    expect((await site.get('/a', prefixed)).body).toBe('answer 3')
    expect(await found('https://shop.example/a', prefixed)).toBe('answer 3')
    expect((await site.get('/a', { ...told, 'x-forwarded-port': '8443' })).body).toBe('answer 4')
  })

  it('keeps variants by what Vary names, and no more of them than it may', async () => {
    await using site = await cachedSite((req, res, count) => {
      res.writeHead(200, { ...minute, Vary: 'Accept-Language, Accept-Encoding', 'X-Count': String(count) })
      res.end(`${req.headers['accept-language']}`)
    })
    const get = async (language: string, encoding: string) =>
      (await site.get('/', { 'accept-language': language, 'accept-encoding': encoding })).headers['x-count']
    expect(await get('de, en;q=0.5', 'gzip, br')).toBe('1')
    expect(await get('de,en; q=0.7', 'br,gzip;q=0.9')).toBe('1')
    expect(await get('en, de;q=0.5', 'gzip, br')).toBe('2')
    expect(await get('de, en;q=0.5', 'gzip')).toBe('3')
    expect(await get('de, en;q=0.5', 'gzip, br;q=0')).toBe('4')
    for (let i = 0; i < 40; i++) await get(`x-${i}`, 'br')
    expect(site.cache.stats().entries).toBe(32)
  })

  it('answers HEAD and conditional requests from what a GET has brought', async () => {
    await using site = await cachedSite((_req, res) => {
      res.writeHead(200, { ...minute, ETag: '"v1"', 'Last-Modified': 'Mon, 05 Jan 2026 00:00:00 GMT', 'Content-Type': 'text/plain' })
      res.end('hello')
    })
    await site.get()
    const head = await ask(site.port, '/', { method: 'HEAD' })
    expect(head).toMatchObject({ status: 200, body: '' })
    expect(head.headers['content-length']).toBe('5')
    const known = await site.get('/', { 'if-none-match': 'W/"v1"' })
    expect(known).toMatchObject({ status: 304, body: '' })
    expect(known.headers).toMatchObject({ etag: '"v1"', 'cache-control': 'max-age=60' })
    expect(known.headers['content-type']).toBeUndefined()
    expect((await site.get('/', { 'if-none-match': '"v0"', 'if-modified-since': 'Tue, 06 Jan 2026 00:00:00 GMT' })).status).toBe(200)
    expect((await site.get('/', { 'if-modified-since': 'Tue, 06 Jan 2026 00:00:00 GMT' })).status).toBe(304)
    expect((await site.get('/', { 'if-modified-since': 'Sun, 04 Jan 2026 00:00:00 GMT' })).status).toBe(200)
    expect(site.seen).toBe(1)
  })

  it('answers ranges from the whole', async () => {
    await using site = await cachedSite((_req, res) => {
      res.writeHead(200, { ...minute, ETag: '"v1"', 'Content-Type': 'text/plain', 'Content-Length': '10' })
      res.end('0123456789')
    })
    // Also the first, which fetches all of it.
    const first = await site.get('/', { range: 'bytes=2-4' })
    expect(first).toMatchObject({ status: 206, body: '234' })
    expect(first.headers).toMatchObject({ 'content-range': 'bytes 2-4/10', 'content-length': '3' })
    expect(site.upstream.requests[0]?.req.headers.range).toBeUndefined()
    await until('it is stored', () => site.cache.stats().entries === 1)
    const cases: readonly (readonly [range: string, status: number, body: string])[] = [
      ['bytes=0-0', 206, '0'],
      ['bytes=7-', 206, '789'],
      ['bytes=-2', 206, '89'],
      ['bytes=5-100', 206, '56789'],
      ['bytes=10-', 416, ''],
      ['bytes=-0', 416, ''],
      ['bytes=4-2', 200, '0123456789'],
      ['bytes=0-1,4-5', 200, '0123456789'],
      ['lines=1-2', 200, '0123456789'],
    ]
    for (const [range, status, body] of cases) expect(await site.get('/', { range }), range).toMatchObject({ status, body })
    expect((await site.get('/', { range: 'bytes=10-' })).headers['content-range']).toBe('bytes */10')
    expect(await site.get('/', { range: 'bytes=0-1', 'if-range': '"v1"' })).toMatchObject({ status: 206, body: '01' })
    expect(await site.get('/', { range: 'bytes=0-1', 'if-range': '"v0"' })).toMatchObject({ status: 200, body: '0123456789' })
    expect(await site.get('/', { range: 'bytes=0-1', 'if-range': 'W/"v1"' })).toMatchObject({ status: 200 })
    // A date that is no older than the response says nothing of what came within that second (RFC 9110 §8.8.2.2).
    for (const [age, status] of [
      [0, 200],
      [1000, 206],
    ] as const) {
      const now = Date.now()
      const [date, modified] = [now, now - age].map((time) => new Date(time).toUTCString())
      await using dated = await cachedSite((_req, res) => {
        res.writeHead(200, { ...minute, Date: date, 'Last-Modified': modified }).end('0123456789')
      })
      await dated.get()
      expect((await dated.get('/', { range: 'bytes=0-1', 'if-range': modified as string })).status).toBe(status)
    }
    expect(site.seen).toBe(1)
  })

  it('does not store what is too large, whether that is said before or found out', async () => {
    await using site = await cachedSite(
      (req, res, count) => {
        const body = Buffer.alloc(3000, String(count % 10))
        res.writeHead(200, { ...minute, ...(req.url === '/known' ? { 'Content-Length': '3000' } : {}) })
        res.end(body)
      },
      { maxObjectSize: 2000 },
    )
    for (const path of ['/known', '/unknown']) {
      const first = await site.get(path)
      const second = await site.get(path)
      expect(first.body.length).toBe(3000)
      expect(second.body).not.toBe(first.body)
    }
    expect(site.cache.stats()).toMatchObject({ entries: 0, notStored: { 'too-large': 4 } })
  })

  it('caches QUERY by its body', async () => {
    await using site = await cachedSite((req, res, count) => {
      req.resume()
      res.writeHead(200, minute)
      res.end(`answer ${count}`)
    })
    const query = async (body: string, type = 'application/json') =>
      (await ask(site.port, '/', { method: 'QUERY', body, headers: { 'content-type': type, 'content-length': String(body.length) } })).body
    expect([
      await query('{"a":1}'),
      await query('{"a":1}'),
      await query('{"a":2}'),
      await query('{"a":1}', 'text/plain'),
      await query('{"a":1}'),
    ]).toEqual([1, 1, 2, 3, 1].map((count) => `answer ${count}`))
    expect((await site.get()).body).toBe('answer 4')
  })

  it('serves a compressed variant as it serves any other', async () => {
    const text = 'so it goes '.repeat(500)
    await using site = await cachedSite(
      (_req, res) => {
        res.writeHead(200, { ...minute, 'Content-Type': 'text/plain', ETag: '"v1"' })
        res.end(text)
      },
      {},
      { inner: [compress()] },
    )
    const first = await site.get('/', { 'accept-encoding': 'br' })
    const second = await site.get('/', { 'accept-encoding': 'br' })
    expect(second.headers).toMatchObject({ 'content-encoding': 'br', 'content-length': String(first.body.length), etag: 'W/"v1"' })
    expect(second.body).toBe(first.body)
    expect((await site.get('/')).body).toBe(text)
    expect((await site.get('/', { 'if-none-match': 'W/"v1"', 'accept-encoding': 'br' })).status).toBe(304)
    expect(site.seen).toBe(2)
  })

  it('is filled by clients that have the compressed variant already', async () => {
    await using site = await cachedSite(
      (_req, res) => {
        res.writeHead(200, { ...minute, 'Content-Type': 'text/plain', ETag: '"v1"' })
        res.end('so it goes '.repeat(500))
      },
      {},
      { inner: [compress()] },
    )
    // The cache asks for the whole in their name, and its own request says nothing of what they have; how long the whole is nobody knows, since it is packed on its way.
    for (let i = 0; i < 4; i++) expect((await site.get('/', { 'if-none-match': 'W/"v1"', 'accept-encoding': 'br' })).status).toBe(304)
    expect(site.seen).toBe(1)
  })
})

describe('freshness', () => {
  it('asks whether a stale response still holds, and merges the news', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      (req, res, count) => {
        if (req.headers['if-none-match'] === '"v1"')
          res.writeHead(304, { 'Cache-Control': 'max-age=100', 'X-New': 'yes', 'Set-Cookie': 'a=1' }).end()
        else res.writeHead(200, { ...minute, ETag: '"v1"', 'X-Old': 'kept' }).end(`answer ${count}`)
      },
      { clock },
    )
    await site.get()
    clock.advance(61_000)
    const second = await site.get('/', { 'if-none-match': '"client"' })
    expect(second).toMatchObject({ status: 200, body: 'answer 1' })
    expect(second.headers).toMatchObject({
      'x-new': 'yes',
      'x-old': 'kept',
      'cache-status': 'weir; fwd=stale; fwd-status=304',
      'cache-control': 'max-age=100',
    })
    // The cookie is for the one who asked.
    expect(second.headers['set-cookie']).toEqual(['a=1'])
    clock.advance(90_000)
    const third = await site.get()
    expect(third.headers).toMatchObject({ 'x-new': 'yes', 'cache-status': 'weir; hit; ttl=10' })
    expect(third.headers['set-cookie']).toBeUndefined()
    clock.advance(11_000)
    expect((await site.get('/', { 'if-none-match': '"v1"' })).status).toBe(304)
    expect(site.cache.stats().revalidated).toBe(2)
  })

  it('serves stale at once and refreshes once behind it', async () => {
    const clock = manualClock()
    await using site = await cachedSite(numbered({ 'Cache-Control': 'max-age=60, stale-while-revalidate=30' }), { clock })
    await site.get()
    clock.advance(70_000)
    const stale = await Promise.all([site.get(), site.get(), site.get()])
    expect(stale.map(({ body }) => body)).toContain('answer 1')
    expect(stale[0]?.headers['cache-status']).toBe('weir; hit; ttl=-10')
    await until('it is refreshed', () => site.cache.stats().stored === 2)
    expect((await site.get()).body).toBe('answer 2')
    expect(site.seen).toBe(2)
    clock.advance(100_000)
    expect((await site.get()).body).toBe('answer 3')
  })

  it('serves nothing stale when the upstream fails, unless the response or the options say so', async () => {
    for (const [staleIfError, status] of [
      [undefined, 503],
      ['1m', 200],
    ] as const) {
      const clock = manualClock()
      await using site = await cachedSite(
        (_req, res, count) =>
          void (count === 1 ? res.writeHead(200, { ...minute, ETag: '"1"' }).end('old') : res.writeHead(503).end('down')),
        { clock, ...(staleIfError === undefined ? {} : { staleIfError }) },
        { retry: false },
      )
      await site.get()
      clock.advance(61_000)
      expect((await site.get()).status).toBe(status)
    }
  })

  it('serves stale when the upstream fails, for as long as it may', async () => {
    const clock = manualClock()
    let fails: number | 'reset' | undefined
    await using site = await cachedSite(
      (req, res, count) => {
        if (fails === 'reset') res.destroy()
        else if (fails !== undefined) res.writeHead(fails).end('oops')
        else
          res
            .writeHead(200, { 'Cache-Control': req.url === '/strict' ? 'max-age=60, must-revalidate' : 'max-age=60, stale-if-error=600' })
            .end(`answer ${count}`)
      },
      { clock },
    )
    await site.get()
    await site.get('/strict')
    clock.advance(120_000)
    for (const failure of [500, 502, 503, 504, 'reset'] as const) {
      fails = failure
      expect(await site.get(), String(failure)).toMatchObject({ status: 200, body: 'answer 1' })
      expect((await site.get('/strict')).status, String(failure)).toBe(failure === 'reset' ? 502 : failure)
    }
    fails = 404
    expect((await site.get()).status).toBe(404)
    fails = 503
    // What the upstream has said since counts: it is not there.
    expect((await site.get()).status).toBe(503)
    fails = undefined
    await site.get()
    clock.advance(700_000)
    fails = 'reset'
    expect((await site.get()).status).toBe(502)
  })

  it('refreshes what is asked for shortly before it becomes stale', async () => {
    const clock = manualClock()
    await using site = await cachedSite(numbered(minute), { clock, refreshAhead: 0.1 })
    await site.get()
    clock.advance(50_000)
    await site.get()
    await pause(20)
    expect(site.seen).toBe(1)
    clock.advance(5000)
    expect((await site.get()).body).toBe('answer 1')
    await until('it is refreshed', () => site.cache.stats().stored === 2)
    clock.advance(20_000)
    expect((await site.get()).body).toBe('answer 2')
    expect(site.seen).toBe(2)
  })

  it('takes lifetimes for answers without one from the options', async () => {
    const clock = manualClock()
    await using site = await cachedSite((_req, res, count) => void res.writeHead(404).end(`answer ${count}`), {
      clock,
      negative: { 404: '10s' },
    })
    expect([(await site.get()).body, (await site.get()).body]).toEqual(['answer 1', 'answer 1'])
    clock.advance(10_001)
    expect((await site.get()).body).toBe('answer 2')
  })

  it('stores at the nth request', async () => {
    await using site = await cachedSite(numbered(minute), { minUses: 3 })
    expect([await site.get(), await site.get(), await site.get(), await site.get()].map(({ body }) => body)).toEqual(
      [1, 2, 3, 3].map((count) => `answer ${count}`),
    )
  })

  it('tells the key when told to, as a string that every parser takes', async () => {
    const clock = manualClock()
    await using site = await cachedSite(
      numbered({ ...minute, 'CDN-Cache-Control': 'max-age=60' }),
      { clock, cacheStatus: { key: true }, key: { headers: ['x-key'] } },
      { headers: { response: { remove: ['CDN-Cache-Control'] } } },
    )
    const key = 'key="http://shop.example/a?b=%22%0A\\"\\\\%C3%A9"'
    const asked = { 'x-key': '"\\\u00e9' }
    const first = await site.get('/a?b=%22', asked)
    expect(first.headers['cache-status']).toBe(`weir; fwd=uri-miss; stored; ${key}`)
    expect(first.headers['cdn-cache-control']).toBeUndefined()
    expect((await site.get('/a?b=%22', asked)).headers['cache-status']).toBe(`weir; hit; ttl=60; ${key}`)
    clock.advance(61_000)
    expect((await site.get('/a?b=%22', asked)).headers['cache-status']).toBe(`weir; fwd=stale; stored; ${key}`)
  })

  it('heeds what clients ask for only when told to', async () => {
    await using plain = await cachedSite(numbered(minute))
    await using willing = await cachedSite(numbered(minute), { clientControl: true })
    for (const site of [plain, willing]) await site.get()
    for (const headers of [{ 'cache-control': 'no-cache' }, { 'cache-control': 'max-age=0' }, { pragma: 'no-cache' }]) {
      expect((await plain.get('/', headers)).body).toBe('answer 1')
      const asked = await willing.get('/', headers)
      expect([asked.body === 'answer 1', asked.headers['cache-status']]).toEqual([false, 'weir; fwd=request; stored'])
    }
    expect((await plain.get('/new', { 'cache-control': 'only-if-cached' })).status).toBe(200)
    const none = await willing.get('/new', { 'cache-control': 'only-if-cached' })
    expect([none.status, none.headers['cache-status']]).toEqual([504, 'weir; detail=only-if-cached'])
    // Never stored, whoever asks.
    expect((await plain.get('/secret', { 'cache-control': 'no-store' })).body).not.toBe((await plain.get('/secret')).body)
  })
})

describe('invalidation', () => {
  it('forgets what an unsafe request has changed, before its answer is out', async () => {
    await using site = await cachedSite((req, res, count) => {
      if (req.method === 'GET') res.writeHead(200, minute).end(`answer ${count}`)
      else if (req.url === '/fails') res.writeHead(500).end()
      else res.writeHead(201, { Location: '/made', 'Content-Location': 'http://shop.example/listed', 'X-Other': 'x' }).end()
    })
    const paths = ['/a', '/made', '/listed', '/other', '/fails']
    const before = await Promise.all(paths.map(async (path) => (await site.get(path)).body))
    await ask(site.port, '/a', { method: 'POST', body: 'x' })
    await ask(site.port, '/fails', { method: 'DELETE' })
    const after = await Promise.all(paths.map(async (path) => (await site.get(path)).body))
    expect(after.map((body, i) => body === before[i])).toEqual([false, false, false, true, true])
  })

  it('does not let an unsafe answer reach another origin', async () => {
    await using site = await cachedSite((req, res, count) =>
      req.method === 'GET'
        ? void res.writeHead(200, minute).end(`answer ${count}`)
        : void res.writeHead(200, { Location: 'http://other.example/a' }).end(),
    )
    await site.get('/a', {}, 'other.example')
    await ask(site.port, '/a', { method: 'PUT', body: 'x' })
    expect((await site.get('/a', {}, 'other.example')).body).toBe('answer 1')
  })

  it('forgets by URL, tag, group and predicate, hard and soft', async () => {
    await using site = await cachedSite((req, res, count) => {
      if (req.method !== 'GET') {
        res.writeHead(204, { 'Cache-Group-Invalidation': '"all"' }).end()
        return
      }
      res.writeHead(200, {
        ...minute,
        Vary: 'X-V',
        ETag: '"1"',
        'Cache-Tag': `item, ${req.url?.slice(1)}`,
        'Surrogate-Key': 'k1 k2',
        'Cache-Groups': '"all"',
      })
      res.end(`answer ${count}`)
    })
    const load = async () => {
      for (const path of ['/a', '/b']) for (const v of ['1', '2']) await site.get(path, { 'x-v': v })
    }
    await load()
    expect((await site.get('/a', { 'x-v': '1' })).headers).not.toHaveProperty('cache-tag')
    expect(await site.cache.get('http://shop.example/a', { 'X-V': '1' })).toMatchObject({
      status: 200,
      tags: ['item', 'a', 'k1', 'k2', 'http://shop.example "all"'],
    })
    expect(await site.cache.purge('http://shop.example/a')).toBe(2)
    expect(site.cache.stats().entries).toBe(2)
    expect(await site.cache.get('http://shop.example/a', { 'X-V': '1' })).toBeUndefined()
    await load()
    expect(await site.cache.invalidateTag('b')).toBe(2)
    expect(await site.cache.invalidateTag(['k2', 'nothing'])).toBe(2)
    await load()
    expect(await site.cache.invalidate(({ url, headers }) => url.endsWith('/a') && headers.get('etag') === '"1"')).toBe(2)
    await load()
    expect(await site.cache.invalidateGroup('http://shop.example', 'all', { soft: true })).toBe(4)
    expect((await site.cache.get('http://shop.example/a', { 'X-V': '1' }))?.freshFor).toBeLessThanOrEqual(0)
    expect((await site.get('/a', { 'x-v': '1' })).headers['cache-status']).toMatch(/fwd=stale/)
    await ask(site.port, '/b', { method: 'POST', body: '' })
    expect(site.cache.stats().entries).toBe(0)
    await expect(site.cache.purge('/a')).rejects.toThrow(/absolute/)
    const listed: string[] = []
    await load()
    for await (const { url } of site.cache.entries()) listed.push(url)
    expect(listed.length).toBe(4)
    await site.cache.clear()
    expect(site.cache.stats()).toMatchObject({ entries: 0, bytes: 0 })
  })

  it('does not store what was on its way when it was invalidated', async () => {
    const waiting: (() => void)[] = []
    await using site = await cachedSite((_req, res, count) => {
      if (count > 4) return void res.writeHead(200, { ...minute, 'Cache-Tag': 't' }).end(`answer ${count}`)
      res.writeHead(200, { ...minute, 'Cache-Tag': 't' })
      res.write('answer')
      waiting.push(() => res.end(` ${count}`))
    })
    for (const act of [
      () => site.cache.purge('http://shop.example/'),
      () => site.cache.invalidateTag('t'),
      () => site.cache.invalidate(() => true),
      () => site.cache.clear(),
    ]) {
      const old = site.get()
      await until('the origin has begun', () => waiting.length > 0)
      await act()
      waiting.pop()?.()
      await old
      expect(site.cache.stats().entries, String(act)).toBe(0)
    }
  })

  it('warms from a list', async () => {
    await using site = await cachedSite(numbered(minute))
    expect(await site.cache.warm(site.proxy.proxy, ['http://shop.example/a', 'http://shop.example/b?c'])).toBe(2)
    expect((await site.get('/b?c')).headers['cache-status']).toMatch(/hit/)
    expect(site.seen).toBe(2)
  })
})

describe('keys', () => {
  it('take what the options say of queries, fields and cookies', async () => {
    await using site = await cachedSite(numbered(minute), {
      key: { query: { ignore: ['utm_*', 'fbclid'] }, sortQuery: true, headers: ['X-Tenant'], cookies: ['theme'], version: 'v2' },
    })
    const get = async (path: string, headers?: Record<string, string>) => (await site.get(path, headers)).body
    expect(await get('/?b=2&a=1')).toBe('answer 1')
    expect(await get('/?utm_source=x&a=1&fbclid=y&b=2&%75tm_x=1')).toBe('answer 1')
    expect(await get('/?a=1&b=3')).toBe('answer 2')
    expect(await get('/?a=1&b=2', { 'x-tenant': 'acme' })).toBe('answer 3')
    expect(await get('/?a=1&b=2', { cookie: 'id=7; theme=dark' })).toBe('answer 4')
    expect(await get('/?a=1&b=2', { cookie: 'theme=dark; id=8' })).toBe('answer 4')
    expect(await site.cache.purge('http://shop.example/?b=2&a=1&utm_x=1')).toBe(1)
  })

  it('are made by a function, which may say that there is none', async () => {
    await using site = await cachedSite(numbered(minute), {
      key: (exchange, key) => (exchange.url.startsWith('/no') ? undefined : key.toLowerCase()),
    })
    expect([(await site.get('/A')).body, (await site.get('/a')).body]).toEqual(['answer 1', 'answer 1'])
    expect([(await site.get('/no')).body, (await site.get('/no')).body]).toEqual(['answer 2', 'answer 3'])
    expect(await site.cache.purgeKey('http://shop.example/a')).toBe(1)
  })

  it('forget parameters that the origin says do not matter', async () => {
    await using site = await cachedSite((req, res, count) => {
      const rule = req.url?.startsWith('/all')
        ? 'params, except=("id")'
        : req.url?.startsWith('/order')
          ? 'key-order'
          : 'params=("utm" "ref")'
      res.writeHead(200, { ...minute, ...(req.url?.includes('plain') ? {} : { 'No-Vary-Search': rule }) }).end(`answer ${count}`)
    })
    const get = async (path: string) => (await site.get(path)).body
    expect([await get('/?a=1&utm=x'), await get('/?utm=y&a=1'), await get('/?a=1'), await get('/?a=2')]).toEqual(
      [1, 1, 1, 2].map((n) => `answer ${n}`),
    )
    expect([await get('/all?id=1&x=2'), await get('/all?y=3&id=1'), await get('/all?id=2')]).toEqual([3, 3, 4].map((n) => `answer ${n}`))
    expect([await get('/order?a=1&b=2'), await get('/order?b=2&a=1'), await get('/order?b=2')]).toEqual([5, 5, 6].map((n) => `answer ${n}`))
    // An answer of the same path that does not say so is its own URL's alone.
    expect([await get('/?plain&utm=1'), await get('/?plain&utm=2'), await get('/?plain&utm=1')]).toEqual(
      [7, 8, 7].map((n) => `answer ${n}`),
    )
    // All that is found under several queries of this path.
    expect(await site.cache.purge('http://shop.example/?a=1&ref=z')).toBe(2)
    expect(await get('/?a=1')).toBe('answer 9')
  })
})

it('keeps the answer to a POST for those who get what it names, and is a POST for all others', async () => {
  await using site = await cachedSite((req, res, count) => {
    res.writeHead(200, { ...minute, ...(req.url === '/own' ? { 'Content-Location': '/own' } : {}) }).end(`${req.method} ${count}`)
  })
  await ask(site.port, '/own', { method: 'POST', body: 'x' })
  expect((await site.get('/own')).body).toBe('POST 1')
  expect((await ask(site.port, '/own', { method: 'POST', body: 'x' })).body).toBe('POST 2')
  expect((await site.get('/own')).body).toBe('POST 2')
  await ask(site.port, '/other', { method: 'POST', body: 'x' })
  expect((await site.get('/other')).body).toBe('GET 4')
})
