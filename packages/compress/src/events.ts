/**
 * What the package tells to whoever listens, on `node:diagnostics_channel`. Nobody listening costs one property read per response.
 *
 * - `weir:compress:decision` a `CompressDecision` for every response, or request with a body, that a stage of this package saw
 */
import { type Channel, channel } from 'node:diagnostics_channel'
import type { Exchange } from '@weir/core'
import type { ResponseCoding } from './codings.ts'

/** Why a response was compressed, or was not. */
export type CompressReason =
  /** It was. */
  | 'compressed'
  /** HEAD, or a status without a body. */
  | 'bodiless'
  /** The status is not in `statuses`, or stands for a part (206, 226). */
  | 'status'
  /** `Content-Range`. */
  | 'range'
  /** `Cache-Control: no-transform`. */
  | 'no-transform'
  /** It has a coding already, or `Transfer-Encoding` was left in it. */
  | 'encoded'
  /** A digest comes in the trailers, where it cannot be taken off. */
  | 'digest-trailer'
  /** Not in `types`. */
  | 'type'
  /** Below `minSize`, or an error answer of a stage. */
  | 'small'
  /** The client takes none of the codings, or prefers none. */
  | 'not-accepted'
  /** `skipCrossSite`. */
  | 'cross-site'
  /** The client has it already, under the tag that compression gave it: answered 304. */
  | 'not-modified'
  /** `maxActive`. */
  | 'busy'
  /** The event loop is late. */
  | 'overload'

export type DecompressReason =
  /** The body is decoded, for this client or for the upstream. */
  | 'decoded'
  /** The client takes the coding. */
  | 'accepted'
  /** A coding that this stage does not decode. */
  | 'unknown-coding'
  /** No coding. */
  | 'not-encoded'
  /** See `CompressReason`. */
  | 'bodiless'
  | 'range'
  | 'no-transform'
  | 'digest-trailer'

export interface CompressDecision {
  readonly exchange: Exchange
  /** Name of the stage. */
  readonly stage: string
  /** What `compress` encodes the body in; undefined when it does not, and from `decompress`. */
  readonly coding: ResponseCoding | undefined
  readonly reason: CompressReason | DecompressReason
}

export const decisions: Channel = channel('weir:compress:decision')
