/**
 * What sources tell to whoever listens, on the `node:diagnostics_channel` named `weir:discovery`. The pool says on `weir:pool:source` what it
 * made of a list; here it can be seen where the list came from, and why there was none.
 */
import { type Channel, channel } from 'node:diagnostics_channel'
import type { UpstreamOptions } from '@weir/core'
import type { DiscoveryError } from './discovery-error.ts'

export type DiscoveryEvent =
  /** Another list than before is in force. */
  | { readonly type: 'list'; readonly source: string; readonly upstreams: readonly UpstreamOptions[] }
  /** Something failed. `upstreams` is the list that stays in force, undefined when there has been none yet. */
  | {
      readonly type: 'kept'
      readonly source: string
      readonly upstreams: readonly UpstreamOptions[] | undefined
      readonly error: DiscoveryError
    }
  /** The guard refuses an address. Told once for as long as the address goes on being found. */
  | { readonly type: 'refused'; readonly source: string; readonly address: string }

const discovery: Channel = channel('weir:discovery')

export function tell(event: DiscoveryEvent): void {
  if (discovery.hasSubscribers) discovery.publish(event)
}
