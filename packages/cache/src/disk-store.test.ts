/** What a disk store keeps, over restarts, within its size, and what it says when it cannot. */
import { access, mkdir, readdir, readFile, rm, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { OptionsError } from '@weir/core'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { DiskStoreError } from './disk-error.ts'
import type { DiskStoreOptions } from './disk-options.ts'
import { type DiskCacheStore, diskStore } from './disk-store.ts'
import { freshFor } from './entry.ts'
import { bodyOf, bytesOf, entryOf, filesIn, putAll, read, temporaryDirectory } from './fixtures/entries.ts'

let directory: string
let removeDirectory: () => Promise<void>
const opened: DiskCacheStore[] = []

beforeEach(async () => {
  ;({ path: directory, remove: removeDirectory } = await temporaryDirectory())
})
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()))
  await removeDirectory()
})

async function open(options: Partial<DiskStoreOptions> = {}): Promise<DiskCacheStore> {
  const store = diskStore({ directory, maxSize: '64MiB', ...options })
  opened.push(store)
  await store.start()
  return store
}

async function reopen(store: DiskCacheStore, options: Partial<DiskStoreOptions> = {}): Promise<DiskCacheStore> {
  await store.close()
  return await open(options)
}

/** Until the directory has been read. */
async function whole(store: DiskCacheStore): Promise<number> {
  let count = 0
  for await (const _ of store.entries()) count++
  return count
}

async function refused(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!DiskStoreError.is(error)) throw new Error(`not a DiskStoreError: ${String(error)}`)
  return error.code
}

describe('what is stored', () => {
  it('is there after a restart, head and body, with everything that was said', async () => {
    const store = await open()
    const entry = entryOf('a', 5000, {
      etag: '"1"',
      language: 'de',
      tags: ['t'],
      vary: ['accept', 'x'],
      lifetime: Number.POSITIVE_INFINITY,
    })
    expect(await store.put(entry, bodyOf(entry))).toBe(true)
    const again = await reopen(store)
    const [found] = await again.find('a')
    expect(found).toEqual({ ...entry, lifetime: Number.MAX_VALUE })
    expect(await read(again, 'a')).toEqual(bodyOf(entry))
  })

  it('is found without waiting once the directory is read', async () => {
    const store = await open()
    await whole(store)
    const entry = entryOf('a', 10)
    await store.put(entry, bodyOf(entry))
    expect(store.find('a')).toEqual([entry])
    expect(store.find('b')).toEqual([])
  })

  it.each([0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 1_000_000, 3_000_000])(
    'is read as it was written, %i bytes of it',
    async (size) => {
      const store = await open()
      const entry = entryOf('a', size)
      await store.put(entry, bodyOf(entry))
      const body = await store.body(entry, 0, size)
      expect(body instanceof Readable).toBe(size > 131_072)
      expect((await bytesOf(body))?.equals(bodyOf(entry))).toBe(true)
    },
  )

  it.each([
    [0, 1],
    [5, 5],
    [65_535, 65_537],
    [65_536, 131_072],
    [1, 399_999],
    [399_999, 400_000],
    [200_000, 400_000],
  ])('is read in part, bytes %i to %i', async (start, end) => {
    const store = await open()
    const entry = entryOf('a', 400_000)
    await store.put(entry, bodyOf(entry))
    expect((await read(store, 'a', start, end))?.equals(bodyOf(entry).subarray(start, end))).toBe(true)
  })

  it('replaces the same variant and stands beside others, the newest first', async () => {
    const store = await open()
    const old = entryOf('a', 10, { vary: ['accept', 'x'] })
    const other = entryOf('a', 20, { vary: ['accept', 'y'] })
    const fresh = entryOf('a', 30, { vary: ['accept', 'x'] })
    for (const entry of [old, other, fresh]) await store.put(entry, bodyOf(entry))
    expect(await store.find('a')).toEqual([fresh, other])
    expect(await store.body(old, 0, 10)).toBeUndefined()
    const again = await reopen(store)
    expect(await again.find('a')).toEqual([fresh, other])
    expect((await filesIn(directory)).entries).toHaveLength(2)
  })

  it('keeps no more variants of a key than it may', async () => {
    const store = await open({ maxVariants: 3 })
    for (let i = 0; i < 6; i++) {
      const entry = entryOf('a', 10, { vary: ['accept', String(i)] })
      await store.put(entry, bodyOf(entry))
    }
    expect((await store.find('a')).map(({ vary }) => vary[1])).toEqual(['5', '4', '3'])
    expect((await filesIn(directory)).entries).toHaveLength(3)
  })

  it('can be read to its end although it was removed meanwhile', async () => {
    const store = await open()
    const entry = entryOf('a', 1_000_000)
    await store.put(entry, bodyOf(entry))
    const body = await store.body(entry, 0, entry.size)
    await store.remove(entry)
    expect((await filesIn(directory)).entries).toEqual([])
    expect((await bytesOf(body))?.equals(bodyOf(entry))).toBe(true)
  })

  it('is nobody else’s to read', async () => {
    const store = await open({ directory: join(directory, 'deep', 'er') })
    const entry = entryOf('a', 10)
    await store.put(entry, bodyOf(entry))
    const { entries } = await filesIn(join(directory, 'deep', 'er'))
    const file = join(directory, 'deep', 'er', entries[0] as string)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    for (const folder of [join(file, '..'), join(directory, 'deep', 'er'), join(directory, 'deep', 'er', 'tmp')])
      expect((await stat(folder)).mode & 0o777).toBe(0o700)
  })
})

describe('another head', () => {
  it('survives a restart, many times over, and the body with it', async () => {
    let store = await open()
    const entry = entryOf('a', 200_000, { tags: ['old'] })
    await store.put(entry, bodyOf(entry))
    for (let i = 1; i < 6; i++) {
      const fresh = { ...entry, lifetime: i, tags: [`t${i}`] }
      expect(await store.update(fresh)).toBe(true)
      store = await reopen(store)
      expect(await store.find('a')).toEqual([fresh])
      expect(await store.invalidateTag('old', { kind: 'delete' })).toBe(0)
    }
    expect((await read(store, 'a'))?.equals(bodyOf(entry))).toBe(true)
  })

  it('may be much longer than the one before', async () => {
    const store = await open()
    const entry = entryOf('a', 200_000)
    await store.put(entry, bodyOf(entry))
    const fresh = { ...entry, fields: ['X-Long', 'x'.repeat(20_000)] }
    expect(await store.update(fresh)).toBe(true)
    expect((await read(store, 'a'))?.equals(bodyOf(entry))).toBe(true)
    const again = await reopen(store)
    expect(await again.find('a')).toEqual([fresh])
    expect((await read(again, 'a'))?.equals(bodyOf(entry))).toBe(true)
    expect((await filesIn(directory)).entries).toHaveLength(1)
  })

  it('is refused for what has gone', async () => {
    const store = await open()
    const entry = entryOf('a', 10)
    expect(await store.update(entry)).toBe(false)
    await store.put(entry, bodyOf(entry))
    const replaced = entryOf('a', 10)
    await store.put(replaced, bodyOf(replaced))
    expect(await store.update(entry)).toBe(false)
    expect(await store.find('a')).toEqual([replaced])
  })
})

describe('what is invalidated', () => {
  it.each(['key', 'tag'])('by %s is gone for good', async (by) => {
    const store = await open()
    const entries = ['x', 'y'].map((accept) => entryOf('a', 10, { tags: ['t'], vary: ['accept', accept] }))
    const bystander = entryOf('b', 10, { tags: ['u'] })
    for (const entry of [...entries, bystander]) await store.put(entry, bodyOf(entry))
    expect(await (by === 'key' ? store.invalidate('a', { kind: 'delete' }) : store.invalidateTag('t', { kind: 'delete' }))).toBe(2)
    expect(await store.find('a')).toEqual([])
    expect((await filesIn(directory)).entries).toHaveLength(1)
    const again = await reopen(store)
    expect(await again.find('a')).toEqual([])
    expect(await read(again, 'b')).toEqual(bodyOf(bystander))
  })

  it.each(['key', 'tag'])('by %s softly stays stale', async (by) => {
    const store = await open()
    const entry = entryOf('a', 10, { tags: ['t'] })
    await store.put(entry, bodyOf(entry))
    const how = { kind: 'stale', now: entry.storedAt + 1000 } as const
    expect(await (by === 'key' ? store.invalidate('a', how) : store.invalidateTag('t', how))).toBe(1)
    const again = await reopen(store)
    const [found] = await again.find('a')
    expect(found === undefined ? undefined : freshFor(found, how.now)).toBe(0)
    expect(await read(again, 'a')).toEqual(bodyOf(entry))
  })

  it('includes what is on its way to the disk', async () => {
    const store = await open()
    await whole(store)
    const entries = Array.from({ length: 20 }, (_, i) => entryOf(`k${i}`, 100_000, { tags: ['t'] }))
    const puts = entries.map(async (entry) => await store.put(entry, bodyOf(entry)))
    expect(await store.invalidateTag('t', { kind: 'delete' })).toBe(20)
    expect(await Promise.all(puts)).toEqual(entries.map(() => true))
    for (const { key } of entries) expect(await store.find(key)).toEqual([])
    expect((await filesIn(directory)).entries).toEqual([])
  })

  it('includes what is not read yet after a restart', async () => {
    const store = await open()
    const entries = Array.from({ length: 300 }, (_, i) => entryOf(`k${i}`, 10, { tags: ['t'] }))
    await putAll(store, entries)
    const again = await reopen(store)
    expect(again.stats().entries).toBeLessThan(300)
    const [one, all] = await Promise.all([again.invalidate('k7', { kind: 'delete' }), again.invalidateTag('t', { kind: 'delete' })])
    expect([one, all]).toEqual([1, 299])
    expect((await filesIn(directory)).entries).toEqual([])
  })

  it('all goes with clear', async () => {
    const store = await open()
    const entries = Array.from({ length: 100 }, (_, i) => entryOf(`k${i}`, 10))
    await putAll(store, entries)
    await store.clear()
    expect(store.stats()).toEqual({ entries: 0, bytes: 0 })
    expect((await filesIn(directory)).entries).toEqual([])
  })
})

describe('bounds', () => {
  async function bytesOnDisk(): Promise<number> {
    let bytes = 0
    for (const name of (await filesIn(directory)).entries) bytes += Math.ceil((await stat(join(directory, name))).size / 4096) * 4096
    return bytes
  }

  it('hold on the disk, and what was not used for longest goes first', async () => {
    const store = await open({ maxSize: 40 * 4096 })
    await whole(store)
    for (let i = 0; i < 40; i++) {
      const entry = entryOf(`k${i}`, 1000)
      await store.put(entry, bodyOf(entry))
    }
    for (let i = 0; i < 10; i++) await store.find(`k${i}`)
    for (let i = 40; i < 60; i++) {
      const entry = entryOf(`k${i}`, 1000)
      await store.put(entry, bodyOf(entry))
      expect(await bytesOnDisk()).toBeLessThanOrEqual(40 * 4096)
    }
    const kept = []
    for (let i = 0; i < 60; i++) if ((await store.find(`k${i}`)).length > 0) kept.push(i)
    expect(kept).toEqual([...Array.from({ length: 10 }, (_, i) => i), ...Array.from({ length: 30 }, (_, i) => i + 30)])
    expect(store.stats()).toEqual({ entries: 40, bytes: await bytesOnDisk() })
  })

  it('hold when many come at once', async () => {
    const store = await open({ maxSize: 40 * 4096 })
    const entries = Array.from({ length: 200 }, (_, i) => entryOf(`k${i % 70}`, 1000 + i * 20))
    const kept = await putAll(store, entries)
    expect(kept.filter(Boolean).length).toBeGreaterThan(20)
    expect(await bytesOnDisk()).toBeLessThanOrEqual(40 * 4096)
    expect(store.stats().bytes).toBe(await bytesOnDisk())
  })

  it('hold when the size is less than it was before', async () => {
    const store = await open()
    const entries = Array.from({ length: 100 }, (_, i) => entryOf(`k${i}`, 1000))
    await putAll(store, entries)
    const again = await reopen(store, { maxSize: 10 * 4096 })
    await whole(again)
    const entry = entryOf('new', 1000)
    expect(await again.put(entry, bodyOf(entry))).toBe(true)
    expect(await bytesOnDisk()).toBeLessThanOrEqual(10 * 4096)
    expect(await read(again, 'new')).toEqual(bodyOf(entry))
  })

  it('hold in memory', async () => {
    const store = await open({ maxIndex: 20_000 })
    for (let i = 0; i < 100; i++) {
      const entry = entryOf(`k${i}`, 10)
      await store.put(entry, bodyOf(entry))
    }
    await vi.waitFor(() => expect(store.stats().entries).toBeLessThan(30))
    await store.close()
    const { entries } = store.stats()
    expect(entries).toBeGreaterThan(5)
    expect((await filesIn(directory)).entries).toHaveLength(entries)
  })

  it('refuse what is larger than the whole, and let go what it was to replace', async () => {
    const store = await open({ maxSize: 100_000 })
    const small = entryOf('a', 10)
    const other = entryOf('b', 10)
    for (const entry of [small, other]) await store.put(entry, bodyOf(entry))
    const large = entryOf('a', 100_000)
    expect(await store.put(large, bodyOf(large))).toBe(false)
    expect(await store.find('a')).toEqual([])
    expect(await store.find('b')).toEqual([other])
  })

  it('let nothing in while too much waits to be written', async () => {
    const store = await open({ maxPending: 250_000 })
    const entries = Array.from({ length: 10 }, (_, i) => entryOf(`k${i}`, 100_000))
    expect((await putAll(store, entries)).filter(Boolean)).toHaveLength(2)
    const late = entryOf('late', 100_000)
    expect(await store.put(late, bodyOf(late))).toBe(true)
  })
})

describe('a directory', () => {
  it('keeps what is none of the store’s', async () => {
    await mkdir(join(directory, '0ab'))
    const mine = ['notes.txt', join('0ab', 'notes.txt'), join('0ab', 'f'.repeat(63))]
    for (const name of mine) await writeFile(join(directory, name), 'mine')
    const store = await open()
    await whole(store)
    await store.clear()
    for (const name of mine) expect(await readFile(join(directory, name), 'utf8')).toBe('mine')
  })

  it('is rid of what a dead process was writing, before anything else', async () => {
    await mkdir(join(directory, 'tmp'))
    await writeFile(join(directory, 'tmp', 'abc-1'), 'half')
    await open()
    expect((await filesIn(directory)).temporary).toEqual([])
  })

  it('is not left by a link that stands where a file should be', async () => {
    const store = await open()
    const entry = entryOf('a', 10)
    await store.put(entry, bodyOf(entry))
    const [name] = (await filesIn(directory)).entries
    await store.close()
    const outside = join(directory, 'outside')
    await writeFile(outside, await readFile(join(directory, name as string)))
    await unlink(join(directory, name as string))
    await symlink(outside, join(directory, name as string))
    const again = await open()
    expect(await again.find('a')).toEqual([])
    expect((await filesIn(directory)).entries).toEqual([])
    await access(outside)
  })

  it('may lose its folders while the store runs', async () => {
    const store = await open()
    const entry = entryOf('a', 10)
    await store.put(entry, bodyOf(entry))
    for (const folder of await readdir(directory)) if (folder !== 'weir.lock') await rm(join(directory, folder), { recursive: true })
    expect(await read(store, 'a')).toBeUndefined()
    expect(store.stats()).toEqual({ entries: 0, bytes: 0 })
    const next = entryOf('a', 10)
    expect(await store.put(next, bodyOf(next))).toBe(true)
    expect(await read(store, 'a')).toEqual(bodyOf(next))
  })

  it('is one store’s at a time', async () => {
    const store = await open()
    expect(await refused(open())).toBe('ERR_DISK_LOCKED')
    opened.pop()
    await reopen(store)
  })

  it('that cannot be made is refused, and can be tried again', async () => {
    await writeFile(join(directory, 'file'), '')
    const store = diskStore({ directory: join(directory, 'file', 'below'), maxSize: '1MiB' })
    opened.push(store)
    expect(await refused(store.start())).toBe('ERR_DISK_DIRECTORY')
    await unlink(join(directory, 'file'))
    await store.start()
    const entry = entryOf('a', 10)
    expect(await store.put(entry, bodyOf(entry))).toBe(true)
  })

  // Root may do everything.
})

describe('before its start and after its end', () => {
  it('nothing is found and nothing taken', async () => {
    const store = diskStore({ directory, maxSize: '1MiB' })
    const entry = entryOf('a', 10)
    expect(store.find('a')).toEqual([])
    expect(await refused(store.put(entry, bodyOf(entry)) as Promise<boolean>)).toBe('ERR_DISK_CLOSED')
    await store.start()
    await store.start()
    await store.put(entry, bodyOf(entry))
    await store.close()
    await store.close()
    expect(store.find('a')).toEqual([])
    expect(await store.body(entry, 0, 10)).toBeUndefined()
    expect(await refused(Promise.resolve(store.invalidateTag('t', { kind: 'delete' })))).toBe('ERR_DISK_CLOSED')
    expect(await refused(store.start())).toBe('ERR_DISK_CLOSED')
    expect(await readdir(directory)).not.toContain('weir.lock')
  })

  it('closing waits for what is being written', async () => {
    const store = await open()
    const entry = entryOf('a', 1_000_000)
    const put = store.put(entry, bodyOf(entry))
    await store.close()
    expect(await put).toBe(true)
    expect((await filesIn(directory)).temporary).toEqual([])
    const again = await open()
    expect((await read(again, 'a'))?.equals(bodyOf(entry))).toBe(true)
  })
})

it('wrong options are told all at once', () => {
  const wrong = { directory: '', maxVariants: 0, fsync: 'yes', sizes: 1 } as unknown as DiskStoreOptions
  try {
    diskStore(wrong)
    expect.unreachable()
  } catch (error) {
    if (!OptionsError.is(error)) throw error
    expect(error.problems.map(({ path }) => path).sort()).toEqual(['directory', 'fsync', 'maxSize', 'maxVariants', 'sizes'])
  }
})

it('stores the same with fsync', async () => {
  const store = await open({ fsync: true })
  const entry = entryOf('a', 100_000)
  await store.put(entry, bodyOf(entry))
  await store.update({ ...entry, lifetime: 1 })
  const again = await reopen(store, { fsync: true })
  expect((await again.find('a'))[0]?.lifetime).toBe(1)
  expect(await again.remove(entry)).toBe(true)
})
