/**
 * The addresses of one name, and what is kept of them when the DNS does not answer. The two families are asked apart and fail apart: that AAAA
 * cannot be had is no reason to do without new A records, nor to forget the AAAA records of a minute ago. Only when every family answers
 * that there is nobody is the name empty.
 */
import { DiscoveryError } from './discovery-error.ts'
import type { DnsClient, Reply } from './dns-client.ts'
import { tell } from './events.ts'
import type { NameSettings } from './name-options.ts'

export interface Addresses {
  /** Sorted, so that the order of an answer does not matter. */
  readonly addresses: readonly string[]
  /** Milliseconds, within the bounds; undefined when nothing was answered that has a TTL. */
  readonly ttl: number | undefined
  readonly error: DiscoveryError | undefined
}

export class NameAddresses {
  readonly #source: string
  readonly #name: string
  readonly #settings: NameSettings
  /** Last good ones. */
  #known: ReadonlyMap<4 | 6, readonly string[]> = new Map()
  /** Refused in the last answer, and reported then or before. */
  #refused: ReadonlySet<string> = new Set()

  constructor(source: string, name: string, settings: NameSettings) {
    this.#source = source
    this.#name = name
    this.#settings = settings
  }

  async resolve(client: DnsClient): Promise<Addresses> {
    const { families, clears } = this.#settings
    const replies = await Promise.all(families.map(async (family) => ({ family, reply: await client.addresses(this.#name, family) })))
    const records = replies.flatMap(({ reply }) => (reply.kind === 'records' ? reply.records : []))
    const allowed = this.#allowed(records.map(({ address }) => address))
    const next = new Map(this.#known)
    for (const { family, reply } of replies) {
      if (reply.kind === 'records') next.set(family, sorted(reply.records, allowed))
      else if (reply.kind === 'none') next.set(family, [])
    }
    const failed = replies.flatMap(({ reply }) => (reply.kind === 'failed' ? [reply.error] : []))
    const empty = families.every((family) => (next.get(family) ?? []).length === 0)
    // Only when every family has said that there is nobody is it a matter of policy.
    if (!empty || (clears && failed.length === 0)) this.#known = next
    return {
      addresses: families.flatMap((family) => this.#known.get(family) ?? []),
      ttl: this.#ttl(records),
      error: failed.length > 0 ? this.#failure(failed) : empty ? this.#nobody(replies.map(({ reply }) => reply)) : undefined,
    }
  }

  #ttl(records: readonly { readonly ttl: number }[]): number | undefined {
    if (records.length === 0) return undefined
    const { minTtl, maxTtl } = this.#settings
    const lowest = records.reduce((least, { ttl }) => Math.min(least, ttl), Number.POSITIVE_INFINITY)
    return Math.min(maxTtl, Math.max(minTtl, lowest * 1000))
  }

  #allowed(addresses: readonly string[]): ReadonlySet<string> {
    const allowed = new Set<string>()
    const refused = new Set<string>()
    for (const address of addresses) (this.#passes(address) ? allowed : refused).add(address)
    for (const address of refused)
      if (!this.#refused.has(address)) tell({ type: 'refused', source: this.#source, host: this.#name, address })
    this.#refused = refused
    return allowed
  }

  /** A guard that throws has not allowed anything. */
  #passes(address: string): boolean {
    try {
      return this.#settings.guard(address)
    } catch {
      return false
    }
  }

  #failure(errors: readonly NodeJS.ErrnoException[]): DiscoveryError {
    const message = `no answer for ${this.#name} (${errors.map(({ code }) => code).join(', ')})`
    return new DiscoveryError('ERR_DISCOVERY_DNS', this.#source, message, { cause: errors[0] })
  }

  #nobody(replies: readonly Reply<unknown>[]): DiscoveryError {
    if (this.#refused.size > 0) {
      const message = `the guard refuses every address of ${this.#name}: ${[...this.#refused].join(', ')}`
      return new DiscoveryError('ERR_DISCOVERY_REFUSED', this.#source, message)
    }
    const errors = replies.flatMap((reply) => (reply.kind === 'none' ? [reply.error] : []))
    const message = `${this.#name} has no addresses (${errors.map(({ code }) => code).join(', ')})`
    return new DiscoveryError('ERR_DISCOVERY_EMPTY', this.#source, message, { cause: errors[0] })
  }
}

function sorted(records: readonly { readonly address: string }[], allowed: ReadonlySet<string>): string[] {
  return [...new Set(records.map(({ address }) => address))].filter((address) => allowed.has(address)).sort()
}
