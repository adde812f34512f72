/**
 * Reading a body: in one go when it is short, as a stream when it is long. The file is open before anything is handed out, so that a
 * removal afterwards does not matter, and every block is checked before it goes out: a client may get less than was promised, and its
 * connection broken, but never other bytes.
 */
import { close, constants, open, read } from 'node:fs'
import { Readable } from 'node:stream'
import { DiskStoreError, errnoOf } from './disk-error.ts'
import { noFollow } from './disk-files.ts'
import { blockOffset, blockSize, decodeBlocks, encodedLength } from './disk-format.ts'

/** Blocks that are read in one go; a body of at most so many is no stream. A call costs more than what it brings. */
const together = 2

/** Where a body lies. */
export interface Place {
  readonly file: string
  /** Of its first block. */
  readonly offset: number
  readonly size: number
  readonly seed: number
}

/** @param onCorrupt when that turns out while it streams @returns `gone` and `corrupt` when there is nothing to be had */
export async function readBody(
  place: Place,
  start: number,
  end: number,
  onCorrupt: () => void,
): Promise<Buffer | Readable | 'gone' | 'corrupt'> {
  let fd: number
  try {
    fd = await opened(place.file)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 'gone'
    throw error
  }
  const first = Math.floor(start / blockSize)
  const last = Math.ceil(end / blockSize)
  const short = last - first <= together
  let streams = false
  try {
    const bytes = await readBlocks(fd, place, first, Math.min(last, first + together))
    if (bytes === undefined) return 'corrupt'
    const from = start - first * blockSize
    if (short) return bytes.subarray(from, from + end - start)
    streams = true
    return new BodyStream(fd, place, bytes.subarray(from), first + together, end, onCorrupt)
  } finally {
    if (!streams) close(fd, ignore)
  }
}

/** Undefined when they are not what was written. */
async function readBlocks(fd: number, place: Place, first: number, last: number): Promise<Buffer | undefined> {
  const from = blockOffset(first)
  const length = Math.min(blockOffset(last), encodedLength(place.size)) - from
  // Not from node's pool, of which a memory store that keeps the result would hold up eight times as much.
  const bytes = Buffer.allocUnsafeSlow(length)
  for (let done = 0; done < length; ) {
    const count = await readInto(fd, bytes, done, place.offset + from + done)
    if (count === 0) return undefined
    done += count
  }
  return decodeBlocks(bytes, place.seed, first)
}

class BodyStream extends Readable {
  readonly #fd: number
  readonly #place: Place
  readonly #end: number
  readonly #onCorrupt: () => void
  /** Read already, to be given out first. */
  #ready: Buffer | undefined
  #next: number
  #reading: Promise<void> | undefined

  constructor(fd: number, place: Place, ready: Buffer, next: number, end: number, onCorrupt: () => void) {
    super({ highWaterMark: together * blockSize })
    this.#fd = fd
    this.#place = place
    this.#ready = ready
    this.#next = next
    this.#end = end
    this.#onCorrupt = onCorrupt
  }

  override _read(): void {
    if (this.#ready !== undefined) {
      const ready = this.#ready
      this.#ready = undefined
      this.push(ready)
      return
    }
    if (this.#next * blockSize >= this.#end) {
      this.push(null)
      return
    }
    this.#reading = this.#readNext().catch((error: Error) => void this.destroy(error))
  }

  // The number of a file that is closed while it is being read may be another file's by then.
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    void Promise.resolve(this.#reading).then(() => close(this.#fd, () => done(error)))
  }

  async #readNext(): Promise<void> {
    const index = this.#next
    const last = Math.min(index + together, Math.ceil(this.#end / blockSize))
    this.#next = last
    const blocks = await readBlocks(this.#fd, this.#place, index, last)
    if (blocks === undefined) {
      this.#onCorrupt()
      throw new DiskStoreError('ERR_DISK_CORRUPT', `diskStore: ${this.#place.file} is damaged behind block ${index}`)
    }
    if (!this.destroyed) this.push(blocks.subarray(0, this.#end - index * blockSize))
  }
}

// With callbacks: a FileHandle costs about as much again as the call.
function opened(file: string): Promise<number> {
  return new Promise((resolve, reject) => {
    open(file, constants.O_RDONLY | noFollow, (error, fd) => (error === null ? resolve(fd) : reject(error)))
  })
}

function readInto(fd: number, bytes: Buffer, at: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, bytes, at, bytes.length - at, position, (error, count) => (error === null ? resolve(count) : reject(error)))
  })
}

function ignore(): void {}
