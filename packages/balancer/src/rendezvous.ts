/**
 * Every upstream bids for a key, and the best bid wins: a weighted rendezvous (Schindelhauer and Schomaker 2005). O(n), so the strategies build
 * tables for the usual case, and come here when nobody whom their table names will do: then most of the pool is tried, full or overloaded.
 */
import type { Exchange, Upstream } from '@weir/core'
import type { Gate } from './sequence.ts'
import { hashText, mix } from './text-hash.ts'

export class Rendezvous {
  readonly #upstreams: readonly Upstream[]
  readonly #idHashes: Int32Array

  constructor(upstreams: readonly Upstream[]) {
    this.#upstreams = upstreams
    this.#idHashes = Int32Array.from(upstreams, ({ id }) => hashText(id, 4))
  }

  /** The best bid of those that `gate` admits. */
  find(key: number, exchange: Exchange, gate: Gate): Upstream | undefined {
    let best: Upstream | undefined
    let earliest = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.#upstreams.length; i++) {
      const upstream = this.#upstreams[i] as Upstream
      if (!gate.admits(upstream, exchange)) continue
      // Exponentially distributed with the weight as rate: each is the first with a chance in proportion to its weight.
      const arrival = -Math.log(((mix(key ^ (this.#idHashes[i] as number)) >>> 0) + 1) / 0x1_0000_0001) / upstream.weight
      if (arrival < earliest) {
        earliest = arrival
        best = upstream
      }
    }
    return best
  }
}
