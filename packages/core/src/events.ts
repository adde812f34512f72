/**
 * What the proxy tells to whoever listens, on `node:diagnostics_channel`. Nobody listening costs one property read per event: every publish
 * stands behind `hasSubscribers`, and the message object is only made there.
 *
 * Channels and messages (names are stable):
 * - `weir:exchange:start`   `{ exchange }`
 * - `weir:exchange:finish`  `{ exchange, outcome }`
 * - `weir:attempt:finish`   `{ exchange, attempt }`, one per try
 * - `weir:upstream:state`   `{ pool, upstream, from, to, reason, error }`; `error` is what made a policy say "down", when there is one
 * - `weir:upstream:degraded` `{ pool, upstream, degraded, reason }`
 * - `weir:pool:fail-open`   `{ pool, failOpen, reason }`
 * - `weir:pool:source`      `{ pool, added, removed, changed, error }`: a list was applied (ids), or the last good one kept because of `error`
 * - `weir:decision`         a `Decision`, one per pick: see decision.ts
 * - `weir:tunnel:close`     `{ exchange, bytesIn, bytesOut, durationMs, reason }`
 */
import { type Channel, channel } from 'node:diagnostics_channel'

export const exchangeStart: Channel = channel('weir:exchange:start')
export const exchangeFinish: Channel = channel('weir:exchange:finish')
export const attemptFinish: Channel = channel('weir:attempt:finish')
export const upstreamState: Channel = channel('weir:upstream:state')
export const upstreamDegraded: Channel = channel('weir:upstream:degraded')
export const poolFailOpen: Channel = channel('weir:pool:fail-open')
export const poolSource: Channel = channel('weir:pool:source')
export const decisions: Channel = channel('weir:decision')
export const tunnelClose: Channel = channel('weir:tunnel:close')
