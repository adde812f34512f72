/** Address rules as people write them, in code or in a file, read into the table that answers. */
import { OptionReader } from '@weir/core'
import { parseRanges, rangeExpected } from './ip-address.ts'
import { type NumberedRange, RangeTable } from './range-table.ts'

/** Addresses, CIDR ranges, `all`, `loopback`, `private`, `linklocal`. */
export type AddressRanges = string | readonly string[]

/** One of the two. `name` is for `stats()` and events; default `rule 1`, `rule 2` ... */
export type IpRule =
  | { readonly allow: AddressRanges; readonly deny?: never; readonly name?: string }
  | { readonly deny: AddressRanges; readonly allow?: never; readonly name?: string }

export interface IpRuleSet {
  readonly table: RangeTable
  readonly rules: readonly { readonly name: string; readonly allows: boolean }[]
  /** The first rule with `all`, -1 without one: what also holds for a client that has no address (a Unix socket). */
  readonly catchAll: number
}

export function readIpRules(read: OptionReader, name: string, value: unknown): IpRuleSet {
  const ranges: NumberedRange[] = []
  const rules: { name: string; allows: boolean }[] = []
  let catchAll = -1
  if (!Array.isArray(value)) read.problem(name, value, "a list of { allow: ['10.0.0.0/8'] } and { deny: 'all' }, the first match decides")
  else
    value.forEach((entry: unknown, rule) => {
      const below = read.at(name).at(rule)
      const given = below.object<{ allow?: AddressRanges; deny?: AddressRanges; name?: string }>(entry as object, ['allow', 'deny', 'name'])
      if ((given.allow === undefined) === (given.deny === undefined)) {
        below.problem('', entry, 'an object with either `allow` or `deny`')
        return
      }
      const allows = given.allow !== undefined
      rules[rule] = { name: below.name('name', given.name, `rule ${rule + 1}`), allows }
      if (collectRanges(below, allows ? 'allow' : 'deny', given.allow ?? given.deny, rule, ranges) && catchAll < 0) catchAll = rule
    })
  return { table: new RangeTable(ranges), rules, catchAll }
}

/** The short form: what is denied, and then what is allowed. */
export function readDenyAllow(read: OptionReader, deny: AddressRanges | undefined, allow: AddressRanges | undefined): IpRuleSet {
  const ranges: NumberedRange[] = []
  const rules: { name: string; allows: boolean }[] = []
  let catchAll = -1
  for (const [name, value] of Object.entries({ deny, allow })) {
    if (value === undefined) continue
    const rule = rules.push({ name, allows: name === 'allow' }) - 1
    if (collectRanges(read, name, value, rule, ranges) && catchAll < 0) catchAll = rule
  }
  return { table: new RangeTable(ranges), rules, catchAll }
}

/** Adds to `into`; true when `all` is among them. */
function collectRanges(read: OptionReader, name: string, value: unknown, rule: number, into: NumberedRange[]): boolean {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  let all = false
  list.forEach((entry, index) => {
    const parsed = parseRanges(entry)
    if (parsed === undefined) {
      if (Array.isArray(value)) read.at(name).problem(index, entry, rangeExpected)
      else read.problem(name, entry, rangeExpected)
      return
    }
    all ||= entry === 'all'
    for (const range of parsed) into.push({ ...range, rule })
  })
  return all
}

/** A plain set of ranges, for options such as `trusted`. */
export function readRangeSet(read: OptionReader, name: string, value: unknown): RangeTable {
  const ranges: NumberedRange[] = []
  collectRanges(read, name, value, 0, ranges)
  return new RangeTable(ranges)
}

const most = 100

/**
 * The text of a rule file: `allow 10.0.0.0/8` or `deny all` per line, `#` begins a comment, empty lines count for nothing. Neighbouring lines of
 * one kind become one rule, which changes nothing of what matches first and keeps the counters readable.
 * @throws OptionsError that names the lines; the first hundred of them
 */
export function parseIpRules(text: string): IpRule[] {
  const read = new OptionReader('ipAccess file')
  const rules: { allows: boolean; ranges: string[]; line: number }[] = []
  let wrong = 0
  text.split(/\r?\n/).forEach((line, index) => {
    const hash = line.indexOf('#')
    const plain = (hash < 0 ? line : line.slice(0, hash)).trim()
    if (plain === '') return
    const [verb, range, more] = plain.split(/\s+/)
    if ((verb !== 'allow' && verb !== 'deny') || more !== undefined || parseRanges(range) === undefined) {
      if (wrong++ < most) read.problem(`line ${index + 1}`, plain, `allow or deny, and ${rangeExpected}`)
      return
    }
    const allows = verb === 'allow'
    const last = rules.at(-1)
    if (last?.allows === allows) last.ranges.push(range as string)
    else rules.push({ allows, ranges: [range as string], line: index + 1 })
  })
  // Somebody is just writing it: emptied already, not filled yet. Taken for a list it would let everybody in, or nobody.
  if (rules.length === 0 && wrong === 0)
    read.problem('file', '(no rule)', 'at least one rule; `allow all` or `deny all` where that is meant')
  read.check()
  return rules.map(({ allows, ranges, line }) =>
    allows ? { allow: ranges, name: `line ${line}` } : { deny: ranges, name: `line ${line}` },
  )
}
