/** What all hash strategies are: a key, read from the request, and the sequence of upstreams that belongs to it. */
import type { Balancer, Exchange, Upstream } from '@weir/core'
import { hashAddress } from './client-address.ts'
import type { KeyHash, KeyReader } from './hash-key.ts'
import { RendezvousTable } from './rendezvous-table.ts'
import { CellSequence, type Gate, pickable, type Sequence, type SequenceFactory } from './sequence.ts'
import { hashText } from './text-hash.ts'

/** Of every strategy that need not agree with another program. */
export const evenHash: KeyHash = { text: (text, start, end) => hashText(text, 0, start, end), address: hashAddress }

export const rendezvousSequence: SequenceFactory = (upstreams) => new CellSequence(upstreams, new RendezvousTable(upstreams))

export class HashBalancer implements Balancer {
  readonly name: string
  readonly #key: KeyReader
  readonly #build: SequenceFactory
  #sequence: Sequence | undefined

  constructor(name: string, key: KeyReader, build: SequenceFactory) {
    this.name = name
    this.#key = key
    this.#build = build
  }

  update(available: readonly Upstream[]): void {
    this.#sequence = available.length === 0 ? undefined : this.#build(available.toSorted((a, b) => (a.id < b.id ? -1 : 1)))
  }

  pick(exchange: Exchange): Upstream | undefined {
    return this.#key.read(exchange) ? this.find(exchange, pickable) : undefined
  }

  /** Reads the key of `exchange` for the `find`s that follow; false when there is none. */
  begin(exchange: Exchange): boolean {
    return this.#key.read(exchange)
  }

  /** The first in the sequence of the key read last. */
  find(exchange: Exchange, gate: Gate): Upstream | undefined {
    return this.#sequence?.find(this.#key.hash, exchange, gate)
  }
}
