/**
 * The power of two choices (Mitzenmacher 2001): draw two, take the less busy. One comparison is enough to turn the long tail of a random
 * choice into one hardly worse than the exact minimum, and because each proxy compares another pair, many proxies do not all run to
 * the server that each of them sees as idle, as they do with an exact minimum.
 *
 * All of that hangs on the two being different: two draws that may agree are, with two upstreams, half a random choice.
 */
import { type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { type RandomOption, readRandom } from './random-option.ts'
import { WeightedTable } from './weighted-table.ts'

export interface PowerOfTwoOptions extends RandomOption {}

/**
 * The less busy of two upstreams drawn by weight; busy is exchanges in flight per weight, and the one drawn first wins a tie. Two different
 * pickable upstreams are compared whenever there are two. O(1) per pick. With a handful of upstreams behind a single proxy
 * `leastConnections` is better, since the exact minimum costs nothing more there.
 *
 * @throws OptionsError
 */
export function powerOfTwo(options?: PowerOfTwoOptions): Balancer {
  const read = new OptionReader('powerOfTwo')
  const draw = readRandom(read, read.object(options, ['random']).random)
  read.check()
  return new PowerOfTwo(draw)
}

class PowerOfTwo implements Balancer {
  readonly name: string = 'power-of-two'
  readonly #random: () => number
  #table = new WeightedTable([])
  /** Whom the last pick has drawn, -1 for nobody. */
  #first = -1
  #second = -1

  constructor(random: () => number) {
    this.#random = random
  }

  update(available: readonly Upstream[]): void {
    this.#table = new WeightedTable(available)
  }

  pick(exchange: Exchange): Upstream | undefined {
    const table = this.#table
    const first = table.draw(exchange, this.#random, -1)
    this.#first = first
    this.#second = -1
    if (first === -1) return undefined
    const second = table.draw(exchange, this.#random, first)
    this.#second = second
    const a = table.upstream(first)
    if (second === -1) return a
    const b = table.upstream(second)
    return b.inflight * a.weight < a.inflight * b.weight ? b : a
  }
  explain(upstream: Upstream): string {
    return [this.#first, this.#second].some((slot) => slot !== -1 && this.#table.upstream(slot) === upstream) ? 'drawn' : 'not drawn'
  }
}
