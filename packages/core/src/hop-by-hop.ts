/**
 * Hop-by-hop fields end at this proxy, in both directions (RFC 9110 §7.6.1): the fixed ones, and every field that the sender nominated in
 * `Connection`. A sender may nominate anything, also fields that only the proxy may decide about, so removal comes first and the proxy's own
 * fields (`X-Forwarded-*`, `Host`, framing, what a stage sets) are added behind it; a nomination can therefore never strip them.
 *
 * The scan runs for every message. Names are compared by length and first letter before all else: of the ten to thirty fields of a usual
 * message, most fall out on a table look-up.
 */
import { filterFields } from './headers.ts'

const none: readonly string[] = []

/** By the length of a name, a bit for each letter that one of the names below begins with; anything else is end-to-end at once. */
const perHopLetters = letters([
  'te',
  'expect',
  'trailer',
  'upgrade',
  'connection',
  'keep-alive',
  'http2-settings',
  'proxy-connection',
  'transfer-encoding',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
])

/** As above, with the names that a response scan notes. */
const responseLetters = letters(['content-length', 'content-disposition', 'location', 'content-location', 'refresh'], perHopLetters.slice())

function letters(names: readonly string[], table: Uint32Array = new Uint32Array(64)): Uint32Array {
  for (const name of names) table[name.length] = (table[name.length] as number) | letter(name)
  return table
}

/** The first letter as a bit, whatever its case. */
function letter(name: string): number {
  return 1 << (name.charCodeAt(0) & 31)
}

function mayBe(name: string, table: Uint32Array): boolean {
  return name.length < 64 && ((table[name.length] as number) & letter(name)) !== 0
}

function isPerHop(name: string): boolean {
  return mayBe(name, perHopLetters) && isPerHopName(name.toLowerCase())
}

function isPerHopName(lower: string): boolean {
  switch (lower) {
    case 'te':
    case 'trailer':
    case 'upgrade':
    case 'connection':
    case 'keep-alive':
    case 'http2-settings':
    case 'proxy-connection':
    case 'transfer-encoding':
    case 'proxy-authenticate':
    case 'proxy-authorization':
    case 'proxy-authentication-info':
      return true
    default:
      return false
  }
}

/** Does a `Connection` value say that the connection ends behind this message? */
export const asksToClose = (connection: string): boolean => /(?:^|,)\s*close\s*(?:,|$)/i.test(connection)

/** Field names that `Connection` values nominate, lower-case, without the ones that are no fields or that only we decide about. */
export function nominated(connection: string): readonly string[] {
  const lower = connection.toLowerCase()
  if (lower === 'keep-alive' || lower === 'close') return none
  let names: string[] | undefined
  for (const part of lower.split(',')) {
    const name = part.trim()
    if (name === '' || name === 'keep-alive' || name === 'close' || name === 'host' || name === 'content-length') continue
    if (names === undefined) names = []
    names.push(name)
  }
  return names ?? none
}

/**
 * The fields of a request without those that its sender nominated, before any stage sees them: what a stage sets under such a name is the proxy's own, and goes on.
 * Per-hop fields stay until the request is forwarded. So do forwarding fields: many a proxy in front hands its client's `Connection` on beside a `X-Forwarded-For` of
 * its own, and who could take that off would be taken for the proxy (CVE-2022-31813 was such a case). The same list when there is nothing to drop.
 * @param connection the value of all `Connection` lines
 */
export function withoutNominated(raw: readonly string[], connection: string): readonly string[] {
  if (connection === '') return raw
  const names = new Set(nominated(connection).filter((name) => !isPerHopName(name) && !isForwardingField(name)))
  return names.size === 0 ? raw : filterFields(raw, (name) => !names.has(name.toLowerCase()))
}

/**
 * Copies the end-to-end fields of a request. `Expect` is dropped too, although it is end-to-end: Weir answers it itself, after its policies
 * have run. Forwarding fields are left out when `dropForwarding` is set: nobody's are believed who is not trusted.
 */
export function endToEndRequestFields(raw: readonly string[], dropForwarding: boolean): string[] {
  const out: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (isPerHop(name)) continue
    if (name.length === 6 && name.toLowerCase() === 'expect') continue
    if (dropForwarding && isForwardingField(name)) continue
    out.push(name, raw[i + 1] as string)
  }
  return out
}

/** What the scan of a response head found besides the fields to drop. One object is enough: it is read before the next head is scanned. */
export interface ResponseScan {
  /** `Content-Length`, -1 without one, `NaN` with several. */
  length: number
  /** Location, Content-Location or Refresh is present. */
  urls: boolean
  /** In a transfer coding other than chunked. */
  coded: boolean
  /** `Content-Disposition` stands behind `Content-Length`. */
  disposition: boolean
}

const scan: ResponseScan = { length: -1, urls: false, coded: false, disposition: false }

/**
 * Keeps the end-to-end fields of a response, in place: the transport has made the list for us, and a copy per response would be for nothing.
 * @param takesTrailers the client can take trailers, so their announcement may go on (unless a length rules them out)
 */
export function keepEndToEnd(raw: string[], takesTrailers: boolean): ResponseScan {
  scan.length = -1
  scan.urls = false
  scan.coded = false
  scan.disposition = false
  let connection = ''
  let trailer = false
  let codings = 0
  let kept = 0
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    // As most write it, and as HTTP/2 does: the one that nearly every response has costs no lower-casing.
    if (name.length === 14 && (name === 'Content-Length' || name === 'content-length')) scan.length = lengthBeside(scan.length, raw[i + 1])
    else if (mayBe(name, responseLetters)) {
      const lower = name.toLowerCase()
      if (isPerHopName(lower)) {
        if (lower === 'connection') connection = connection === '' ? (raw[i + 1] as string) : `${connection},${raw[i + 1]}`
        else if (lower === 'transfer-encoding' && (++codings > 1 || isCoded(raw[i + 1] as string))) scan.coded = true
        if (lower !== 'trailer' || !takesTrailers) continue
        trailer = true
      } else if (lower === 'content-length') scan.length = lengthBeside(scan.length, raw[i + 1])
      else if (lower === 'content-disposition') scan.disposition = scan.length !== -1
      else if (lower === 'location' || lower === 'content-location' || lower === 'refresh') scan.urls = true
    }
    if (kept !== i) {
      raw[kept] = name
      raw[kept + 1] = raw[i + 1] as string
    }
    kept += 2
  }
  shorten(raw, kept)
  const names = connection === '' ? none : nominated(connection)
  const noTrailer = trailer && scan.length !== -1
  if (names.length > 0 || noTrailer) dropFields(raw, noTrailer ? [...names, 'trailer'] : names)
  return scan
}

/**
 * Something is left to decode when the chunks are taken off, or in place of them. A word that is in no registry is taken for noise, as others do: what it stands for
 * nobody could decode, and it is not behind anything that anybody would.
 */
function isCoded(value: string): boolean {
  return value.trim().toLowerCase() !== 'chunked' && /(?:^|,)\s*(?:chunked|(?:x-)?(?:gzip|compress)|deflate)\s*(?:[;,]|$)/i.test(value)
}

const lengthBeside = (before: number, value: string | undefined): number => (before === -1 ? Number(value) : Number.NaN)

function dropFields(raw: string[], names: readonly string[]): void {
  let kept = 0
  for (let i = 0; i < raw.length; i += 2) {
    if (names.includes((raw[i] as string).toLowerCase())) continue
    raw[kept] = raw[i] as string
    raw[kept + 1] = raw[i + 1] as string
    kept += 2
  }
  shorten(raw, kept)
}

/** Setting `length` leaves compiled code for V8's runtime, which costs as much as the rest of a scan. */
function shorten(list: string[], length: number): void {
  while (list.length > length) list.pop()
}

/** The fields of a 1xx or 101 head that go on. RFC 9110 §8.6: no Content-Length. */
export function endToEndResponseFields(raw: readonly string[]): string[] {
  const out = [...raw]
  if (keepEndToEnd(out, false).length !== -1) dropFields(out, ['content-length'])
  return out
}

function isForwardingField(name: string): boolean {
  const first = name.charCodeAt(0) | 32
  if (first === 0x66) return name.length === 9 && name.toLowerCase() === 'forwarded'
  if (first !== 0x78) return false
  const lower = name.toLowerCase()
  return lower.startsWith('x-forwarded-') || lower === 'x-real-ip'
}

/** RFC 9110 §6.5.1: fields that a trailer section must not carry, because the recipient has acted on their absence already. */
const forbiddenInTrailers = new Set([
  'transfer-encoding',
  'content-length',
  'content-encoding',
  'content-type',
  'content-range',
  'host',
  'connection',
  'keep-alive',
  'http2-settings',
  'te',
  'trailer',
  'upgrade',
  'expect',
  'range',
  'max-forwards',
  'cache-control',
  'pragma',
  'age',
  'date',
  'expires',
  'vary',
  'location',
  'retry-after',
  'authorization',
  'proxy-authorization',
  'proxy-authenticate',
  'www-authenticate',
  'cookie',
  'set-cookie',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
])

/** What may be relayed of a trailer section; undefined when nothing is left. */
export function endToEndTrailers(raw: readonly string[]): string[] | undefined {
  const out: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const lower = (raw[i] as string).toLowerCase()
    if (!forbiddenInTrailers.has(lower) && !lower.startsWith('proxy-') && !isForwardingField(lower))
      out.push(raw[i] as string, raw[i + 1] as string)
  }
  return out.length > 0 ? out : undefined
}
