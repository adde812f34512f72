/**
 * Bearer tokens that say by themselves who somebody is (JWT, RFC 7519), checked as RFC 8725 asks: by algorithms that are listed, never by what the
 * token would like; for this issuer and this audience; in time. The cryptography is that of `jose`.
 *
 * A token is good until it ends, whatever happens meanwhile. Where rights have to end at once, ask: `forwardAuth`.
 */
import { type Duration, type Exchange, type Hooks, type MaybePromise, OptionReader, type Reply } from '@weir/core'
import { type errors, type JWTPayload, type JWTVerifyOptions, jwtVerify } from 'jose'
import { readRealm } from './basic-auth.ts'
import { readFieldName } from './field-names.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { isOutage, type JwtKeys, readJwtKeys } from './jwt-keys.ts'
import { fieldKey, fieldValue, StampedFields, stripFields } from './upstream-fields.ts'

const asymmetric = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const
const symmetric = ['HS256', 'HS384', 'HS512'] as const
export type JwtAlgorithm = (typeof asymmetric)[number] | (typeof symmetric)[number]

export interface JwtAuthOptions {
  /** What tokens may be signed with. Those with a shared secret (`HS...`) and those with a key pair do not go together: a public key would become a secret that everybody knows. */
  readonly algorithms: readonly JwtAlgorithm[]
  readonly keys: JwtKeys
  /** Who must have made the token (`iss`). `false` only where the key belongs to one issuer anyway. */
  readonly issuer: string | readonly string[] | false
  /** Whom the token must be for (`aud`). `false` lets in with tokens that were made for another service. */
  readonly audience: string | readonly string[] | false
  /** The `typ` of the header, such as `'at+jwt'` (RFC 9068): keeps ID tokens from being used for access. Default: any. */
  readonly type?: string
  /** How far clocks may differ, for `exp` and `nbf`. Default 10 s. */
  readonly skew?: Duration
  /** Claims that must be there. Default `['exp']`: a token without an end is one for ever. */
  readonly requiredClaims?: readonly string[]
  /** A cookie that may hold the token where there is no `Authorization`. Default: none. Then the site needs protection against CSRF. */
  readonly cookie?: string
  /** Lets requests without any token pass as nobody. A wrong one is refused all the same. Default false. */
  readonly optional?: boolean
  /** Claims for the upstream, `{ sub: 'X-User' }`; client copies of these fields come off. Lists are joined with commas. Default: none. */
  readonly claimHeaders?: Readonly<Record<string, string>>
  /** The claim that becomes `exchange.hashKey`, for balancers that hash: all of one tenant to one upstream. Default: none. */
  readonly hashClaim?: string
  /** Takes `Authorization` off, but not on a dry run. Default false: services often read it themselves. */
  readonly stripCredentials?: boolean
  /** For `WWW-Authenticate`. Default `'Restricted'`. */
  readonly realm?: string
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'jwtAuth'`. */
  readonly name?: string
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly now?: () => number
}

export interface JwtAuthStats extends GateStats {
  /** Answered 503: there were no keys to be had. */
  readonly unavailable: number
}

const optionNames = [
  'algorithms',
  'keys',
  'issuer',
  'audience',
  'type',
  'skew',
  'requiredClaims',
  'cookie',
  'optional',
  'claimHeaders',
  'hashClaim',
  'stripCredentials',
  'realm',
  'dryRun',
  'name',
  'now',
]
const longestToken = 8192
const unavailable = refusal(503, { 'Retry-After': '5' })

/** @throws OptionsError */
export function jwtAuth(options: JwtAuthOptions): AccessStage<JwtAuthStats> {
  const read = new OptionReader('jwtAuth')
  const given = read.object<JwtAuthOptions>(options, optionNames)
  const now = read.function('now', given.now, Date.now)
  // Where they are wrong themselves, the keys are not blamed besides.
  const algorithms = readAlgorithms(read, given.algorithms) ?? (hasSecret(given.keys) ? ['HS256'] : ['RS256'])
  const keys = readJwtKeys(read.at('keys'), given.keys, algorithms.some(isSymmetric), now)
  const rules: Omit<JWTVerifyOptions, 'currentDate'> = {
    algorithms,
    clockTolerance: read.duration('skew', given.skew, 10_000, { max: 600_000 }) / 1000,
    requiredClaims: readTexts(read, 'requiredClaims', given.requiredClaims ?? ['exp']),
    ...readExpected(read, 'issuer', given.issuer),
    ...readExpected(read, 'audience', given.audience),
    ...(given.type === undefined ? {} : { typ: read.name('type', given.type, '') }),
  }
  const { cookie, hashClaim } = given
  if (cookie !== undefined && (typeof cookie !== 'string' || !/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(cookie)))
    read.problem('cookie', cookie, 'the name of a cookie')
  if (hashClaim !== undefined && typeof hashClaim !== 'string') read.problem('hashClaim', hashClaim, 'the name of a claim')
  const claimHeaders = readClaimHeaders(read.at('claimHeaders'), given.claimHeaders)
  const optional = read.boolean('optional', given.optional, false)
  const strip = read.boolean('stripCredentials', given.stripCredentials, false)
  const realm = readRealm(read, given.realm)
  const gate = new Gate(read.name('name', given.name, 'jwtAuth'), read.boolean('dryRun', given.dryRun, false))
  read.check()

  const ours = new Set(claimHeaders.map(([, field]) => fieldKey(field)))
  // RFC 6750 §3: whoever sent nothing is not told that something is wrong with it.
  const missing = refusal(401, { 'WWW-Authenticate': `Bearer realm="${realm}"` })
  const wrong = refusal(401, { 'WWW-Authenticate': `Bearer realm="${realm}", error="invalid_token"` })
  let outages = 0

  const admit = (exchange: Exchange, claims: JWTPayload): Hooks | undefined => {
    gate.allowed++
    exchange.locals.auth = { scheme: 'jwt', subject: claims.sub ?? '', claims }
    if (hashClaim !== undefined) {
      const value = claimText(claims[hashClaim])
      if (value !== undefined) exchange.hashKey = value
    }
    const fields = claimHeaders.flatMap(([claim, field]) => {
      const value = claimText(claims[claim])
      return value === undefined ? [] : [field, fieldValue(value)]
    })
    return fields.length === 0 ? undefined : new StampedFields(fields)
  }

  const verify = async (exchange: Exchange, token: string): Promise<Reply | Hooks | undefined> => {
    try {
      const { payload } = await jwtVerify(token, keys, { ...rules, currentDate: new Date(now()) })
      return admit(exchange, payload)
    } catch (error) {
      if (!isOutage(error)) return gate.refuse(exchange, wrong, (error as errors.JOSEError).code)
      outages++
      return gate.refuse(exchange, unavailable, 'no keys')
    }
  }

  return {
    name: gate.stage,
    handle(exchange): MaybePromise<Reply | Hooks | undefined> {
      stripFields(exchange, ours)
      const value = exchange.headers.get('authorization')
      if (strip && !gate.dryRun && value !== undefined) exchange.headers.delete('authorization')
      const token = value === undefined ? cookieToken(exchange, cookie) : bearer(value)
      if (token === undefined) {
        if (optional && value === undefined) {
          gate.allowed++
          return undefined
        }
        return gate.refuse(exchange, missing, 'none')
      }
      if (token.length > longestToken) return gate.refuse(exchange, wrong, 'malformed')
      return verify(exchange, token)
    },
    stats: () => ({ ...gate.stats(), unavailable: outages }),
  }
}

function bearer(value: string): string | undefined {
  return /^bearer +([A-Za-z0-9._~+/=-]+)$/i.exec(value)?.[1]
}

/** Two of one name: whoever can set a cookie for a parent domain could choose. */
function cookieToken({ headers }: Exchange, name: string | undefined): string | undefined {
  if (name === undefined) return undefined
  const found = headers
    .getAll('cookie')
    .flatMap((line) => line.split(';'))
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${name}=`))
  return found.length === 1 ? (found[0] as string).slice(name.length + 1) : undefined
}

function claimText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (Array.isArray(value)) return value.every((entry) => typeof entry === 'string') ? value.join(',') : JSON.stringify(value)
  return value === undefined || value === null ? undefined : JSON.stringify(value)
}

function hasSecret(keys: unknown): boolean {
  return typeof keys === 'object' && keys !== null && 'secret' in keys
}

function isSymmetric(algorithm: string): boolean {
  return (symmetric as readonly string[]).includes(algorithm)
}

function readAlgorithms(read: OptionReader, value: unknown): JwtAlgorithm[] | undefined {
  const known: readonly string[] = [...asymmetric, ...symmetric]
  if (!Array.isArray(value) || value.length === 0 || !value.every((entry) => known.includes(entry))) {
    read.problem('algorithms', value, `a list of ${known.join(', ')}`)
    return undefined
  }
  if (value.some(isSymmetric) && !value.every(isSymmetric))
    read.problem('algorithms', value, 'either such with a secret (HS...) or such with a key pair')
  return value
}

function readTexts(read: OptionReader, name: string, value: unknown): string[] {
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string' && entry !== '')) return value
  read.problem(name, value, 'a list of texts')
  return []
}

function readExpected<N extends 'issuer' | 'audience'>(read: OptionReader, name: N, value: unknown): Partial<Record<N, string[]>> {
  if (value === false) return {}
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (list.length > 0 && list.every((entry): entry is string => typeof entry === 'string' && entry !== ''))
    return { [name]: [...list] } as Record<N, string[]>
  read.problem(name, value, 'a text, a list of texts, or false')
  return {}
}

function readClaimHeaders(read: OptionReader, value: unknown): [claim: string, field: string][] {
  if (value === undefined) return []
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    read.problem('', value, "an object of claims and field names such as { sub: 'X-User' }")
    return []
  }
  return Object.entries(value).flatMap(([claim, field]: [string, unknown]): [string, string][] => {
    const name = field === undefined ? undefined : readFieldName(read, claim, field)
    return name === undefined ? [] : [[claim, name]]
  })
}
