/**
 * An upstream may answer an upload before it has read it, close, and thereby reset what still comes. The answer then waits in the receive
 * buffer while a write fails, and node, which destroys a socket whose write has failed, would throw it away: the client would get a 502 in
 * place of the 413 that explains it. So a failed write of an upload is taken for done, and whatever the connection has to say comes from its
 * reading side: first the answer, if there is one, then the reset.
 */
import type { Duplex } from 'node:stream'

type Done = (error?: Error | null) => void
interface Implementation {
  _write(chunk: unknown, encoding: BufferEncoding, done: Done): void
  _writev?(chunks: unknown, done: Done): void
}

const guarded = new WeakSet<Duplex>()
const broken: ReadonlySet<string | undefined> = new Set(['EPIPE', 'ECONNRESET'])

/** From here on failed writes of this socket are left to its reading side. */
export function leaveErrorsToReading(socket: Duplex): void {
  if (guarded.has(socket)) return
  guarded.add(socket)
  const own = socket as unknown as Implementation
  const { _write, _writev } = own
  const forgive = (done: Done): Done => {
    return (error) => done(error != null && broken.has((error as NodeJS.ErrnoException).code) ? null : error)
  }
  own._write = (chunk, encoding, done) => _write.call(socket, chunk, encoding, forgive(done))
  if (_writev !== undefined && _writev !== null) own._writev = (chunks, done) => _writev.call(socket, chunks, forgive(done))
}
