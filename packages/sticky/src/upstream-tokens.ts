/**
 * Names for upstreams that say nothing: HMAC of the id under a key that only proxies have. Everybody with the secret and the same upstream ids
 * works out the same names, so no table has to be shared; who has not the secret can neither read an id out of one nor make one. An address
 * or an index in a cookie would let clients choose servers that no pool holds, and a plain hash of an address is guessed in minutes.
 *
 * Names are worked out when an upstream is first seen. The way back, from a name to an id, is a table per pool, made anew when a name is not in
 * it and the members have changed.
 */
import { createHmac, type KeyObject } from 'node:crypto'
import type { Pool } from '@weir/core'

/** 128 bits: collisions do not happen, and the value stays short. */
export const tokenBytes = 16

interface Table {
  readonly idOf: Map<string, string>
  readonly tokenOf: Map<string, string>
}

export class UpstreamTokens {
  readonly #key: KeyObject
  // Per pool, and gone with it: two pools may have upstreams of the same id.
  readonly #tables = new WeakMap<Pool, Table>()

  constructor(key: KeyObject) {
    this.#key = key
  }

  /** Latin1, `tokenBytes` long. */
  token(pool: Pool, id: string): string {
    return this.#table(pool).tokenOf.get(id) ?? this.#refresh(pool).tokenOf.get(id) ?? this.#make(id)
  }

  /** Undefined when no member of the pool goes by this name. */
  find(pool: Pool, token: string): string | undefined {
    let table = this.#table(pool)
    let id = table.idOf.get(token)
    // A name whose server has left is asked for by every client it had: the table is made anew only if that can help.
    if (id === undefined && pool.upstreams.some((upstream) => !table.tokenOf.has(upstream.id))) {
      table = this.#refresh(pool)
      id = table.idOf.get(token)
    }
    return id !== undefined && pool.get(id) !== undefined ? id : undefined
  }

  #table(pool: Pool): Table {
    return this.#tables.get(pool) ?? this.#refresh(pool)
  }

  #refresh(pool: Pool): Table {
    const before = this.#tables.get(pool)
    const table: Table = { idOf: new Map(), tokenOf: new Map() }
    for (const { id } of pool.upstreams) {
      const token = before?.tokenOf.get(id) ?? this.#make(id)
      table.idOf.set(token, id)
      table.tokenOf.set(id, token)
    }
    this.#tables.set(pool, table)
    return table
  }

  #make(id: string): string {
    return createHmac('sha256', this.#key).update(id, 'utf8').digest().toString('latin1', 0, tokenBytes)
  }
}
