/**
 * A traffic split among the upstreams of one pool: 95 % of the users to those with the label `version: stable`, 5 % to `version: canary`, and each
 * user always to the same. How many servers an arm has does not matter to its share.
 */
import { type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { Arms, mostArms, readWeights } from './arms.ts'
import { evenHash } from './hash-balancer.ts'
import { type HashKeyOptions, hashKeyNames, type KeyReader, readHashKey } from './hash-key.ts'
import { hasLabels, type Labels, readLabels } from './labels.ts'
import { type BalancerFactory, GroupBalancer, readFactory } from './nested.ts'
import { random } from './random.ts'

interface ArmBase {
  /** Share of the keys, relative to the sum of all; 0 gets none. */
  readonly weight: number
  /** For `setWeights`; also what keys are divided by. Default: the labels, or `arm 0`, `arm 1` ... by place. */
  readonly name?: string
}

export type SplitArm =
  | (ArmBase & { readonly labels: Labels; readonly match?: undefined })
  /** Asked of every upstream when membership changes, not per pick. */
  | (ArmBase & { readonly match: (upstream: Upstream) => boolean; readonly labels?: undefined })

export interface SplitOptions extends HashKeyOptions {
  /** 2 to 30. Put first the one that others are carved out of. Upstreams that belong to no arm get nothing. */
  readonly arms: readonly SplitArm[]
  /** Another salt divides keys in another way. Default ''. */
  readonly salt?: string
  /** A key whose arm has nobody that can be picked goes to the other arms by weight (`spill`, default), or gets no answer (`none`). */
  readonly empty?: 'spill' | 'none'
  /** The strategy within each arm. Default `() => random()`. */
  readonly balancer?: BalancerFactory
}

export interface SplitBalancer extends Balancer {
  /** By the names of arms; those not named keep their weight. Takes effect with the next pick. @throws OptionsError */
  setWeights(weights: Readonly<Record<string, number>>): void
}

/**
 * By weight, and sticky by key. When only weights change, hardly more keys move than the change is large, and with two arms exactly as many.
 * O(arms) and the strategy's own cost per pick. Exchanges without a key are drawn anew for every try, unless `missing` says otherwise.
 *
 * Where arms are pools of their own, divide by route with `trafficSplit`: a pool's health and limits then are its own, too.
 *
 * @throws OptionsError
 */
export function split(options: SplitOptions): SplitBalancer {
  const read = new OptionReader('split')
  const given = read.object(options, [...hashKeyNames, 'arms', 'salt', 'empty', 'balancer'])
  const key = readHashKey(read, given, evenHash)
  const arms = readArms(read, given.arms)
  const empty = read.oneOf('empty', given.empty, ['spill', 'none'] as const, 'spill')
  const make = readFactory(read, given.balancer, () => random())
  const { salt = '' } = given
  if (typeof salt !== 'string') read.problem('salt', salt, 'a text')
  read.check()
  return new Split(key, arms, salt, empty === 'spill', make)
}

type NamedArm = SplitArm & { readonly name: string }

function readArms(read: OptionReader, value: unknown): NamedArm[] {
  const list = Array.isArray(value) ? value : []
  if (list.length < 2 || list.length > mostArms) read.problem('arms', value, `a list of 2 to ${mostArms} arms`)
  const reader = read.at('arms')
  const arms = list.map((entry: unknown, i) => {
    const at = reader.at(i)
    const arm = at.object(entry as SplitArm | undefined, ['weight', 'name', 'labels', 'match'])
    const labels = readLabels(at, 'labels', arm.labels)
    if ((labels === undefined) === (arm.match === undefined)) at.problem('', entry, '`labels` or `match`, one of them')
    if (arm.match !== undefined && typeof arm.match !== 'function') at.problem('match', arm.match, 'a function of an upstream')
    const byLabels = labels && JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))
    return {
      ...arm,
      name: at.name('name', arm.name, byLabels ?? `arm ${i}`),
      weight: at.number('weight', arm.weight, Number.NaN, { min: 0, max: 1e9 }),
    }
  })
  arms.forEach(({ name, weight }, i) => {
    if (arms.findIndex((arm) => arm.name === name) < i) reader.at(i).problem('name', name, 'a name of its own')
    if (Number.isNaN(weight)) reader.at(i).problem('weight', undefined, 'a number from 0')
  })
  if (arms.length > 0 && arms.every(({ weight }) => weight === 0)) read.problem('arms', value, 'at least one weight above 0')
  return arms as NamedArm[]
}

class Split extends GroupBalancer implements SplitBalancer {
  readonly name: string = 'split'
  readonly #key: KeyReader
  readonly #arms: Arms
  readonly #members: readonly ((upstream: Upstream) => boolean)[]
  readonly #strategies: readonly Balancer[]
  readonly #spill: boolean
  /** The arm that was asked last, -1 for none. */
  #asked = -1

  constructor(key: KeyReader, arms: readonly NamedArm[], salt: string, spill: boolean, make: BalancerFactory) {
    super()
    this.#key = key
    this.#arms = new Arms(
      arms.map(({ name }) => name),
      arms.map(({ weight }) => weight),
      salt,
    )
    this.#members = arms.map(({ labels, match }) => match ?? ((upstream) => hasLabels(upstream, labels as Labels)))
    this.#strategies = arms.map(() => make())
    this.#spill = spill
  }

  setWeights(weights: Readonly<Record<string, number>>): void {
    const read = new OptionReader('split.setWeights')
    const { names } = this.#arms
    const next = readWeights(
      read,
      names,
      weights,
      names.map((_, arm) => this.#arms.weight(arm)),
    )
    read.check()
    this.#arms.setWeights(next)
  }

  update(available: readonly Upstream[]): void {
    const told = new Map<Upstream, Balancer[]>(available.map((upstream) => [upstream, []]))
    this.#strategies.forEach((strategy, arm) => {
      const members = available.filter((upstream) => this.#members[arm]?.(upstream))
      strategy.update(members)
      for (const upstream of members) told.get(upstream)?.push(strategy)
    })
    for (const [upstream, strategies] of told) this.assign(upstream, strategies)
  }

  pick(exchange: Exchange): Upstream | undefined {
    this.#asked = -1
    if (!this.#key.read(exchange)) return undefined
    const key = this.#key.hash
    let tried = 0
    for (let arm = this.#arms.choose(key); arm !== -1; arm = this.#arms.spill(key, tried)) {
      this.#asked = arm
      const picked = (this.#strategies[arm] as Balancer).pick(exchange)
      if (picked !== undefined || !this.#spill) return picked
      tried |= 1 << arm
    }
    return undefined
  }
  explain(upstream: Upstream, exchange: Exchange): string | undefined {
    const strategy = this.#strategies[this.#asked]
    if (strategy === undefined) return 'the request has no key'
    return this.explainBy(strategy, upstream, exchange, `not of the arm ${this.#arms.names[this.#asked]}`)
  }
}
