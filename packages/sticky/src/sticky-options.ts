/** Options of `stickySession`, and what they are read into. */
import { type Duration, OptionReader } from '@weir/core'
import { attributeKeys, type CookieAttributes, type CookieShape, readAttributes, readCookieName } from './cookie-attributes.ts'
import { readSecrets, type Secret } from './secret.ts'
import { type Lifetimes, SignedValues } from './signed-value.ts'
import { readStageOptions, type StageSettings, type StickyStageOptions, stageKeys } from './stage-options.ts'

interface SignedOptions extends StickyStageOptions {
  /** At least 32 bytes, the same on every proxy. A list rotates: the first signs, all verify, and what an older one signed is sent anew. */
  readonly secret: Secret | readonly Secret[]
  /** How long after its beginning a session ends, however busy it is: its next request is balanced. Default 1 d; at most 400 d. */
  readonly absolute?: Duration
  /**
   * Says `Cache-Control: private` on every response that carries the cookie, unless it says `private` or `no-store` already. Default true.
   * `false` only where no cache at all is in front of this proxy.
   */
  readonly cachePrivate?: boolean
  /** Wall clock, milliseconds of the epoch. Default `Date.now`. */
  readonly now?: () => number
}

/** The proxy sets a cookie of its own. */
export interface InsertOptions extends SignedOptions, CookieAttributes {
  readonly mode?: 'insert'
  /** Name of the cookie. Default `weir_sticky`. */
  readonly cookie?: string
  /** How long after its last request a session ends; `false`: only `absolute` ends it. Default 1 h. */
  readonly idle?: Duration | false
  /** Share of `idle`, 0.01 to 0.9, after which a new stamp is sent; so much earlier than `idle` may a session end. Default 0.1. */
  readonly refresh?: number
  /** The upstream sees the cookie, too. Default false. */
  readonly forward?: boolean
}

/** The proxy uses a cookie that the application sets. */
export interface OwnedCookieOptions extends SignedOptions {
  /** `prefix`: the application's value stays, behind ours, and it never sees ours. `rewrite`: ours takes its place. */
  readonly mode: 'prefix' | 'rewrite'
  /** Name of the application's cookie. */
  readonly cookie: string
}

export type StickySessionOptions = InsertOptions | OwnedCookieOptions

export interface StickySettings extends StageSettings {
  readonly mode: 'insert' | 'prefix' | 'rewrite'
  readonly cookie: CookieShape
  readonly values: SignedValues
  readonly forward: boolean
  readonly cachePrivate: boolean
  readonly now: () => number
}

const day = 86_400_000
const signedKeys = ['mode', 'secret', 'cookie', 'absolute', 'cachePrivate', 'now', ...stageKeys]
const insertKeys = ['idle', 'refresh', 'forward', ...attributeKeys]

/** @throws OptionsError */
export function readStickyOptions(options: StickySessionOptions): StickySettings {
  const read = new OptionReader('stickySession')
  const given = read.object<InsertOptions>((options ?? {}) as InsertOptions, [...signedKeys, ...insertKeys])
  const mode = read.oneOf('mode', (given as StickySessionOptions).mode, ['insert', 'prefix', 'rewrite'] as const, 'insert')
  const stage = readStageOptions(read, given, 'stickySession')
  const name = readCookieName(read, 'cookie', given.cookie, 'weir_sticky')
  if (mode !== 'insert') {
    if (given.cookie === undefined)
      read.problem('cookie', undefined, `the name of the application's cookie, which \`mode: '${mode}'\` works on`)
    for (const key of insertKeys)
      if ((given as Record<string, unknown>)[key] !== undefined)
        read.problem(key, (given as Record<string, unknown>)[key], `nothing with \`mode: '${mode}'\`: the cookie is the application's`)
  }
  const secrets = readSecrets(read, given.secret)
  const absolute = read.duration('absolute', given.absolute, day, { min: 1000, max: 400 * day })
  const lifetimes: Lifetimes = {
    absolute,
    // Only the application sends its own cookie: no stamp could be renewed.
    idle:
      mode !== 'insert' || given.idle === false
        ? Number.POSITIVE_INFINITY
        : read.duration('idle', given.idle, Math.min(3_600_000, absolute), { min: 1000, max: absolute }),
    refresh: read.number('refresh', given.refresh, 0.1, { min: 0.01, max: 0.9 }),
  }
  const settings: StickySettings = {
    ...stage,
    mode,
    cookie: readAttributes(read, mode === 'insert' ? given : {}, mode === 'insert' ? name : 'weir_sticky'),
    values: new SignedValues(secrets, `${mode} ${name}`, lifetimes),
    forward: read.boolean('forward', given.forward, false),
    cachePrivate: read.boolean('cachePrivate', given.cachePrivate, true),
    now: read.function('now', given.now, Date.now),
  }
  read.check()
  return { ...settings, cookie: { ...settings.cookie, name } }
}
