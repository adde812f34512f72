/**
 * What sources tell to whoever listens, on the diagnostics channel `weir:discovery`. It is told per open iterator: two pools on one source ask
 * for themselves, and are told of for themselves. What the pool makes of a list is told by the pool, on `weir:pool:source`.
 */
import { type Channel, channel } from 'node:diagnostics_channel'
import type { UpstreamInput } from '@weir/core'
import type { DiscoveryError } from './discovery-error.ts'

/** The messages of `weir:discovery`. */
export type DiscoveryMessage =
  /** Another list than the one before, and now in force. */
  | { readonly type: 'list'; readonly source: string; readonly upstreams: readonly UpstreamInput[] }
  /** No good answer. The last good list stays in force; only `onEmpty: 'clear'` says otherwise of an answer that there is nobody. */
  | { readonly type: 'failed'; readonly source: string; readonly error: DiscoveryError }
  /** The guard refuses an address. Once per address, until it is found no more. */
  | { readonly type: 'refused'; readonly source: string; readonly host: string; readonly address: string }

const discovery: Channel = channel('weir:discovery')

export function tell(message: DiscoveryMessage): void {
  if (discovery.hasSubscribers) discovery.publish(message)
}

/** Tells the channel and the option `onError`; what that throws is not the source's concern. */
export function tellFailed(error: DiscoveryError, onError: ((error: DiscoveryError) => void) | undefined): void {
  tell({ type: 'failed', source: error.source, error })
  try {
    onError?.(error)
  } catch {}
}
