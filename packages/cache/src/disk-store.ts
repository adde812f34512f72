/**
 * Entries in files, so that they outlive the process. Open this first:
 *
 *   disk-head.ts       an entry as text; the name of its file
 *   disk-format.ts     what a file looks like, and its checksums
 *   disk-files.ts      a file appears whole or not at all
 *   disk-body.ts       nothing goes out unchecked
 *   disk-reader.ts     what becomes of a read that met a change, or a damaged file
 *   disk-index.ts      what is there, in memory, so that lookups are synchronous
 *   disk-shelf.ts      both in step, and within their bounds
 *   disk-scan.ts       what was there before
 *   directory-lock.ts  one process, one directory
 *
 * Changes of a key run one after the other. Reads run beside them: one that meets a change finds checksums of another entry, waits for the
 * change, looks again.
 */
import type { Readable } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { MaybePromise } from '@weir/core'
import { DirectoryLock } from './directory-lock.ts'
import { DiskStoreError, diskError } from './disk-error.ts'
import { DiskFiles, type DiskIo } from './disk-files.ts'
import * as format from './disk-format.ts'
import { decodeHead, encodeHead, pathOf } from './disk-head.ts'
import { type Held, weightInMemory } from './disk-index.ts'
import { type DiskSettings, type DiskStoreOptions, readDiskOptions } from './disk-options.ts'
import { DiskReader } from './disk-reader.ts'
import { DiskScan } from './disk-scan.ts'
import { DiskShelf } from './disk-shelf.ts'
import type { CacheEntry } from './entry.ts'
import { KeyedQueue } from './keyed-queue.ts'
import type { CacheStore, CacheStoreStats, Invalidation } from './store.ts'

export interface DiskCacheStore extends CacheStore {
  /**
   * Makes and locks the directory, and removes what a killed process left half-done. What is stored there is read in the background from
   * then on; whatever is asked for before its turn is read first. A cache calls it; call it yourself to learn early what is wrong. Until
   * then nothing is found and nothing stored.
   * @throws DiskStoreError `ERR_DISK_DIRECTORY`, `ERR_DISK_ACCESS`, `ERR_DISK_FULL`, `ERR_DISK_LOCKED`, `ERR_DISK_IO`; may be called again
   *   then
   */
  start(): Promise<void>
  /**
   * When everything is written, and the directory free for another store. Whoever made the store calls it, after closing the proxy. It
   * cannot be started again.
   */
  close(): Promise<void>
}

/**
 * At run time a change that fails rejects with a `DiskStoreError`, leaves no file behind, and what it was to replace is gone. An
 * invalidation that rejects has taken place in this process, but may be undone by a restart.
 * @throws OptionsError
 */
export function diskStore(options: DiskStoreOptions): DiskCacheStore {
  return openDiskStore(readDiskOptions(options))
}

export function openDiskStore(settings: DiskSettings, io?: DiskIo): DiskCacheStore {
  return new DiskStore(settings, io)
}

const together = 32
const nothing: readonly CacheEntry[] = []

class DiskStore implements DiskCacheStore {
  readonly name: string = 'disk'
  readonly #settings: DiskSettings
  readonly #files: DiskFiles
  readonly #lock: DirectoryLock
  readonly #scan: DiskScan
  readonly #changes = new KeyedQueue()
  readonly #shelf: DiskShelf
  readonly #reader: DiskReader
  /** What is being put or updated: its tags are not in the index yet. */
  readonly #underway = new Set<CacheEntry>()
  /** Why it does nothing; undefined while it is open. */
  #off: DiskStoreError | undefined = new DiskStoreError('ERR_DISK_CLOSED', 'diskStore: not started')
  #lost = false
  #starting: Promise<void> | undefined
  #closing: Promise<void> | undefined
  /** Bytes of bodies that wait. */
  #pending = 0

  constructor(settings: DiskSettings, io: DiskIo | undefined) {
    this.#settings = settings
    this.#files = new DiskFiles(settings.directory, settings.fsync, io)
    const report = (error: unknown, doing: string): void => this.#report(error, doing)
    this.#shelf = new DiskShelf(settings, this.#files, this.#changes, report)
    this.#reader = new DiskReader(this.#files, this.#shelf, this.#changes, () => this.#off === undefined, report)
    this.#lock = new DirectoryLock(settings.directory, () => this.#lockLost())
    this.#scan = new DiskScan(this.#files, (key, held) => {
      this.#shelf.index.add(key, held)
      this.#shelf.shrink()
    })
  }

  async start(): Promise<void> {
    if (this.#closing !== undefined) throw new DiskStoreError('ERR_DISK_CLOSED', 'diskStore: closed')
    this.#starting ??= this.#open().catch((error: unknown) => {
      this.#starting = undefined
      throw error
    })
    await this.#starting
  }

  async #open(): Promise<void> {
    await this.#files.makeDirectory()
    await this.#lock.take()
    try {
      await this.#files.removeTemporary()
      await this.#files.folders()
    } catch (error) {
      await this.#lock.release()
      throw diskError(error, `cannot read ${this.#settings.directory}`)
    }
    this.#off = undefined
    this.#scan.whole().catch((error: unknown) => {
      if (this.#off === undefined) this.#report(error, `cannot read all of ${this.#settings.directory}`)
    })
  }

  close(): Promise<void> {
    this.#closing ??= this.#shut()
    return this.#closing
  }

  async #shut(): Promise<void> {
    await this.#starting?.catch(() => {})
    if (!this.#lost) this.#off = new DiskStoreError('ERR_DISK_CLOSED', 'diskStore: closed')
    await this.#scan.stop()
    await this.#shelf.stop()
    await this.#changes.idle()
    if (this.#starting !== undefined) await this.#lock.release()
  }

  #lockLost(): void {
    this.#lost = true
    this.#off = new DiskStoreError(
      'ERR_DISK_LOCK_LOST',
      `diskStore: another process took ${this.#settings.directory} over; restart this one`,
    )
    this.#settings.onError?.(this.#off)
    void this.#scan.stop()
    void this.#shelf.stop()
  }

  #report(error: unknown, doing: string): void {
    this.#settings.onError?.(diskError(error, doing))
  }

  find(key: string): MaybePromise<readonly CacheEntry[]> {
    if (this.#off !== undefined) return nothing
    const loading = this.#scan.load(key)
    return loading === undefined ? this.#known(key) : loading.then(() => this.#known(key))
  }

  #known(key: string): readonly CacheEntry[] {
    const variants = this.#shelf.index.find(key)
    return variants.length === 0 ? nothing : variants.map(({ head }) => decodeHead(head))
  }

  body(entry: CacheEntry, start: number, end: number): Promise<Uint8Array | Readable | undefined> {
    return this.#reader.body(entry, start, end)
  }

  async put(given: CacheEntry, body: Uint8Array): Promise<boolean> {
    const { maxSize, maxIndex, maxPending } = this.#settings
    const entry = given.size === body.length ? given : { ...given, size: body.length }
    const text = encodeHead(entry)
    const head = Buffer.from(text)
    const { id, storedAt, size, tags, key } = entry
    const slot: format.Slot = { size: format.slotSizeFor(head), index: 0, sequence: 1 }
    const held: Held = { id, path: pathOf(entry), head: text, storedAt, size, tags, slot, notedAt: Date.now() }
    const need = format.footprint(slot.size, size)
    const tooMuch = need > maxSize || weightInMemory(held) > maxIndex || (this.#pending > 0 && this.#pending + size > maxPending)
    if (tooMuch)
      return await this.#change(key, async () => {
        await this.#shelf.dropPath(key, held.path)
        return false
      })
    this.#pending += size
    this.#underway.add(entry)
    try {
      return await this.#change(key, () => this.#shelf.write(key, held, need, [format.encodeStart(head, slot.size)], body))
    } finally {
      this.#pending -= size
      this.#underway.delete(entry)
    }
  }

  async update(entry: CacheEntry): Promise<boolean> {
    const { key, id } = entry
    this.#underway.add(entry)
    try {
      return await this.#change(key, async () => {
        const held = this.#shelf.index.byId(key, id)
        if (held === undefined) return false
        const fresh = await this.#shelf.rehead(held, entry)
        if (fresh === undefined) {
          await this.#shelf.drop(key, [held])
          return false
        }
        this.#shelf.index.set(key, [fresh, ...this.#shelf.index.peek(key).filter(({ path }) => path !== fresh.path && path !== held.path)])
        this.#shelf.shrink()
        return true
      })
    } finally {
      this.#underway.delete(entry)
    }
  }

  async remove(entry: CacheEntry): Promise<boolean> {
    return await this.#change(entry.key, async () => {
      const held = this.#shelf.index.byId(entry.key, entry.id)
      if (held === undefined) return false
      await this.#shelf.drop(entry.key, [held])
      return true
    })
  }

  invalidate(key: string, how: Invalidation): MaybePromise<number> {
    if (this.#off === undefined && this.#scan.complete && !this.#changes.has(key) && this.#shelf.index.peek(key).length === 0) return 0
    return this.#change(key, () => this.#shelf.invalidate(key, () => true, how))
  }

  /** Waits until everything is read, because nobody knows the tags of what is not. */
  async invalidateTag(tag: string, how: Invalidation): Promise<number> {
    this.#check()
    // At once where it can be: what is put after this call is not meant.
    if (!this.#scan.complete) await this.#everything()
    const keys = new Set(this.#shelf.index.keysOf(tag))
    for (const { key, tags } of this.#underway) if (tags.includes(tag)) keys.add(key)
    return await this.#each([...keys], (key) => this.#shelf.invalidate(key, ({ tags }) => tags.includes(tag), how))
  }

  async clear(): Promise<void> {
    this.#check()
    if (!this.#scan.complete) await this.#everything()
    const keys = new Set(this.#shelf.index.keys())
    for (const { key } of this.#underway) keys.add(key)
    await this.#each([...keys], (key) => this.#shelf.invalidate(key, () => true, { kind: 'delete' }))
  }

  async *entries(): AsyncIterable<CacheEntry> {
    if (this.#off !== undefined) return
    await this.#everything()
    let count = 0
    for (const key of this.#shelf.index.keys())
      for (const { head } of this.#shelf.index.peek(key)) {
        if (++count % 100 === 0) await nextTurn()
        yield decodeHead(head)
      }
  }

  stats(): CacheStoreStats {
    return { entries: this.#shelf.index.entries, bytes: this.#shelf.index.bytes }
  }

  #check(): void {
    if (this.#off !== undefined) throw this.#off
  }

  async #everything(): Promise<void> {
    try {
      await this.#scan.whole()
    } catch (error) {
      throw diskError(error, `cannot read all of ${this.#settings.directory}`)
    }
  }

  /** One at a time for a key, and not before what is on the disk under it is known. */
  async #change<T>(key: string, task: () => Promise<T>): Promise<T> {
    this.#check()
    try {
      return await this.#changes.run(key, async () => {
        await this.#scan.load(key)
        if (this.#lost) this.#check()
        return await task()
      })
    } catch (error) {
      throw diskError(error, `cannot change what is in ${this.#settings.directory}`)
    }
  }

  /** A change of each of these keys; all are tried before a failure is told. */
  async #each(keys: readonly string[], task: (key: string) => Promise<number>): Promise<number> {
    let sum = 0
    let failure: PromiseRejectedResult | undefined
    for (let i = 0; i < keys.length; i += together) {
      const some = keys.slice(i, i + together).map((key) => this.#change(key, () => task(key)))
      for (const result of await Promise.allSettled(some)) {
        if (result.status === 'fulfilled') sum += result.value
        else failure = result
      }
    }
    if (failure !== undefined) throw failure.reason
    return sum
  }
}
