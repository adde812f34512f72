/**
 * Where a probe connects, and how: the upstream's own address unless an option says otherwise. Every probe opens its sockets here, so that
 * another port, a Unix socket, TLS and SNI mean the same for HTTP, gRPC and bare TCP.
 */
import { connect, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, createSecureContext, connect as tlsConnect } from 'node:tls'
import type { OptionReader, UpstreamTlsOptions } from '@weir/core'
import type { ProbeTarget } from './probe.ts'

export interface AddressOptions {
  /** Host name or IP to connect to. Default: the upstream's. */
  readonly address?: string
  /** Default: the upstream's. */
  readonly port?: number
  /** With TLS. Default: as the upstream's URL says. Off for a plain health port beside an `https:` service. */
  readonly secure?: boolean
  /** SNI, and the name that the certificate must have. Default: `tls.servername`, the upstream's `host`, the name in its URL. */
  readonly servername?: string
  /** Default: the pool's `tls`. */
  readonly tls?: UpstreamTlsOptions
}

export interface ProbeAddress {
  readonly hostname: string
  readonly port: number
  readonly socketPath: string | undefined
  /** Undefined: without TLS. */
  readonly tls: ConnectionOptions | undefined
}

export function readAddress(read: OptionReader, given: AddressOptions): void {
  if (given.address !== undefined && (typeof given.address !== 'string' || given.address === ''))
    read.problem('address', given.address, 'a host name or an IP address')
  read.number('port', given.port, 0, { min: 1, max: 65_535, integer: true })
  read.boolean('secure', given.secure, false)
  if (given.servername !== undefined && (typeof given.servername !== 'string' || given.servername === ''))
    read.problem('servername', given.servername, 'a host name')
  if (given.tls === undefined) return
  const at = read.at('tls')
  const tls = at.object<UpstreamTlsOptions>(given.tls, ['ca', 'cert', 'key', 'servername', 'insecure'])
  if (at.boolean('insecure', tls.insecure, false)) warnInsecure()
  if ((tls.cert === undefined) !== (tls.key === undefined))
    at.problem('cert', tls.cert === undefined ? undefined : '(set)', '`cert` and `key` together')
  try {
    createSecureContext(connectionOptions(tls))
  } catch {
    // What is wrong in a key is not for logs.
    read.problem('tls', '(not usable)', 'ca, cert and key in PEM, `cert` and `key` belonging together')
  }
}

let warned = false

function warnInsecure(): void {
  if (warned) return
  warned = true
  process.emitWarning('Health checks do not verify certificates (tls.insecure: true): anyone on the path can answer them.', {
    code: 'WEIR_INSECURE_TLS',
  })
}

function connectionOptions({ ca, cert, key, insecure }: Partial<UpstreamTlsOptions>): ConnectionOptions {
  const options: ConnectionOptions = { rejectUnauthorized: insecure !== true }
  if (ca !== undefined) options.ca = ca as NonNullable<ConnectionOptions['ca']>
  if (cert !== undefined) options.cert = cert
  if (key !== undefined) options.key = key
  return options
}

export function addressOf({ upstream, tls: pools }: ProbeTarget, options: AddressOptions): ProbeAddress {
  const { url } = upstream
  const unix = url.protocol === 'unix:' && options.address === undefined && options.port === undefined
  const own = url.protocol === 'unix:' ? 'localhost' : url.hostname.replace(/^\[|\]$/g, '')
  const secure = !unix && (options.secure ?? url.protocol === 'https:')
  const tls = options.tls ?? pools ?? {}
  const name = options.servername ?? tls.servername ?? upstream.host?.replace(/:\d+$/, '') ?? own
  return {
    hostname: options.address ?? own,
    port: options.port ?? (url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port)),
    socketPath: unix ? decodeURIComponent(url.pathname) : undefined,
    // SNI carries no addresses (RFC 6066 §3); node verifies against `host` then, so that is the name or address to be proven.
    tls: secure ? { ...connectionOptions(tls), host: name, servername: isIP(name) === 0 ? name : '' } : undefined,
  }
}

/** A socket on its way; `connect` or `secureConnect` tells when it is there. Whoever opened it destroys it. */
export function openSocket(address: ProbeAddress, alpn?: readonly string[]): Socket {
  const { hostname, port, socketPath, tls } = address
  if (socketPath !== undefined) return connect({ path: socketPath })
  const socket = connect({ host: hostname, port, noDelay: true })
  if (tls === undefined) return socket
  const secure = tlsConnect({ ...tls, socket, ...(alpn === undefined ? null : { ALPNProtocols: [...alpn] }) })
  // The TLS socket reports what happens below it, but not while it has yet to take it over.
  socket.on('error', (error) => secure.destroy(error))
  secure.on('close', () => socket.destroy())
  return secure
}
