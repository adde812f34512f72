/** A start on a directory that is full: nobody waits for all of it, and everybody sees all of it. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type DiskCacheStore, diskStore } from './disk-store.ts'
import type { CacheEntry } from './entry.ts'
import { bodyOf, entryOf, putAll, read, temporaryDirectory } from './fixtures/entries.ts'

const count = 5000
let directory: string
let removeDirectory: () => Promise<void>
let entries: CacheEntry[]

beforeAll(async () => {
  ;({ path: directory, remove: removeDirectory } = await temporaryDirectory())
  entries = Array.from({ length: count }, (_, i) => entryOf(`k${i}`, 20, { tags: [`t${i % 10}`] }))
  const store = make()
  await store.start()
  for (let i = 0; i < count; i += 100) await putAll(store, entries.slice(i, i + 100))
  await store.close()
}, 60_000)
afterAll(() => removeDirectory())

function make(): DiskCacheStore {
  return diskStore({ directory, maxSize: '256MiB' })
}

/** Turns of the event loop until `work` is done. */
async function turnsOf(work: Promise<unknown>): Promise<number> {
  let turns = 0
  let done = false
  work.then(
    () => (done = true),
    () => (done = true),
  )
  while (!done) {
    await new Promise(setImmediate)
    turns++
  }
  await work
  return turns
}

it('the event loop goes on turning while it is read, with no more than a few files to a turn', async () => {
  const store = make()
  await store.start()
  let most = 0
  let before = store.stats().entries
  let done = false
  const reading = (async () => {
    for await (const _ of store.entries()) break
  })().finally(() => {
    done = true
  })
  while (!done) {
    await new Promise(setImmediate)
    const now = store.stats().entries
    most = Math.max(most, now - before)
    before = now
  }
  await reading
  expect(store.stats().entries).toBe(count)
  // Folders have one or two of these files each, and the results of some folders may come in one turn.
  expect(most).toBeLessThan(200)
  await store.close()
})

it('what is asked for is found before the rest is read', async () => {
  const store = make()
  await store.start()
  const entry = entries[4321] as CacheEntry
  expect(await read(store, entry.key)).toEqual(bodyOf(entry))
  expect(store.stats().entries).toBeLessThan(count)
  expect(await store.find('nothing such')).toEqual([])
  await store.close()
})

it('what is changed meanwhile is as it was changed', async () => {
  const store = make()
  await store.start()
  const [a, b, c] = [entries[11], entries[22], entries[33]] as [CacheEntry, CacheEntry, CacheEntry]
  const replaced = entryOf(a.key, 30, { tags: a.tags })
  await Promise.all([store.put(replaced, bodyOf(replaced)), store.remove(b), store.update({ ...c, lifetime: 1 })])
  let seen = 0
  for await (const _ of store.entries()) seen++
  expect(seen).toBe(count - 1)
  expect(await store.find(a.key)).toEqual([replaced])
  expect(await store.find(b.key)).toEqual([])
  expect((await store.find(c.key))[0]?.lifetime).toBe(1)
  await Promise.all([store.put(a, bodyOf(a)), store.put(b, bodyOf(b)), store.update(c)])
  await store.close()
})

it('it can be closed before it is read', async () => {
  const store = make()
  await store.start()
  await store.close()
  expect(store.stats().entries).toBeLessThan(count)
})

it('many invalidations do not hold up the event loop', async () => {
  const store = make()
  await store.start()
  expect(await turnsOf(Promise.resolve(store.invalidateTag('t3', { kind: 'delete' })))).toBeGreaterThan(10)
  expect(await turnsOf(Promise.resolve(store.clear()))).toBeGreaterThan(100)
  expect(store.stats()).toEqual({ entries: 0, bytes: 0 })
  await store.close()
})
