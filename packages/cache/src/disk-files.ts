/**
 * Changes of files. A file appears whole under its name or not at all: it is written under another name, and renamed. Names are hashes,
 * links are not followed, and only the owner may read what may be of others' sessions: 0600 below 0700.
 */
import { randomBytes } from 'node:crypto'
import { constants, promises } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { diskError, errnoOf } from './disk-error.ts'
import { usualHead } from './disk-format.ts'
import { folderPattern } from './disk-head.ts'

/** Of `node:fs`, so that tests can let it fail. */
export type DiskIo = Pick<typeof promises, 'mkdir' | 'open' | 'opendir' | 'readdir' | 'rename' | 'truncate' | 'unlink' | 'rm'>

// Not on Windows.
export const noFollow: number = constants.O_NOFOLLOW ?? 0
const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL } = constants

/** The beginning of a file, and what the system says about it. */
export interface Start {
  readonly bytes: Buffer
  readonly length: number
  readonly modifiedAt: number
}

export class DiskFiles {
  readonly directory: string
  readonly #io: DiskIo
  readonly #fsync: boolean
  readonly #prefix: string = randomBytes(6).toString('hex')
  #written = 0

  constructor(directory: string, fsync: boolean, io: DiskIo = promises) {
    this.directory = directory
    this.#fsync = fsync
    this.#io = io
  }

  /** @param path below the directory */
  at(path: string): string {
    return join(this.directory, path)
  }

  /** @throws DiskStoreError */
  async makeDirectory(): Promise<void> {
    try {
      await this.#io.mkdir(this.directory, { recursive: true, mode: 0o700 })
    } catch (error) {
      throw diskError(error, `cannot make the directory ${this.directory}`)
    }
  }

  /** Nobody else writes here, so what is there is of a dead process. @throws DiskStoreError */
  async removeTemporary(): Promise<void> {
    try {
      await this.#io.rm(this.at('tmp'), { recursive: true, force: true })
      await this.#io.mkdir(this.at('tmp'), { mode: 0o700 })
    } catch (error) {
      throw diskError(error, `cannot empty ${this.at('tmp')}`)
    }
  }

  async folders(): Promise<string[]> {
    return (await this.#io.readdir(this.directory)).filter((name) => folderPattern.test(name))
  }

  /** Names in a folder; none when it is not there. */
  async *names(folder: string): AsyncGenerator<string> {
    let entries: Awaited<ReturnType<DiskIo['opendir']>>
    try {
      entries = await this.#io.opendir(this.at(folder), { bufferSize: 64 })
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return
      throw error
    }
    for await (const { name } of entries) yield name
  }

  /** Undefined when it is not there. */
  async start(path: string): Promise<Start | undefined> {
    const handle = await this.#open(path, O_RDONLY)
    if (handle === undefined) return undefined
    try {
      const { size, mtimeMs } = await handle.stat()
      return { bytes: await readUpTo(handle, Math.min(size, usualHead)), length: size, modifiedAt: mtimeMs }
    } finally {
      await handle.close()
    }
  }

  /** The first `length` bytes, where `start` did not bring enough. */
  async more(path: string, length: number): Promise<Buffer | undefined> {
    const handle = await this.#open(path, O_RDONLY)
    if (handle === undefined) return undefined
    try {
      return await readUpTo(handle, length)
    } finally {
      await handle.close()
    }
  }

  /** A new file, in place of one of the same name. Leaves nothing behind when it fails. */
  async write(path: string, pieces: Iterable<readonly Uint8Array[]> | AsyncIterable<readonly Uint8Array[]>): Promise<void> {
    const temporary = this.at(`tmp/${this.#prefix}-${this.#written++}`)
    try {
      const handle = await this.#create(temporary)
      try {
        for await (const buffers of pieces) await writeAll(handle, buffers)
        if (this.#fsync) await handle.sync()
      } finally {
        await handle.close()
      }
      await this.#rename(temporary, path)
    } catch (error) {
      await this.#io.unlink(temporary).catch(() => {})
      throw error
    }
    if (this.#fsync) await this.#syncFolder(path)
  }

  /** Bytes of a file that is there; false when it is not. */
  async patch(path: string, offset: number, bytes: Buffer): Promise<boolean> {
    const handle = await this.#open(path, O_WRONLY)
    if (handle === undefined) return false
    try {
      for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
      if (this.#fsync) await handle.sync()
    } finally {
      await handle.close()
    }
    return true
  }

  /** A part of a file, a mebibyte at a time. */
  async *read(path: string, from: number, end: number): AsyncGenerator<Uint8Array[]> {
    const handle = await this.#io.open(this.at(path), O_RDONLY | noFollow)
    try {
      for (let at = from; at < end; ) {
        const piece = await readUpTo(handle, Math.min(end - at, 1 << 20), at)
        if (piece.length === 0) throw new Error(`${path} is shorter than it was`)
        at += piece.length
        yield [piece]
      }
    } finally {
      await handle.close()
    }
  }

  /**
   * It is gone when this resolves, also for whoever starts later. Where a name cannot be taken out of its folder its file is emptied, which
   * makes it one that the next start removes.
   */
  async remove(path: string): Promise<void> {
    try {
      await this.#io.unlink(this.at(path))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return
      await this.#io.truncate(this.at(path)).catch(() => {
        throw error
      })
    }
    if (this.#fsync) await this.#syncFolder(path)
  }

  async #open(path: string, flags: number): Promise<FileHandle | undefined> {
    try {
      return await this.#io.open(this.at(path), flags | noFollow)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  async #create(temporary: string): Promise<FileHandle> {
    const flags = O_WRONLY | O_CREAT | O_EXCL | noFollow
    try {
      return await this.#io.open(temporary, flags, 0o600)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      // Somebody tidied up.
      await this.#io.mkdir(dirname(temporary), { recursive: true, mode: 0o700 })
      return await this.#io.open(temporary, flags, 0o600)
    }
  }

  async #rename(temporary: string, path: string): Promise<void> {
    const to = this.at(path)
    try {
      await this.#io.rename(temporary, to)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      await this.#io.mkdir(dirname(to), { recursive: true, mode: 0o700 })
      await this.#io.rename(temporary, to)
    }
  }

  async #syncFolder(path: string): Promise<void> {
    // Windows has no such thing.
    if (process.platform === 'win32') return
    const handle = await this.#io.open(dirname(this.at(path)), O_RDONLY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  }
}

async function writeAll(handle: FileHandle, buffers: readonly Uint8Array[]): Promise<void> {
  let total = 0
  for (const { length } of buffers) total += length
  let { bytesWritten: done } = await handle.writev(buffers as Uint8Array[])
  if (done === total) return
  // A disk that is full, or a limit, takes a part; the next call says why.
  const all = Buffer.concat(buffers)
  while (done < total) done += (await handle.write(all, done)).bytesWritten
}

async function readUpTo(handle: FileHandle, length: number, position = 0): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return bytes.subarray(0, done)
}
