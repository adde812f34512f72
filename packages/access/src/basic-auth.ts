/**
 * HTTP Basic authentication (RFC 7617), for a handful of people: an internal tool, a staging site. Over TLS only, since the password comes with every
 * request. Because it does, and checking it is slow on purpose, what was right once is remembered for a while: not the password but a digest
 * of it under a key that this process made up and nobody else has.
 *
 * Whether there is no such user or the password is wrong cannot be told, from the answer or from its time.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { type Clock, type Duration, type Exchange, type Hooks, type MaybePromise, OptionReader, type Reply, readClock } from '@weir/core'
import { LRUCache } from 'lru-cache'
import { identify } from './auth-facts.ts'
import { within } from './deadline.ts'
import { readFieldName } from './field-names.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { nobody, type PasswordHash, parseHash, verifyPassword } from './password-hash.ts'
import { fieldKey, stripFields } from './upstream-fields.ts'
import { WorkQueue } from './work-queue.ts'

export interface BasicAuthOptions {
  /** Names, and hashes that `hashPassword` made; or a function that looks a hash up and knows undefined for nobody. */
  readonly users: Readonly<Record<string, string>> | ((user: string) => MaybePromise<string | undefined>)
  /** What the browser's dialog names. Default `'Restricted'`. */
  readonly realm?: string
  /** A field that tells the upstream the user; client copies come off. Default: none. `exchange.locals.auth` has it anyway. */
  readonly userHeader?: string
  /** Takes `Authorization` off, but not on a dry run. Default true; false where the upstream checks it again. */
  readonly stripCredentials?: boolean
  /** Passwords checked at once. Default 2: each takes one of the four threads that also do files and DNS, and 32 MiB at the usual cost. */
  readonly concurrency?: number
  /** Checks that may wait; what comes beyond is answered 503. Default 100. */
  readonly maxWaiting?: number
  /** What was right is not checked again for so long, nor noticed to be wrong by a `users` function. Default 5 m; 0 for never. */
  readonly remember?: Duration
  /** How many of these are kept. Default 1000. */
  readonly maxRemembered?: number
  /** For a `users` function; then 503. Default 5 s. */
  readonly timeout?: Duration
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'basicAuth'`. */
  readonly name?: string
  /** Tests move it. Default: the real one. */
  readonly clock?: Clock
}

export interface BasicAuthStats extends GateStats {
  /** Passwords checked, remembered ones not counted. */
  readonly checked: number
  /** Answered 503: no room to check, or the `users` function failed. */
  readonly unavailable: number
}

type Verdict = 'right' | 'wrong' | 'busy' | 'failed'

const keys = [
  'users',
  'realm',
  'userHeader',
  'stripCredentials',
  'concurrency',
  'maxWaiting',
  'remember',
  'maxRemembered',
  'timeout',
  'dryRun',
  'name',
  'clock',
]
const unavailable = refusal(503, { 'Retry-After': '1' })

/** @throws OptionsError */
export function basicAuth(options: BasicAuthOptions): AccessStage<BasicAuthStats> {
  const read = new OptionReader('basicAuth')
  const given = read.object<BasicAuthOptions>(options, keys)
  const clock = readClock(given.clock, read)
  const find = readUsers(read, given.users)
  const header = readFieldName(read, 'userHeader', given.userHeader)
  const strip = read.boolean('stripCredentials', given.stripCredentials, true)
  const queue = new WorkQueue(
    read.number('concurrency', given.concurrency, 2, { min: 1, max: 128, integer: true }),
    read.number('maxWaiting', given.maxWaiting, 100, { min: 0, max: 100_000, integer: true }),
  )
  const remember = read.duration('remember', given.remember, 300_000)
  const max = read.number('maxRemembered', given.maxRemembered, 1000, { min: 1, max: 1_000_000, integer: true })
  const timeout = read.duration('timeout', given.timeout, 5000, { min: 1 })
  const gate = new Gate(read.name('name', given.name, 'basicAuth'), read.boolean('dryRun', given.dryRun, false))
  const challenge = refusal(401, { 'WWW-Authenticate': `Basic realm="${readRealm(read, given.realm)}", charset="UTF-8"` })
  read.check()

  const ours = new Set(header === undefined ? [] : [fieldKey(header)])
  /** What was right, until when. */
  const known = new LRUCache<string, number>({ max })
  const running = new Map<string, Promise<Verdict>>()
  const secret = randomBytes(32)
  let checked = 0
  let failures = 0

  const check = (password: string, digest: string, hash: PasswordHash | undefined): MaybePromise<Verdict> => {
    const until = known.get(digest)
    if (until !== undefined && until > clock.now()) return 'right'
    // A page and all that is on it come at once: one check is enough for them.
    const same = running.get(digest)
    if (same !== undefined) return same
    const work = queue.run(async (): Promise<Verdict> => {
      checked++
      const right = await verifyPassword(password, hash ?? nobody(find.like))
      if (hash === undefined || !right) return 'wrong'
      if (remember > 0) known.set(digest, clock.now() + remember)
      return 'right'
    })
    if (work === undefined) return 'busy'
    const result = work.catch((): Verdict => 'failed').finally(() => running.delete(digest))
    running.set(digest, result)
    return result
  }

  const lookUp = async (user: string, password: string): Promise<Verdict> => {
    let hash: PasswordHash | undefined
    try {
      hash = parseHash(await within(find.hash(user), clock, timeout, 'users of basicAuth'))
    } catch {
      return 'failed'
    }
    return await check(password, digestOf(user, password, hash), hash)
  }

  /** The hash is part of it: another one for the user, and what was remembered is no more. */
  const digestOf = (user: string, password: string, hash: PasswordHash | undefined): string =>
    createHmac('sha256', secret)
      .update(JSON.stringify([user, password, hash?.salt.toString('hex'), hash?.hash.toString('hex')]))
      .digest('base64')

  const finish = (exchange: Exchange, user: string, verdict: Verdict): Reply | Hooks | undefined => {
    if (verdict === 'right') {
      gate.allowed++
      return identify(exchange, { scheme: 'basic', subject: user }, header)
    }
    if (verdict === 'wrong') return gate.refuse(exchange, challenge, 'credentials')
    failures++
    return gate.refuse(exchange, unavailable, verdict)
  }

  return {
    name: gate.stage,
    handle(exchange): MaybePromise<Reply | Hooks | undefined> {
      stripFields(exchange, ours)
      const value = exchange.headers.get('authorization')
      if (strip && !gate.dryRun && value !== undefined) exchange.headers.delete('authorization')
      const credentials = value === undefined ? undefined : parseCredentials(value)
      if (credentials === undefined) return gate.refuse(exchange, challenge, value === undefined ? 'none' : 'malformed')
      const { user, password } = credentials
      return lookUp(user, password).then((verdict) => finish(exchange, user, verdict))
    },
    stats: () => ({ ...gate.stats(), checked, unavailable: failures }),
  }
}

/** RFC 7617 §2: everything up to the first colon is the user; no control characters. */
function parseCredentials(value: string): { readonly user: string; readonly password: string } | undefined {
  const match = value.length <= 2048 ? /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(value) : null
  if (match === null) return undefined
  const text = Buffer.from(match[1] as string, 'base64').toString()
  const colon = text.indexOf(':')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
  if (colon < 0 || /[\x00-\x1f\x7f]/.test(text)) return undefined
  return { user: text.slice(0, colon), password: text.slice(colon + 1) }
}

interface Users {
  hash(user: string): MaybePromise<string | undefined>
  /** Whose cost somebody who is not there has. */
  readonly like: PasswordHash | undefined
}

function readUsers(read: OptionReader, value: BasicAuthOptions['users'] | undefined): Users {
  if (typeof value === 'function') return { hash: value, like: undefined }
  const hashes = new Map<string, string>()
  let like: PasswordHash | undefined
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Object.keys(value).length === 0)
    read.problem('users', typeof value, 'an object of user names and hashes made by hashPassword, or a function of the name')
  else
    for (const [user, hash] of Object.entries(value)) {
      const parsed = parseHash(hash)
      // The value is not shown: somebody may have put the password there.
      if (parsed === undefined || user === '' || user.includes(':'))
        read.at('users').problem(user, '(not shown)', 'a name without a colon, and a hash made by hashPassword')
      // The dearest: it is better to be slow for nobody than to be quick.
      else if (like === undefined || parsed.cost > like.cost) like = parsed
      hashes.set(user, hash)
    }
  return { hash: (user) => hashes.get(user), like }
}

/** For `WWW-Authenticate`: a quoted text (RFC 9110 §5.6.4). */
export function readRealm(read: OptionReader, value: unknown): string {
  const realm = read.name('realm', value, 'Restricted')
  if (!/^[\x20-\x7e]+$/.test(realm)) read.problem('realm', value, 'visible ASCII characters')
  return realm.replace(/["\\]/g, '\\$&')
}
