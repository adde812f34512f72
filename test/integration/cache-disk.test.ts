/** A cache whose store is on the disk, from a client's side: over restarts, with long bodies, with damage, and with a disk that is gone. */
import { mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CacheStore, type DiskCacheStore, diskStore, memoryStore, type ResponseCache, tieredStore } from '@weir/cache'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type CachedSite, cachedSite, numbered, type Origin } from './caching.ts'

let directory: string
const opened: (DiskCacheStore | CachedSite)[] = []

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-disk-'))
})
afterEach(async () => {
  await close()
  await rm(directory, { recursive: true, force: true })
})

async function close(): Promise<void> {
  // Sites before their stores.
  for (const one of opened.splice(0).reverse()) await ('close' in one ? one.close() : one[Symbol.asyncDispose]())
}

const kinds: readonly (readonly [string, (disk: CacheStore) => CacheStore])[] = [
  ['disk', (disk) => disk],
  ['tiered', (disk) => tieredStore({ upper: memoryStore({ maxSize: '1MiB' }), lower: disk })],
]

async function site(origin: Origin, over: (disk: CacheStore) => CacheStore): Promise<CachedSite> {
  const disk = diskStore({ directory, maxSize: '64MiB' })
  opened.push(disk)
  const made = await cachedSite(origin, { store: over(disk) })
  opened.push(made)
  return made
}

const long = Buffer.from(Array.from({ length: 400_000 }, (_, i) => i.toString(36).padStart(8, '.')).join(''))
const sends =
  (body: Buffer): Origin =>
  (_req, res) => {
    res.writeHead(200, { 'Cache-Control': 'max-age=600', 'Content-Length': String(body.length), ETag: '"1"' })
    res.end(body)
  }

/** A client has its answer before the disk has it. */
async function stored(cache: ResponseCache, count: number): Promise<void> {
  await vi.waitFor(() => expect(cache.stats().stored).toBe(count))
}

async function entryFiles(): Promise<string[]> {
  return (await readdir(directory, { recursive: true })).filter((name) => /[0-9a-f]{64}$/.test(name)).map((name) => join(directory, name))
}

describe.each(kinds)('%s', (_name, over) => {
  it('answers after a restart, without asking again', async () => {
    const first = await site(numbered({ 'Cache-Control': 'max-age=600', 'X-Kept': 'yes' }), over)
    expect((await first.get('/a')).body).toBe('answer 1')
    await close()
    const second = await site(numbered({}), over)
    const again = await second.get('/a')
    expect(again).toMatchObject({ status: 200, body: 'answer 1' })
    expect(again.headers['x-kept']).toBe('yes')
    expect((await second.get('/b')).body).toBe('answer 1')
    expect(second.seen).toBe(1)
  })

  it('gives a long body whole, and in part', async () => {
    const { get, cache } = await site(sends(long), over)
    await get('/long')
    await stored(cache, 1)
    expect((await get('/long')).body === long.toString('latin1')).toBe(true)
    const part = await get('/long', { range: 'bytes=1000000-1300000' })
    expect(part.status).toBe(206)
    expect(part.body === long.toString('latin1', 1_000_000, 1_300_001)).toBe(true)
    expect(cache.stats()).toMatchObject({ hits: 2, storeErrors: 0 })
  })

  it.each([false, true])('does not bring back after a restart what was purged (soft: %s)', async (soft) => {
    const first = await site(numbered({ 'Cache-Control': 'max-age=600', 'Cache-Tag': 't' }), over)
    for (const path of ['/a', '/b', '/c']) await first.get(path)
    // What is on its way to the disk goes as well, and is not counted.
    await stored(first.cache, 3)
    expect(await first.cache.purge('http://shop.example/a', { soft })).toBe(1)
    expect(await first.cache.invalidateTag('t', { soft })).toBe(soft ? 3 : 2)
    await close()
    const second = await site(numbered({ 'Cache-Control': 'max-age=600' }), over)
    for (const path of ['/a', '/b', '/c']) await second.get(path)
    expect(second.seen).toBe(3)
  })

  it('answers from the upstream when the disk does nothing', async () => {
    const { get, cache } = await site(numbered({ 'Cache-Control': 'max-age=600' }), over)
    await get('/a')
    await (opened[0] as DiskCacheStore).close()
    expect((await get('/new')).status).toBe(200)
    expect((await get('/new')).status).toBe(200)
    expect(cache.stats().misses).toBeGreaterThan(1)
  })
})

it('a damaged file breaks the answer off, and is fetched anew', async () => {
  const { get, cache } = await site(sends(long), (disk) => disk)
  await get('/long')
  await stored(cache, 1)
  const [file = ''] = await entryFiles()
  const handle = await open(file, 'r+')
  await handle.write('damage', 2_000_000)
  await handle.close()
  await expect(get('/long')).rejects.toThrow()
  expect((await get('/long')).body === long.toString('latin1')).toBe(true)
  expect(cache.stats()).toMatchObject({ misses: 2 })
  expect((await get('/long')).body.length).toBe(long.length)
})

it('what is above does not need the disk', async () => {
  const { get, cache } = await site(numbered({ 'Cache-Control': 'max-age=600' }), kinds[1]?.[1] as (disk: CacheStore) => CacheStore)
  await get('/a')
  await stored(cache, 1)
  for (const file of await entryFiles()) await rm(file)
  expect((await get('/a')).body).toBe('answer 1')
  expect(cache.stats()).toMatchObject({ hits: 1, misses: 1 })
})
