/**
 * The stream that does the work: node's own, set up for a proxy. A proxy compresses while somebody waits, so the levels are those beyond which time
 * grows much faster than bytes shrink: for 85 KB of JSON, Brotli 11 saves a fifth of what Brotli 4 makes and takes 194 ms instead of 1.3, Zstandard 19
 * saves a fifth of 3 for 43 ms instead of 0.4, gzip 9 a thirtieth of 6 for 4.1 ms instead of 1.7. Windows are bounded, since each open response keeps
 * one: measured with the defaults, gzip takes 0.25 MiB, Brotli 0.7, Zstandard 0.85.
 *
 * A length that is known makes the window no larger than the body, and for a small one the tables and the output buffer, too. It costs less than a
 * hundredth of the bytes and saves the memory, which is what a small body spends its time on: 1.7 KB of JSON took 73 µs in gzip instead of 93, and 70 in
 * Zstandard instead of 200. The synchronous functions of zlib would take 54 and 38, and could not hand out the half of a body that comes slowly.
 */
// Not by name: to import one that this node does not have is an error before anything runs.
import * as zlib from 'node:zlib'
import type { ResponseCoding } from './codings.ts'
import { prologueFor } from './dictionary-coding.ts'
import type { Dictionary } from './dictionary-shelf.ts'

export interface GzipOptions {
  /** 1 (fast) to 9. Default 6. Not 9: twice the time for a thirtieth less. */
  readonly level?: number
  /** Binary logarithm of the window, 10 to 15. Default 15. */
  readonly windowBits?: number
  /** Memory for the search, 1 to 9. Default 8. */
  readonly memLevel?: number
}

export interface BrotliOptions {
  /** 0 (fast) to 11. Default 4. Not 10 and 11, which are for files that are packed once: they take fifty times as long and more. */
  readonly quality?: number
  /** Binary logarithm of the window, 10 to 24. Default 19 (512 KiB). Each open response keeps some of it. */
  readonly windowBits?: number
}

export interface ZstdOptions {
  /** 1 (fast) to 19. Default 3. */
  readonly level?: number
  /** Binary logarithm of the window, 10 to 23. Default 19 (512 KiB). RFC 9659: clients need not take more than 23. */
  readonly windowBits?: number
}

export interface EncoderSettings {
  readonly gzip: Required<GzipOptions>
  readonly br: Required<BrotliOptions>
  readonly zstd: Required<ZstdOptions>
}

/** What the encoders of node:zlib have in common. */
export type Encoder = zlib.Gzip | zlib.BrotliCompress | zlib.ZstdCompress

export interface EncoderTask {
  /** Of the body, when it is known. */
  readonly length: number | undefined
  /** Hand out every write at once. */
  readonly live: boolean
  /** The machine is busy: the fastest level. */
  readonly fast: boolean
  /** Of `dcz`. */
  readonly dictionary?: Dictionary | undefined
}

const { constants } = zlib

/** What makes an encoder hand out all that it has, and go on. Not node's default for gzip, a full flush, which forgets the window besides. */
export const flushKind: Readonly<Record<ResponseCoding, number>> = {
  gzip: constants.Z_SYNC_FLUSH,
  br: constants.BROTLI_OPERATION_FLUSH,
  zstd: constants.ZSTD_e_flush,
  dcz: constants.ZSTD_e_flush,
}

/** Messages resemble the last few, not those of an hour ago; and such a stream may stay for hours, with many beside it. */
const liveWindow = 15
/** Zstandard's tables, which do not follow the window: 0.12 MiB for an event stream instead of 0.85, and not a byte more sent (200 streams, 5 events each). */
const liveTable = 13
/** Zstandard reads no more of a dictionary than eight times its tables, and finds most of it in a quarter: 2 MB of script took 3.6 KB with that and 190 with its own size. */
const leastTable = 17
const smallBody = 8192
const smallChunk = 2048

export function makeEncoder(coding: ResponseCoding, settings: EncoderSettings, { length, live, fast, dictionary }: EncoderTask): Encoder {
  const small = length !== undefined && length <= smallBody && !live
  const window = (most: number): number => {
    if (live) return Math.min(most, liveWindow)
    return length === undefined ? most : Math.min(most, Math.max(10, Math.ceil(Math.log2(Math.max(1, length)))))
  }
  switch (coding) {
    case 'gzip': {
      const { level, windowBits, memLevel } = settings.gzip
      return zlib.createGzip({
        level: fast ? 1 : level,
        windowBits: window(windowBits),
        memLevel: small ? Math.min(memLevel, 5) : memLevel,
        ...(small ? { chunkSize: smallChunk } : {}),
        ...(live ? { flush: constants.Z_SYNC_FLUSH } : {}),
      })
    }
    case 'br': {
      const { quality, windowBits } = settings.br
      return zlib.createBrotliCompress({
        params: {
          [constants.BROTLI_PARAM_QUALITY]: fast ? Math.min(1, quality) : quality,
          [constants.BROTLI_PARAM_LGWIN]: window(windowBits),
          // A hint only: a body that turns out to be longer is as right. It is 32 bits wide.
          ...(length === undefined ? {} : { [constants.BROTLI_PARAM_SIZE_HINT]: Math.min(length, 2 ** 30) }),
        },
        ...(small ? { chunkSize: smallChunk } : {}),
        ...(live ? { flush: constants.BROTLI_OPERATION_FLUSH } : {}),
      })
    }
    case 'zstd': {
      const { level } = settings.zstd
      const windowBits = window(settings.zstd.windowBits)
      const table = small ? windowBits : live ? liveTable : undefined
      return zlib.createZstdCompress({
        params: {
          [constants.ZSTD_c_compressionLevel]: fast ? 1 : level,
          [constants.ZSTD_c_windowLog]: windowBits,
          ...(table === undefined ? {} : { [constants.ZSTD_c_hashLog]: table, [constants.ZSTD_c_chainLog]: table }),
        },
        ...(small ? { chunkSize: smallChunk } : {}),
        ...(live ? { flush: constants.ZSTD_e_flush } : {}),
      })
    }
    case 'dcz': {
      const { content, hash } = dictionary as Dictionary
      const { level, windowBits } = settings.zstd
      const table = Math.max(leastTable, Math.ceil(Math.log2(content.length)) - 2)
      const encoder = zlib.createZstdCompress({
        dictionary: content,
        params: {
          [constants.ZSTD_c_compressionLevel]: fast ? 1 : level,
          [constants.ZSTD_c_windowLog]: window(windowFor(content.length, windowBits)),
          [constants.ZSTD_c_hashLog]: table,
          [constants.ZSTD_c_chainLog]: table,
        },
      })
      encoder.push(prologueFor(hash))
      return encoder
    }
  }
}

/** The dictionary is out of reach once the body is longer than the window: RFC 9842 §5 suggests a quarter more than the dictionary. */
function windowFor(length: number, least: number): number {
  return Math.min(23, Math.max(least, Math.ceil(Math.log2(length * 1.25))))
}
