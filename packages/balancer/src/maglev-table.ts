/**
 * The look-up table of Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4). Every server
 * has an order of its own in which it would like to have the cells. The servers take turns, and each time one takes the first cell of its order
 * that is still free. So shares come out as even as whole cells can be; the price is that one server's leaving shifts the turns of all others,
 * and some cells change hands that need not have.
 *
 * Weights. The paper leaves them out; here a server of weight w takes its turns at the times 0, 1.5/w, 2.5/w, 3.5/w and so on. With equal
 * weights that is one turn each per round, as in the paper. The first turn of all is at 0, so that the lightest server has a cell as well.
 */
import { LoadTree } from './load-tree.ts'
import { hashText } from './text-hash.ts'

export interface MaglevServer {
  readonly id: string
  readonly weight: number
}

/**
 * With no more servers than cells, one whose fraction of the weight is f gets at least one cell, at least `f (size - n) - 1/2`, and, beyond its
 * first, at most `f (size + n / 2) + 1/2`. Equal servers differ by one cell at most.
 */
export class MaglevTable {
  readonly #owners: Int32Array

  /** @param servers not empty, in an order that does not change from proxy to proxy @param size a prime, so that every step goes through all cells */
  constructor(servers: readonly MaglevServer[], size: number) {
    this.#owners = new Int32Array(size).fill(-1)
    this.#fill(servers)
  }

  owner(hash: number): number {
    return this.#owners[(hash >>> 0) % this.#owners.length] as number
  }

  #fill(servers: readonly MaglevServer[]): void {
    const owners = this.#owners
    const size = owners.length
    const n = servers.length
    const cells = Float64Array.from(servers, ({ id }) => (hashText(id, 5) >>> 0) % size)
    // Size 2 has one step only, since 0 would not move.
    const steps = Float64Array.from(servers, ({ id }) => ((hashText(id, 6) >>> 0) % (size - 1)) + 1)
    const turns = new Float64Array(n)
    const times = new Float64Array(n)
    const order = Float64Array.from({ length: n }, (_, i) => i)
    const schedule = new LoadTree(times, order)
    for (let free = size; free > 0; free--) {
      const next = schedule.least
      let cell = cells[next] as number
      while (owners[cell] !== -1) cell = (cell + (steps[next] as number)) % size
      owners[cell] = next
      cells[next] = cell
      const turn = (turns[next] as number) + 1
      turns[next] = turn
      times[next] = (turn + 0.5) / (servers[next] as MaglevServer).weight
      schedule.replay(next)
    }
  }
}

export function isPrime(n: number): boolean {
  if (!Number.isSafeInteger(n) || n < 2) return false
  for (let divisor = 2; divisor * divisor <= n; divisor++) if (n % divisor === 0) return false
  return true
}
