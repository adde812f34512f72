/** Files that are not what was written: whatever is changed in them, no other byte is served, and they go. */
import { type FileHandle, mkdir, open as openFile, readdir, readFile, rename, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { seededRandom } from '@weir/testing'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { DiskStoreError } from './disk-error.ts'
import { type DiskCacheStore, diskStore } from './disk-store.ts'
import type { CacheEntry } from './entry.ts'
import { bodyOf, bytesOf, entryOf, filesIn, temporaryDirectory } from './fixtures/entries.ts'

let directory: string
let removeDirectory: () => Promise<void>
let store: DiskCacheStore

beforeEach(async () => {
  ;({ path: directory, remove: removeDirectory } = await temporaryDirectory())
  await open()
})
afterEach(async () => {
  await store.close()
  await removeDirectory()
})

async function open(): Promise<void> {
  store = diskStore({ directory, maxSize: '64MiB' })
  await store.start()
}

async function restart(): Promise<void> {
  await store.close()
  await open()
  for await (const _ of store.entries());
}

async function file(): Promise<string> {
  const { entries } = await filesIn(directory)
  expect(entries).toHaveLength(1)
  return join(directory, entries[0] as string)
}

async function flip(name: string, at: number, bit: number): Promise<void> {
  let handle: FileHandle | undefined
  try {
    handle = await openFile(name, 'r+')
    const byte = Buffer.alloc(1)
    await handle.read(byte, 0, 1, at)
    byte[0] = (byte[0] as number) ^ (1 << bit)
    await handle.write(byte, 0, 1, at)
  } finally {
    await handle?.close()
  }
}

/** `whole`: all of it and nothing else; `gone`: nothing; `broken`: a part of it, and an error. Anything else is what must not be. */
async function served(entry: CacheEntry): Promise<'whole' | 'gone' | 'broken' | 'wrong'> {
  const found = (await store.find(entry.key)).find(({ id }) => id === entry.id)
  if (found === undefined) return 'gone'
  const body = await store.body(found, 0, found.size)
  if (body === undefined) return 'gone'
  const expected = bodyOf(entry)
  if (!(body instanceof Readable)) return expected.equals(body) ? 'whole' : 'wrong'
  const chunks: Buffer[] = []
  try {
    for await (const chunk of body) chunks.push(chunk as Buffer)
  } catch (error) {
    const bytes = Buffer.concat(chunks)
    const isPart = bytes.length < expected.length && bytes.equals(expected.subarray(0, bytes.length))
    return isPart && DiskStoreError.is(error) && error.code === 'ERR_DISK_CORRUPT' ? 'broken' : 'wrong'
  }
  return Buffer.concat(chunks).equals(expected) ? 'whole' : 'wrong'
}

/** What was damaged is read, and is gone afterwards with its file. */
async function expectGone(entry: CacheEntry, first: readonly string[]): Promise<void> {
  expect(first).toContain(await served(entry))
  await store.close()
  expect(await store.find(entry.key)).toEqual([])
  expect((await filesIn(directory)).entries).toEqual([])
  await open()
}

const random = seededRandom(20_261_127)
const within = (limit: number): number => Math.floor(random() * limit)

it.each(Array.from({ length: 25 }, (_, i) => i))('a flipped bit in a body, %i', async (round) => {
  const entry = entryOf('a', 1 + within(round % 2 === 0 ? 3000 : 500_000))
  await store.put(entry, bodyOf(entry))
  const name = await file()
  const { size } = await stat(name)
  const encoded = entry.size + 4 * Math.ceil(entry.size / 65_536)
  await flip(name, size - encoded + within(encoded), within(8))
  if (round % 3 === 0) await restart()
  await expectGone(entry, ['gone', 'broken'])
})

it.each(Array.from({ length: 25 }, (_, i) => i))('a flipped bit anywhere, seen after a restart, %i', async () => {
  const entry = entryOf('a', 1 + within(2000))
  await store.put(entry, bodyOf(entry))
  await store.update(entry)
  const name = await file()
  await flip(name, within((await stat(name)).size), within(8))
  await restart()
  // A bit of the slot that is not in use, or of its padding, does no harm.
  expect(['gone', 'whole']).toContain(await served(entry))
  const { entries } = await filesIn(directory)
  expect(entries).toHaveLength((await served(entry)) === 'whole' ? 1 : 0)
})

it.each(['running', 'restarted'])('a file that was cut short at any place, while %s', async (when) => {
  for (let round = 0; round < 12; round++) {
    const entry = entryOf('a', 1 + within(round % 2 === 0 ? 3000 : 500_000))
    await store.put(entry, bodyOf(entry))
    const name = await file()
    await truncate(name, within((await stat(name)).size))
    if (when === 'restarted') {
      await restart()
      expect(store.stats().entries).toBe(0)
    }
    await expectGone(entry, ['gone', 'broken'])
  }
})

it('a file that grew', async () => {
  const entry = entryOf('a', 100)
  await store.put(entry, bodyOf(entry))
  await truncate(await file(), 100_000)
  await restart()
  await expectGone(entry, ['gone'])
})

it('a head that was torn while it was rewritten: the one before counts, and the body is whole', async () => {
  const entry = entryOf('a', 100)
  await store.put(entry, bodyOf(entry))
  const before = await readFile(await file())
  await store.update({ ...entry, lifetime: 5 })
  const after = await readFile(await file())
  const changed = before.findIndex((byte, i) => byte !== after[i])
  const last = before.findLastIndex((byte, i) => byte !== after[i])
  for (const torn of [changed + 1, Math.floor((changed + last) / 2), last]) {
    await store.close()
    const handle = await openFile(await file(), 'r+')
    await handle.write(Buffer.concat([after.subarray(0, torn), before.subarray(torn)]), 0, before.length, 0)
    await handle.close()
    await open()
    expect(await store.find('a')).toEqual([entry])
    expect(await served(entry)).toBe('whole')
  }
  await store.close()
  const handle = await openFile(await file(), 'r+')
  await handle.write(after, 0, after.length, 0)
  await handle.close()
  await open()
  expect((await store.find('a'))[0]?.lifetime).toBe(5)
})

it.each(['running', 'restarted'])('a file under the name of another entry, while %s', async (when) => {
  const a = entryOf('a', 100)
  await store.put(a, bodyOf(a))
  const nameOfA = await file()
  await store.remove(a)
  const b = entryOf('b', 100)
  await store.put(b, bodyOf(b))
  const nameOfB = await file()
  await store.put(a, bodyOf(a))
  await rename(nameOfB, nameOfA)
  // The file is whole, but it is b's.
  if (when === 'running') expect(await served(a)).toBe('gone')
  await restart()
  for (const entry of [a, b]) expect(await served(entry)).toBe('gone')
  expect((await filesIn(directory)).entries).toEqual([])
})

it('a directory under the name of an entry', async () => {
  const entry = entryOf('a', 100)
  await store.put(entry, bodyOf(entry))
  const name = await file()
  await store.remove(entry)
  await mkdir(name)
  await restart()
  expect(await served(entry)).toBe('gone')
  expect(await readdir(name)).toEqual([])
})

it('a block of another body in place of its own', async () => {
  const [a, b] = [entryOf('a', 300_000), entryOf('b', 300_000)]
  await store.put(a, bodyOf(a))
  const nameOfA = await file()
  await store.remove(a)
  await store.put(b, bodyOf(b))
  const nameOfB = await file()
  await store.put(a, bodyOf(a))
  const [fromA, fromB] = [await readFile(nameOfA), await readFile(nameOfB)]
  expect(fromA.length).toBe(fromB.length)
  // Checksum and all: what a disk that lost its power may show.
  await writeFile(nameOfA, Buffer.concat([fromA.subarray(0, -100_000), fromB.subarray(-100_000)]))
  const body = await store.body(a, 0, a.size)
  await expect(bytesOf(body)).rejects.toMatchObject({ code: 'ERR_DISK_CORRUPT' })
  await store.close()
  expect((await filesIn(directory)).entries).toHaveLength(1)
})
