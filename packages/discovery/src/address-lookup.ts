/**
 * The addresses of a name, A and AAAA, with what is remembered of each family. A server that answers for A and fails for AAAA is common enough;
 * half an answer must not be taken for "the other half is gone", so a family that fails keeps what it had.
 *
 * This asks DNS servers (c-ares), not `getaddrinfo`, which tells no TTL: so no /etc/hosts, no search domains. Node's resolver caches nothing.
 */
import type { Resolver } from 'node:dns/promises'

export type Family = 4 | 6

export type Found =
  /** `error`: one family could not be asked, and counts with what it had before. */
  | { readonly kind: 'found'; readonly addresses: readonly string[]; readonly ttlMs: number; readonly error: unknown }
  /** There is no such name, or it has no address. `error` is node's, code ENOTFOUND or ENODATA. */
  | { readonly kind: 'empty'; readonly error: unknown }
  /** Nothing new is known. `addresses` are those known before, none when there were none. */
  | { readonly kind: 'failed'; readonly addresses: readonly string[]; readonly error: unknown }

export class AddressLookup {
  readonly #resolver: Resolver
  readonly #families: readonly Family[]
  #known = new Map<string, readonly string[]>()

  constructor(resolver: Resolver, families: readonly Family[]) {
    this.#resolver = resolver
    this.#families = families
  }

  async find(name: string): Promise<Found> {
    const answers = await Promise.all(this.#families.map((family) => this.#ask(name, family)))
    const addresses = answers.flatMap((answer) => answer.addresses)
    const failure = answers.find(({ state }) => state === 'failed')
    const ttls = answers.filter(({ state }) => state === 'found').map(({ ttlMs }) => ttlMs)
    if (ttls.length > 0) return { kind: 'found', addresses, ttlMs: Math.min(...ttls), error: failure?.error }
    if (failure !== undefined) return { kind: 'failed', addresses, error: failure.error }
    return { kind: 'empty', error: answers[0]?.error }
  }

  /** Forgets all names but these. */
  keepOnly(names: readonly string[]): void {
    const keys = new Set(names.flatMap((name) => this.#families.map((family) => keyOf(name, family))))
    for (const key of this.#known.keys()) if (!keys.has(key)) this.#known.delete(key)
  }

  async #ask(name: string, family: Family): Promise<FamilyAnswer> {
    const key = keyOf(name, family)
    try {
      const records = await (family === 4 ? this.#resolver.resolve4(name, { ttl: true }) : this.#resolver.resolve6(name, { ttl: true }))
      const addresses = records.map(({ address }) => address)
      this.#known.set(key, addresses)
      return { state: 'found', addresses, ttlMs: Math.min(...records.map(({ ttl }) => ttl)) * 1000, error: undefined }
    } catch (error) {
      if (!isEmpty(error)) return { state: 'failed', addresses: this.#known.get(key) ?? [], ttlMs: 0, error }
      this.#known.delete(key)
      return { state: 'empty', addresses: [], ttlMs: 0, error }
    }
  }
}

interface FamilyAnswer {
  readonly state: 'found' | 'empty' | 'failed'
  readonly addresses: readonly string[]
  readonly ttlMs: number
  readonly error: unknown
}

/** Does the DNS say that there is nothing, rather than saying nothing? NXDOMAIN and NODATA (RFC 2308 §2). */
export function isEmpty(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOTFOUND' || code === 'ENODATA'
}

function keyOf(name: string, family: Family): string {
  return `${family} ${name}`
}
