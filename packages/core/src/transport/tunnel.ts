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
  let timer: NodeJS.Timeout | undefined
  let before = ''
  const progress = (): string =>
    [client, upstream].map((side: Counted) => `${side.bytesRead} ${side.bytesWritten} ${side.writableLength} ${side.readableLength}`).join()
  const check = (): void => {
    const now = progress()
    if (now !== before) {
      before = now
      timer?.refresh()
      return
    }
    client.destroy()
    upstream.destroy()
  }
  const ending = (): void => {
    if (timer !== undefined) return
    before = progress()
    timer = setTimeout(check, linger).unref()
  }
  const gone = (other: Duplex): void => {
    if (other.destroyed) {
      clearTimeout(timer)
      return
    }
    other.end()
    other.resume()
    ending()
  }
  for (const [side, other] of [
    [client, upstream],
    [upstream, client],
  ] as const) {
    side.on('end', ending)
    side.on('error', ending)
    if (side.closed || side.destroyed) gone(other)
    else side.on('close', () => gone(other))
  }
}
