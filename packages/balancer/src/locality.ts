/**
 * Upstreams of one's own zone first, as long as they can bear it: traffic between zones is slower, and often paid for.
 *
 * How to think about it. The danger is to love one's zone too much: if half of the proxies and a fifth of the servers are here, "always local" puts
 * half of the load on a fifth of the servers. So a zone keeps what it has capacity for, in proportion, and the rest goes to zones that have
 * more capacity than callers, by how much more. That is what Envoy's zone-aware routing does, and like there it is off in small pools, where
 * shares are too coarse, and where the own zone has nobody.
 */
import { type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { labelOf } from './labels.ts'
import { type BalancerFactory, GroupBalancer, readFactory } from './nested.ts'
import { random } from './random.ts'
import { type RandomOption, readRandom } from './random-option.ts'

export interface LocalityOptions extends RandomOption {
  /** Where this proxy is, such as `eu-west-1a`. */
  readonly zone: string
  /** Which field of an upstream's `meta` says where that is. Default `zone`. Those without it are a zone of their own that nobody calls from. */
  readonly meta?: string
  /** How much traffic arrives in each zone, in any unit: the number of proxies there will do. Default: as much in each that has upstreams. */
  readonly callers?: Readonly<Record<string, number>>
  /** With fewer upstreams than this, of all zones, that may be picked, zones are not looked at. Default 6. */
  readonly minUpstreams?: number
  /** The strategy within each zone, and for all together. Default `() => random()`. */
  readonly balancer?: BalancerFactory
}

/**
 * The own zone for what it has capacity for, which is the sum of its weights; what is more goes to zones that have capacity to spare. When nobody
 * in the zone chosen can be picked, all are asked; and while the pool fails open (`panicThreshold`), zones are not looked at. O(zones) and the strategy's own cost per pick.
 *
 * Not where zones are to be separate until one fails: that is `priority`. Nor without an idea of how callers are spread: if that is far from what
 * `callers` says, so is the load.
 *
 * @throws OptionsError
 */
export function locality(options: LocalityOptions): Balancer {
  const read = new OptionReader('locality')
  const given = read.object(options, ['zone', 'meta', 'callers', 'minUpstreams', 'balancer', 'random'])
  const zone = read.name('zone', given.zone, '')
  if (given.zone === undefined) read.problem('zone', undefined, 'the zone of this proxy')
  const meta = read.name('meta', given.meta, 'zone')
  const callers = readCallers(read, given.callers, zone)
  const minUpstreams = read.number('minUpstreams', given.minUpstreams, 6, { min: 1, integer: true })
  const make = readFactory(read, given.balancer, () => random())
  const draw = readRandom(read, given.random)
  read.check()
  return new Locality({ zone, meta, callers, minUpstreams, make, random: draw })
}

function readCallers(read: OptionReader, value: unknown, zone: string): ReadonlyMap<string, number> | undefined {
  if (value === undefined) return undefined
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
  const at = read.at('callers')
  const callers = new Map(entries.map(([name, count]) => [name, at.number(name, count, 0, { min: 0, max: 1e9 })]))
  if (!((callers.get(zone) ?? 0) > 0))
    read.problem('callers', value, `how much traffic arrives in each zone, with more than 0 in the own, ${zone}`)
  return callers
}

interface Settings {
  readonly zone: string
  readonly meta: string
  readonly callers: ReadonlyMap<string, number> | undefined
  readonly minUpstreams: number
  readonly make: BalancerFactory
  readonly random: () => number
}

class Locality extends GroupBalancer {
  readonly name: string = 'locality'
  readonly #settings: Settings
  readonly #everywhere: Balancer
  #zones = new Map<string | undefined, Balancer>()
  /** Whom a pick chooses from: the own zone first. Empty while zones are not looked at. */
  #choices: readonly Balancer[] = []
  /** By choice: its chance, and that of those before it. */
  #marks = new Float64Array(0)
  /** Who was asked last. */
  #asked: Balancer

  constructor(settings: Settings) {
    super()
    this.#settings = settings
    this.#everywhere = settings.make()
    this.#asked = this.#everywhere
  }

  update(available: readonly Upstream[]): void {
    const { zone, meta, minUpstreams, make } = this.#settings
    const members = new Map<string | undefined, Upstream[]>()
    for (const upstream of available) {
      const name = labelOf(upstream, meta)
      const others = members.get(name)
      if (others === undefined) members.set(name, [upstream])
      else others.push(upstream)
    }
    const before = this.#zones
    this.#zones = new Map()
    for (const [name, upstreams] of members) {
      const balancer = before.get(name) ?? make()
      balancer.update(upstreams)
      this.#zones.set(name, balancer)
      for (const upstream of upstreams) this.assign(upstream, [balancer, this.#everywhere])
    }
    for (const [name, balancer] of before) if (!members.has(name)) balancer.update([])
    this.#everywhere.update(available)
    this.#choices = []
    // Those that are down come here only while the pool fails open. Who of them can serve nobody knows then, and the nearest would be overrun.
    const failsOpen = available.some(({ state }) => state === 'down')
    if (available.length >= minUpstreams && members.has(zone) && !failsOpen) this.#weigh(members)
  }

  #weigh(members: ReadonlyMap<string | undefined, readonly Upstream[]>): void {
    const { zone, callers } = this.#settings
    const names = [zone, ...[...members.keys()].filter((name) => name !== zone)]
    const capacities = names.map((name) => (members.get(name) as readonly Upstream[]).reduce((sum, { weight }) => sum + weight, 0))
    const capacity = capacities.reduce((sum, weight) => sum + weight, 0)
    const traffic = (name: string | undefined): number => (name === undefined ? 0 : callers === undefined ? 1 : (callers.get(name) ?? 0))
    const total =
      callers === undefined ? names.filter((name) => name !== undefined).length : [...callers.values()].reduce((sum, n) => sum + n, 0)
    // What a zone has capacity for, less what arrives in it, both as fractions of all.
    const spare = names.map((name, i) => (capacities[i] as number) / capacity - traffic(name) / total)
    const arrives = traffic(zone) / total
    const stays = Math.min(1, (capacities[0] as number) / capacity / arrives)
    const room = spare.slice(1).reduce((sum, fraction) => sum + Math.max(0, fraction), 0)
    this.#choices = names.map((name) => this.#zones.get(name) as Balancer)
    let sum = stays
    this.#marks = Float64Array.from(names, (_, i) => {
      if (i > 0 && room > 0) sum += ((1 - stays) * Math.max(0, spare[i] as number)) / room
      return sum
    })
  }

  pick(exchange: Exchange): Upstream | undefined {
    const choice = this.#choice()
    const picked = choice?.pick(exchange)
    this.#asked = picked === undefined ? this.#everywhere : (choice as Balancer)
    return picked ?? this.#everywhere.pick(exchange)
  }

  explain(upstream: Upstream, exchange: Exchange): string | undefined {
    const [zone] = [...this.#zones].find(([, balancer]) => balancer === this.#asked) ?? []
    return this.explainBy(this.#asked, upstream, exchange, `not in ${zone ?? 'those without a zone'}`)
  }

  #choice(): Balancer | undefined {
    const choices = this.#choices
    if (choices.length < 2) return choices[0]
    const height = this.#settings.random()
    for (let i = 0; i < choices.length; i++) if (height < (this.#marks[i] as number)) return choices[i]
    // The sum of fractions may be a little less than 1.
    return choices[0]
  }
}
