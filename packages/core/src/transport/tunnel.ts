/**
 * The end of a tunnel. Piping forwards an end, but not a loss: when one side is gone, the other must go too, also when nobody reads there
 * any more, or a crashed upstream leaves a socket per client behind. Each side that loses its partner is ended, what comes from it is
 * thrown away, and when nothing moves any more for a while it is destroyed. Not at once: closing a socket with unread bytes in it sends a
 * reset, which can overtake the last bytes that the other side should still get.
 */
import type { Duplex } from 'node:stream'

interface Counted extends Duplex {
  readonly bytesRead?: number
  readonly bytesWritten?: number
}

/**
 * Ties two joined sides to one fate.
 * @param linger milliseconds without a byte moving, after one side has ended, until both are destroyed
 */
export function tie(client: Duplex, upstream: Duplex, linger: number): void {
  new Ties(client, upstream, linger).bind()
}

/** An object and not a handful of closures: a proxy may have very many tunnels, most of them idle. */
class Ties {
  readonly #client: Duplex
  readonly #upstream: Duplex
  readonly #linger: number
  #timer: NodeJS.Timeout | undefined = undefined
  #before = ''

  constructor(client: Duplex, upstream: Duplex, linger: number) {
    this.#client = client
    this.#upstream = upstream
    this.#linger = linger
  }

  bind(): void {
    const ending = (): void => this.#ending()
    this.#watch(this.#client, this.#upstream, ending)
    this.#watch(this.#upstream, this.#client, ending)
  }

  #watch(side: Duplex, other: Duplex, ending: () => void): void {
    side.on('end', ending)
    side.on('error', ending)
    if (side.closed || side.destroyed) this.#gone(other)
    else side.on('close', () => this.#gone(other))
  }

  #gone(other: Duplex): void {
    if (other.destroyed) {
      clearTimeout(this.#timer)
      return
    }
    other.end()
    other.resume()
    this.#ending()
  }

  #ending(): void {
    if (this.#timer !== undefined) return
    this.#before = this.#progress()
    this.#timer = setTimeout(() => this.#check(), this.#linger).unref()
  }

  #check(): void {
    const now = this.#progress()
    if (now !== this.#before) {
      this.#before = now
      this.#timer?.refresh()
      return
    }
    this.#client.destroy()
    this.#upstream.destroy()
  }

  #progress(): string {
    return `${progressOf(this.#client)} ${progressOf(this.#upstream)}`
  }
}

function progressOf({ bytesRead, bytesWritten, writableLength, readableLength }: Counted): string {
  return `${bytesRead} ${bytesWritten} ${writableLength} ${readableLength}`
}
