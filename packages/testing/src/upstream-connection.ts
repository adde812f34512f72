/** One accepted connection, as the script of a `rawUpstream` sees it. */
import { TLSSocket } from 'node:tls'
import { type RawHead, type RawRequest, readHead, readRequest } from './http1.ts'
import { noDeadline } from './watch.ts'
import type { Ending, Wire } from './wire.ts'

export interface UpstreamConnection {
  /** 1 for the first connection that this upstream accepted. */
  readonly number: number
  /** The next request whole. Rejects with `WireError` when it is malformed, late, or the connection ended first. */
  readRequest(deadline?: number): Promise<RawRequest>
  /** Only the next head; the body stays unread. */
  readHead(deadline?: number): Promise<RawHead>
  readBytes(count: number, deadline?: number): Promise<Buffer>
  readThrough(text: string, deadline?: number): Promise<Buffer>
  readToEnd(deadline?: number): Promise<Buffer>
  /** Waits until this text has come, without consuming anything. */
  sees(text: string, deadline?: number): Promise<void>
  /** Strings are latin1. Resolves true when the kernel has taken all of it, false when the connection broke. Need not be awaited. */
  send(bytes: string | Uint8Array): Promise<boolean>
  /** Bytes that the kernel has accepted: what tells whether the other side reads. */
  readonly sent: number
  /** FIN: no more is sent, what comes is still read. */
  end(): void
  /** RST. */
  reset(): void
  /** Closes at once. */
  destroy(): void
  /** Says nothing more: waits until the other side has ended, however long that takes, and tells how. */
  stall(): Promise<Ending>
  /** Stops and starts reading: a slow upstream. */
  pause(): void
  resume(): void
  readonly received: Buffer
  readonly unread: Buffer
  readonly ending: Ending
  /** How the other side ended, as soon as it has; rejects at the deadline. A paused connection learns nothing. */
  readonly closed: Promise<Ending>
  /** Name that the client asked for in TLS (SNI), known once bytes were read; `false` when it sent none, undefined without TLS. */
  readonly servername: string | false | undefined
}

export function upstreamConnection(wire: Wire, number: number, onRequest: (request: RawRequest) => void): UpstreamConnection {
  return {
    number,
    readRequest: async (deadline) => {
      const request = await readRequest(wire, deadline)
      onRequest(request)
      return request
    },
    readHead: (deadline) => readHead(wire, deadline),
    readBytes: (count, deadline) => wire.readBytes(count, deadline),
    readThrough: (text, deadline) => wire.readThrough(text, deadline),
    readToEnd: (deadline) => wire.readToEnd(deadline),
    sees: (text, deadline) => wire.sees(text, deadline),
    send: (bytes) => wire.write(bytes),
    get sent() {
      return wire.written
    },
    end: () => wire.end(),
    reset: () => wire.reset(),
    destroy: () => wire.destroy(),
    stall: () => wire.waitFor('the other side to end', () => (wire.ending === 'open' ? undefined : wire.ending), noDeadline),
    pause: () => wire.pause(),
    resume: () => wire.resume(),
    get received() {
      return wire.received
    },
    get unread() {
      return wire.unread
    },
    get ending() {
      return wire.ending
    },
    get closed() {
      return wire.closed
    },
    get servername() {
      // `servername` of a server-side TLSSocket is documented but missing from the type declarations.
      return wire.socket instanceof TLSSocket ? ((wire.socket as { servername?: string | false }).servername ?? false) : undefined
    },
  }
}
