/**
 * The first look at a request: refuse what two servers could read in two ways, before a route, a stage or an upstream sees it. node:http
 * leaves gaps here (several `Host` lines, any Host value, transfer codings on HTTP/1.0, absolute-form targets), and `req.headers` hides
 * them by dropping duplicates, so everything is read from the raw list.
 *
 * What is learnt on the way (host, length, Expect, trailers) is kept as `RequestFacts`, because the attempt needs it again.
 */
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { isIPv6 } from 'node:net'
import { ProxyError } from './errors.ts'
import type { Connection } from './forwarded.ts'
import { isField } from './headers.ts'

/** Made by `new` and not by a literal: see docs/decisions/0019. */
export class RequestFacts {
  /** Origin-form target, or `*`. */
  readonly url: string
  /** Field list without pseudo-fields; `Host` is present unless an HTTP/1.0 client sent none. */
  readonly raw: readonly string[]
  /** Host as the client wrote it, port included; undefined for an HTTP/1.0 client that sent none. */
  readonly host: string | undefined
  readonly hasBody: boolean
  /** From `Content-Length`; undefined means chunked (or no body). */
  readonly length: number | undefined
  readonly expectsContinue: boolean
  /** `TE: trailers` was sent, or the protocol always carries them. */
  readonly takesTrailers: boolean
  /** The client announced request trailers. */
  readonly announcesTrailers: boolean
  /** All `Connection` lines, '' without one. */
  readonly connection: string
  /** The `Upgrade` field, undefined without one. */
  readonly upgrade: string | undefined

  constructor(
    url: string,
    raw: readonly string[],
    host: string | undefined,
    hasBody: boolean,
    length: number | undefined,
    expectsContinue: boolean,
    takesTrailers: boolean,
    announcesTrailers: boolean,
    connection: string,
    upgrade: string | undefined,
  ) {
    this.url = url
    this.raw = raw
    this.host = host
    this.hasBody = hasBody
    this.length = length
    this.expectsContinue = expectsContinue
    this.takesTrailers = takesTrailers
    this.announcesTrailers = announcesTrailers
    this.connection = connection
    this.upgrade = upgrade
  }

  /** The same request without its body. */
  withoutBody(url: string): RequestFacts {
    return new RequestFacts(url, this.raw, this.host, false, undefined, false, this.takesTrailers, false, this.connection, undefined)
  }
}

// RFC 3986 §3.2.2: IP-literal, or reg-name (which covers IPv4), with an optional port. No user information, no path, no list.
const hostPattern = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?$/
const absoluteForm = /^https?:\/\/([^/?#]*)(.*)$/i
const digits = /^[0-9]{1,15}$/

function isHost(text: string): boolean {
  if (!hostPattern.test(text)) return false
  if (text.charCodeAt(0) === 0x5b && !isIPv6(text.slice(1, text.indexOf(']')))) return false
  const colon = text.lastIndexOf(':')
  return colon < 0 || text.endsWith(']') || Number(text.slice(colon + 1)) <= 65_535
}

/** By what the request is, not by what it says: node's HTTP/1 parser takes `GET / HTTP/2.0` as well. */
export function isHttp2(req: IncomingMessage): boolean {
  return req.httpVersionMajor === 2 && 'stream' in req
}

/** What node keeps at least by default. Before 22.23.2, 24.18.1 and 26.5.1 it drops what comes behind without a word; since then it refuses the request. */
const keptFields = 1000

function mayBeCut({ socket }: IncomingMessage, count: number): boolean {
  const most = (socket as { server?: { maxHeadersCount?: number | null } } | undefined)?.server?.maxHeadersCount ?? keptFields
  // 0: all are kept.
  return most > 0 && count > most
}

/** @throws ProxyError with source `client` */
export function checkRequest(req: IncomingMessage, connection: Connection): RequestFacts {
  const method = req.method as string
  if (method === 'TRACE' || method === 'CONNECT') throw new ProxyError('ERR_METHOD')
  return isHttp2(req) ? checkHttp2(req) : checkHttp1(req, connection)
}

function checkHttp1(req: IncomingMessage, known: Connection): RequestFacts {
  // Node's parser lets 0.9 and 2.0 pass on an HTTP/1 connection.
  if (req.httpVersionMajor !== 1) throw new ProxyError('ERR_FRAMING')
  const raw = req.rawHeaders
  if (raw.length > 2 * keptFields && mayBeCut(req, raw.length / 2)) throw new ProxyError('ERR_TOO_MANY_FIELDS')
  let host: string | undefined
  let length: string | undefined
  let coding: string | undefined
  let expectsContinue = false
  let takesTrailers = false
  let announcesTrailers = false
  let upgrade: string | undefined
  let connection = ''
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    switch (name.length) {
      case 2:
        if (isField(name, 'te')) takesTrailers ||= /(?:^|,)\s*trailers\s*(?:[,;]|$)/i.test(raw[i + 1] as string)
        break
      case 4:
        if (isField(name, 'host')) {
          if (host !== undefined) throw new ProxyError('ERR_HOST')
          host = raw[i + 1] as string
        }
        break
      case 6:
        if (isField(name, 'expect')) expectsContinue = (raw[i + 1] as string).toLowerCase() === '100-continue'
        break
      case 7:
        if (isField(name, 'upgrade')) upgrade = upgrade === undefined ? (raw[i + 1] as string) : `${upgrade}, ${raw[i + 1]}`
        else if (isField(name, 'trailer')) announcesTrailers = true
        break
      case 10:
        if (isField(name, 'connection')) connection = connection === '' ? (raw[i + 1] as string) : `${connection},${raw[i + 1]}`
        break
      case 14:
        if (isField(name, 'content-length')) {
          if (length !== undefined) throw new ProxyError('ERR_FRAMING')
          length = raw[i + 1] as string
        }
        break
      case 17:
        if (isField(name, 'transfer-encoding')) coding = coding === undefined ? (raw[i + 1] as string) : `${coding}, ${raw[i + 1]}`
        break
    }
  }
  const old = req.httpVersionMinor === 0
  if (length !== undefined && (coding !== undefined || !digits.test(length))) throw new ProxyError('ERR_FRAMING')
  if (coding !== undefined) {
    // RFC 9112 §6.1: a 1.0 message with a transfer coding has faulty framing; anything but chunked would change its meaning on the way.
    if (old) throw new ProxyError('ERR_FRAMING')
    if (coding.toLowerCase() !== 'chunked') throw new ProxyError('ERR_TRANSFER_CODING')
  }
  // A connection nearly always names one host: comparing is cheaper than matching.
  if (host !== known.validHost) {
    if (host === undefined ? !old : !isHost(host)) throw new ProxyError('ERR_HOST')
    known.validHost = host
  } else if (host === undefined && !old) throw new ProxyError('ERR_HOST')

  let url = req.url as string
  let fields = raw
  if (url.charCodeAt(0) !== 0x2f && !(url === '*' && req.method === 'OPTIONS')) {
    const match = absoluteForm.exec(url)
    const authority = match?.[1] as string
    if (match === null || !isHost(authority)) throw new ProxyError('ERR_TARGET')
    if (host !== undefined && !sameAuthority(host, authority)) throw new ProxyError('ERR_HOST')
    // RFC 9112 §3.2.2: the authority of the target replaces Host.
    fields = withHost(raw, authority)
    host = authority
    url = match[2] as string
    if (url === '') url = req.method === 'OPTIONS' ? '*' : '/'
    else if (url.charCodeAt(0) !== 0x2f) url = `/${url}`
  }
  if (url.includes('#')) throw new ProxyError('ERR_TARGET')
  return new RequestFacts(
    url,
    fields,
    host,
    coding !== undefined || (length !== undefined && Number(length) > 0),
    length === undefined ? undefined : Number(length),
    expectsContinue && !old,
    takesTrailers && !old,
    announcesTrailers && coding !== undefined,
    connection,
    upgrade,
  )
}

function checkHttp2(req: IncomingMessage): RequestFacts {
  const raw = req.rawHeaders
  const fields: string[] = ['Host', '']
  let authority: string | undefined
  let host: string | undefined
  let length: string | undefined
  let cookie: string | undefined
  let cookieAt = 0
  let expectsContinue = false
  let announcesTrailers = false
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    const value = raw[i + 1] as string
    if (name.charCodeAt(0) === 0x3a) {
      if (name === ':authority') authority = value
      continue
    }
    switch (name) {
      case 'host':
        if (host !== undefined) throw new ProxyError('ERR_HOST')
        host = value
        continue
      case 'content-length':
        if (length !== undefined || !digits.test(value)) throw new ProxyError('ERR_FRAMING')
        length = value
        break
      case 'cookie':
        // RFC 9113 §8.2.3: crumbs are put together again for HTTP/1.1.
        if (cookie !== undefined) {
          cookie = `${cookie}; ${value}`
          continue
        }
        cookie = value
        cookieAt = fields.push('Cookie', '') - 1
        continue
      case 'expect':
        expectsContinue = value.toLowerCase() === '100-continue'
        break
      case 'trailer':
        announcesTrailers = true
        break
    }
    fields.push(name, value)
  }
  if (authority !== undefined && host !== undefined && !sameAuthority(authority, host)) throw new ProxyError('ERR_HOST')
  const name = authority ?? host
  if (name === undefined || !isHost(name)) throw new ProxyError('ERR_HOST')
  fields[1] = name
  if (cookie !== undefined) fields[cookieAt] = cookie
  const url = req.url as string
  if ((url.charCodeAt(0) !== 0x2f && !(url === '*' && req.method === 'OPTIONS')) || url.includes('#')) throw new ProxyError('ERR_TARGET')
  const open = !(req as unknown as Http2ServerRequest).stream.endAfterHeaders
  return new RequestFacts(
    url,
    fields,
    name,
    open && length !== '0',
    length === undefined ? undefined : Number(length),
    expectsContinue,
    true,
    announcesTrailers && open && length === undefined,
    '',
    undefined,
  )
}

function withHost(raw: readonly string[], authority: string): string[] {
  const out: string[] = ['Host', authority]
  for (let i = 0; i < raw.length; i += 2) if (!isField(raw[i] as string, 'host')) out.push(raw[i] as string, raw[i + 1] as string)
  return out
}

function sameAuthority(a: string, b: string): boolean {
  return a === b || withoutPort(a, '80') === withoutPort(b, '80') || withoutPort(a, '443') === withoutPort(b, '443')
}

/** Lower case, without a port that says nothing. Which default port holds is the scheme's matter, so both are tried, each on both sides. */
function withoutPort(authority: string, port: string): string {
  const lower = authority.toLowerCase()
  return lower.endsWith(`:${port}`) ? lower.slice(0, -port.length - 1) : lower.endsWith(':') ? lower.slice(0, -1) : lower
}
