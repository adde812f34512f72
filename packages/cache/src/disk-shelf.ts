/**
 * Index and files, kept in step: what is in the one is in the other, but for the time that a change takes. Whoever changes something here
 * has the key to itself, see `KeyedQueue`; finding room is the one thing that reaches for other keys.
 */
import type { DiskFiles } from './disk-files.ts'
import * as format from './disk-format.ts'
import { decodeHead, encodeHead, pathOf } from './disk-head.ts'
import { DiskIndex, type Held, sizeOnDisk } from './disk-index.ts'
import type { DiskSettings } from './disk-options.ts'
import { type CacheEntry, staled } from './entry.ts'
import type { KeyedQueue } from './keyed-queue.ts'
import { Limiter } from './limiter.ts'
import type { Invalidation } from './store.ts'

// Of node's four threads for files and names: a slow disk shall not hold up every name lookup.
const writers = 3

export class DiskShelf {
  readonly index: DiskIndex = new DiskIndex()
  readonly #settings: DiskSettings
  readonly #files: DiskFiles
  readonly #changes: KeyedQueue
  readonly #report: (error: unknown, doing: string) => void
  readonly #writers = new Limiter(writers)
  #shrinking: Promise<void> | undefined
  #stopped = false
  /** Bytes on disk that are about to be taken. */
  #reserved = 0
  /** Bytes of files that are being removed, and when one of them is. */
  #leaving = 0
  readonly #removals = new Set<Promise<unknown>>()

  constructor(settings: DiskSettings, files: DiskFiles, changes: KeyedQueue, report: (error: unknown, doing: string) => void) {
    this.#settings = settings
    this.#files = files
    this.#changes = changes
    this.#report = report
  }

  async write(key: string, held: Held, need: number, start: Uint8Array[], body: Uint8Array): Promise<boolean> {
    this.#reserved += need
    try {
      if (!(await this.#makeRoom())) {
        // What it is to replace may be what is in its way.
        await this.drop(key, this.index.peek(key))
        if (!(await this.#makeRoom())) return false
      }
      await this.#writers.run(() => this.#files.write(held.path, pieces(start, body, format.seedOf(held.id))))
    } catch (error) {
      await this.dropPath(key, held.path, true).catch(() => {})
      throw error
    } finally {
      this.#reserved -= need
    }
    const others = this.index.peek(key).filter(({ path }) => path !== held.path)
    const most = this.#settings.maxVariants - 1
    this.index.set(key, [held, ...others])
    if (others.length > most) await this.drop(key, others.slice(most))
    this.shrink()
    return true
  }

  /** Another head for its file; undefined when that is gone, or there is no room. */
  async rehead(held: Held, given: CacheEntry): Promise<Held | undefined> {
    const entry = given.size === held.size ? given : { ...given, size: held.size }
    const { size, index, sequence } = held.slot
    const path = pathOf(entry)
    const text = encodeHead(entry)
    const head = Buffer.from(text)
    const made = { ...held, path, head: text, storedAt: entry.storedAt, tags: entry.tags, notedAt: Date.now() }
    if (path === held.path && format.fits(head, size)) {
      const slot: format.Slot = { size, index: index === 0 ? 1 : 0, sequence: sequence + 1 }
      const patched = await this.#files.patch(path, format.slotOffset(slot), format.encodeSlot(head, slot.sequence))
      return patched ? { ...made, slot } : undefined
    }
    // It has outgrown its slot, or is another variant now: a copy, which appears whole.
    const slot: format.Slot = { size: format.slotSizeFor(head), index: 0, sequence: 1 }
    const need = format.footprint(slot.size, held.size)
    this.#reserved += need
    try {
      if (!(await this.#makeRoom())) return undefined
      const from = format.bodyOffset(size)
      const blocks = this.#files.read(held.path, from, from + format.encodedLength(held.size))
      await this.#writers.run(() => this.#files.write(path, chain([format.encodeStart(head, slot.size)], blocks)))
    } finally {
      this.#reserved -= need
    }
    if (path !== held.path) await this.#files.remove(held.path).catch((error: unknown) => this.#report(error, `cannot remove ${held.path}`))
    return { ...made, slot }
  }

  async invalidate(key: string, concerns: (held: Held) => boolean, how: Invalidation): Promise<number> {
    const concerned = this.index.peek(key).filter(concerns)
    if (how.kind === 'delete') await this.drop(key, concerned)
    else for (const held of concerned) await this.#makeStale(key, held, how.now)
    return concerned.length
  }

  async #makeStale(key: string, held: Held, now: number): Promise<void> {
    const entry = decodeHead(held.head)
    const stale = staled(entry, now)
    if (stale === entry) return
    // Gone is stale enough, when it cannot be written.
    const fresh = await this.rehead(held, stale).catch(() => undefined)
    if (fresh === undefined) await this.drop(key, [held])
    else
      this.index.set(
        key,
        this.index.peek(key).map((other) => (other === held ? fresh : other)),
      )
  }

  /** Out of sight at once, and when this resolves off the disk. */
  async drop(key: string, gone: readonly Held[]): Promise<void> {
    if (gone.length === 0) return
    this.index.set(
      key,
      this.index.peek(key).filter((held) => !gone.includes(held)),
    )
    let bytes = 0
    for (const held of gone) bytes += sizeOnDisk(held)
    this.#leaving += bytes
    const removal = Promise.allSettled(gone.map(({ path }) => this.#files.remove(path)))
    this.#removals.add(removal)
    const results = await removal
    this.#removals.delete(removal)
    this.#leaving -= bytes
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  /** @param unknown the file may be there although the index does not know it */
  async dropPath(key: string, path: string, unknown = false): Promise<void> {
    const held = this.index.peek(key).find((other) => other.path === path)
    if (held !== undefined) await this.drop(key, [held])
    else if (unknown) await this.#files.remove(path)
  }

  /** For what is reserved. False when everything that is left is in use. */
  async #makeRoom(): Promise<boolean> {
    const { maxSize } = this.#settings
    while (this.index.bytes + this.#reserved + this.#leaving > maxSize) {
      const enoughLeaves = this.index.bytes + this.#reserved <= maxSize
      if (!enoughLeaves && (await this.#evict())) continue
      if (this.#removals.size === 0) return false
      await Promise.race(this.#removals)
    }
    return true
  }

  /** One resource. What is being changed is passed over: waiting for that while it waits for this would never end. */
  async #evict(): Promise<boolean> {
    const key = this.index.victim((candidate) => this.#changes.has(candidate))
    if (key === undefined) return false
    await this.#changes.run(key, () => this.drop(key, this.index.peek(key)))
    return true
  }

  /** In the background, one file after the other. */
  shrink(): void {
    if (this.#shrinking !== undefined || !this.#isTooLarge()) return
    const work = async (): Promise<void> => {
      while (!this.#stopped && this.#isTooLarge() && (await this.#evict()));
    }
    this.#shrinking = work()
      .catch((error: unknown) => this.#report(error, 'cannot make room'))
      .finally(() => {
        this.#shrinking = undefined
      })
  }

  /** Nothing more goes in the background; what is left is the next start's. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#shrinking
  }

  #isTooLarge(): boolean {
    const { maxSize, maxIndex } = this.#settings
    return this.index.bytes > maxSize || this.index.memory > maxIndex
  }
}

function* pieces(start: Uint8Array[], body: Uint8Array, seed: number): Generator<readonly Uint8Array[]> {
  // A small one goes out in one call.
  let first: Uint8Array[] | undefined = start
  for (const blocks of format.encodeBody(body, seed)) {
    yield first === undefined ? blocks : [...first, ...blocks]
    first = undefined
  }
  if (first !== undefined) yield first
}

async function* chain(start: Uint8Array[], rest: AsyncIterable<Uint8Array[]>): AsyncGenerator<readonly Uint8Array[]> {
  yield start
  yield* rest
}
