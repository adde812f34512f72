/**
 * The questions to the DNS, and what the answers mean. node's `Resolver` (c-ares) asks the servers of the system's configuration, or those given,
 * without node's thread pool and without any cache. It knows nothing of /etc/hosts, search domains and mDNS.
 */

import type { RecordWithTtl, SrvRecord } from 'node:dns'
import { Resolver } from 'node:dns'
import type { Duration, OptionReader } from '@weir/core'

export interface DnsOptions {
  /** DNS servers as `address` or `address:port`, asked in this order. Default: those of the system. */
  readonly servers?: readonly string[]
  /** How long each server has for its first answer; grows with each further try. Default `2s`. */
  readonly timeout?: Duration
  /** How often each server is asked before it counts as a failure. Default 2. */
  readonly tries?: number
}

export const dnsKeys: readonly (keyof DnsOptions)[] = ['servers', 'timeout', 'tries']

export interface DnsSettings {
  readonly servers: readonly string[] | undefined
  readonly timeout: number
  readonly tries: number
}

export function readDns(options: Partial<DnsOptions>, read: OptionReader): DnsSettings {
  const { servers } = options
  if (servers !== undefined) {
    try {
      if (!Array.isArray(servers) || servers.length === 0) throw new TypeError('no servers')
      new Resolver().setServers(servers)
    } catch {
      read.problem('servers', servers, "a list of addresses, with or without a port, such as ['10.0.0.53', '[fd00::53]:5353']")
    }
  }
  return {
    servers,
    timeout: read.duration('timeout', options.timeout, 2000, { min: 1 }),
    tries: read.number('tries', options.tries, 2, { min: 1, max: 100, integer: true }),
  }
}

export type Reply<T> =
  | { readonly kind: 'records'; readonly records: readonly T[] }
  /** The DNS says that there are none: NXDOMAIN (`ENOTFOUND`), or no records of this type (`ENODATA`). */
  | { readonly kind: 'none'; readonly error: NodeJS.ErrnoException }
  /** The DNS says nothing: no answer, SERVFAIL, REFUSED, nonsense. */
  | { readonly kind: 'failed'; readonly error: NodeJS.ErrnoException }

/** Never rejects. */
export class DnsClient {
  readonly #resolver: Resolver

  constructor({ servers, timeout, tries }: DnsSettings) {
    this.#resolver = new Resolver({ timeout, tries })
    if (servers !== undefined) this.#resolver.setServers(servers)
  }

  addresses(name: string, family: 4 | 6): Promise<Reply<RecordWithTtl>> {
    return new Promise((resolve) => {
      const callback = (error: NodeJS.ErrnoException | null, records: RecordWithTtl[]): void => resolve(replyOf(error, records))
      if (family === 4) this.#resolver.resolve4(name, { ttl: true }, callback)
      else this.#resolver.resolve6(name, { ttl: true }, callback)
    })
  }

  services(name: string): Promise<Reply<SrvRecord>> {
    return new Promise((resolve) => {
      this.#resolver.resolveSrv(name, (error, records) => resolve(replyOf(error, records)))
    })
  }

  /** Whatever is under way ends at once, and with it the sockets. */
  cancel(): void {
    this.#resolver.cancel()
  }
}

function replyOf<T>(error: NodeJS.ErrnoException | null, records: readonly T[]): Reply<T> {
  if (error === null) return records.length > 0 ? { kind: 'records', records } : { kind: 'none', error: new Error('no records') }
  return { kind: error.code === 'ENODATA' || error.code === 'ENOTFOUND' ? 'none' : 'failed', error }
}
