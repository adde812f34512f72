/**
 * An encoder keeps back what it is given until it has a block full of it. That is how it compresses well, and how a page that is written in
 * pieces stalls: the upstream has sent the piece, waits for its database, and the client sees nothing. So when a whole turn of the event
 * loop has passed without a byte from the upstream, the encoder is told to hand out what it has.
 *
 * A flush costs some five bytes and the end of a block. A body that comes as fast as it is read is never flushed; one that pauses loses a little.
 */
import type { Encoder } from './encoder.ts'

export class IdleFlush {
  readonly #encoder: Encoder
  readonly #kind: number
  #fresh = false
  #immediate: NodeJS.Immediate | undefined

  /** @param kind see `flushKind` */
  constructor(encoder: Encoder, kind: number) {
    this.#encoder = encoder
    this.#kind = kind
  }

  /** Something may be held back from now on. */
  touch(): void {
    this.#fresh = true
    this.#immediate ??= setImmediate(() => this.#turn())
  }

  stop(): void {
    clearImmediate(this.#immediate)
    this.#immediate = undefined
  }

  #turn(): void {
    this.#immediate = undefined
    if (this.#encoder.destroyed || this.#encoder.writableEnded) return
    if (this.#fresh) {
      this.#fresh = false
      this.#immediate = setImmediate(() => this.#turn())
    } else {
      // Behind whatever still waits to be encoded, so back-pressure changes nothing.
      this.#encoder.flush(this.#kind)
    }
  }
}
