/** A reader that cannot keep up: it takes one chunk (at most 64 KiB) per 16 ms, about 4 MiB/s, for `ms`, then reads on at full speed. */
import type { Socket } from 'node:net'

export function slowly(socket: Socket, ms: number): void {
  const until = performance.now() + ms
  const breathe = (): void => {
    if (performance.now() >= until) {
      socket.off('data', breathe)
      return
    }
    socket.pause()
    setTimeout(() => socket.resume(), 16)
  }
  socket.on('data', breathe)
}
