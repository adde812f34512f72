/**
 * What a file looks like. One per variant, so that one rename makes it appear whole:
 *
 *   preamble    16 bytes: magic, version, size of a slot, CRC-32
 *   two slots   for the head. The valid one with the higher sequence counts: a head is rewritten in place, into the other slot, and a write
 *               that was torn leaves the one before
 *   body        in blocks of 64 KiB, each followed by its CRC-32
 *
 * A checksum per block and not per body: a range can be checked without reading the rest, and a stream before each of its pieces goes out.
 * A block's checksum is seeded with the entry's id and the block's place, because after a loss of power a file may show blocks of another
 * one that was there before.
 */
import { crc32 } from 'node:zlib'

/** Bytes of body under one checksum. */
export const blockSize = 65_536
const sumSize = 4
const preambleSize = 16
const slotHeader = 12
const magic = 0x77656972
const version = 1

/** Where a head is kept in its file. */
export interface Slot {
  /** Bytes of each of the two. */
  readonly size: number
  readonly index: 0 | 1
  readonly sequence: number
}

/** What of a file is read for its head alone; most are shorter. */
export const usualHead = 4096

export function bodyOffset(slotSize: number): number {
  return preambleSize + 2 * slotSize
}

/** Bytes of a body with its checksums. */
export function encodedLength(size: number): number {
  return size + sumSize * Math.ceil(size / blockSize)
}

/** Place that the file takes, in units of a usual file system's blocks. The directory entry and the inode are not counted. */
export function footprint(slotSize: number, size: number): number {
  return Math.ceil((bodyOffset(slotSize) + encodedLength(size)) / 4096) * 4096
}

/** Room for a head that grows a little: a 304 may bring longer fields. */
export function slotSizeFor(head: Buffer): number {
  return Math.ceil((slotHeader + head.length + 128) / 256) * 256
}

export function fits(head: Buffer, slotSize: number): boolean {
  return slotHeader + head.length <= slotSize
}

/** Everything in front of the body. */
export function encodeStart(head: Buffer, slotSize: number): Buffer {
  const start = Buffer.alloc(bodyOffset(slotSize))
  start.writeUInt32BE(magic, 0)
  start.writeUInt32BE(version, 4)
  start.writeUInt32BE(slotSize, 8)
  start.writeUInt32BE(crc32(start.subarray(0, 12)), 12)
  encodeSlot(head, 1).copy(start, preambleSize)
  return start
}

export function encodeSlot(head: Buffer, sequence: number): Buffer {
  const slot = Buffer.allocUnsafe(slotHeader + head.length)
  slot.writeUInt32BE(sequence, 0)
  slot.writeUInt32BE(head.length, 4)
  head.copy(slot, slotHeader)
  slot.writeUInt32BE(crc32(head, crc32(slot.subarray(0, 8))), 8)
  return slot
}

export function slotOffset(slot: Pick<Slot, 'size' | 'index'>): number {
  return preambleSize + slot.index * slot.size
}

/** Undefined when these are not the first bytes of a file of ours. */
export function readPreamble(start: Buffer): number | undefined {
  if (start.length < preambleSize || start.readUInt32BE(0) !== magic || start.readUInt32BE(4) !== version) return undefined
  if (start.readUInt32BE(12) !== crc32(start.subarray(0, 12))) return undefined
  return start.readUInt32BE(8)
}

/** The head that counts; undefined when neither is whole. @param start everything in front of the body */
export function readSlots(start: Buffer, size: number): { readonly text: string; readonly slot: Slot } | undefined {
  let found: { readonly text: string; readonly slot: Slot } | undefined
  for (const index of [0, 1] as const) {
    const at = start.subarray(preambleSize + index * size, preambleSize + (index + 1) * size)
    if (at.length < slotHeader) continue
    const sequence = at.readUInt32BE(0)
    const end = slotHeader + at.readUInt32BE(4)
    if (sequence === 0 || end > at.length || (found !== undefined && found.slot.sequence > sequence)) continue
    if (at.readUInt32BE(8) !== crc32(at.subarray(slotHeader, end), crc32(at.subarray(0, 8)))) continue
    found = { text: at.toString('utf8', slotHeader, end), slot: { size, index, sequence } }
  }
  return found
}

/** What the checksums of this entry's blocks begin with. */
export function seedOf(id: string): number {
  return crc32(id)
}

function sumOf(block: Uint8Array, seed: number, index: number): number {
  return crc32(block, (seed + index) >>> 0)
}

/** The body as it is written: pieces of about a mebibyte, because summing up a large body in one go would hold up everybody else. */
export function* encodeBody(body: Uint8Array, seed: number): Generator<Uint8Array[]> {
  let pieces: Uint8Array[] = []
  for (let start = 0, index = 0; start < body.length; start += blockSize, index++) {
    const block = body.subarray(start, start + blockSize)
    const sum = Buffer.allocUnsafe(sumSize)
    sum.writeUInt32BE(sumOf(block, seed, index))
    pieces.push(block, sum)
    if (pieces.length < 32) continue
    yield pieces
    pieces = []
  }
  if (pieces.length > 0) yield pieces
}

/** Where blocks from `first` on lie behind the offset of the body. */
export function blockOffset(first: number): number {
  return first * (blockSize + sumSize)
}

/**
 * Checks blocks and closes the gaps of their checksums, in place.
 * @param bytes whole blocks with their checksums @param first index of the first of them
 * @returns undefined when one does not match
 */
export function decodeBlocks(bytes: Buffer, seed: number, first: number): Buffer | undefined {
  let to = 0
  for (let from = 0, index = first; from < bytes.length; from += blockSize + sumSize, index++) {
    const end = Math.min(from + blockSize + sumSize, bytes.length) - sumSize
    if (end < from || bytes.readUInt32BE(end) !== sumOf(bytes.subarray(from, end), seed, index)) return undefined
    if (to !== from) bytes.copyWithin(to, from, end)
    to += end - from
  }
  return bytes.subarray(0, to)
}
