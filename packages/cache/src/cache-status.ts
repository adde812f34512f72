/** `Cache-Status` (RFC 9211): what this cache did, in words that every tool knows. */

/** Why a request went on to the upstream. */
export type Forwarded = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'request' | 'stale'

export interface Forwarding {
  readonly why: Forwarded
  /** Status of the upstream's answer, where the client gets another. */
  status?: number
  stored?: boolean
  collapsed?: boolean
  detail?: string
}

/** Of hits that say nothing but for how long, by that: a hit is asked to cost next to nothing, and most caches have few lifetimes. */
const maxKnown = 4096

/** The members of one cache's hits. */
export class HitStatus {
  readonly #name: string
  readonly #known = new Map<number, string>()

  constructor(name: string) {
    this.#name = name
  }

  /** @param seconds that it is still fresh; negative when it is stale */
  of(seconds: number): string {
    let text = this.#known.get(seconds)
    if (text !== undefined) return text
    text = `${this.#name}; hit; ttl=${seconds}`
    if (this.#known.size >= maxKnown) this.#known.clear()
    this.#known.set(seconds, text)
    return text
  }
}

/** A parameter behind a member: the key as an sf-string (RFC 9651 §3.3.3), of which only printable ASCII may be part; the rest is percent-encoded. */
export function keyParameter(key: string): string {
  const text = key.replace(/[^\x20-\x7e]/gu, (character) => Buffer.from(character).toString('hex').replace(/../g, '%$&').toUpperCase())
  return `; key="${text.replace(/["\\]/g, '\\$&')}"`
}

export function forwardStatus(name: string, forwarding: Forwarding): string {
  let text = `${name}; fwd=${forwarding.why}`
  if (forwarding.status !== undefined) text += `; fwd-status=${forwarding.status}`
  if (forwarding.stored === true) text += '; stored'
  if (forwarding.collapsed === true) text += '; collapsed'
  if (forwarding.detail !== undefined) text += `; detail=${forwarding.detail}`
  return text
}
