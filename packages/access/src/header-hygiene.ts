/**
 * Field names that mean one thing to the proxy and another to what stands behind it. CGI and its heirs turn names into variables: `X-User` and
 * `X_User` become one, so that a client can set what it may not by another spelling, and `Proxy` becomes HTTP_PROXY, through which programs
 * route their own requests (httpoxy, CVE-2016-5385). And names such as `X-Internal-User` are believed by services because "only we set them".
 *
 * Put it first: whatever sets such a field after it stays. Behind a body, where it is too late to refuse, such a field is dropped by every policy but `'allow'`.
 */
import { type Exchange, OptionReader } from '@weir/core'
import { FieldPatterns, readPatterns } from './field-names.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { readRangeSet } from './ip-rules.ts'

export type NamePolicy = 'allow' | 'drop' | 'reject'

export interface HeaderHygieneOptions {
  /** Names with `_`. `'reject'` answers 400. Default `'drop'`; `'allow'` where an application has such names and no CGI. */
  readonly underscores?: NamePolicy
  /** Names with another character than letters, digits, `-` and `_`: `!#$%&'*+.^|~` and the backtick are allowed by RFC 9110 §5.6.2, and used by nobody. Default `'drop'`. */
  readonly unusual?: NamePolicy
  /** The field `Proxy`. Default `'drop'`. There is no such field in HTTP, so nothing needs it. */
  readonly proxyField?: NamePolicy
  /** Names and patterns (`'X-Internal-*'`) that clients may not send. Taken off, in every spelling with `_` for `-` too, unless the client is trusted. Default: none. */
  readonly internal?: readonly string[]
  /**
   * Who may send `internal` fields: addresses and ranges, as of `exchange.clientIp`, or a function. Default: nobody. Not the address of a load
   * balancer in front, which passes on what clients write.
   */
  readonly trusted?: string | readonly string[] | ((exchange: Exchange) => boolean)
  /** Decides, counts and tells, and neither drops nor refuses anything. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'headerHygiene'`. */
  readonly name?: string
}

export interface HeaderHygieneStats extends GateStats {
  /** Field lines taken off; on a dry run, that would have been. */
  readonly dropped: { readonly underscores: number; readonly unusual: number; readonly proxyField: number; readonly internal: number }
}

type Cause = keyof HeaderHygieneStats['dropped']

const policies = ['allow', 'drop', 'reject'] as const
const badName = refusal(400)

/** @throws OptionsError */
export function headerHygiene(options?: HeaderHygieneOptions): AccessStage<HeaderHygieneStats> {
  const read = new OptionReader('headerHygiene')
  const given = read.object<HeaderHygieneOptions>(options, [
    'underscores',
    'unusual',
    'proxyField',
    'internal',
    'trusted',
    'dryRun',
    'name',
  ])
  const rules: Record<Exclude<Cause, 'internal'>, NamePolicy> = {
    underscores: read.oneOf('underscores', given.underscores, policies, 'drop'),
    unusual: read.oneOf('unusual', given.unusual, policies, 'drop'),
    proxyField: read.oneOf('proxyField', given.proxyField, policies, 'drop'),
  }
  const internal = new FieldPatterns(readPatterns(read, 'internal', given.internal).map(asDashes))
  const { trusted } = given
  const ranges = typeof trusted === 'function' || trusted === undefined ? undefined : readRangeSet(read, 'trusted', trusted)
  const trusts: (exchange: Exchange) => boolean =
    typeof trusted === 'function' ? trusted : ranges === undefined ? () => false : ({ clientIp }) => ranges.find(clientIp) >= 0
  const gate = new Gate(read.name('name', given.name, 'headerHygiene'), read.boolean('dryRun', given.dryRun, false))
  read.check()

  const dropped: Record<Cause, number> = { underscores: 0, unusual: 0, proxyField: 0, internal: 0 }

  /** Why this name may not pass; undefined when it may. */
  const objection = (name: string): Cause | undefined => {
    if (name.length === 5 && rules.proxyField !== 'allow' && name.toLowerCase() === 'proxy') return 'proxyField'
    let cause: Cause | undefined
    for (let i = 0; i < name.length; i++) {
      const code = name.charCodeAt(i)
      const lower = code | 0x20
      if (code === 0x2d || (lower >= 0x61 && lower <= 0x7a) || (code >= 0x30 && code <= 0x39)) continue
      if (code !== 0x5f) {
        if (rules.unusual !== 'allow') return 'unusual'
      } else if (rules.underscores !== 'allow') cause = 'underscores'
    }
    return cause
  }

  const dropsTrailer = (exchange: Exchange, name: string): boolean => {
    const cause =
      objection(name) ?? (!internal.empty && internal.match(asDashes(name.toLowerCase())) && !trusts(exchange) ? 'internal' : undefined)
    if (cause === undefined) return false
    dropped[cause]++
    if (gate.dryRun) gate.tell(exchange, 'dry', undefined, cause)
    return !gate.dryRun
  }

  return {
    name: gate.stage,
    handle(exchange) {
      const { raw } = exchange.headers
      let drop: Set<string> | undefined
      let trustsThis: boolean | undefined
      if (exchange.hasBody) exchange.dropTrailers((name) => dropsTrailer(exchange, name))
      for (let i = 0; i < raw.length; i += 2) {
        const name = raw[i] as string
        let cause = objection(name)
        if (cause === undefined && !internal.empty && internal.match(asDashes(name.toLowerCase()))) {
          trustsThis ??= trusts(exchange)
          if (!trustsThis) cause = 'internal'
        }
        if (cause === undefined) continue
        if (cause !== 'internal' && rules[cause] === 'reject') {
          const reply = gate.refuse(exchange, badName, cause)
          if (reply !== undefined) return reply
          continue
        }
        dropped[cause]++
        if (gate.dryRun) gate.tell(exchange, 'dry', undefined, cause)
        else {
          drop ??= new Set()
          drop.add(name)
        }
      }
      if (drop !== undefined) for (const name of drop) exchange.headers.delete(name)
      gate.allowed++
      return undefined
    },
    stats: () => ({ ...gate.stats(), dropped: { ...dropped } }),
  }
}

/** What CGI would make of both spellings is one variable; here it is one name. */
function asDashes(name: string): string {
  return name.includes('_') ? name.replaceAll('_', '-') : name
}
