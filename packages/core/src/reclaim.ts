/**
 * When memory that a transport lent with a chunk may be read into again. To give it back too early is to send one client's bytes to another, so it
 * is only done where the whole way of a chunk is known; not giving it back costs speed and nothing else.
 */
import { ServerResponse } from 'node:http'
import { Socket } from 'node:net'

const plain = {
  write: ServerResponse.prototype.write,
  socketWrite: Socket.prototype.write,
  generic: internals(Socket.prototype)._writeGeneric,
}

function internals(socket: object): { readonly _writeGeneric?: unknown; readonly _handle?: unknown } {
  return socket
}

/**
 * Does the callback of `res.write` mean that nobody reads the chunk any more? It does where the chunk goes straight to the operating system. A
 * middleware that wraps `write` may keep chunks, and a connection that is some other stream only passes them on.
 */
export function endsInSystem(res: ServerResponse): boolean {
  const { socket } = res
  return (
    res.write === plain.write &&
    socket instanceof Socket &&
    socket.write === plain.socketWrite &&
    internals(socket)._writeGeneric === plain.generic &&
    internals(socket)._handle != null
  )
}

/** Chunks that a connection has not taken yet. Writes are done in their order, so that one callback serves them all. */
export class Reclaims {
  readonly #waiting: Buffer[] = []
  readonly #onWritten: (error?: Error | null) => void

  constructor(reclaim: (chunk: Buffer) => void) {
    this.#onWritten = (error) => {
      const chunk = this.#waiting.shift()
      // After an error the system may still be reading it.
      if (chunk !== undefined && !error) reclaim(chunk)
    }
  }

  after(chunk: Buffer): (error?: Error | null) => void {
    this.#waiting.push(chunk)
    return this.#onWritten
  }
}
