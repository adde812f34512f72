/**
 * Who the client is by its TLS certificate, and what the upstream is told of it: `Client-Cert` and `Client-Cert-Chain` (RFC 9440). The server asks
 * for the certificate and judges it (`requestCert`, `ca`); this stage says what follows. With `rejectUnauthorized: false` on the server a client
 * without one gets an answer it can read instead of a handshake that fails, and other routes stay open to it.
 */
import type { X509Certificate } from 'node:crypto'
import type { Http2ServerRequest } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import { type Exchange, OptionReader } from '@weir/core'
import { readFieldName } from './field-names.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { fieldKey, fieldValue, StampedFields, stripFields } from './upstream-fields.ts'

export interface ClientCertificateOptions {
  /** Without a certificate that the server has verified: 403. Default true; `false` passes such a client as nobody. */
  readonly required?: boolean
  /** Further conditions for a verified certificate: `(certificate, exchange) => boolean`. It must be quick. Default: none. */
  readonly accept?: (certificate: X509Certificate, exchange: Exchange) => boolean
  /** Tells the upstream `Client-Cert`. Default true. Client copies come off either way. */
  readonly forward?: boolean
  /** And `Client-Cert-Chain`, without the certificate itself. Default false. */
  readonly chain?: boolean
  /** A field with the subject, in one line. Default: none. */
  readonly subjectHeader?: string
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'clientCertificate'`. */
  readonly name?: string
  /** Milliseconds since 1970, for certificates that end while their connection lives. Default `Date.now`. */
  readonly now?: () => number
}

/** What is known of a connection. */
interface Peer {
  readonly certificate: X509Certificate | undefined
  /** Why there is none that counts. */
  readonly reason: string
  readonly subject: string
  readonly expires: number
  readonly stamp: StampedFields | undefined
}

const forbidden = refusal(403)

/** @throws OptionsError */
export function clientCertificate(options?: ClientCertificateOptions): AccessStage<GateStats> {
  const read = new OptionReader('clientCertificate')
  const given = read.object<ClientCertificateOptions>(options, [
    'required',
    'accept',
    'forward',
    'chain',
    'subjectHeader',
    'dryRun',
    'name',
    'now',
  ])
  const required = read.boolean('required', given.required, true)
  const accept = read.optionalFunction('accept', given.accept)
  const forward = read.boolean('forward', given.forward, true)
  const chain = read.boolean('chain', given.chain, false)
  const subjectHeader = readFieldName(read, 'subjectHeader', given.subjectHeader)
  const now = read.function('now', given.now, Date.now)
  const gate = new Gate(read.name('name', given.name, 'clientCertificate'), read.boolean('dryRun', given.dryRun, false))
  read.check()

  const ours = new Set(['client-cert', 'client-cert-chain', ...(subjectHeader === undefined ? [] : [fieldKey(subjectHeader)])])
  /** A certificate is the same for all requests of a connection, and encoding it is not free. */
  const peers = new WeakMap<object, Peer>()

  const peerOf = ({ req }: Exchange): Peer => {
    const key: object = (req as unknown as Partial<Http2ServerRequest>).stream?.session ?? req.socket
    let peer = peers.get(key)
    if (peer === undefined) {
      peer = look(req.socket as TLSSocket)
      peers.set(key, peer)
    }
    return peer
  }

  const look = (socket: TLSSocket): Peer => {
    const certificate = socket.encrypted === true ? socket.getPeerX509Certificate() : undefined
    if (certificate === undefined || !socket.authorized)
      return {
        certificate: undefined,
        reason: certificate === undefined ? 'none' : 'not verified',
        subject: '',
        expires: 0,
        stamp: undefined,
      }
    const subject = certificate.subject.split('\n').join(', ')
    const fields: string[] = []
    if (forward) fields.push('Client-Cert', byteSequence(certificate.raw))
    const others = chain ? issuers(socket).map(byteSequence).join(', ') : ''
    if (others !== '') fields.push('Client-Cert-Chain', others)
    if (subjectHeader !== undefined) fields.push(subjectHeader, fieldValue(subject))
    return {
      certificate,
      reason: '',
      subject,
      expires: Date.parse(certificate.validTo),
      stamp: fields.length === 0 ? undefined : new StampedFields(fields),
    }
  }

  return {
    name: gate.stage,
    handle(exchange) {
      stripFields(exchange, ours)
      const peer = peerOf(exchange)
      const { certificate } = peer
      const reason =
        certificate === undefined
          ? peer.reason
          : peer.expires <= now()
            ? 'expired'
            : accept !== undefined && !accept(certificate, exchange)
              ? 'not accepted'
              : undefined
      if (reason !== undefined) {
        // One that was shown and does not do is no better than none, and no worse where none is needed.
        if (required) return gate.refuse(exchange, forbidden, reason)
        gate.allowed++
        return undefined
      }
      gate.allowed++
      exchange.locals.auth = { scheme: 'certificate', subject: peer.subject }
      return peer.stamp
    },
    stats: () => gate.stats(),
  }
}

/** RFC 8941 §3.3.5, which RFC 9440 §2.1 uses. */
function byteSequence(der: Buffer): string {
  return `:${der.toString('base64')}:`
}

function issuers(socket: TLSSocket): Buffer[] {
  const chain: Buffer[] = []
  let current = socket.getPeerCertificate(true)
  // The last one is its own issuer.
  while (current.issuerCertificate !== undefined && current.issuerCertificate !== current && chain.length < 16) {
    current = current.issuerCertificate
    chain.push(current.raw)
  }
  return chain
}
