/**
 * One process, one directory: two would not see each other's invalidations. Node has no flock, so the lock is a file that says who holds
 * it, and that its holder touches every two seconds.
 *
 * A lock is taken over when its process is dead, which can be known on the same host, and otherwise when nobody has touched it for five
 * seconds: process numbers come back (in a container every process is number 1) and mean nothing on another host. Who was taken over all
 * the same, because it was stopped for so long, learns it at its next touch and stays off. That two are on at once for a moment costs no
 * torn entry, for files appear whole; it may cost an invalidation.
 */
import { randomUUID } from 'node:crypto'
import { readFile, realpath, rename, stat, unlink, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { DiskStoreError, diskError, errnoOf } from './disk-error.ts'

export interface LockTimes {
  /** Between two touches, ms. */
  readonly refresh: number
  /** After which an untouched lock is nobody's, ms. */
  readonly patience: number
}

interface Owner {
  readonly pid: number
  readonly host: string
  readonly token: string
}

/** Directories of stores of this process. */
const here = new Set<string>()

export class DirectoryLock {
  readonly #directory: string
  readonly #file: string
  readonly #onLost: () => void
  readonly #times: LockTimes
  readonly #self: Owner = { pid: process.pid, host: hostname(), token: randomUUID() }
  #real: string | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(directory: string, onLost: () => void, times: LockTimes = { refresh: 2000, patience: 5000 }) {
    this.#directory = directory
    this.#file = join(directory, 'weir.lock')
    this.#onLost = onLost
    this.#times = times
  }

  /** @throws DiskStoreError */
  async take(): Promise<void> {
    try {
      const real = await realpath(this.#directory)
      if (here.has(real)) throw this.#locked('another store of this process')
      here.add(real)
      this.#real = real
      while (!(await this.#create())) {
        if (!(await this.#abandoned())) continue
        await this.#seize()
        break
      }
    } catch (error) {
      this.#leave()
      throw diskError(error, `cannot lock ${this.#directory}`)
    }
    this.#timer = setInterval(() => void this.#touch(), this.#times.refresh).unref()
  }

  async release(): Promise<void> {
    clearInterval(this.#timer)
    if ((await this.#owner())?.token === this.#self.token) await unlink(this.#file).catch(ignore)
    this.#leave()
  }

  #leave(): void {
    if (this.#real !== undefined) here.delete(this.#real)
    this.#real = undefined
  }

  async #create(): Promise<boolean> {
    try {
      await writeFile(this.#file, JSON.stringify(this.#self), { flag: 'wx', mode: 0o600 })
      return true
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false
      // An empty lock of ours would keep the next start waiting.
      if (errnoOf(error) === 'ENOSPC') await unlink(this.#file).catch(ignore)
      throw error
    }
  }

  /** False when it has gone meanwhile. @throws DiskStoreError when its owner is alive */
  async #abandoned(): Promise<boolean> {
    const touched = await this.#touchedAt()
    const owner = await this.#owner()
    if (owner !== undefined && owner.host === this.#self.host && owner.pid !== this.#self.pid && !isAlive(owner.pid)) return true
    const until = performance.now() + this.#times.patience
    while (performance.now() < until) {
      await delay(this.#times.refresh / 8)
      const now = await this.#touchedAt()
      if (now === undefined) return false
      if (now !== touched) throw this.#locked(owner === undefined ? 'another process' : `process ${owner.pid} on ${owner.host}`)
    }
    return true
  }

  /** Of several who try at once one wins: the last. */
  async #seize(): Promise<void> {
    const mine = `${this.#file}.next`
    await writeFile(mine, JSON.stringify(this.#self), { mode: 0o600 })
    await rename(mine, this.#file).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error
    })
    await delay(50)
    if ((await this.#owner())?.token !== this.#self.token) throw this.#locked('another process, which was quicker')
  }

  async #touch(): Promise<void> {
    try {
      const owner: unknown = JSON.parse(await readFile(this.#file, 'utf8'))
      if ((owner as Partial<Owner> | null)?.token === this.#self.token) {
        const now = new Date()
        await utimes(this.#file, now, now)
        return
      }
    } catch (error) {
      // Any other trouble of the disk will pass, or show elsewhere.
      if (errnoOf(error) !== 'ENOENT' && !(error instanceof SyntaxError)) return
    }
    // It may have been released while this was reading.
    if (this.#real === undefined) return
    clearInterval(this.#timer)
    this.#onLost()
  }

  async #touchedAt(): Promise<number | undefined> {
    try {
      return (await stat(this.#file)).mtimeMs
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Undefined when it is not there, or not yet written. */
  async #owner(): Promise<Owner | undefined> {
    try {
      const owner = JSON.parse(await readFile(this.#file, 'utf8')) as Partial<Owner>
      return typeof owner.pid === 'number' && typeof owner.host === 'string' && typeof owner.token === 'string'
        ? (owner as Owner)
        : undefined
    } catch {
      return undefined
    }
  }

  #locked(by: string): DiskStoreError {
    return new DiskStoreError(
      'ERR_DISK_LOCKED',
      `diskStore: ${this.#directory} is used by ${by}; give every process and every store a directory of its own`,
    )
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // EPERM: it is there, and somebody else's.
    return errnoOf(error) !== 'ESRCH'
  }
}

function ignore(): void {}
