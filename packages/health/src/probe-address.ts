/**
 * Where a probe connects, and how: the upstream's own address unless an option says otherwise. Every probe opens its sockets here, so that
 * another port, a Unix socket, TLS and SNI mean the same for HTTP, gRPC and bare TCP.
 */
import { connect, isIP, Socket } from 'node:net'
import { type ConnectionOptions, checkServerIdentity, createSecureContext, connect as tlsConnect } from 'node:tls'
import { type AddressCheck, checkedLookup, type OptionReader, refusedHost, type UpstreamTlsOptions } from '@weir/core'
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
  readonly allowAddress: AddressCheck | undefined
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

export function addressOf({ upstream, tls: pools, allowAddress }: ProbeTarget, options: AddressOptions): ProbeAddress {
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
    tls: secure ? { ...connectionOptions(tls), ...named(name) } : undefined,
    allowAddress,
  }
}

/** SNI carries no addresses (RFC 6066 §3). What the certificate must be for is this name, wherever the connection goes. */
function named(name: string): ConnectionOptions {
  return { servername: isIP(name) === 0 ? name : '', checkServerIdentity: (_host, certificate) => checkServerIdentity(name, certificate) }
}

/** A socket on its way; `connect` or `secureConnect` tells when it is there. Whoever opened it destroys it. */
export function openSocket(address: ProbeAddress, alpn?: readonly string[]): Socket {
  const { hostname, port, socketPath, tls, allowAddress } = address
  if (socketPath !== undefined) return connect({ path: socketPath })
  // A probe must not reach what requests may not: an upstream's name can lead anywhere by now.
  const refused = refusedHost(hostname, allowAddress)
  if (refused !== undefined) {
    const socket = new Socket()
    process.nextTick(() => socket.destroy(refused))
    return socket
  }
  const to = { host: hostname, port, noDelay: true, ...(allowAddress === undefined ? null : { lookup: checkedLookup(allowAddress) }) }
  return tls === undefined ? connect(to) : tlsConnect({ ...to, ...tls, ...(alpn === undefined ? null : { ALPNProtocols: [...alpn] }) })
}
