/**
 * What the package tells to whoever listens, on `node:diagnostics_channel`. Nobody listening costs one property read per event.
 *
 * - `weir:access:decision` an `AccessDecision` for every request that a stage refused, would have refused (`dry`), tagged or held
 * - `weir:access:list`     an `AccessListChange` when a list was put in place, or the last good one kept because of `error`
 * - `weir:access:connection` an `AccessConnection` for every connection that was reset for its client's limit, or would have been (`dry`)
 *
 * Secrets are never part of a message: not the password, not the key, not the token. The exchange is, and it has them.
 */
import { type Channel, channel } from 'node:diagnostics_channel'
import type { Exchange } from '@weir/core'

export interface AccessDecision {
  readonly exchange: Exchange
  /** Name of the stage. */
  readonly stage: string
  /** `dry`: it would have been refused, but for `dryRun`. */
  readonly verdict: 'refused' | 'dry' | 'tagged' | 'held'
  /** Status of the refusal; undefined for `tagged` and `held`. */
  readonly status: number | undefined
  /** Why, in a few words that are the same for the same cause: a rule's name, a limit, `expired`. */
  readonly reason: string
}

export interface AccessListChange {
  readonly stage: string
  /** Ranges in the list that holds from now on. */
  readonly ranges: number
  /** Why the list that was offered is not used. */
  readonly error: unknown
}

export interface AccessConnection {
  /** Name of the limit. */
  readonly name: string
  /** The peer, as node writes it. */
  readonly address: string
  /** Connections that its client held already. */
  readonly open: number
  readonly verdict: 'refused' | 'dry'
}

export const decisions: Channel = channel('weir:access:decision')
export const lists: Channel = channel('weir:access:list')
export const connections: Channel = channel('weir:access:connection')
