/** Options of `diskStore`, read and checked once. */
import { resolve } from 'node:path'
import { OptionReader, type Size } from '@weir/core'
import type { DiskStoreError } from './disk-error.ts'

export interface DiskStoreOptions {
  /**
   * Where the files are; made, with its parents, when it is not there. One store of one process at a time: another one that starts on it is
   * refused with `ERR_DISK_LOCKED`. Where it cannot be told whether the last one is still alive, as in a container that was killed, a start
   * watches its lock for five seconds. A local file system is meant; what is there under other names than the store's is left alone.
   */
  readonly directory: string
  /** Bytes of all files: heads, checksums and bodies, each file rounded up to 4 KiB. Required. */
  readonly maxSize: Size
  /**
   * Bytes of memory for the heads of everything on the disk, with which a lookup is synchronous. About 0.6 KiB for an entry and what its
   * key and its header fields take, and 0.1 KiB for a tag: the default is good for some 50,000. Beyond it what was not used for longest
   * goes although there is room on the disk. Default 64 MiB.
   */
  readonly maxIndex?: Size
  /** Variants of one key; the oldest goes for the next one. Default 32. */
  readonly maxVariants?: number
  /** Bytes of bodies that wait to be written; what comes while there are as many is not stored. Default 32 MiB. */
  readonly maxPending?: Size
  /**
   * Waits until the disk has what is written, and what is removed, so that an invalidation also holds when the machine loses its power. A
   * few milliseconds for every change. Default false: a process may be killed at any moment, but what a power failure undoes may be served
   * again; never damaged.
   */
  readonly fsync?: boolean
  /**
   * What went wrong where no caller learns it: reading the directory after the start, making room, a lock that was lost. Must not throw.
   */
  readonly onError?: (error: DiskStoreError) => void
}

export interface DiskSettings {
  readonly directory: string
  readonly maxSize: number
  readonly maxIndex: number
  readonly maxVariants: number
  readonly maxPending: number
  readonly fsync: boolean
  readonly onError: ((error: DiskStoreError) => void) | undefined
}

const known = [
  'directory',
  'maxSize',
  'maxIndex',
  'maxVariants',
  'maxPending',
  'fsync',
  'onError',
] as const satisfies readonly (keyof DiskStoreOptions)[]

/** @throws OptionsError */
export function readDiskOptions(options: DiskStoreOptions): DiskSettings {
  const read = new OptionReader('diskStore')
  const given = read.object<DiskStoreOptions>(options, known)
  const { directory } = given
  // A NUL ends a path for the system, and node refuses it with an error of its own much later.
  if (typeof directory !== 'string' || directory === '' || directory.includes('\0'))
    read.problem('directory', directory, "the path of a directory of the store's own")
  if (given.maxSize === undefined) read.problem('maxSize', undefined, "a size: a number of bytes, or a string like '512MiB', '10GiB'")
  const settings: DiskSettings = {
    // Now, because a relative path would mean another place after a chdir.
    directory: typeof directory === 'string' && !directory.includes('\0') ? resolve(directory) : '',
    maxSize: Math.floor(read.size('maxSize', given.maxSize, 1 << 20, { min: 4096 })),
    maxIndex: read.size('maxIndex', given.maxIndex, 64 << 20, { min: 4096 }),
    maxVariants: read.number('maxVariants', given.maxVariants, 32, { min: 1, max: 10_000, integer: true }),
    maxPending: read.size('maxPending', given.maxPending, 32 << 20, { min: 1 }),
    fsync: read.boolean('fsync', given.fsync, false),
    onError: read.optionalFunction('onError', given.onError),
  }
  read.check()
  return settings
}
