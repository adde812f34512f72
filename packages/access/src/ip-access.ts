/**
 * Who may come in, by address. Rules are read from the top and the first that matches decides, as in a firewall: that is the one order in which an
 * exception and its rule can be read off a page. The address is `exchange.clientIp`, so it is as true as `trustedProxies` of the proxy is.
 *
 * An address says where somebody is, not who. Behind one there may be an office or a mobile carrier; use it to keep whole networks in or out.
 */
import { fileURLToPath } from 'node:url'
import { type Clock, type Duration, OptionReader, readClock } from '@weir/core'
import { type AccessListChange, lists } from './events.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { type IpRuleFunction, IpRuleSource } from './ip-rule-source.ts'
import { type AddressRanges, type IpRule, type IpRuleSet, readDenyAllow, readIpRules } from './ip-rules.ts'

export interface IpAccessOptions {
  /**
   * The first that matches decides. A list; `'file:/etc/weir/addresses'`, a file with `allow 10.0.0.0/8` or `deny all` per line; or a function
   * that gives the list. Not together with `allow` and `deny`.
   */
  readonly rules?: readonly IpRule[] | `file:${string}` | IpRuleFunction
  /** Short for a rule that allows these. */
  readonly allow?: AddressRanges
  /** Short for a rule that denies these; it stands before the one of `allow`. */
  readonly deny?: AddressRanges
  /** For who matches nothing. Default `'deny'`; with `deny` alone `'allow'`. */
  readonly default?: 'allow' | 'deny'
  /** Of the refusal, 400 to 599. Default 403; 404 hides that there is anything. */
  readonly status?: number
  /** How often a file or a function is looked at; a file also when its folder says that it changed. Default 10 s. */
  readonly refresh?: Duration
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'ipAccess'`. */
  readonly name?: string
  /** Tests move it. Default: the real one. */
  readonly clock?: Clock
}

export interface IpAccessStats extends GateStats {
  /** Ranges in the list that holds now. */
  readonly ranges: number
  /** How often each rule decided, since the list was put in place. */
  readonly rules: readonly { readonly name: string; readonly action: 'allow' | 'deny'; readonly matched: number }[]
  /** Lists put in place after the first one, and lists that could not be used. */
  readonly replaced: number
  readonly failed: number
}

export interface IpAccessStage extends AccessStage<IpAccessStats> {
  /**
   * Puts another list in place, for the next request on. It is checked first, whole: a wrong one changes nothing.
   * @throws OptionsError
   */
  replace(rules: readonly IpRule[]): void
}

const keys = ['rules', 'allow', 'deny', 'default', 'status', 'refresh', 'dryRun', 'name', 'clock']

/** @throws OptionsError */
export function ipAccess(options: IpAccessOptions): IpAccessStage {
  const read = new OptionReader('ipAccess')
  const given = read.object<IpAccessOptions>(options, keys)
  const name = read.name('name', given.name, 'ipAccess')
  const gate = new Gate(name, read.boolean('dryRun', given.dryRun, false))
  const denyOnly = given.rules === undefined && given.allow === undefined
  const defaultAllows = read.oneOf('default', given.default, ['allow', 'deny'] as const, denyOnly ? 'allow' : 'deny') === 'allow'
  const reply = refusal(read.number('status', given.status, 403, { min: 400, max: 599, integer: true }))
  const refresh = read.duration('refresh', given.refresh, 10_000, { min: 10 })
  const clock = readClock(given.clock, read)
  const { from, rules } = readWhere(read, given)
  let set = rules
  read.check()

  let matched = new Float64Array(set.rules.length)
  let replaced = 0
  let failed = 0
  let source: IpRuleSource | undefined
  let loaded = from === undefined

  const tell = (error: unknown): void => {
    if (lists.hasSubscribers) lists.publish({ stage: name, ranges: set.table.size, error } satisfies AccessListChange)
  }
  const replace = (next: readonly IpRule[]): void => {
    const check = new OptionReader(`${name}.replace`)
    const compiled = readIpRules(check, 'rules', next)
    check.check()
    set = compiled
    matched = new Float64Array(compiled.rules.length)
    if (loaded) replaced++
    loaded = true
    tell(undefined)
  }

  return {
    name,
    handle(exchange) {
      const found = set.table.find(exchange.clientIp)
      const rule = found === -2 ? set.catchAll : found
      if (rule >= 0) matched[rule] = (matched[rule] as number) + 1
      const decided = rule < 0 ? undefined : set.rules[rule]
      if (decided === undefined ? defaultAllows : decided.allows) {
        gate.allowed++
        return undefined
      }
      return gate.refuse(exchange, reply, decided === undefined ? 'default' : decided.name)
    },
    async start() {
      if (from === undefined) return
      source = new IpRuleSource(from, refresh, clock, replace, (error) => {
        failed++
        tell(error)
      })
      await source.start()
    },
    close() {
      source?.close()
    },
    replace,
    stats: () => ({
      ...gate.stats(),
      ranges: set.table.size,
      rules: set.rules.map((rule, i) => ({ name: rule.name, action: rule.allows ? 'allow' : 'deny', matched: matched[i] as number })),
      replaced,
      failed,
    }),
  }
}

function readWhere(
  read: OptionReader,
  { rules, allow, deny }: IpAccessOptions,
): { readonly from: string | IpRuleFunction | undefined; readonly rules: IpRuleSet } {
  const none = readIpRules(read, 'rules', [])
  if (rules === undefined) {
    if (allow === undefined && deny === undefined) {
      read.problem('', '(no rules)', '`rules`, `allow` or `deny`')
      return { from: undefined, rules: none }
    }
    return { from: undefined, rules: readDenyAllow(read, deny, allow) }
  }
  if (allow !== undefined || deny !== undefined) read.problem('rules', '`rules` besides `allow` or `deny`', 'one or the other')
  if (typeof rules === 'function') return { from: rules, rules: none }
  if (typeof rules !== 'string') return { from: undefined, rules: readIpRules(read, 'rules', rules) }
  const path = filePath(rules)
  if (path === undefined) read.problem('rules', rules, "a list, a function, or a file such as 'file:/etc/weir/addresses'")
  return { from: path ?? '', rules: none }
}

/** `file:/a/b`, `file:///a/b`, or `file:rules.txt` below the working directory. */
function filePath(text: string): string | undefined {
  if (!text.startsWith('file:') || text.length === 5) return undefined
  try {
    return text.startsWith('file:///') ? fileURLToPath(text) : text.slice(5)
  } catch {
    return undefined
  }
}
