/**
 * Rendezvous hashing that costs one look-up. Rendezvous (highest random weight, Thaler and Ravishankar 1998) lets every upstream bid for
 * every key, and the best bid wins: when one leaves, only its own keys move; when one joins, it takes only the keys it wins. But bidding
 * for each request is O(n). Here the bidding is done once, for a fixed number of cells, and a key looks up its cell.
 *
 * The bids. Each upstream visits every cell once, in an order of its own, which comes from its id alone; a cell belongs to whoever comes first.
 * Visits do not depend on the other upstreams, so this is a true rendezvous. For weights to be shares, the times at which an upstream comes
 * to a cell have to be exponentially distributed with the weight as their rate (the first of such times is each one's with a chance in
 * proportion to its rate); so the visit number k, of `size`, takes place at `-ln(1 - k / size) / weight`. (Maglev, Eisenbud et al. 2016, has
 * such orders too, but lets upstreams take turns at free cells: a little more even, but one change shifts the turns of all.)
 *
 * The visits are played in slices of time until every cell is taken: about `size * ln(size)` visits however many upstreams there are, one
 * to ten milliseconds per change of membership.
 *
 * The number of cells limits how fine shares can be. An upstream whose share comes to m cells has about m ± 0.7 √m of them: among equal
 * upstreams the standard deviation of a share is 1 % with 10 of them, 8 % with 1,000, 28 % with 10,000.
 */
import { hashText } from './client-address.ts'

/** A prime, so that every step from 1 to size - 1 leads through all cells. */
const size = 65_537

export interface Bidder {
  readonly id: string
  readonly weight: number
}

/** The owner of each cell, as an index of `bidders`; every cell has one. Depends on ids and weights only, never on their order. */
export class RendezvousTable {
  readonly #owners = new Int32Array(size).fill(-1)

  constructor(bidders: readonly Bidder[]) {
    if (bidders.length > 0) this.#fill(bidders)
  }

  /** @param hash 32 bits @returns -1 when there are no bidders */
  owner(hash: number): number {
    return this.#owners[Math.floor((hash / 0x1_0000_0000) * size)] as number
  }

  #fill(bidders: readonly Bidder[]): void {
    const n = bidders.length
    const owners = this.#owners
    const arrivals = new Float64Array(size).fill(Number.POSITIVE_INFINITY)
    const places = new Int32Array(n)
    const steps = new Int32Array(n)
    const visits = new Float64Array(n)
    let total = 0
    bidders.forEach(({ id, weight }, i) => {
      places[i] = hashText(id, 1) % size
      steps[i] = (hashText(id, 2) % (size - 1)) + 1
      visits[i] = hashText(id, 3) / 0x1_0000_0000
      total += weight
    })
    const slice = 1 / total
    let taken = 0
    for (let from = 0; taken < size; from += slice) {
      for (let i = 0; i < n; i++) {
        const { id, weight } = bidders[i] as Bidder
        const step = steps[i] as number
        const end = -Math.expm1(-weight * (from + slice)) * size
        let place = places[i] as number
        let visit = visits[i] as number
        for (; visit < end; visit++) {
          const first = arrivals[place] as number
          // Most visits come to a cell that was taken in an earlier slice, and need no logarithm.
          if (first >= from) {
            const now = -Math.log1p(-visit / size) / weight
            if (now < first || (now === first && id < (bidders[owners[place] as number] as Bidder).id)) {
              if (owners[place] === -1) taken++
              arrivals[place] = now
              owners[place] = i
            }
          }
          place += step
          if (place >= size) place -= size
        }
        places[i] = place
        visits[i] = visit
      }
    }
  }
}
