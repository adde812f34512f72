/**
 * The listening side that every fake upstream shares: a port of 127.0.0.1 or a Unix socket, TLS on top if wanted, and the ability to refuse
 * connections for a while and take them again on the same address, as a restarted service does.
 */
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext, TLSSocket } from 'node:tls'
import type { Certificate } from './certificates.ts'
import { holdPort, type PortHold } from './ports.ts'

export interface ListenerTls extends Certificate {
  readonly alpn?: readonly string[]
  /** Asks for a client certificate; nobody verifies it. */
  readonly requestCert?: boolean
}

export interface Listener {
  /** 0 for a Unix socket. */
  readonly port: number
  readonly url: string
  readonly socketPath: string | undefined
  /** From now on connections are refused. The port stays reserved. */
  stop(): Promise<void>
  again(): Promise<void>
  /** Resolves when every accepted connection is gone, which is the caller's part. */
  close(): Promise<void>
}

let unixSockets = 0

/** @param accept gets the connection, and the TCP socket below it (the same one without TLS): only that one can be reset */
export async function listen(
  options: { readonly tls: ListenerTls | undefined; readonly unix: boolean },
  accept: (socket: Socket, tcp: Socket) => void,
): Promise<Listener> {
  const { tls, unix } = options
  const context = tls === undefined ? undefined : createSecureContext({ key: tls.key, cert: tls.cert })
  const socketPath = unix ? join(tmpdir(), `weir-${process.pid}-${++unixSockets}.sock`) : undefined
  let server: Server | undefined
  let hold: PortHold | undefined
  let closed = false
  let port = 0

  const wrap = (tcp: Socket): Socket => {
    if (context === undefined) return tcp
    const alpn = tls?.alpn === undefined ? {} : { ALPNProtocols: [...tls.alpn] }
    const requestCert = tls?.requestCert ?? false
    return new TLSSocket(tcp, { isServer: true, secureContext: context, requestCert, rejectUnauthorized: false, ...alpn })
  }
  const open = async (): Promise<void> => {
    // noDelay: a test that sends in two steps wants two segments, not one delayed by Nagle.
    const next = createServer({ allowHalfOpen: true, noDelay: true }, (tcp) => accept(wrap(tcp), tcp))
    next.listen(socketPath === undefined ? { port, host: '127.0.0.1' } : { path: socketPath })
    await once(next, 'listening')
    server = next
    if (socketPath === undefined) port = (next.address() as AddressInfo).port
  }

  await open()
  return {
    get port() {
      return port
    },
    get url() {
      if (socketPath !== undefined) return `unix:${socketPath}`
      return tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`
    },
    socketPath,
    stop: async () => {
      if (server === undefined) return
      // The callback of `close` waits for every connection; the listening socket itself is gone at once.
      server.close()
      server = undefined
      if (socketPath === undefined) hold = await holdPort(port)
    },
    again: async () => {
      if (server !== undefined || closed) return
      await open()
      await hold?.release()
      hold = undefined
    },
    close: async () => {
      closed = true
      await new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())))
      await hold?.release()
      if (socketPath !== undefined) await rm(socketPath, { force: true })
    },
  }
}
