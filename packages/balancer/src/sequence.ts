/**
 * Every key has a sequence of upstreams: its own, then its next best, and so on to the last. That is what all hash strategies have in common,
 * and all that differs is how the sequence is made. Whoever may not be had is passed over, and the key goes to the next in its sequence, the
 * same one each time.
 *
 * A gate says who may be had. It is asked and not the other way round, since handing out candidates one by one would need a place to keep where
 * each walk is, and a walk that ends in a search among all would begin that search anew at every step.
 */
import { type Exchange, isPickable, type Upstream } from '@weir/core'
import { Rendezvous } from './rendezvous.ts'
import { rehash } from './text-hash.ts'

export interface Gate {
  admits(upstream: Upstream, exchange: Exchange): boolean
}

/** Neither tried nor full. */
export const pickable: Gate = { admits: isPickable }

export interface Sequence {
  /** The first in the sequence of this key (signed 32 bits) that `gate` admits; undefined only when it admits nobody. */
  find(key: number, exchange: Exchange, gate: Gate): Upstream | undefined
}

/** Built for one membership: not empty, and sorted by id, so that nothing depends on the order in which upstreams are listed. */
export type SequenceFactory = (upstreams: readonly Upstream[]) => Sequence

export interface CellTable {
  /** @param hash 32 bits, signed or not @returns index of an upstream */
  owner(hash: number): number
}

/** Most cells tried before the search among all: with a fifth of many upstreams pickable, one search in a million exchanges. */
const mostCells = 64

/** Of a table whose cells belong to upstreams: the owner of the key's cell, then those of further cells drawn by the key. */
export class CellSequence implements Sequence {
  readonly #upstreams: readonly Upstream[]
  readonly #table: CellTable
  readonly #rest: Rendezvous
  readonly #cells: number

  constructor(upstreams: readonly Upstream[], table: CellTable) {
    this.#upstreams = upstreams
    this.#table = table
    this.#rest = new Rendezvous(upstreams)
    // A few upstreams are sooner searched than drawn.
    this.#cells = Math.min(mostCells, Math.max(16, upstreams.length))
  }

  find(key: number, exchange: Exchange, gate: Gate): Upstream | undefined {
    let hash = key
    for (let cells = 0; cells < this.#cells; cells++) {
      const upstream = this.#upstreams[this.#table.owner(hash)] as Upstream
      if (gate.admits(upstream, exchange)) return upstream
      hash = rehash(hash)
    }
    return this.#rest.find(key, exchange, gate)
  }
}
