/**
 * What stands between a source that finds lists and the iterator that gives them out, the same for all sources: leave out what the guard
 * refuses, hold back lists that say nothing new, and see to it that a failure never costs the list that is in force.
 */
import { isIP } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import type { UpstreamInput, UpstreamOptions } from '@weir/core'
import { DiscoveryError } from './discovery-error.ts'
import { tell } from './discovery-event.ts'
import { normalise } from './list-check.ts'
import type { Outlet } from './list-iterator.ts'
import type { Guard, SourceSettings } from './source-options.ts'

export class Feed {
  readonly #settings: SourceSettings
  readonly #outlet: Outlet
  #current: ReadonlyMap<string, UpstreamOptions> | undefined
  /** Addresses that the guard refused in the newest list. */
  #refused: ReadonlySet<string> = new Set()

  constructor(settings: SourceSettings, outlet: Outlet) {
    this.#settings = settings
    this.#outlet = outlet
  }

  get closed(): boolean {
    return this.#outlet.closed
  }

  /** A list that was found and is valid. @throws DiscoveryError when the guard leaves nothing of it */
  offer(list: readonly UpstreamInput[]): void {
    const allowed = this.#guard(list.map(normalise))
    const next = new Map(allowed.map((upstream) => [upstream.id, upstream]))
    if (this.#current !== undefined && isDeepStrictEqual(this.#current, next)) return
    this.#current = next
    // Without duplicates, which a name with two spellings of an address has, and a pool refuses.
    const upstreams = [...next.values()]
    tell({ type: 'list', source: this.#settings.name, upstreams })
    this.#outlet.put(upstreams)
  }

  /** Nothing was found; what is in force stays. Without a first list this may end the iteration. */
  fail(error: DiscoveryError): void {
    this.report(error)
    if (this.#current === undefined && this.#settings.firstFailure === 'throw') this.#outlet.fail(error)
  }

  /** Something went wrong, but not everything. */
  report(error: DiscoveryError): void {
    const { name, onError } = this.#settings
    tell({ type: 'kept', source: name, upstreams: this.#current === undefined ? undefined : [...this.#current.values()], error })
    try {
      onError?.(error)
    } catch (thrown) {
      process.emitWarning(thrown instanceof Error ? thrown : String(thrown))
    }
  }

  #guard<U extends UpstreamOptions>(list: readonly U[]): readonly U[] {
    const { guard, name } = this.#settings
    if (guard === undefined) return list
    const before = this.#refused
    const refused = new Set<string>()
    const allowed = list.filter((upstream) => {
      const address = addressesOf(upstream).find((each) => !passes(guard, each))
      if (address === undefined) return true
      if (!before.has(address) && !refused.has(address)) tell({ type: 'refused', source: name, address })
      refused.add(address)
      return false
    })
    this.#refused = refused
    if (allowed.length > 0 || refused.size === 0) return allowed
    throw new DiscoveryError('ERR_DISCOVERY_REFUSED', name, `the guard refuses every address: ${[...refused].slice(0, 10).join(', ')}`)
  }
}

/** A guard that throws has not allowed anything. */
function passes(guard: Guard, address: string): boolean {
  try {
    return guard(address) === true
  } catch {
    return false
  }
}

/** The address in the URL, and the one that probes are sent to. Names and Unix sockets are none. */
function addressesOf({ url, meta }: UpstreamOptions): string[] {
  const probed = (meta?.health as { readonly address?: unknown } | null | undefined)?.address
  return [new URL(url).hostname, ...(typeof probed === 'string' ? [canonical(probed)] : [])]
    .map((host) => host.replace(/^\[|\]$/g, ''))
    .filter((host) => isIP(host) !== 0)
}

/** As a URL would hold it: the system's resolver takes `127.1` and `0x7f000001` for addresses, too. */
function canonical(host: string): string {
  return isIP(host) === 0 ? (URL.parse(`http://${host}`)?.hostname ?? host) : host
}
