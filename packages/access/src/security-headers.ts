/**
 * Fields by which a browser is told to be careful. They are set where the application has not said anything, since it knows better; a policy that
 * breaks pages (CSP, Permissions-Policy, COOP) is yours to choose and is only set when you do.
 */
import { type Duration, type Exchange, type Hooks, OptionReader, type ProxyResponse, type Stage } from '@weir/core'

export interface HstsOptions {
  /** How long browsers come by TLS only. Default 365 days. Begin with minutes: it cannot be taken back. */
  readonly maxAge?: Duration
  /** For all names below, too. Default false: one of them that has no TLS is gone for every browser that has seen this. */
  readonly includeSubDomains?: boolean
  /** Consent to be built into browsers (hstspreload.org), which takes months to undo. Needs a year and `includeSubDomains`. Default false. */
  readonly preload?: boolean
  /** When the client came by TLS. `'tls'`, the default: to this server, or as a trusted proxy says. `'always'` behind a terminator that does not say; or a function. */
  readonly when?: 'tls' | 'always' | ((exchange: Exchange) => boolean)
}

export interface SecurityHeadersOptions {
  /** `Strict-Transport-Security`, and only over TLS (RFC 6797 §7.2). Default on. */
  readonly hsts?: HstsOptions | false
  /** `X-Content-Type-Options: nosniff`. Default true. */
  readonly nosniff?: boolean
  /** `X-Frame-Options`. Default `'SAMEORIGIN'`; `false` for pages that others may embed. */
  readonly frame?: 'DENY' | 'SAMEORIGIN' | false
  /** `Referrer-Policy`. Default `'strict-origin-when-cross-origin'`. */
  readonly referrer?: string | false
  /** `Content-Security-Policy`. Default: none; there is none that fits every site. */
  readonly csp?: string | false
  /** `Cross-Origin-Opener-Policy`. Default `'same-origin-allow-popups'`, which leaves sign-in windows working. */
  readonly coop?: 'same-origin' | 'same-origin-allow-popups' | 'unsafe-none' | false
  /** `Cross-Origin-Resource-Policy`. Default: none; it would break files that other sites use. */
  readonly corp?: 'same-origin' | 'same-site' | 'cross-origin' | false
  /** `Permissions-Policy`, such as `'camera=(), geolocation=()'`. Default: none. */
  readonly permissions?: string | false
  /** For order. Default `'securityHeaders'`. */
  readonly name?: string
}

const keys = ['hsts', 'nosniff', 'frame', 'referrer', 'csp', 'coop', 'corp', 'permissions', 'name']
const year = 365 * 86_400_000

/** @throws OptionsError */
export function securityHeaders(options?: SecurityHeadersOptions): Stage {
  const read = new OptionReader('securityHeaders')
  const given = read.object<SecurityHeadersOptions>(options, keys)
  const name = read.name('name', given.name, 'securityHeaders')
  const fields: [name: string, value: string][] = []
  const add = (field: string, value: string | false | undefined): void => {
    if (typeof value === 'string') fields.push([field, value])
  }
  const text = (option: 'referrer' | 'csp' | 'permissions', fallback: string | false): string | false => {
    const value = given[option] ?? fallback
    if (value === false || (typeof value === 'string' && /^[\x20-\x7e]+$/.test(value))) return value
    read.problem(option, value, 'a text of visible ASCII characters on one line, or false')
    return false
  }
  if (read.boolean('nosniff', given.nosniff, true)) add('X-Content-Type-Options', 'nosniff')
  add('X-Frame-Options', read.oneOf('frame', given.frame, ['DENY', 'SAMEORIGIN', false] as const, 'SAMEORIGIN'))
  add('Referrer-Policy', text('referrer', 'strict-origin-when-cross-origin'))
  add('Content-Security-Policy', text('csp', false))
  add(
    'Cross-Origin-Opener-Policy',
    read.oneOf('coop', given.coop, ['same-origin', 'same-origin-allow-popups', 'unsafe-none', false] as const, 'same-origin-allow-popups'),
  )
  add('Cross-Origin-Resource-Policy', read.oneOf('corp', given.corp, ['same-origin', 'same-site', 'cross-origin', false] as const, false))
  add('Permissions-Policy', text('permissions', false))
  const hsts = given.hsts === false ? undefined : readHsts(read.at('hsts'), given.hsts)
  read.check()

  const hooks: Hooks = {
    onResponse({ headers }: ProxyResponse, exchange: Exchange) {
      for (const [field, value] of fields) if (!headers.has(field)) headers.set(field, value)
      if (hsts?.when(exchange) === true && !headers.has('strict-transport-security')) headers.set('Strict-Transport-Security', hsts.value)
    },
  }
  return { name, handle: () => hooks }
}

function readHsts(read: OptionReader, options: HstsOptions | undefined): { readonly value: string; when(exchange: Exchange): boolean } {
  const given = read.object<HstsOptions>(options, ['maxAge', 'includeSubDomains', 'preload', 'when'])
  const maxAge = read.duration('maxAge', given.maxAge, year, { max: 100 * year })
  const below = read.boolean('includeSubDomains', given.includeSubDomains, false)
  const preload = read.boolean('preload', given.preload, false)
  if (preload && (!below || maxAge < year)) read.problem('preload', true, 'a `maxAge` of a year and `includeSubDomains` with it')
  const { when = 'tls' } = given
  if (when !== 'tls' && when !== 'always' && typeof when !== 'function')
    read.problem('when', when, "'tls', 'always', or a function of the exchange")
  return {
    value: `max-age=${Math.floor(maxAge / 1000)}${below ? '; includeSubDomains' : ''}${preload ? '; preload' : ''}`,
    when: typeof when === 'function' ? when : when === 'always' ? () => true : ({ scheme }) => scheme === 'https',
  }
}
