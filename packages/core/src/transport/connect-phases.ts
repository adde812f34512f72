/** The phases of connecting, as a socket tells of them: name lookup, TCP, TLS. */
import type { Duplex } from 'node:stream'

/** Milliseconds each; they add up to `connectMs`. */
export interface ConnectPhases {
  /** From the start to the addresses; 0 for an address, and for a Unix socket. */
  readonly lookupMs: number
  /** From the addresses to the connection; with several addresses, all that were tried. */
  readonly tcpMs: number
  /** From the connection to the end of the handshake; 0 without TLS. */
  readonly tlsMs: number
}

/** Listens to a socket that has just begun to connect. What it returns is called at the end. @param startedAt `performance.now()` */
export function timeConnecting(socket: Duplex, startedAt: number): () => ConnectPhases {
  let found = startedAt
  let connected: number | undefined
  // With several addresses node tells of each, at once: the first is enough.
  const onLookup = (): void => {
    found = performance.now()
  }
  const onConnect = (): void => {
    connected = performance.now()
  }
  socket.once('lookup', onLookup)
  socket.once('connect', onConnect)
  return () => {
    const now = performance.now()
    socket.off('lookup', onLookup)
    socket.off('connect', onConnect)
    // On a plain connection whoever asks may have been told before us.
    const open = connected !== undefined && 'encrypted' in socket ? connected : now
    return { lookupMs: found - startedAt, tcpMs: open - found, tlsMs: now - open }
  }
}

/** The whole of it. */
export function totalOf(phases: ConnectPhases): number {
  return phases.lookupMs + phases.tcpMs + phases.tlsMs
}
