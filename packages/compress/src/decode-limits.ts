/**
 * What keeps a small upload from becoming a large one. Two limits, because each has a hole: a size alone lets every sender of a few KiB have all of it,
 * and a ratio alone lets a large upload unpack to 200 times as much. What is fine in any proportion is the beginning, since a short page of spaces is no
 * attack and a ratio over a few bytes says nothing.
 *
 * Every decoder of a chain is held to the same limits, against the bytes that the client sent: what the outer coding unpacks to is work, too, and two
 * modest ratios on top of each other are an immodest one. They are looked at with each piece that a decoder makes (16 KiB), so no more than one piece
 * beyond the limit is ever made.
 */
import { ProxyError } from '@weir/core'
import type { Decoder } from './decoder.ts'

export interface DecodeLimits {
  /** Bytes that may come out. */
  readonly maxSize: number
  /** Bytes out per byte in. */
  readonly maxRatio: number
  /** Bytes out for which no ratio counts. */
  readonly burst: number
}

/** @param decoders in the order in which the body passes them @param onRefused a limit was met; once */
export function limitDecoders(decoders: readonly Decoder[], { maxSize, maxRatio, burst }: DecodeLimits, onRefused: () => void): void {
  const [first] = decoders
  let refused = false
  for (const decoder of decoders) {
    const push = decoder.push.bind(decoder)
    let made = 0
    decoder.push = (chunk: Buffer | null, encoding) => {
      made += chunk?.length ?? 0
      const tooLarge = made > maxSize
      if (!tooLarge && (made <= burst || made <= (first?.bytesWritten ?? 0) * maxRatio)) return push(chunk, encoding)
      if (!refused) onRefused()
      refused = true
      decoder.destroy(
        new ProxyError('ERR_BODY_TOO_LARGE', {
          message: `The request body unpacks to more than ${tooLarge ? '`maxSize`' : '`maxRatio`'} allows.`,
        }),
      )
      return false
    }
  }
}
