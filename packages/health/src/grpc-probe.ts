/**
 * The gRPC health checking protocol, version 1: `grpc.health.v1.Health/Check` over HTTP/2, with prior knowledge on plain connections and ALPN
 * on TLS ones. A new connection for every probe, unless it is to be kept.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants, type IncomingHttpHeaders } from 'node:http2'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { OptionReader } from '@weir/core'
import { decodeStatus, encodeCheck, serving, statusNames } from './grpc-message.ts'
import { grpcKeys, withOverrides } from './overrides.ts'
import { connectionError, type OpenProbe, type Probe, ProbeError, type ProbeTarget } from './probe.ts'
import { type AddressOptions, addressOf, openSocket, readAddress } from './probe-address.ts'

export interface GrpcProbeOptions extends AddressOptions {
  /** The service asked for. Default '', the server as a whole. */
  readonly service?: string
  /** The `:authority`. Default: the upstream's. */
  readonly host?: string
  /** What a server without the health service is. Default `down`. */
  readonly unimplemented?: 'up' | 'down'
  /** Keeps the connection for the next probe. Default false: a fresh one tells more, that the server accepts and that its TLS handshake works. */
  readonly keepAlive?: boolean
}

const unimplementedStatus = '12'
/** Far more than any health answer. */
const largestAnswer = 4096

/** @throws OptionsError */
export function grpcProbe(options?: GrpcProbeOptions): Probe {
  const own = options ?? {}
  readOptions('grpcProbe', own)
  return { name: 'grpc', open: (target) => openGrpc(target, withOverrides(own, target.overrides, grpcKeys)) }
}

function readOptions(factory: string, options: GrpcProbeOptions): void {
  const read = new OptionReader(factory)
  const given = read.object<GrpcProbeOptions>(options, grpcKeys)
  readAddress(read, given)
  if (given.service !== undefined && typeof given.service !== 'string') read.problem('service', given.service, "a name, or ''")
  if (given.host !== undefined && (typeof given.host !== 'string' || given.host === '')) read.problem('host', given.host, 'a host name')
  read.oneOf('unimplemented', given.unimplemented, ['up', 'down'] as const, 'down')
  read.boolean('keepAlive', given.keepAlive, false)
  read.check()
}

interface Connection {
  readonly session: ClientHttp2Session
  readonly socket: Socket
}

function openGrpc(target: ProbeTarget, options: GrpcProbeOptions): OpenProbe {
  readOptions(`grpcProbe, upstream ${target.upstream.id}`, options)
  const { url, host } = target.upstream
  const address = addressOf(target, options)
  const message = encodeCheck(options.service ?? '')
  const authority = options.host ?? host ?? (url.protocol === 'unix:' ? 'localhost' : url.host)
  const scheme = address.tls === undefined ? 'http' : 'https'
  const keepAlive = options.keepAlive === true
  let kept: Connection | undefined

  const letGo = (connection: Connection): void => {
    if (kept === connection) kept = undefined
    connection.session.destroy()
    // After a GOAWAY node leaves it open.
    connection.socket.destroy()
  }

  const openConnection = (fail: (error: unknown) => void): Connection => {
    const socket = openSocket(address, ['h2'])
    // Before the session hears of it, which tells of its streams only.
    socket.on('error', fail)
    const session = connect(`${scheme}://${authority}`, { createConnection: () => socket })
    socket.on('secureConnect', () => {
      if ((socket as TLSSocket).alpnProtocol !== 'h2') fail(new ProbeError('ERR_PROBE_PROTOCOL', 'the server does not speak HTTP/2'))
    })
    // An idle connection may end as it likes: the next probe opens another.
    const connection = { session, socket }
    session.on('error', () => letGo(connection))
    session.on('goaway', () => {
      // While it is in use it ends with what it is used for.
      if (kept === connection) letGo(connection)
    })
    session.on('close', () => letGo(connection))
    return connection
  }

  const ask = async (open: Connection | undefined, signal: AbortSignal): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const fail = (error: unknown): void => reject(connectionError(error))
    const onAbort = (): void => reject(signal.reason)
    const onClose = (): void => fail(new ProbeError('ERR_PROBE_CONNECTION', 'the connection closed'))
    const connection = open ?? openConnection(fail)
    const { session } = connection
    session.ref()
    session.on('error', fail)
    session.on('close', onClose)
    signal.addEventListener('abort', onAbort, { once: true })
    let well = false
    try {
      const stream = session.request({
        [constants.HTTP2_HEADER_METHOD]: 'POST',
        [constants.HTTP2_HEADER_PATH]: '/grpc.health.v1.Health/Check',
        [constants.HTTP2_HEADER_SCHEME]: scheme,
        [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
        te: 'trailers',
        'user-agent': 'weir-health',
      })
      read(stream, options.unimplemented === 'up', resolve, reject)
      stream.end(message)
      await promise
      well = true
    } finally {
      signal.removeEventListener('abort', onAbort)
      session.off('error', fail)
      session.off('close', onClose)
      // Only one that has just worked is worth keeping.
      if (keepAlive && well && !session.closed && !session.destroyed) {
        kept = connection
        session.unref()
      } else letGo(connection)
    }
  }

  return {
    async run(signal) {
      signal.throwIfAborted()
      const open = kept
      kept = undefined
      if (open === undefined || open.session.closed || open.session.destroyed) return await ask(undefined, signal)
      try {
        return await ask(open, signal)
      } catch (error) {
        // The server may close an idle connection just when it is used again, and is well all the same.
        if (signal.aborted || !(error instanceof ProbeError) || error.code !== 'ERR_PROBE_CONNECTION') throw error
        return await ask(undefined, signal)
      }
    },
    close() {
      if (kept !== undefined) letGo(kept)
    },
  }
}

function read(stream: ClientHttp2Stream, unimplementedIsUp: boolean, resolve: () => void, reject: (error: unknown) => void): void {
  const chunks: Buffer[] = []
  let bytes = 0
  let head: IncomingHttpHeaders = {}
  let trailers: IncomingHttpHeaders = {}
  stream.on('response', (headers) => {
    head = headers
    if (headers[':status'] !== 200) reject(new ProbeError('ERR_PROBE_STATUS', `status ${headers[':status']}`))
  })
  stream.on('trailers', (fields) => {
    trailers = fields
  })
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > largestAnswer) reject(new ProbeError('ERR_PROBE_PROTOCOL', 'the answer is too large for a health answer'))
    else chunks.push(chunk)
  })
  stream.on('error', (error) => reject(connectionError(error)))
  stream.on('end', () => {
    // A failure may come without a message, its status then in the head ("Trailers-Only").
    const status = trailers['grpc-status'] ?? head['grpc-status']
    if (status === unimplementedStatus && unimplementedIsUp) resolve()
    else if (head[':status'] === undefined) reject(new ProbeError('ERR_PROBE_CONNECTION', 'the connection ended without an answer'))
    else if (status === undefined) reject(new ProbeError('ERR_PROBE_PROTOCOL', 'the answer has no grpc-status'))
    else if (status !== '0') reject(new ProbeError('ERR_PROBE_SERVICE', `grpc-status ${status}`))
    else {
      const state = decodeStatus(Buffer.concat(chunks))
      if (state === serving) resolve()
      else if (state === undefined) reject(new ProbeError('ERR_PROBE_PROTOCOL', 'the answer is not a HealthCheckResponse'))
      else reject(new ProbeError('ERR_PROBE_SERVICE', `the service is ${statusNames[state] ?? state}`))
    }
  })
}
