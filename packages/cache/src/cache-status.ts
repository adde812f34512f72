/** `Cache-Status` (RFC 9211): what this cache did, in words that every tool knows. */

/** Why a request went on to the upstream. */
export type Forwarded = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'miss' | 'request' | 'stale' | 'partial'

export interface Forwarding {
  readonly why: Forwarded
  /** Status of the upstream's answer, where the client gets another. */
  status?: number
  stored?: boolean
  collapsed?: boolean
  detail?: string
}

/** @param seconds that it is still fresh; negative when it is stale */
export function hitStatus(name: string, seconds: number, detail?: string): string {
  return detail === undefined ? `${name}; hit; ttl=${seconds}` : `${name}; hit; ttl=${seconds}; detail=${detail}`
}

export function forwardStatus(name: string, forwarding: Forwarding): string {
  let text = `${name}; fwd=${forwarding.why}`
  if (forwarding.status !== undefined) text += `; fwd-status=${forwarding.status}`
  if (forwarding.stored === true) text += '; stored'
  if (forwarding.collapsed === true) text += '; collapsed'
  if (forwarding.detail !== undefined) text += `; detail=${forwarding.detail}`
  return text
}
