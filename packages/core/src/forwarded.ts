/**
 * Who the client is, and what the upstream is told about it. Both hang on one question: is the peer of this connection one of *our* proxies?
 * Nobody is by default. From an untrusted peer every forwarding field is thrown away and written anew; from a trusted one the chain is
 * kept, the peer is appended, and the client is the first address from the right that is not trusted (never the leftmost, which anybody
 * can write).
 *
 * The answer is the same for all requests of a connection, so it is worked out once per connection.
 */
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { BlockList, isIP, isIPv6 } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { HeaderList } from './headers.ts'
import type { OptionReader } from './options.ts'
import { isHttp2 } from './request-check.ts'

/** An address, a CIDR range, or a named set: `loopback`, `private` (RFC 1918, RFC 4193, RFC 6598), `linklocal`. */
export type TrustedProxy = string

export type TrustCheck = (address: string) => boolean

const namedSets: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'],
}

/** Undefined when nobody is trusted, which is the default and costs nothing. */
export function compileTrust(value: unknown, read: OptionReader): TrustCheck | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'function') return value as TrustCheck
  if (!Array.isArray(value)) {
    read.problem(
      'trustedProxies',
      value,
      "a list of addresses, CIDR ranges or 'loopback', 'private', 'linklocal', or a function of the address",
    )
    return undefined
  }
  const list = new BlockList()
  value.forEach((entry: unknown, index) => {
    for (const range of typeof entry === 'string'
      ? Object.hasOwn(namedSets, entry)
        ? (namedSets[entry] as readonly string[])
        : [entry]
      : [String(entry)]) {
      const [address = '', bits, rest] = range.split('/')
      const version = isIP(address)
      const width = version === 4 ? 32 : 128
      const prefix = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
      if (version === 0 || rest !== undefined || prefix < 0 || prefix > width) {
        read.problem(
          `trustedProxies[${index}]`,
          entry,
          "an IP address, a CIDR range such as '10.0.0.0/8', or 'loopback', 'private', 'linklocal'",
        )
        continue
      }
      list.addSubnet(address, prefix, version === 4 ? 'ipv4' : 'ipv6')
    }
  })
  return value.length === 0 ? undefined : (address) => list.check(address, address.includes(':') ? 'ipv6' : 'ipv4')
}

export interface ForwardingOptions {
  /** Send `X-Forwarded-For`, `-Proto`, `-Host`. Default true. */
  readonly xForwarded?: boolean
  /** Send `Forwarded` (RFC 7239). Default false. */
  readonly forwarded?: boolean
  /** `by=` of `Forwarded`: an obfuscated identifier such as `_edge1` (RFC 7239 §6.3). Default: none. */
  readonly by?: string
}

/** What is known of one connection. */
export interface Connection {
  readonly peer: string
  readonly trusted: boolean
  readonly proto: 'http' | 'https'
  /** The last Host that passed the check. */
  validHost: string | undefined
  /** A request on it was refused as ambiguous: whatever follows on this connection may be part of it and is not looked at. */
  refused: boolean
}

export class Forwarding {
  readonly #trust: TrustCheck | undefined
  readonly #xForwarded: boolean
  readonly #forwarded: boolean
  readonly #by: string
  readonly #connections = new WeakMap<object, Connection>()

  constructor(trust: TrustCheck | undefined, options: ForwardingOptions) {
    this.#trust = trust
    this.#xForwarded = options.xForwarded ?? true
    this.#forwarded = options.forwarded ?? false
    this.#by = options.by === undefined ? '' : `;by=${quoteIfNeeded(options.by)}`
  }

  connection(req: IncomingMessage): Connection {
    // HTTP/2 hands out a new socket stand-in for every stream; its session is what lives as long as the connection.
    const key: object = isHttp2(req) ? ((req as unknown as Http2ServerRequest).stream.session ?? req) : req.socket
    let known = this.#connections.get(key)
    if (known === undefined) {
      const peer = foldAddress(req.socket?.remoteAddress ?? '')
      known = {
        peer,
        trusted: this.#trust !== undefined && isIP(peer) !== 0 && this.#trust(peer),
        proto: (req.socket as TLSSocket | undefined)?.encrypted ? 'https' : 'http',
        validHost: undefined,
        refused: false,
      }
      this.#connections.set(key, known)
    }
    return known
  }

  /** The client's address: the peer, or the first untrusted hop behind trusted ones. Unreadable hops end the walk. */
  clientIp(connection: Connection, headers: HeaderList): string {
    if (!connection.trusted || this.#trust === undefined) return connection.peer
    const chain = headers.get('x-forwarded-for')
    const hops = chain === undefined ? forwardedFor(headers.get('forwarded')) : chain.split(',')
    let client = connection.peer
    for (let i = hops.length - 1; i >= 0; i--) {
      const address = parseHop(hops[i] as string)
      if (address === undefined) break
      client = address
      if (!this.#trust(address)) break
    }
    return client
  }

  /** Writes the forwarding fields of one attempt. `fields` came without them when the peer is not trusted. */
  write(fields: string[], connection: Connection, host: string | undefined, strippedPrefix: string | undefined): void {
    if (this.#xForwarded) {
      if (connection.trusted) this.#appendX(fields, connection, host)
      else {
        // A peer on a Unix socket has no address to speak of.
        if (connection.peer !== '') fields.push('X-Forwarded-For', connection.peer)
        fields.push('X-Forwarded-Proto', connection.proto)
        if (host !== undefined) fields.push('X-Forwarded-Host', host)
      }
      if (strippedPrefix !== undefined) fields.push('X-Forwarded-Prefix', strippedPrefix)
    }
    if (this.#forwarded) {
      const node = connection.peer.includes(':') ? `"[${connection.peer}]"` : connection.peer || 'unknown'
      const element = `for=${node}${host === undefined ? '' : `;host=${quoteIfNeeded(host)}`};proto=${connection.proto}${this.#by}`
      const at = indexOfField(fields, 'forwarded')
      if (at < 0) fields.push('Forwarded', element)
      else fields[at + 1] = `${joinField(fields, at, 'forwarded')}, ${element}`
    }
  }

  #appendX(fields: string[], connection: Connection, host: string | undefined): void {
    const at = indexOfField(fields, 'x-forwarded-for')
    if (at < 0) fields.push('X-Forwarded-For', connection.peer)
    else fields[at + 1] = `${joinField(fields, at, 'x-forwarded-for')}, ${connection.peer}`
    if (indexOfField(fields, 'x-forwarded-proto') < 0) fields.push('X-Forwarded-Proto', connection.proto)
    if (host !== undefined && indexOfField(fields, 'x-forwarded-host') < 0) fields.push('X-Forwarded-Host', host)
  }
}

function indexOfField(fields: readonly string[], lower: string): number {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    if (name.length === lower.length && name.toLowerCase() === lower) return i
  }
  return -1
}

/** Joins all lines of a name into the one at `at` and removes the others: a chain over several lines is one chain. */
function joinField(fields: string[], at: number, lower: string): string {
  let value = fields[at + 1] as string
  for (let i = at + 2; i < fields.length; ) {
    const name = fields[i] as string
    if (name.length === lower.length && name.toLowerCase() === lower) {
      value = `${value}, ${fields[i + 1]}`
      fields.splice(i, 2)
    } else i += 2
  }
  return value
}

/** `::ffff:10.0.0.1` is 10.0.0.1; a zone (`%eth0`) is no part of an address. */
export function foldAddress(address: string): string {
  if (!address.includes(':')) return address
  const zone = address.indexOf('%')
  const plain = zone < 0 ? address : address.slice(0, zone)
  if (!/ffff/i.test(plain)) return plain
  // The spelling that node uses, and then every other one.
  if (/^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(plain)) return plain.slice(7)
  if (!isIPv6(plain)) return plain
  const mapped = /^\[::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})\]$/.exec(new URL(`http://[${plain}]`).hostname)
  if (mapped === null) return plain
  const [high, low] = [Number.parseInt(mapped[1] as string, 16), Number.parseInt(mapped[2] as string, 16)]
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}

/** One hop of a chain: port, brackets, quotes and v4-mapping taken off. Undefined for `unknown`, obfuscated names and junk. */
export function parseHop(hop: string): string | undefined {
  let text = hop.trim()
  if (text.startsWith('"') && text.endsWith('"')) text = text.slice(1, -1)
  if (text.startsWith('[')) {
    const end = text.indexOf(']')
    if (end < 0 || !/^(?::\d{1,5})?$/.test(text.slice(end + 1))) return undefined
    text = text.slice(1, end)
  } else if (text.includes('.') && !/^::ffff:/i.test(text)) text = text.replace(/:\d{1,5}$/, '')
  return isIP(text) === 0 ? undefined : foldAddress(text)
}

/** The `for=` of every element, in order. */
export function forwardedFor(value: string | undefined): string[] {
  if (value === undefined) return []
  const hops: string[] = []
  for (const element of value.match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g) ?? []) hops.push(forParameter(element))
  return hops
}

/** Pair by pair, because a quoted value may hold anything, `;for=` included, and parts of it come from the client. */
function forParameter(element: string): string {
  const pair = /\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^";\s]*)\s*(?:;|$)/gy
  for (let match = pair.exec(element); match !== null; match = pair.exec(element))
    if ((match[1] as string).toLowerCase() === 'for') return match[2] as string
  return ''
}

function quoteIfNeeded(value: string): string {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(value) ? value : `"${value.replace(/["\\]/g, '\\$&')}"`
}
