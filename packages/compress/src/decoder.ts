/**
 * The way back, for a client that cannot read what the upstream sends. A body that cannot be decoded to its very end is an error of the stream, never a
 * short body, and node's decoders need some help to keep that promise: they stop without a word where a Brotli stream or a Zstandard frame ends,
 * whatever comes behind it, and until some point in Node 24 the one for Zstandard takes the beginning of a frame for a whole one.
 */
import type { Transform } from 'node:stream'
// Not by name: see encoder.ts.
import * as zlib from 'node:zlib'
import { isAvailable, type RequestCoding } from './codings.ts'

export type Decoder = Transform & { readonly bytesWritten: number }

/** Whether this node notices when a body in this coding is cut short. Where it does not, the body is better left as it came. */
export function isDecodable(coding: RequestCoding): boolean {
  if (coding !== 'zstd') return true
  if (!isAvailable('zstd')) return false
  const frame = zlib.zstdCompressSync('weir')
  try {
    zlib.zstdDecompressSync(frame.subarray(0, -1))
    return false
  } catch {
    return true
  }
}

export function makeDecoder(coding: RequestCoding): Decoder {
  switch (coding) {
    case 'gzip':
      // Knows of members that follow each other (RFC 1952 §2.2).
      return takingNothing(zlib.createGunzip())
    case 'deflate':
      return takingAll(takingNothing(zlib.createInflate()))
    case 'br':
      return takingAll(takingNothing(zlib.createBrotliDecompress()))
    case 'zstd':
      // RFC 9659: a window above 8 MiB is not for the web, and an upstream must not choose how much memory is taken.
      return takingAll(takingNothing(zlib.createZstdDecompress({ params: { [zlib.constants.ZSTD_d_windowLogMax]: 23 } })))
  }
}

/** No bytes are not a coded body, but there are upstreams that mark every response as coded, empty ones too. Clients take that for nothing; so do we. */
function takingNothing<D extends Decoder>(decoder: D): D {
  const flush = decoder._flush.bind(decoder)
  decoder._flush = (done) => {
    if (decoder.bytesWritten === 0) done()
    else flush(done)
  }
  return decoder
}

/** An end before all input was taken is no end. Several Zstandard frames in one body are legal and rare; half of such a body would be worse than none. */
function takingAll<D extends Decoder>(decoder: D): D {
  const transform = decoder._transform.bind(decoder)
  const push = decoder.push.bind(decoder)
  let given = 0
  decoder._transform = (chunk: Buffer, encoding, done) => {
    given += chunk.length
    transform(chunk, encoding, done)
  }
  decoder.push = (chunk, encoding) => {
    if (chunk !== null || decoder.bytesWritten >= given) return push(chunk, encoding)
    decoder.destroy(new Error('there is more behind the end of the coded body'))
    return false
  }
  return decoder
}
