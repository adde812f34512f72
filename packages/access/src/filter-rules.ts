/** The rules of `requestFilter`, and what they are read into. */
import type { Duration, OptionReader, Reply } from '@weir/core'
import { readFieldName } from './field-names.ts'
import { refusal } from './gate.ts'
import { type Question, type RequestMatch, readMatch } from './request-match.ts'

interface RuleBase {
  /** For `stats()` and events. Default `rule 1`, `rule 2` ... */
  readonly name?: string
  /** Without one the rule fits every request. */
  readonly match?: RequestMatch
}

export interface AllowRule extends RuleBase {
  /** No further rule is looked at. */
  readonly action: 'allow'
}

export interface DenyRule extends RuleBase {
  readonly action: 'deny'
  /** 400 to 599. Default 403. */
  readonly status?: number
  /** Text. Default: the status and its phrase. */
  readonly body?: string
  /** Counts and tells, and goes on to the next rule. Default false. */
  readonly dryRun?: boolean
}

export interface TarpitRule extends RuleBase {
  /** Holds the answer, and then denies. */
  readonly action: 'tarpit'
  readonly status?: number
  readonly body?: string
  /** For how long, at most 5 minutes. Default 10 s. Not longer than `timeouts.total` of the proxy. */
  readonly delay?: Duration
  readonly dryRun?: boolean
}

export interface TagRule extends RuleBase {
  /** Marks the request and goes on to the next rule. */
  readonly action: 'tag'
  /** Added to `exchange.locals.tags`. */
  readonly tag?: string
  /** Fields for the upstream. Client copies of all fields that any rule of the filter sets come off every request. */
  readonly headers?: Readonly<Record<string, string>>
}

export type FilterRule = AllowRule | DenyRule | TarpitRule | TagRule

/** One rule, ready for use, and its counters. */
export interface CompiledRule {
  readonly name: string
  readonly action: FilterRule['action']
  readonly asks: Question
  readonly reply: Reply
  readonly delay: number
  readonly tag: string | undefined
  /** Flat list. */
  readonly fields: readonly string[]
  readonly dryRun: boolean
  matched: number
}

/** All that any of them may have. */
type GivenRule = Omit<TarpitRule, 'action'> & Omit<TagRule, 'action'>

const keys: Readonly<Record<FilterRule['action'], readonly string[]>> = {
  allow: ['name', 'match', 'action'],
  deny: ['name', 'match', 'action', 'status', 'body', 'dryRun'],
  tarpit: ['name', 'match', 'action', 'status', 'body', 'dryRun', 'delay'],
  tag: ['name', 'match', 'action', 'tag', 'headers'],
}

export function readFilterRules(read: OptionReader, value: unknown, longest: number): CompiledRule[] {
  if (!Array.isArray(value)) {
    read.problem('rules', value, "a list of rules such as { match: { path: '/admin/*' }, action: 'deny' }")
    return []
  }
  return value.map((entry: unknown, index) => readRule(read.at('rules').at(index), entry, index, longest))
}

function readRule(read: OptionReader, entry: unknown, index: number, longest: number): CompiledRule {
  const action = read.oneOf('action', (entry as FilterRule | undefined)?.action ?? '', Object.keys(keys), 'deny') as FilterRule['action']
  const given = read.object<GivenRule>(entry as GivenRule, keys[action])
  const { body } = given
  if (body !== undefined && typeof body !== 'string') read.problem('body', body, 'a text')
  const status = read.number('status', given.status, 403, { min: 400, max: 599, integer: true })
  if (given.tag !== undefined && (typeof given.tag !== 'string' || given.tag === '')) read.problem('tag', given.tag, 'a non-empty text')
  if (action === 'tag' && given.tag === undefined && given.headers === undefined) read.problem('', entry, 'a `tag` or `headers`')
  return {
    name: read.name('name', given.name, `rule ${index + 1}`),
    action,
    asks: readMatch(read.at('match'), given.match, longest),
    reply: typeof body === 'string' ? refusal(status, {}, body) : refusal(status),
    delay: read.duration('delay', given.delay, 10_000, { min: 1, max: 300_000 }),
    tag: given.tag,
    fields: readFields(read.at('headers'), given.headers),
    dryRun: read.boolean('dryRun', given.dryRun, false),
    matched: 0,
  }
}

function readFields(read: OptionReader, value: unknown): string[] {
  if (value === undefined) return []
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    read.problem('', value, 'an object of field names and values')
    return []
  }
  return Object.entries(value).flatMap(([name, text]: [string, unknown]): string[] => {
    if (readFieldName(read, name, name) === undefined) return []
    if (typeof text === 'string' && /^[\t\x20-\x7e\x80-\xff]*$/.test(text)) return [name, text]
    read.problem(name, text, 'a text that may be a field value')
    return []
  })
}
