/**
 * Reads run beside the changes of their key. One that meets a change finds checksums of another entry, or no file: so before a file is
 * taken for damaged, and removed, the change is waited for and the index is asked again.
 */
import { utimes } from 'node:fs'
import type { Readable } from 'node:stream'
import { readBody } from './disk-body.ts'
import { diskError } from './disk-error.ts'
import type { DiskFiles } from './disk-files.ts'
import { bodyOffset, seedOf } from './disk-format.ts'
import type { Held } from './disk-index.ts'
import type { DiskShelf } from './disk-shelf.ts'
import type { CacheEntry } from './entry.ts'
import type { KeyedQueue } from './keyed-queue.ts'

// Use is noted in the file's time at most so often, ms: the order in which things go outlives a restart about so exactly.
const noteEvery = 600_000

export class DiskReader {
  readonly #files: DiskFiles
  readonly #shelf: DiskShelf
  readonly #changes: KeyedQueue
  readonly #isOpen: () => boolean
  readonly #report: (error: unknown, doing: string) => void

  constructor(
    files: DiskFiles,
    shelf: DiskShelf,
    changes: KeyedQueue,
    isOpen: () => boolean,
    report: (error: unknown, doing: string) => void,
  ) {
    this.#files = files
    this.#shelf = shelf
    this.#changes = changes
    this.#isOpen = isOpen
    this.#report = report
  }

  async body(entry: CacheEntry, start: number, end: number): Promise<Uint8Array | Readable | undefined> {
    // Ends: an entry that changed is another object in the index, and one that did not is condemned.
    while (this.#isOpen()) {
      const held = this.#shelf.index.byId(entry.key, entry.id)
      if (held === undefined) return undefined
      const until = Math.min(end, held.size)
      if (start >= until) return new Uint8Array(0)
      const bytes = await this.#read(entry.key, held, start, until)
      if (typeof bytes !== 'string') {
        this.#note(held)
        return bytes
      }
      if (await this.#condemn(entry.key, held)) return undefined
    }
    return undefined
  }

  async #read(key: string, held: Held, start: number, end: number): ReturnType<typeof readBody> {
    const file = this.#files.at(held.path)
    const place = { file, offset: bodyOffset(held.slot.size), size: held.size, seed: seedOf(held.id) }
    try {
      return await readBody(place, start, end, () => void this.#condemn(key, held))
    } catch (error) {
      throw diskError(error, `cannot read ${file}`)
    }
  }

  #note(held: Held): void {
    const now = Date.now()
    if (now - held.notedAt < noteEvery) return
    held.notedAt = now
    utimes(this.#files.at(held.path), now / 1000, now / 1000, () => {})
  }

  /** Removes what is not what it should be. False when it had only just become another. */
  async #condemn(key: string, held: Held): Promise<boolean> {
    try {
      return await this.#changes.run(key, async () => {
        // A stream may outlive its store, and the directory be another's by then.
        if (!this.#isOpen() || this.#shelf.index.byId(key, held.id) !== held) return false
        await this.#shelf.drop(key, [held])
        return true
      })
    } catch (error) {
      this.#report(error, `cannot remove ${held.path}`)
      return true
    }
  }
}
