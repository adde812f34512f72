/**
 * Hints that a file may have changed. Only hints: what a watcher says differs between systems, and network file systems say nothing at all, so
 * whoever gets one reads the file and sees, and looks every now and then without any.
 *
 * Watched is the folder and not the file, because most programs do not write into a file but put another in its place, and a watcher of the file goes
 * on watching the one that is gone. A link, such as Kubernetes mounts, changes by what happens to other names in its folder; then every event
 * counts.
 */
import { type FSWatcher, watch } from 'node:fs'
import { lstat, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'

export class FileWatch {
  readonly #path: string
  readonly #hint: () => void
  #watcher: FSWatcher | undefined
  /** Device, inode and birth of the folder that is being watched: the inode alone may be that of one which is gone. */
  #folder = ''
  #link = false
  #closed = false

  constructor(path: string, hint: () => void) {
    this.#path = path
    this.#hint = hint
  }

  /** Sees to it that the right folder is watched, if there is one. To be called before the file is read. */
  async renew(): Promise<void> {
    const path = dirname(this.#path)
    const folder = await stat(path, { bigint: true }).then(({ dev, ino, birthtimeNs }) => `${dev} ${ino} ${birthtimeNs}`, nothing)
    this.#link = await lstat(this.#path).then(
      (file) => file.isSymbolicLink(),
      () => false,
    )
    if (this.#closed || folder === this.#folder) return
    this.#stop()
    if (folder === '') return
    try {
      const watcher = watch(path, { persistent: false }, (_event, name) => {
        if (name === null || this.#link || name === basename(this.#path)) this.#hint()
      })
      watcher.on('error', () => this.#stop())
      this.#watcher = watcher
      this.#folder = folder
    } catch {
      // No more watchers to be had, or none on this file system.
    }
  }

  close(): void {
    this.#closed = true
    this.#stop()
  }

  #stop(): void {
    this.#watcher?.close()
    this.#watcher = undefined
    this.#folder = ''
  }
}

const nothing = (): string => ''
