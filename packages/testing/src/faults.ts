/**
 * What goes wrong with upstreams, one named answer each, to be put into the routes of a `testUpstream`. Most of them write to the socket
 * past node:http, which (rightly) refuses to produce them. A port that refuses or swallows connections is no answer: see `refusedPort`,
 * `blackHolePort`, and `kill()` of the upstream itself.
 */
import { type Answer, type Handler, handlerOf, patternAt, type Wiretap } from './answers.ts'

export interface Faults {
  /** Silence before the head: for `ms` milliseconds and then `answer` (default 200), or for ever when no time is given. */
  stall(ms?: number, answer?: Answer): Handler
  /** A head that promises `total` bytes (default 1000), `sent` of them (default 10), then silence. */
  stallBody(sent?: number, total?: number): Handler
  /** An orderly close before any byte of a response. */
  hangUp(): Handler
  /** RST before any byte of a response. */
  reset(): Handler
  /** RST behind the head. */
  resetAfterHead(): Handler
  /** RST behind this many bytes of a body that was to have `total` (default: 1000 more). */
  resetAt(byte: number, total?: number): Handler
  /** An orderly close behind `sent` bytes (default 10) of a body that was to have more, by Content-Length or by missing the last chunk. */
  truncated(framing: 'length' | 'chunked', sent?: number): Handler
  /** `HTTP/1.1 2000 OK`. */
  badStatusLine(): Handler
  /** A field line without a name. */
  badHeader(): Handler
  /** A chunk size that is no number. */
  badChunk(): Handler
  /** A good response with this many fields (default 2000), the last one `X-Last: 1`. */
  manyHeaders(count?: number): Handler
  /** A good response with one field value of this many bytes (default 256 KiB). */
  hugeHeader(size?: number): Handler
  /** Random bytes instead of HTTP, the first of them never a letter. */
  garbage(size?: number): Handler
  /** These bytes as they are (latin1), and then nothing; the connection stays open. */
  raw(bytes: string): Handler
}

const chunkedHead = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n'
const lengthHead = (total: number): string => `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${total}\r\n\r\n`

export const faults: Faults = {
  stall: (ms, answer = 200) => {
    const later = handlerOf(answer)
    return (req, res, wire) => {
      if (ms !== undefined) wire.after(ms, () => void later(req, res, wire))
    }
  },
  stallBody: (sent = 10, total = 1000) => say(() => [lengthHead(total), body(sent)]),
  hangUp: () => (_req, _res, wire) => void wire.socket.end(),
  reset: () => (_req, _res, wire) => wire.reset(),
  resetAfterHead: () => say(() => [lengthHead(1000)], resetNext),
  resetAt: (byte, total = byte + 1000) => say(() => [lengthHead(total), body(byte)], resetNext),
  truncated: (framing, sent = 10) =>
    say(
      () => (framing === 'length' ? [lengthHead(sent + 1000), body(sent)] : [chunkedHead, `${sent.toString(16)}\r\n`, body(sent), '\r\n']),
      (wire) => wire.socket.end(),
    ),
  badStatusLine: () => say(() => ['HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok']),
  badHeader: () => say(() => ['HTTP/1.1 200 OK\r\n: nameless\r\nContent-Length: 2\r\n\r\nok']),
  badChunk: () => say(() => [chunkedHead, 'nonsense\r\nok\r\n0\r\n\r\n']),
  manyHeaders: (count = 2000) =>
    say(() => [
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n',
      Array.from({ length: count - 2 }, (_, i) => `X-${i}: ${i}\r\n`).join(''),
      'X-Last: 1\r\n\r\nok',
    ]),
  hugeHeader: (size = 262_144) => say(() => [`HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Huge: ${'h'.repeat(size)}\r\n\r\nok`]),
  garbage: (size = 1000) => say(() => [Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * 167 + 128) % 256))]),
  raw: (bytes) => say(() => [bytes]),
}

function body(size: number): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < size; at += 65536) parts.push(patternAt(at, Math.min(65536, size - at)))
  return Buffer.concat(parts)
}

/** Bytes as they are, then `after`, once the kernel has taken them. */
function say(bytes: () => readonly (string | Buffer)[], after?: (wire: Wiretap) => void): Handler {
  return (req, _res, wire) => {
    req.resume()
    const all = Buffer.concat(bytes().map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)))
    wire.socket.write(all, () => after?.(wire))
  }
}

// A turn later, so that on loopback the bytes are in the reader's queue before the reset follows them.
function resetNext(wire: Wiretap): void {
  setImmediate(() => wire.reset())
}
