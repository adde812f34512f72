/** A cache whose variants are made by a stage further in, compressed or unpacked: what it asks the upstream again, and what it takes the answer to be about. */
import { gunzipSync, gzipSync } from 'node:zlib'
import { compress, decompress } from '@weir/compress'
import type { Stage } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { cachedSite } from './caching.ts'
import { manualClock } from './manual-clock.ts'
import { until } from './observed.ts'

const gzip = { 'accept-encoding': 'gzip' }

/** A page with a version; its upstream compares weakly, as it should (RFC 9110 §13.1.2). */
function page(control: string, packed: boolean) {
  const asked: string[] = []
  const now = { version: 1 }
  const handler: Parameters<typeof cachedSite>[0] = (req, res) => {
    const tag = `"v${now.version}"`
    const held = req.headers['if-none-match']
    asked.push(held ?? 'all')
    const fields = { ETag: tag, 'Cache-Control': control, Vary: 'Accept-Encoding' }
    if (held?.replaceAll('W/', '') === tag) {
      res.writeHead(304, fields).end()
      return
    }
    const text = `version ${now.version} `.repeat(300)
    res.writeHead(200, { ...fields, 'Content-Type': 'text/plain', ...(packed ? { 'Content-Encoding': 'gzip' } : {}) })
    res.end(packed ? gzipSync(text) : text)
  }
  return { asked, now, handler }
}

const versionOf = (body: string): string => {
  const bytes = Buffer.from(body, 'latin1')
  return (bytes[0] === 0x1f ? gunzipSync(bytes) : bytes).toString().slice(0, 9)
}

const cases: readonly (readonly [name: string, inner: () => Stage, packed: boolean, fields: Record<string, string>])[] = [
  ['compress', () => compress({ codings: ['gzip'] }), false, gzip],
  ['decompress', () => decompress(), true, {}],
]

describe.each(cases)('around %s', (_name, inner, packed, fields) => {
  it('what is stale is confirmed by a 304, and not fetched again', async () => {
    const clock = manualClock()
    const { asked, handler } = page('max-age=60', packed)
    await using site = await cachedSite(handler, { clock }, { inner: [inner()] })
    await site.get('/', fields)
    for (let i = 0; i < 3; i++) {
      clock.advance(61_000)
      const again = await site.get('/', fields)
      expect([again.status, again.headers.etag, versionOf(again.body)]).toEqual([200, 'W/"v1"', 'version 1'])
      expect(again.headers['cache-status']).toBe('weir; fwd=stale; fwd-status=304')
    }
    expect(asked).toEqual(['all', 'W/"v1"', 'W/"v1"', 'W/"v1"'])
    expect(site.cache.stats()).toMatchObject({ revalidated: 3, stored: 1 })
  })

  it('a client that holds a newer version is no word on the stored one', async () => {
    const clock = manualClock()
    const { now, handler } = page('max-age=60', packed)
    await using site = await cachedSite(handler, { clock }, { inner: [inner()] })
    await site.get('/', fields)
    now.version = 2
    clock.advance(61_000)
    const holder = await site.get('/', { ...fields, 'if-none-match': 'W/"v2"' })
    expect([200, 304]).toContain(holder.status)
    for (let i = 0; i < 3; i++) {
      const other = await site.get('/', fields)
      expect([other.headers.etag, versionOf(other.body)]).toEqual(['W/"v2"', 'version 2'])
      clock.advance(61_000)
    }
  })

  it('what is served stale while the cache asks is confirmed for everybody, or replaced', async () => {
    const clock = manualClock()
    const { asked, now, handler } = page('max-age=60, stale-while-revalidate=60', packed)
    await using site = await cachedSite(handler, { clock }, { inner: [inner()] })
    await site.get('/', fields)
    clock.advance(61_000)
    expect((await site.get('/', { ...fields, 'if-none-match': 'W/"v9"' })).headers.age).toBe('61')
    await until('confirmed', () => site.cache.stats().revalidated === 1)
    expect((await site.get('/', fields)).headers.age).toBe('0')
    now.version = 2
    clock.advance(61_000)
    expect(versionOf((await site.get('/', fields)).body)).toBe('version 1')
    await until('replaced', () => site.cache.stats().stored === 2)
    expect(versionOf((await site.get('/', fields)).body)).toBe('version 2')
    expect(asked).toEqual(['all', 'W/"v1"', 'W/"v1"'])
  })
})

describe('a 304', () => {
  it.each([
    ['W/"a"', 'W/"b"', 'answer 3'],
    ['"a"', 'W/"b"', 'answer 3'],
    ['W/"a"', '"a"', 'answer 3'],
    ['"a"', '"b"', 'answer 3'],
    ['W/"a"', 'W/"a"', 'answer 1'],
    ['"a"', 'W/"a"', 'answer 1'],
    ['"a"', '"a"', 'answer 1'],
  ])('about what is stored as %s with the tag %s: %s', async (stored, said, expected) => {
    const clock = manualClock()
    await using site = await cachedSite(
      (req, res, count) => {
        if (req.headers['if-none-match'] === stored) res.writeHead(304, { ETag: said }).end()
        else res.writeHead(200, { ETag: count === 1 ? stored : said, 'Cache-Control': 'max-age=60' }).end(`answer ${count}`)
      },
      { clock },
    )
    await site.get()
    clock.advance(61_000)
    expect((await site.get()).body).toBe(expected)
    expect((await site.get()).body).toBe(expected)
  })
})
