/**
 * Keys of programs. They are long and random, so a quick hash keeps them as safe as a slow one would, and the list that the proxy holds is of no use
 * to whoever steals it. A key is found by a digest under a secret of this process: where in the table the search goes tells nothing of the
 * keys in it. Two keys of one name, the older with an end, are how keys are changed without a moment in which none is right.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { type Exchange, OptionReader } from '@weir/core'
import { identify } from './auth-facts.ts'
import { readRealm } from './basic-auth.ts'
import { readFieldName } from './field-names.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { fieldKey, stripFields } from './upstream-fields.ts'

export interface ApiKey {
  /** Whose. Not secret. */
  readonly name: string
  /** What `hashApiKey` made of it. */
  readonly hash: string
  /** From then on it is refused. Default: never. */
  readonly expires?: Date
}

export interface ApiKeysOptions {
  readonly keys: readonly ApiKey[]
  /** Where it comes. Default `'X-API-Key'`, with `scheme` `'Authorization'`. */
  readonly header?: string
  /** What stands before it, such as `'Bearer'`. Default: nothing. */
  readonly scheme?: string
  /** A query parameter that may hold it instead. Default: none. URLs end up in logs and histories: only where a client can do nothing else. */
  readonly query?: string
  /** A field that tells the upstream the name; client copies come off. Default: none. */
  readonly nameHeader?: string
  /** Takes the key off, field and parameter. Default true. */
  readonly stripCredentials?: boolean
  /** For `WWW-Authenticate`. Default `'Restricted'`. */
  readonly realm?: string
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'apiKeys'`. */
  readonly name?: string
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number
}

export interface ApiKeysStage extends AccessStage<GateStats> {
  /** Other keys, for the next request on. A wrong list changes nothing. @throws OptionsError */
  replace(keys: readonly ApiKey[]): void
}

/** For `keys` of `apiKeys`: SHA-256 in hexadecimal, as `printf %s "$KEY" | sha256sum` prints it. */
export function hashApiKey(key: string): string {
  return createHash('sha256').update(key).digest('hex')
}

const optionNames = ['keys', 'header', 'scheme', 'query', 'nameHeader', 'stripCredentials', 'realm', 'dryRun', 'name', 'now']
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

interface KnownKey {
  readonly name: string
  readonly hash: Buffer
  readonly expires: number
}

/** @throws OptionsError */
export function apiKeys(options: ApiKeysOptions): ApiKeysStage {
  const read = new OptionReader('apiKeys')
  const given = read.object<ApiKeysOptions>(options, optionNames)
  const secret = randomBytes(32)
  let table = readKeys(read, given.keys, secret)
  const { scheme, query } = given
  if (scheme !== undefined && (typeof scheme !== 'string' || !token.test(scheme)))
    read.problem('scheme', scheme, "a scheme such as 'Bearer'")
  if (query !== undefined && (typeof query !== 'string' || !/^[A-Za-z0-9._~-]+$/.test(query)))
    read.problem('query', query, 'a name of letters, digits and . _ ~ -')
  const header = readFieldName(read, 'header', given.header) ?? (scheme === undefined ? 'X-API-Key' : 'Authorization')
  const nameHeader = readFieldName(read, 'nameHeader', given.nameHeader)
  const strip = read.boolean('stripCredentials', given.stripCredentials, true)
  const now = read.function('now', given.now, Date.now)
  const gate = new Gate(read.name('name', given.name, 'apiKeys'), read.boolean('dryRun', given.dryRun, false))
  const challenge = refusal(401, { 'WWW-Authenticate': `${scheme ?? 'ApiKey'} realm="${readRealm(read, given.realm)}"` })
  read.check()

  const ours = new Set(nameHeader === undefined ? [] : [fieldKey(nameHeader)])
  const prefix = scheme === undefined ? '' : `${scheme.toLowerCase()} `

  /** All that were sent; more than one is nobody's. */
  const presented = (exchange: Exchange): string[] => {
    const found = exchange.headers.getAll(header).map((value) => {
      if (prefix === '') return value
      return value.slice(0, prefix.length).toLowerCase() === prefix ? value.slice(prefix.length).trim() : ''
    })
    if (strip && !gate.dryRun && found.length > 0) exchange.headers.delete(header)
    if (query === undefined) return found
    const { kept, values } = takeParameter(exchange.url, query)
    if (strip && !gate.dryRun && values.length > 0) exchange.url = kept
    return [...found, ...values]
  }

  return {
    name: gate.stage,
    handle(exchange) {
      stripFields(exchange, ours)
      const keys = presented(exchange)
      const [key] = keys
      if (key === undefined) return gate.refuse(exchange, challenge, 'none')
      if (keys.length > 1 || key.length > 1024) return gate.refuse(exchange, challenge, 'malformed')
      const hash = createHash('sha256').update(key).digest()
      const known = table.get(blind(secret, hash))
      if (known === undefined || !timingSafeEqual(known.hash, hash)) return gate.refuse(exchange, challenge, 'unknown')
      if (known.expires <= now()) return gate.refuse(exchange, challenge, 'expired')
      gate.allowed++
      return identify(exchange, { scheme: 'apiKey', subject: known.name }, nameHeader)
    },
    replace(keys) {
      const check = new OptionReader(`${gate.stage}.replace`)
      const next = readKeys(check, keys, secret)
      check.check()
      table = next
    },
    stats: () => gate.stats(),
  }
}

function blind(secret: Buffer, hash: Buffer): string {
  return createHmac('sha256', secret).update(hash).digest('base64')
}

function readKeys(read: OptionReader, value: unknown, secret: Buffer): Map<string, KnownKey> {
  const table = new Map<string, KnownKey>()
  if (!Array.isArray(value)) {
    read.problem('keys', typeof value, "a list of { name: 'billing', hash: hashApiKey(key) }")
    return table
  }
  value.forEach((entry: unknown, index) => {
    const below = read.at('keys').at(index)
    const given = below.object<ApiKey>(entry as ApiKey, ['name', 'hash', 'expires'])
    const { name, hash, expires } = given
    if (typeof name !== 'string' || name === '') below.problem('name', name, 'a non-empty text')
    // Not shown: somebody may have put the key there.
    if (typeof hash !== 'string' || !/^[0-9a-f]{64}$/i.test(hash))
      below.problem('hash', '(not shown)', '64 hexadecimal digits from hashApiKey')
    else {
      const bytes = Buffer.from(hash, 'hex')
      table.set(blind(secret, bytes), {
        name: String(name),
        hash: bytes,
        expires: expires instanceof Date ? expires.getTime() : Number.POSITIVE_INFINITY,
      })
    }
    if (expires !== undefined && !(expires instanceof Date && Number.isFinite(expires.getTime())))
      below.problem('expires', expires, 'a Date')
  })
  return table
}

/** Takes every `name=` off the query. What is left stays as it is, byte for byte. */
function takeParameter(url: string, name: string): { readonly kept: string; readonly values: string[] } {
  const question = url.indexOf('?')
  if (question < 0) return { kept: url, values: [] }
  const values: string[] = []
  const kept = url
    .slice(question + 1)
    .split('&')
    .filter((pair) => {
      const [entry] = new URLSearchParams(pair)
      if (entry?.[0] !== name) return true
      values.push(entry[1])
      return false
    })
  return { kept: kept.length === 0 ? url.slice(0, question) : `${url.slice(0, question)}?${kept.join('&')}`, values }
}
