/**
 * Only among the upstreams that a request asks for: by header, cookie, path or whatever, "version canary", "tenant 7", "the shard of this user".
 * Upstreams say in `meta` what they are.
 *
 * Each combination of labels that exists is a pool of its own with a strategy of its own, made when membership changes. A pick walks down a tree
 * of maps, one level per label, and asks the strategy at the end.
 */
import { type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import type { HashKey } from './hash-key.ts'
import { KeySources } from './key-source.ts'
import { readSources } from './key-source-options.ts'
import { expectedLabels, hasLabels, isLabels, type Labels, labelOf } from './labels.ts'
import { type BalancerFactory, GroupBalancer, readFactory } from './nested.ts'
import { random } from './random.ts'

interface SubsetsBase {
  /**
   * When the request lacks a label, or nobody who has its labels can be picked. `none` (default): no answer, which on its own is a 503 once retries
   * are used up; for labels that must be kept to. `any`: all upstreams, whatever their labels. Labels: those who have these.
   */
  readonly fallback?: 'none' | 'any' | Labels
  /** The strategy within each subset. Default `() => random()`. */
  readonly balancer?: BalancerFactory
  /** Most subsets. Default 1,000. Of more, those whose first upstream comes later by id are left out, with one warning; requests for them fall back. */
  readonly maxSubsets?: number
}

/** Where the request says which value each label must have: `{ version: 'header:x-version' }`. */
export interface SubsetsByPlace extends SubsetsBase {
  readonly labels: Readonly<Record<string, HashKey | readonly HashKey[]>>
  readonly of?: undefined
  readonly keys?: undefined
}

/** A function says it. It runs on every pick: quick, and if it can be, with labels made beforehand. */
export interface SubsetsByFunction extends SubsetsBase {
  readonly of: (exchange: Exchange) => Readonly<Record<string, string | undefined>> | undefined
  /** The names of the labels that `of` gives. */
  readonly keys: readonly string[]
  readonly labels?: undefined
}

export type SubsetsOptions = SubsetsByPlace | SubsetsByFunction

/**
 * Among the upstreams whose `meta` has all the labels that the request asks for. O(labels) and the strategy's own cost per pick; a change of
 * membership builds the strategies of the subsets that have changed. A request must give a value for every label, or it falls back; chain
 * several with `fallback` where some labels may be missing.
 *
 * Not to keep tenants from each other: labels that a client can write are wishes, not rights. Nor for a share of the traffic: see `split`.
 *
 * @throws OptionsError
 */
export function subsets(options: SubsetsOptions): Balancer {
  const read = new OptionReader('subsets')
  const given = read.object(options, ['labels', 'of', 'keys', 'fallback', 'balancer', 'maxSubsets'])
  const wanted = readWanted(read, given)
  const make = readFactory(read, given.balancer, () => random())
  const fallback = given.fallback ?? 'none'
  if (fallback !== 'none' && fallback !== 'any' && !isLabels(fallback))
    read.problem('fallback', fallback, `'none', 'any', or ${expectedLabels}`)
  const most = read.number('maxSubsets', given.maxSubsets, 1_000, { min: 1, max: 100_000, integer: true })
  read.check()
  return new Subsets(wanted, make, fallback, most)
}

/** What a request asks for. */
interface Wanted {
  readonly names: readonly string[]
  /** Called once per pick, before `value`. False: it asks for nothing. */
  begin(exchange: Exchange): boolean
  value(index: number, exchange: Exchange): string | undefined
}

function readWanted(read: OptionReader, given: Partial<SubsetsByPlace> | Partial<SubsetsByFunction>): Wanted {
  if (given.of === undefined) {
    const labels: unknown = given.labels
    const entries = typeof labels === 'object' && labels !== null ? Object.entries(labels) : []
    if (given.keys !== undefined) read.problem('keys', given.keys, 'nothing: with `labels`, their names are known')
    if (entries.length === 0)
      read.problem('labels', labels, "where each label is, such as { version: 'header:x-version' }; or give `of` and `keys`")
    const sources = entries.map(([name, place]) => new KeySources(readSources(read.at('labels'), place, name)))
    return {
      names: entries.map(([name]) => name),
      begin: () => true,
      value: (index, exchange) => {
        const source = sources[index] as KeySources
        return source.find(exchange) ? source.value() : undefined
      },
    }
  }
  const { of, keys, labels } = given
  if (typeof of !== 'function') read.problem('of', of, 'a function from an exchange to labels')
  if (labels !== undefined) read.problem('labels', labels, '`labels` or `of`, not both')
  const names: readonly string[] = Array.isArray(keys) ? keys : []
  if (names.length === 0 || !names.every((name) => typeof name === 'string'))
    read.problem('keys', keys, 'the names of the labels that `of` gives')
  let last: Readonly<Record<string, string | undefined>> | undefined
  return {
    names,
    begin: (exchange) => {
      last = of(exchange)
      return last !== undefined
    },
    value: (index) => last?.[names[index] as string],
  }
}

interface Subset {
  readonly members: Upstream[]
  readonly balancer: Balancer
}

type Tree = Map<string, Tree | Subset>

class Subsets extends GroupBalancer {
  readonly name: string = 'subsets'
  readonly #wanted: Wanted
  readonly #make: BalancerFactory
  readonly #most: number
  readonly #default: Labels | undefined
  /** For what falls back; undefined with `none`. */
  readonly #fallback: Balancer | undefined
  #subsets = new Map<string, Subset>()
  #tree: Tree = new Map()
  #warned = false
  /** Who was asked last. */
  #asked: Balancer | undefined

  constructor(wanted: Wanted, make: BalancerFactory, fallback: 'none' | 'any' | Labels, most: number) {
    super()
    this.#wanted = wanted
    this.#make = make
    this.#most = most
    this.#default = typeof fallback === 'object' ? fallback : undefined
    this.#fallback = fallback === 'none' ? undefined : make()
  }

  update(available: readonly Upstream[]): void {
    const labels = this.#default
    const defaults = labels === undefined ? available : available.filter((upstream) => hasLabels(upstream, labels))
    this.#fallback?.update(defaults)
    const isDefault = new Set(this.#fallback === undefined ? [] : defaults)

    const before = this.#subsets
    this.#subsets = new Map()
    this.#tree = new Map()
    for (const upstream of available.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
      const subset = this.#subsetOf(upstream, before)
      subset?.members.push(upstream)
      const told = subset === undefined ? [] : [subset.balancer]
      if (isDefault.has(upstream)) told.push(this.#fallback as Balancer)
      this.assign(upstream, told)
    }
    for (const { balancer, members } of this.#subsets.values()) balancer.update(members)
    for (const [key, { balancer }] of before) if (!this.#subsets.has(key)) balancer.update([])
  }

  /** A new one, or the one of before with its strategy, which then knows its upstreams already. Undefined for an upstream that lacks a label. */
  #subsetOf(upstream: Upstream, before: ReadonlyMap<string, Subset>): Subset | undefined {
    const values = this.#wanted.names.map((name) => labelOf(upstream, name))
    if (values.includes(undefined)) return undefined
    const key = JSON.stringify(values)
    const known = this.#subsets.get(key)
    if (known !== undefined) return known
    if (this.#subsets.size === this.#most) {
      if (!this.#warned)
        process.emitWarning(`There are more than ${this.#most} subsets: raise maxSubsets, or use labels with fewer values.`, {
          code: 'WEIR_SUBSETS',
        })
      this.#warned = true
      return undefined
    }
    const subset: Subset = { members: [], balancer: before.get(key)?.balancer ?? this.#make() }
    this.#subsets.set(key, subset)
    let tree = this.#tree
    for (const value of values.slice(0, -1)) {
      const branch = (tree.get(value as string) as Tree | undefined) ?? new Map()
      tree.set(value as string, branch)
      tree = branch
    }
    tree.set(values.at(-1) as string, subset)
    return subset
  }

  pick(exchange: Exchange): Upstream | undefined {
    this.#asked = this.#find(exchange)?.balancer
    const picked = this.#asked?.pick(exchange)
    if (picked !== undefined || this.#fallback === undefined) return picked
    this.#asked = this.#fallback
    return this.#fallback.pick(exchange)
  }

  explain(upstream: Upstream, exchange: Exchange): string | undefined {
    if (this.#asked === undefined) return 'nobody has the labels that the request asks for'
    const otherwise =
      this.#asked === this.#fallback ? 'not one of those that requests fall back to' : 'not of the subset that the request asks for'
    return this.explainBy(this.#asked, upstream, exchange, otherwise)
  }

  #find(exchange: Exchange): Subset | undefined {
    if (!this.#wanted.begin(exchange)) return undefined
    let at: Tree | Subset | undefined = this.#tree
    for (let i = 0; i < this.#wanted.names.length; i++) {
      const value = this.#wanted.value(i, exchange)
      if (value === undefined) return undefined
      at = (at as Tree).get(value)
      if (at === undefined) return undefined
    }
    return at as Subset
  }
}
