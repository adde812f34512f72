/**
 * A response that waits for its turn on a connection has no socket yet, and on Node 22 never says that it has been closed. Its connection does: one listener for all
 * that wait there, since a client may send any number of requests ahead.
 */
import type { Socket } from 'node:net'

const waiting = new WeakMap<Socket, Set<() => void>>()

/** Calls `then` when the connection has closed. Returns the way to take that back. */
export function whenClosed(socket: Socket, then: () => void): () => void {
  let all = waiting.get(socket)
  if (all === undefined) {
    const made = new Set<() => void>()
    all = made
    waiting.set(socket, made)
    socket.once('close', () => {
      for (const each of [...made]) each()
      made.clear()
    })
  }
  const mine = all
  mine.add(then)
  return () => void mine.delete(then)
}
