/**
 * When a connection has been open for long enough. A timer for each and no clock that is read for each request; those of one length share a list of node's.
 */
import type { Duplex } from 'node:stream'

/** Those that were opened together, at a peak say, are not to close together. */
const spread = 0.1

/** @param maxAge milliseconds, 0 for never */
export function whenAged(socket: Duplex, maxAge: number, then: () => void): void {
  if (maxAge === 0) return
  // A timer takes no more than 31 bits.
  const timer = setTimeout(then, Math.min(maxAge * (1 - spread * Math.random()), 2 ** 31 - 1))
  timer.unref()
  socket.once('close', () => clearTimeout(timer))
}
