/**
 * Links that let whoever has them in, for a while: a download, an upload to one place, a preview. The link says until when, and an HMAC over all of it
 * says that we made it. What is signed is the target byte for byte with the signature at its very end, so there is nothing to normalise and
 * no second way to read it. There is no list of links and so no way to take one back: keep the time short, or change the secret.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Duration, OptionReader } from '@weir/core'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { oneSpelling } from './ip-address.ts'

export interface SignUrlOptions {
  /** At least 16 bytes; of several, the first signs. */
  readonly secret: string | readonly string[]
  /** How long the link holds. Whole seconds, rounded up. */
  readonly ttl: Duration
  /** Only for this client, for a stage with `bindClientIp`. An address that changes, as of a phone, breaks the link. Default: for everybody. */
  readonly clientIp?: string
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number
}

export interface SignedUrlOptions {
  /** At least 16 bytes. With several each is good, so that a new one can be brought in: first in the list, then alone. */
  readonly secret: string | readonly string[]
  /** Default GET and HEAD. A link for an upload needs `['PUT']`, and then is good for nothing else. */
  readonly methods?: readonly string[]
  /** The link was signed for `clientIp`. Default false. */
  readonly bindClientIp?: boolean
  /** Takes both parameters off before the request goes on. Default true. */
  readonly strip?: boolean
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'signedUrl'`. */
  readonly name?: string
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number
}

const tail = /[?&]expires=(\d{1,12})&signature=([A-Za-z0-9_-]{43})$/
const forbidden = refusal(403)
const gone = refusal(410)

/**
 * Signs a target (`/file.zip?x=1`) or a whole URL, of which path and query are signed. Appends `expires` and `signature`.
 * @throws OptionsError
 */
export function signUrl(url: string | URL, options: SignUrlOptions): string {
  const read = new OptionReader('signUrl')
  const given = read.object<SignUrlOptions>(options, ['secret', 'ttl', 'clientIp', 'now'])
  const [secret = ''] = readSecrets(read, given.secret)
  const text = String(url)
  const match = /^(?:[a-z][a-z0-9+.-]*:\/\/[^/?#]*)?(\/[!"$-~]*)$/i.exec(text)
  if (match === null)
    read.problem('url', text, 'a path that begins with a slash, or a URL with one, as it is sent: percent-encoded, without a fragment')
  if (given.ttl === undefined) read.problem('ttl', given.ttl, 'how long the link holds')
  const ttl = read.duration('ttl', given.ttl, 1000, { min: 1, max: Number.MAX_SAFE_INTEGER })
  if (given.clientIp !== undefined && typeof given.clientIp !== 'string') read.problem('clientIp', given.clientIp, 'an address')
  const now = read.function('now', given.now, Date.now)
  read.check()
  const signed = `${text}${text.includes('?') ? '&' : '?'}expires=${Math.ceil((now() + ttl) / 1000)}`
  const target = signed.slice(text.length - (match?.[1] ?? '').length)
  return `${signed}&signature=${mac(secret, target, given.clientIp ?? '').toString('base64url')}`
}

/** @throws OptionsError */
export function signedUrl(options: SignedUrlOptions): AccessStage<GateStats> {
  const read = new OptionReader('signedUrl')
  const given = read.object<SignedUrlOptions>(options, ['secret', 'methods', 'bindClientIp', 'strip', 'dryRun', 'name', 'now'])
  const secrets = readSecrets(read, given.secret)
  const { methods = ['GET', 'HEAD'] } = given
  if (!Array.isArray(methods) || !methods.every((method) => typeof method === 'string' && /^[A-Z][A-Z-]*$/.test(method)))
    read.problem('methods', methods, 'a list of methods in upper case')
  const bind = read.boolean('bindClientIp', given.bindClientIp, false)
  const strip = read.boolean('strip', given.strip, true)
  const now = read.function('now', given.now, Date.now)
  const gate = new Gate(read.name('name', given.name, 'signedUrl'), read.boolean('dryRun', given.dryRun, false))
  read.check()

  return {
    name: gate.stage,
    handle(exchange) {
      const { url } = exchange
      const match = tail.exec(url)
      if (match === null) return gate.refuse(exchange, forbidden, 'none')
      const [whole, expires, signature = ''] = match
      const target = url.slice(0, -'&signature='.length - signature.length)
      if (strip && !gate.dryRun) exchange.url = url.slice(0, -whole.length)
      const wanted = Buffer.from(signature, 'base64url')
      let good = false
      for (const secret of secrets) if (timingSafeEqual(mac(secret, target, bind ? exchange.clientIp : ''), wanted)) good = true
      if (!good) return gate.refuse(exchange, forbidden, 'signature')
      if (!methods.includes(exchange.method)) return gate.refuse(exchange, forbidden, 'method')
      if (Number(expires) * 1000 <= now()) return gate.refuse(exchange, gone, 'expired')
      gate.allowed++
      return undefined
    },
    stats: () => gate.stats(),
  }
}

/** The version keeps what is signed here apart from whatever else the same secret may sign. */
function mac(secret: string, target: string, clientIp: string): Buffer {
  return createHmac('sha256', secret)
    .update(`weir-signed-url-1\n${oneSpelling(clientIp)}\n${target}`)
    .digest()
}

function readSecrets(read: OptionReader, value: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (list.length > 0 && list.every((entry): entry is string => typeof entry === 'string' && Buffer.byteLength(entry) >= 16)) return list
  read.problem('secret', '(not shown)', 'a text of at least 16 bytes, or a list of such texts')
  return []
}
