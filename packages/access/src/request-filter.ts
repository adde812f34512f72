/**
 * Rules about requests, in the manner of HAProxy's ACLs: facts that combine, actions, and the first rule that ends the matter wins. For what has to
 * be kept away from a service now: an endpoint that is not for the world, a scanner, a client that a mistake has let loose. It is no web
 * application firewall and looks at no bodies.
 */
import { type Clock, type Exchange, type Hooks, type MaybePromise, OptionReader, type Reply, readClock } from '@weir/core'
import { type CompiledRule, type FilterRule, readFilterRules } from './filter-rules.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { Tarpit } from './tarpit.ts'
import { fieldKey, StampedFields, stripFields } from './upstream-fields.ts'

declare module '@weir/core' {
  interface ExchangeLocals {
    /** What rules of `requestFilter` found. */
    tags?: string[]
  }
}

export interface RequestFilterOptions {
  /** Read from the top. */
  readonly rules: readonly FilterRule[]
  /** For what no rule has allowed or denied. Default `'allow'`; `'deny'` answers 403. */
  readonly default?: 'allow' | 'deny'
  /** Longest input of a RegExp, in characters, 1 to 65,536: time grows with it. What is longer counts as a match for `deny` and `tarpit`, and as none for the others. Default 2048. */
  readonly maxMatchLength?: number
  /** Requests held by tarpits at once, at most; what comes beyond is denied at once. Default 100. Each costs a socket and a few KiB. */
  readonly maxHeld?: number
  /** Decides, counts and tells, and refuses and holds nothing; tags are set. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'requestFilter'`. */
  readonly name?: string
  /** Tests move it. Default: the real one. */
  readonly clock?: Clock
}

export interface RequestFilterStats extends GateStats {
  /** How often each rule fitted. */
  readonly rules: readonly { readonly name: string; readonly action: FilterRule['action']; readonly matched: number }[]
  /** Requests that a tarpit holds now. */
  readonly held: number
  /** Requests that were denied at once, since the tarpit was full. */
  readonly overflowed: number
}

const forbidden = refusal(403)

/** @throws OptionsError */
export function requestFilter(options: RequestFilterOptions): AccessStage<RequestFilterStats> {
  const read = new OptionReader('requestFilter')
  const given = read.object<RequestFilterOptions>(options, ['rules', 'default', 'maxMatchLength', 'maxHeld', 'dryRun', 'name', 'clock'])
  const longest = read.number('maxMatchLength', given.maxMatchLength, 2048, { min: 1, max: 65_536, integer: true })
  const rules = readFilterRules(read, given.rules, longest)
  const deniesRest = read.oneOf('default', given.default, ['allow', 'deny'] as const, 'allow') === 'deny'
  const tarpit = new Tarpit(
    readClock(given.clock, read),
    read.number('maxHeld', given.maxHeld, 100, { min: 0, max: 100_000, integer: true }),
  )
  const gate = new Gate(read.name('name', given.name, 'requestFilter'), read.boolean('dryRun', given.dryRun, false))
  read.check()

  const ours = new Set(rules.flatMap(({ fields }) => fields.filter((_, i) => i % 2 === 0)).map(fieldKey))
  let overflowed = 0

  const hold = async (exchange: Exchange, rule: CompiledRule): Promise<Reply> => {
    gate.tell(exchange, 'held', undefined, rule.name)
    await tarpit.hold(exchange, rule.delay)
    return rule.reply
  }

  return {
    name: gate.stage,
    handle(exchange): MaybePromise<Reply | Hooks | undefined> {
      stripFields(exchange, ours)
      let stamped: string[] | undefined
      let ended = false
      let dry = false
      for (const rule of rules) {
        const answer = rule.asks(exchange)
        const against = rule.action === 'deny' || rule.action === 'tarpit'
        // What one cannot tell counts against the request.
        if (answer === 'no' || (answer === 'unsure' && !against)) continue
        rule.matched++
        if (rule.action === 'allow') {
          ended = true
          break
        }
        if (rule.action === 'tag') {
          if (rule.tag !== undefined) {
            exchange.locals.tags ??= []
            exchange.locals.tags.push(rule.tag)
          }
          if (rule.fields.length > 0) {
            stamped ??= []
            stamped.push(...rule.fields)
          }
          gate.tell(exchange, 'tagged', undefined, rule.name)
          continue
        }
        const reply = gate.refuse(exchange, rule.reply, rule.name, gate.dryRun || rule.dryRun)
        if (reply !== undefined) {
          if (rule.action === 'deny') return reply
          if (!tarpit.full) return hold(exchange, rule)
          overflowed++
          return reply
        }
        // The rule alone is on trial: what stands behind it is not.
        if (!gate.dryRun) continue
        dry = true
        break
      }
      if (!ended && !dry && deniesRest) {
        const reply = gate.refuse(exchange, forbidden, 'default')
        if (reply !== undefined) return reply
      } else if (!dry) gate.allowed++
      return stamped === undefined ? undefined : new StampedFields(stamped)
    },
    close: () => tarpit.close(),
    stats: () => ({
      ...gate.stats(),
      rules: rules.map(({ name, action, matched }) => ({ name, action, matched })),
      held: tarpit.held,
      overflowed,
    }),
  }
}
