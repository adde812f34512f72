/**
 * What an upload needs of the connection that it goes out on, besides what node does.
 *
 * An upstream may answer an upload before it has read it, close, and thereby reset what still comes. The answer then waits in the receive
 * buffer while a write fails, and node, which destroys a socket whose write has failed, would throw it away: the client would get a 502 in
 * place of the 413 that explains it. So a failed write of an upload is taken for done, and whatever the connection has to say comes from its
 * reading side: first the answer, if there is one, then the reset.
 *
 * And whoever lent the memory of a chunk is told when it has been written: a large upload otherwise passes through the garbage collector at the speed
 * of the network (docs/decisions/0020).
 */
import type { Duplex } from 'node:stream'

type Done = (error?: Error | null) => void
interface Implementation {
  _write(chunk: unknown, encoding: BufferEncoding, done: Done): void
  _writev?(chunks: readonly { chunk: unknown }[], done: Done): void
}

const prepared = new WeakSet<Duplex>()
const broken: ReadonlySet<string | undefined> = new Set(['EPIPE', 'ECONNRESET'])
const lent = new WeakMap<object, (chunk: Buffer) => void>()

/** `reclaim` is called once `chunk` has gone out on a prepared socket; never, when it does not. */
export function whenWritten(chunk: Buffer, reclaim: (chunk: Buffer) => void): void {
  lent.set(chunk, reclaim)
}

function giveBack(chunk: unknown): void {
  // Strings are node's own: heads and chunk sizes.
  if (typeof chunk !== 'object' || chunk === null) return
  const reclaim = lent.get(chunk)
  if (reclaim === undefined) return
  lent.delete(chunk)
  reclaim(chunk as Buffer)
}

/** Idempotent; for as long as the socket lives. */
export function prepareForUpload(socket: Duplex): void {
  if (prepared.has(socket)) return
  prepared.add(socket)
  const own = socket as unknown as Implementation
  const { _write, _writev } = own
  const then = (done: Done, written: () => void): Done => {
    return (error) => {
      // After an error the system may still be reading it.
      if (error == null) written()
      done(error != null && broken.has((error as NodeJS.ErrnoException).code) ? null : error)
    }
  }
  own._write = (chunk, encoding, done) =>
    _write.call(
      socket,
      chunk,
      encoding,
      then(done, () => giveBack(chunk)),
    )
  if (_writev !== undefined && _writev !== null)
    own._writev = (chunks, done) =>
      _writev.call(
        socket,
        chunks,
        then(done, () => {
          for (const { chunk } of chunks) giveBack(chunk)
        }),
      )
}
