/**
 * When the memory of a chunk may be used again before the garbage collector would find out: downwards, memory that a transport lent with a chunk
 * is read into again; upwards, what node allocated for a chunk of an upload is set free. To do so too early is to send other bytes than those that came,
 * so it is only done where the whole way of a chunk is known; not doing it costs speed and nothing else.
 */
import { IncomingMessage, ServerResponse } from 'node:http'
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

const untouched = { emit: IncomingMessage.prototype.emit, push: IncomingMessage.prototype.push, read: IncomingMessage.prototype.read }

/** Chunks below this are left to the garbage collector: they are often parts of a larger piece of memory, and setting them free costs as much. */
const worthFreeing = 16_384

/**
 * May the memory of this chunk be set free once it is written? Where it has all of its memory to itself, and nobody besides the one listener sees the chunks
 * of this request: a middleware in front may listen too, or have wrapped the request.
 */
export function isOurs(chunk: Buffer, req: IncomingMessage): boolean {
  return (
    chunk.length >= worthFreeing &&
    chunk.length === chunk.buffer.byteLength &&
    req instanceof IncomingMessage &&
    req.emit === untouched.emit &&
    req.push === untouched.push &&
    req.read === untouched.read &&
    req.listenerCount('data') === 1 &&
    req.listenerCount('readable') === 0
  )
}

/** Detached, a buffer gives its memory back at once. Whoever still holds the chunk, in spite of all, sees an empty one and not somebody else's bytes. */
export function setFree(chunk: Buffer): void {
  ;(chunk.buffer as ArrayBuffer).transfer(0)
}
