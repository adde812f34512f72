/**
 * The content codings this package speaks, by their names on the wire (RFC 9110 §8.4.1, RFC 7932, RFC 8878). Responses do not come in
 * `deflate`: half of the world's implementations send it with a zlib wrapper and half without, and nobody needs it who has gzip. A request that comes in it
 * is another matter: there is nothing else to be had from its client.
 */
import * as zlib from 'node:zlib'

/** `br` is Brotli. */
export type Coding = 'gzip' | 'br' | 'zstd'

/** What a response may go out in: `dcz` is Zstandard with a dictionary that the client has (RFC 9842). */
export type ResponseCoding = Coding | 'dcz'

/** What a request may come in. `deflate` is the zlib format (RFC 1950), as RFC 9110 §8.4.1.2 has it. */
export type RequestCoding = Coding | 'deflate'

/**
 * In the order of preference when a client likes several equally. Zstandard first because it is the cheapest to make: 85 KB of JSON at the
 * default levels took 0.4 ms to 16.1 KB, Brotli 1.3 ms to 15.2 KB, gzip 1.7 ms to 17.6 KB. gzip is last: never better than both.
 */
export const allCodings: readonly Coding[] = ['zstd', 'br', 'gzip']

export const allRequestCodings: readonly RequestCoding[] = [...allCodings, 'deflate']

/** Node without Zstandard (before 22.15 and 23.8) still runs this; its types say that it is always there. */
const hasZstd = typeof (zlib as Partial<typeof zlib>).createZstdCompress === 'function'

export function isAvailable(coding: RequestCoding): boolean {
  return coding !== 'zstd' || hasZstd
}

/** A name as it came, in lower case. RFC 9110 §8.4.1.3: `x-gzip` is gzip. */
export function canonicalName(name: string): string {
  return name === 'x-gzip' ? 'gzip' : name
}
