/**
 * The gRPC health checking protocol, version 1: `grpc.health.v1.Health/Check` over HTTP/2, with prior knowledge on plain connections and ALPN
 * on TLS ones. A new connection for every probe.
 */
import { type ClientHttp2Stream, connect, constants, type IncomingHttpHeaders } from 'node:http2'
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
  read.check()
}

function openGrpc(target: ProbeTarget, options: GrpcProbeOptions): OpenProbe {
  readOptions(`grpcProbe, upstream ${target.upstream.id}`, options)
  const { url, host } = target.upstream
  const address = addressOf(target, options)
  const message = encodeCheck(options.service ?? '')
  const authority = options.host ?? host ?? (url.protocol === 'unix:' ? 'localhost' : url.host)
  const scheme = address.tls === undefined ? 'http' : 'https'
  return {
    async run(signal) {
      signal.throwIfAborted()
      const socket = openSocket(address, ['h2'])
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const fail = (error: unknown): void => reject(connectionError(error))
      // Before the session hears of it, which tells of its streams only.
      socket.on('error', fail)
      const session = connect(`${scheme}://${authority}`, { createConnection: () => socket })
      const onAbort = (): void => reject(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
      session.on('error', fail)
      session.on('close', () => fail(new ProbeError('ERR_PROBE_CONNECTION', 'the connection closed')))
      socket.on('secureConnect', () => {
        if ((socket as TLSSocket).alpnProtocol !== 'h2') reject(new ProbeError('ERR_PROBE_PROTOCOL', 'the server does not speak HTTP/2'))
      })
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
      } finally {
        signal.removeEventListener('abort', onAbort)
        session.destroy()
        socket.destroy()
      }
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
