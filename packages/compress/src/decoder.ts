/** The way back, for a client that cannot read what the upstream sends. Corrupt or truncated input is an error of the stream, never a short body. */
import type { Transform } from 'node:stream'
// Not by name: see encoder.ts.
import * as zlib from 'node:zlib'
import type { Coding } from './codings.ts'

export function makeDecoder(coding: Coding): Transform {
  switch (coding) {
    case 'gzip':
      return takingNothing(zlib.createGunzip())
    case 'br':
      return takingNothing(zlib.createBrotliDecompress())
    case 'zstd':
      // RFC 9659: a window above 8 MiB is not for the web, and an upstream must not choose how much memory is taken.
      return takingNothing(zlib.createZstdDecompress({ params: { [zlib.constants.ZSTD_d_windowLogMax]: 23 } }))
  }
}

/** No bytes are not a coded body, but there are upstreams that mark every response as coded, empty ones too. Clients take that for nothing; so do we. */
function takingNothing<D extends Transform & { readonly bytesWritten: number }>(decoder: D): D {
  const flush = decoder._flush.bind(decoder)
  decoder._flush = (done) => {
    if (decoder.bytesWritten === 0) done()
    else flush(done)
  }
  return decoder
}
