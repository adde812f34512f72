/** The way back, for a client that cannot read what the upstream sends. Corrupt or truncated input is an error of the stream, never a short body. */
import type { Transform } from 'node:stream'
import { constants, createBrotliDecompress, createGunzip, createZstdDecompress } from 'node:zlib'
import type { Coding } from './codings.ts'

export function makeDecoder(coding: Coding): Transform {
  switch (coding) {
    case 'gzip':
      return createGunzip()
    case 'br':
      return createBrotliDecompress()
    case 'zstd':
      // RFC 9659: a window above 8 MiB is not for the web, and an upstream must not choose how much memory is taken.
      return createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: 23 } })
  }
}
