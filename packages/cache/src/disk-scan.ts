/**
 * Finding out what an earlier process left. A folder at a time in the background; and whoever needs a key before its turn has its folder
 * read first, a few files. So nothing that is done with a key ever misses a file of it, while the whole may still take minutes.
 */
import { DiskStoreError, errnoOf } from './disk-error.ts'
import type { DiskFiles, Start } from './disk-files.ts'
import { bodyOffset, encodedLength, readPreamble, readSlots } from './disk-format.ts'
import { decodeHead, filePattern, folderOf, pathOf } from './disk-head.ts'
import type { Held } from './disk-index.ts'

/** Folders, and files of each, that are read at a time: the system's answers take longer than what is made of them. */
const foldersAtOnce = 8
const filesAtOnce = 8

/** Errors of a file that will not go away by themselves. */
const hopeless: ReadonlySet<string | undefined> = new Set(['EACCES', 'EPERM', 'EISDIR', 'ELOOP'])

export class DiskScan {
  complete = false
  readonly #files: DiskFiles
  readonly #found: (key: string, held: Held) => void
  readonly #folders = new Map<string, Promise<void>>()
  #walk: Promise<void> | undefined
  #stopped = false

  constructor(files: DiskFiles, found: (key: string, held: Held) => void) {
    this.#files = files
    this.#found = found
  }

  /** Until everything under this key is known; undefined when it is. */
  load(key: string): Promise<void> | undefined {
    return this.complete ? undefined : this.#load(folderOf(key))
  }

  /** Until everything is known; what failed before is tried again. */
  async whole(): Promise<void> {
    if (this.complete) return
    this.#walk ??= this.#all().finally(() => {
      this.#walk = undefined
    })
    await this.#walk
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.allSettled([this.#walk, ...this.#folders.values()])
  }

  async #all(): Promise<void> {
    let failure: Error | undefined
    const folders = (await this.#files.folders()).values()
    const reader = async (): Promise<void> => {
      // One iterator for all of them.
      for (const folder of folders) {
        if (this.#stopped) return
        await this.#load(folder).catch((error: Error) => {
          failure = error
        })
      }
    }
    await Promise.all(Array.from({ length: foldersAtOnce }, reader))
    if (this.#stopped) throw new DiskStoreError('ERR_DISK_CLOSED', 'diskStore: closed before everything was read')
    if (failure !== undefined) throw failure
    this.complete = true
    this.#folders.clear()
  }

  #load(folder: string): Promise<void> {
    const present = this.#folders.get(folder)
    if (present !== undefined) return present
    const loading = this.#read(folder)
    this.#folders.set(folder, loading)
    loading.catch(() => this.#folders.delete(folder))
    return loading
  }

  async #read(folder: string): Promise<void> {
    const seen: [string, Held][] = []
    let batch: Promise<void>[] = []
    const settle = async (): Promise<void> => {
      await Promise.all(batch)
      batch = []
    }
    for await (const name of this.#files.names(folder)) {
      // What has another name was not written by a store, and is none of its business.
      if (!filePattern.test(name) || this.#stopped) continue
      batch.push(this.#take(`${folder}/${name}`, seen))
      if (batch.length === filesAtOnce) await settle()
    }
    await settle()
    // All at once: a folder that fails in the middle is read again, and would count twice.
    for (const [key, held] of seen) this.#found(key, held)
  }

  async #take(path: string, seen: [string, Held][]): Promise<void> {
    try {
      const start = await this.#files.start(path)
      if (start === undefined) return
      const found = await this.#parse(path, start)
      if (found !== undefined) {
        seen.push(found)
        return
      }
    } catch (error) {
      if (!hopeless.has(errnoOf(error))) throw error
    }
    // Cannot be read, so it will not be served, and so it does no harm when it cannot be removed either.
    await this.#files.remove(path).catch(() => {})
  }

  /** Undefined when it is damaged, or of another version. */
  async #parse(path: string, { bytes, length, modifiedAt }: Start): Promise<[string, Held] | undefined> {
    const size = readPreamble(bytes)
    if (size === undefined) return undefined
    const offset = bodyOffset(size)
    if (offset > length) return undefined
    const whole = offset <= bytes.length ? bytes : await this.#files.more(path, offset)
    const head = whole === undefined ? undefined : readSlots(whole.subarray(0, offset), size)
    if (head === undefined) return undefined
    const { text, slot } = head
    try {
      const entry = decodeHead(text)
      if (pathOf(entry) !== path || length !== offset + encodedLength(entry.size)) return undefined
      const { id, key, storedAt, tags } = entry
      return [key, { id, path, head: text, storedAt, size: entry.size, tags, slot, notedAt: modifiedAt }]
    } catch {
      return undefined
    }
  }
}
