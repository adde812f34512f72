/** Why the disk did not do what it was told. A cache counts it and goes on without; at the start it is for the operator. */

export type DiskStoreErrorCode =
  /** The directory cannot be made, or is none. */
  | 'ERR_DISK_DIRECTORY'
  /** No permission, or a read-only file system. */
  | 'ERR_DISK_ACCESS'
  /** No space, no quota, or a limit on file sizes. */
  | 'ERR_DISK_FULL'
  /** Another store uses the directory, in this process or another one. */
  | 'ERR_DISK_LOCKED'
  /** Another process took the directory over, because this one did not refresh its lock for too long. The store stays off. */
  | 'ERR_DISK_LOCK_LOST'
  /** Not started, or closed. */
  | 'ERR_DISK_CLOSED'
  /** What was written is not what was read. Fails a body that is on its way; the file is removed. */
  | 'ERR_DISK_CORRUPT'
  /** Anything else that the system refused. `cause` has its words. */
  | 'ERR_DISK_IO'

const brand = Symbol.for('weir.DiskStoreError')

export class DiskStoreError extends Error {
  override readonly name: string = 'DiskStoreError'
  readonly code: DiskStoreErrorCode

  constructor(code: DiskStoreErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    Object.defineProperty(this, brand, { value: true })
  }

  /** Also for errors of another copy of this package. */
  static is(value: unknown): value is DiskStoreError {
    return typeof value === 'object' && value !== null && brand in value
  }
}

const codes: Readonly<Record<string, DiskStoreErrorCode>> = {
  ENOENT: 'ERR_DISK_DIRECTORY',
  ENOTDIR: 'ERR_DISK_DIRECTORY',
  EEXIST: 'ERR_DISK_DIRECTORY',
  ELOOP: 'ERR_DISK_DIRECTORY',
  ENAMETOOLONG: 'ERR_DISK_DIRECTORY',
  EACCES: 'ERR_DISK_ACCESS',
  EPERM: 'ERR_DISK_ACCESS',
  EROFS: 'ERR_DISK_ACCESS',
  ENOSPC: 'ERR_DISK_FULL',
  EDQUOT: 'ERR_DISK_FULL',
  EFBIG: 'ERR_DISK_FULL',
}

/** @param doing what failed: `cannot write to /var/cache` */
export function diskError(error: unknown, doing: string): DiskStoreError {
  if (DiskStoreError.is(error)) return error
  const why = error instanceof Error ? error.message : String(error)
  return new DiskStoreError(codes[errnoOf(error) ?? ''] ?? 'ERR_DISK_IO', `diskStore: ${doing}: ${why}`, error)
}

/** `ENOENT` and the like. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code
  return typeof code === 'string' ? code : undefined
}
