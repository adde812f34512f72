/** A disk that refuses: nothing half-written stays, nothing that was replaced comes back, and the caller learns why. */
import { promises } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { DiskStoreError } from './disk-error.ts'
import type { DiskIo } from './disk-files.ts'
import { readDiskOptions } from './disk-options.ts'
import { type DiskCacheStore, openDiskStore } from './disk-store.ts'
import { bodyOf, entryOf, filesIn, read, temporaryDirectory } from './fixtures/entries.ts'

let directory: string
let removeDirectory: () => Promise<void>
let store: DiskCacheStore
let told: string[]

beforeEach(async () => {
  ;({ path: directory, remove: removeDirectory } = await temporaryDirectory())
  told = []
})
afterEach(async () => {
  await store.close()
  await removeDirectory()
})

async function open(io?: Partial<DiskIo>): Promise<DiskCacheStore> {
  const settings = readDiskOptions({ directory, maxSize: '64MiB', onError: ({ code }) => told.push(code) })
  store = openDiskStore(settings, io === undefined ? undefined : { ...promises, ...io })
  await store.start()
  return store
}

function failure(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: made up`), { code })
}

async function codeOf(work: unknown): Promise<string | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    return DiskStoreError.is(error) ? error.code : String(error)
  }
}

/** A disk with so many bytes left: it takes a part of what does not fit, and refuses the rest, as file systems do. */
function diskWith(space: { left: number }): Partial<DiskIo> {
  const take = (length: number): number => {
    if (space.left === 0 && length > 0) throw failure('ENOSPC')
    const taken = Math.min(length, space.left)
    space.left -= taken
    return taken
  }
  const open = async (...args: Parameters<DiskIo['open']>): Promise<FileHandle> => {
    const handle = await promises.open(...args)
    const write = handle.write.bind(handle) as (bytes: Uint8Array, at: number, length: number) => Promise<{ bytesWritten: number }>
    handle.writev = (async (buffers: readonly Uint8Array[]) => {
      const all = Buffer.concat(buffers)
      return await write(all, 0, take(all.length))
    }) as unknown as FileHandle['writev']
    handle.write = (async (bytes: Uint8Array, at: number) =>
      await write(bytes, at, take(bytes.length - at))) as unknown as FileHandle['write']
    return handle
  }
  return { open: open as DiskIo['open'] }
}

it.each([0, 10, 600, 70_000])(
  'a disk that is full after %i bytes fails a put, keeps no part of it, and not what it was to replace',
  async (left) => {
    const space = { left: Number.POSITIVE_INFINITY }
    await open(diskWith(space))
    const old = entryOf('a', 50)
    const other = entryOf('b', 50)
    for (const entry of [old, other]) await store.put(entry, bodyOf(entry))
    space.left = left
    const entry = entryOf('a', 100_000)
    expect(await codeOf(store.put(entry, bodyOf(entry)))).toBe('ERR_DISK_FULL')
    expect(await store.find('a')).toEqual([])
    expect(await read(store, 'b')).toEqual(bodyOf(other))
    expect(await filesIn(directory)).toMatchObject({ entries: [expect.any(String)], temporary: [] })
    space.left = Number.POSITIVE_INFINITY
    expect(await store.put(entry, bodyOf(entry))).toBe(true)
    expect(await read(store, 'a')).toEqual(bodyOf(entry))
  },
)

it('a write that is taken in parts is finished', async () => {
  const space = { left: Number.POSITIVE_INFINITY }
  const io = diskWith(space)
  await open({
    open: (async (...args: Parameters<DiskIo['open']>) => {
      const handle = await (io.open as DiskIo['open'])(...args)
      const { writev } = handle
      handle.writev = (async (buffers: readonly Uint8Array[]) => {
        // Once, not again for the rest.
        const [first = new Uint8Array(0)] = buffers
        return await writev.call(handle, [first.subarray(0, 7)])
      }) as unknown as FileHandle['writev']
      return handle
    }) as DiskIo['open'],
  })
  const entry = entryOf('a', 100_000)
  expect(await store.put(entry, bodyOf(entry))).toBe(true)
  expect(await read(store, 'a')).toEqual(bodyOf(entry))
})

it('a head that outgrew its place and finds none leaves the old one', async () => {
  const space = { left: Number.POSITIVE_INFINITY }
  await open(diskWith(space))
  const entry = entryOf('a', 1000)
  await store.put(entry, bodyOf(entry))
  space.left = 3000
  expect(await codeOf(store.update({ ...entry, fields: ['X-Long', 'x'.repeat(9000)] }))).toBe('ERR_DISK_FULL')
  expect(await store.find('a')).toEqual([entry])
  expect(await read(store, 'a')).toEqual(bodyOf(entry))
  expect((await filesIn(directory)).temporary).toEqual([])
})

it('what cannot be made stale goes', async () => {
  const space = { left: Number.POSITIVE_INFINITY }
  await open(diskWith(space))
  const entry = entryOf('a', 1000, { tags: ['t'] })
  await store.put(entry, bodyOf(entry))
  space.left = 0
  expect(await store.invalidateTag('t', { kind: 'stale', now: entry.storedAt })).toBe(1)
  expect(await store.find('a')).toEqual([])
  expect((await filesIn(directory)).entries).toEqual([])
})

it('what cannot be unlinked is emptied, and does not come back', async () => {
  await open({ unlink: async () => Promise.reject(failure('EACCES')) })
  const entry = entryOf('a', 1000)
  await store.put(entry, bodyOf(entry))
  expect(await store.invalidate('a', { kind: 'delete' })).toBe(1)
  await store.close()
  await open()
  expect(await store.find('a')).toEqual([])
  expect((await filesIn(directory)).entries).toEqual([])
})

it('an invalidation that the disk refuses altogether is told, and holds in this process', async () => {
  await open({ unlink: async () => Promise.reject(failure('EROFS')), truncate: async () => Promise.reject(failure('EROFS')) })
  const entries = ['a', 'b'].map((key) => entryOf(key, 10, { tags: ['t'] }))
  for (const entry of entries) await store.put(entry, bodyOf(entry))
  expect(await codeOf(store.invalidateTag('t', { kind: 'delete' }))).toBe('ERR_DISK_ACCESS')
  for (const { key } of entries) expect(await store.find(key)).toEqual([])
})

it.each(['EACCES', 'EPERM', 'EROFS'])('a directory that cannot be written to is told at the start: %s', async (code) => {
  expect(await codeOf(open({ mkdir: (async () => Promise.reject(failure(code))) as DiskIo['mkdir'] }))).toBe('ERR_DISK_ACCESS')
  expect(await codeOf(open({ rm: async () => Promise.reject(failure(code)) }))).toBe('ERR_DISK_ACCESS')
  // The lock of the attempt is not left behind.
  await open()
})

it('a folder that cannot be read fails what is asked of it, until it can', async () => {
  await open()
  const entries = Array.from({ length: 20 }, (_, i) => entryOf(`k${i}`, 10))
  for (const entry of entries) await store.put(entry, bodyOf(entry))
  await store.close()
  let broken = true
  const opendir = (async (...args: Parameters<DiskIo['opendir']>) => {
    if (broken) throw failure('EIO')
    return await promises.opendir(...args)
  }) as DiskIo['opendir']
  await open({ opendir })
  expect(await codeOf(store.find('k1'))).toMatch(/EIO/)
  expect(await codeOf(store.invalidateTag('t', { kind: 'delete' }))).toBe('ERR_DISK_IO')
  expect(await codeOf(store.put(entryOf('k1', 5), Buffer.alloc(5)))).toBe('ERR_DISK_IO')
  expect(told).toEqual(['ERR_DISK_IO'])
  broken = false
  expect(await read(store, 'k1')).toEqual(bodyOf(entries[1] as (typeof entries)[0]))
  expect(await store.invalidateTag('t', { kind: 'delete' })).toBe(0)
  expect(store.stats().entries).toBe(20)
})
