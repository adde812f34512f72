/**
 * An encoder keeps back what it is given until it has a block full of it. That is how it compresses well, and how a page that is written in
 * pieces stalls: the upstream has sent the piece, waits for its database, and the client sees nothing. So no byte is kept for longer than a few
 * milliseconds.
 *
 * To flush at every pause of the upstream would be simpler and is wrong: a pause between two packets is longer than a turn of the event loop, and
 * with a flush per packet 85 KB of JSON became a tenth (gzip) to a sixth (Zstandard) larger and took twice the time. A bound on the age of what is kept also holds for an upstream
 * that never pauses and only trickles.
 *
 * An encoder that has more waiting than it can take keeps nothing back for want of input: what it is given next pushes out what it has. A flush then only
 * costs, and the busier the process, the more of them there are in a body: 6.5 in 1 MiB of Brotli where others were at work, for 4 % of the throughput. So it
 * gets five times as long while it is behind (1.5 flushes, no difference to be seen), and no longer, for what is behind may also be a client that does not read.
 */
import type { Clock } from '@weir/core'
import type { Encoder } from './encoder.ts'

const longest = 5

export class TimelyFlush {
  readonly #encoder: Encoder
  readonly #kind: number
  readonly #after: number
  readonly #clock: Clock
  #timer: unknown
  /** How often the time has passed since the oldest byte. */
  #passed = 0

  /** @param kind see `flushKind` @param after milliseconds */
  constructor(encoder: Encoder, kind: number, after: number, clock: Clock) {
    this.#encoder = encoder
    this.#kind = kind
    this.#after = after
    this.#clock = clock
  }

  /** The encoder was given something. */
  touch(): void {
    this.#timer ??= this.#clock.setTimeout(() => this.#flush(), this.#after)
  }

  stop(): void {
    this.#clock.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #flush(): void {
    this.#timer = undefined
    const encoder = this.#encoder
    if (encoder.destroyed || encoder.writableEnded) return
    if (encoder.writableNeedDrain && ++this.#passed < longest) {
      this.touch()
      return
    }
    this.#passed = 0
    // Behind whatever still waits to be encoded, so back-pressure changes nothing.
    encoder.flush(this.#kind)
  }
}
