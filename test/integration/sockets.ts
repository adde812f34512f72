/** The sockets on both sides of the proxy under test, which runs in this process: what it holds back, and whether it has let go. */
import { channel } from 'node:diagnostics_channel'
import type { Server, Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import type { RunningProxy } from './setup.ts'

/** The sockets that this process opens to a port from now on, in order. */
export function outgoing(port: number): () => Socket[] {
  const opened: Socket[] = []
  const peers = new WeakMap<Socket, number | undefined>()
  const remember = (message: unknown): void => {
    const { socket } = message as { socket: Socket }
    opened.push(socket)
    // A socket forgets its peer when it closes.
    socket.once('connect', () => peers.set(socket, socket.remotePort))
  }
  const sockets = channel('net.client.socket')
  sockets.subscribe(remember)
  onTestFinished(() => void sockets.unsubscribe(remember))
  return () => opened.filter((socket) => peers.get(socket) === port)
}

/** The connections that clients open to the proxy from now on, in order. */
export function incoming(running: RunningProxy): readonly Socket[] {
  const accepted: Socket[] = []
  ;(running.server as Server).on('connection', (socket) => accepted.push(socket))
  return accepted
}

/** Bytes that the proxy has read from one side and not yet given to the kernel on the other: its own share of what is buffered. */
export function heldBack(from: Socket | undefined, to: Socket | undefined): number {
  return (from?.bytesRead ?? 0) - ((to?.bytesWritten ?? 0) - (to?.writableLength ?? 0))
}
