/**
 * Weighted random: every pick is drawn afresh, with a chance in proportion to weight. The baseline that needs no state at all, and so the
 * one that many independent proxies can run side by side without ever acting in step.
 */
import { type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { type RandomOption, readRandom } from './random-option.ts'
import { WeightedTable } from './weighted-table.ts'

export interface RandomOptions extends RandomOption {}

/**
 * Draws by weight. O(1) per pick. Load is not looked at, and by chance alone the busiest of n equal servers gets noticeably more than its
 * share in any short time: take `powerOfTwo` unless there is a reason not to.
 *
 * @throws OptionsError
 */
export function random(options?: RandomOptions): Balancer {
  const read = new OptionReader('random')
  const draw = readRandom(read, read.object(options, ['random']).random)
  read.check()
  return new Random(draw)
}

class Random implements Balancer {
  readonly name: string = 'random'
  readonly #random: () => number
  #table = new WeightedTable([])

  constructor(random: () => number) {
    this.#random = random
  }

  update(available: readonly Upstream[]): void {
    this.#table = new WeightedTable(available)
  }

  pick(exchange: Exchange): Upstream | undefined {
    const slot = this.#table.draw(exchange, this.#random, -1)
    return slot === -1 ? undefined : this.#table.upstream(slot)
  }
}
