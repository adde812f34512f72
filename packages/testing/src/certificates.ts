/**
 * Certificates made on the spot: an authority of its own, and leaves that it signs. Made, not committed, so none can expire or leak into
 * anyone's trust store; and made with node:crypto alone, so no `openssl` need be installed. Node signs but writes no X.509, hence the few
 * lines of DER (ITU-T X.690) that RFC 5280 §4.1 asks for. ECDSA P-256 throughout: a key takes well under a millisecond.
 */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { isIP } from 'node:net'

/** PEM texts, as `tls` and `https` take them. */
export interface Certificate {
  readonly key: string
  readonly cert: string
}

export interface CertificateAuthority {
  /** PEM; give it as `ca` to whoever is to trust the leaves. */
  readonly ca: string
  /** @param names DNS names and IPv4 addresses; the first is the common name too. `days` may be negative: already expired. Default 30. */
  issue(names: readonly string[], days?: number): Certificate
}

export interface TestCertificates {
  readonly ca: string
  /** For `localhost` and 127.0.0.1. */
  readonly localhost: Certificate
  /** Trusted, but for `wrong.test`. */
  readonly wrongName: Certificate
  /** For `localhost` and 127.0.0.1, until yesterday. */
  readonly expired: Certificate
}

let made: TestCertificates | undefined

/** One set per process, made on first use. */
export function certificates(): TestCertificates {
  if (made === undefined) {
    const authority = certificateAuthority()
    made = {
      ca: authority.ca,
      localhost: authority.issue(['localhost', '127.0.0.1']),
      wrongName: authority.issue(['wrong.test']),
      expired: authority.issue(['localhost', '127.0.0.1'], -1),
    }
  }
  return made
}

/** A new authority. Two of them do not trust each other. */
export function certificateAuthority(name = 'Weir test authority'): CertificateAuthority {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const issuer = { name, key: privateKey, id: keyId(publicKey) }
  const ca = certificate(issuer, name, publicKey, 30, [
    extension('2.5.29.19', sequence(boolean(true)), true),
    // keyCertSign and cRLSign.
    extension('2.5.29.15', der(0x03, Buffer.of(1, 0x06)), true),
  ])
  return {
    ca,
    issue: (names, days = 30) => {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const cert = certificate(issuer, names[0] ?? 'nobody', pair.publicKey, days, [
        extension('2.5.29.19', sequence(), true),
        // digitalSignature.
        extension('2.5.29.15', der(0x03, Buffer.of(7, 0x80)), true),
        extension('2.5.29.37', sequence(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2'))),
        extension('2.5.29.17', sequence(...names.map(generalName))),
      ])
      return { cert, key: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
    },
  }
}

interface Issuer {
  readonly name: string
  readonly key: KeyObject
  readonly id: Buffer
}

const day = 86_400_000
const ecdsaWithSha256 = (): Buffer => sequence(oid('1.2.840.10045.4.3.2'))

function certificate(issuer: Issuer, subject: string, publicKey: KeyObject, days: number, extensions: readonly Buffer[]): string {
  const end = Date.now() + days * day
  const start = Math.min(Date.now(), end) - day
  const ids = [extension('2.5.29.14', der(0x04, keyId(publicKey))), extension('2.5.29.35', sequence(der(0x80, issuer.id)))]
  const body = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    // A serial number is a positive INTEGER: the top bit stays clear.
    der(0x02, Buffer.concat([Buffer.of(0x40), randomBytes(15)])),
    ecdsaWithSha256(),
    commonName(issuer.name),
    sequence(time(start), time(end)),
    commonName(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions, ...ids)),
  )
  const bytes = sequence(body, ecdsaWithSha256(), bitString(sign('sha256', body, issuer.key)))
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64').replace(/(.{64})(?=.)/g, '$1\n')}\n-----END CERTIFICATE-----\n`
}

function keyId(publicKey: KeyObject): Buffer {
  return createHash('sha1')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest()
}

function der(tag: number, content: Uint8Array): Buffer {
  const { length } = content
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.of(tag, ...size), content])
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, Buffer.concat(parts))
const boolean = (value: boolean): Buffer => der(0x01, Buffer.of(value ? 0xff : 0))
const bitString = (bytes: Uint8Array): Buffer => der(0x03, Buffer.concat([Buffer.of(0), bytes]))

function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const arc of rest) {
    const groups = [arc & 0x7f]
    for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return der(0x06, Buffer.from(bytes))
}

function commonName(name: string): Buffer {
  return sequence(der(0x31, sequence(oid('2.5.4.3'), der(0x0c, Buffer.from(name)))))
}

/** UTCTime, which RFC 5280 wants for dates before 2050. */
function time(ms: number): Buffer {
  return der(0x17, Buffer.from(`${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(2, 14)}Z`))
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), der(0x04, value))
}

function generalName(name: string): Buffer {
  return isIP(name) === 4 ? der(0x87, Buffer.from(name.split('.').map(Number))) : der(0x82, Buffer.from(name))
}
