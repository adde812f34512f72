/**
 * Upstreams from the A and AAAA records of a name: every address is an upstream. Node asks the DNS when it makes a connection, and a proxy that
 * keeps connections open does so rarely, to one address of several, and without knowing how long the answer holds. Here the name is asked
 * whenever its TTL has passed, all addresses take part in balancing and health, and an address that is gone is drained.
 */
import { OptionReader, type UpstreamOptions } from '@weir/core'
import { addressGuard } from './address-guard.ts'
import { AddressLookup } from './address-lookup.ts'
import { DiscoveryError, messageOf } from './discovery-error.ts'
import { addressUrl, type DnsOptions, type DnsSettings, dnsKeys, hostOf, nameOf, readDns, readUpstreamSettings } from './dns-options.ts'
import { Feed } from './feed.ts'
import { type DiscoverySource, sourceOf } from './list-iterator.ts'
import { type Answer, poll } from './poll.ts'
import { readPace, readSource } from './source-options.ts'

export interface DnsSourceOptions extends DnsOptions {
  /** The whole name: search domains and /etc/hosts are not looked at. */
  readonly host: string
  /** Default 80, or 443 with `protocol: 'https'`. */
  readonly port?: number
  /** Of each address. Default 1. */
  readonly weight?: number
  /** Default 0. */
  readonly priority?: number
}

/**
 * Keeps a pool in step with the addresses of `host`. Each upstream's URL, which is also its id, has the address; its `host` is the name, so that
 * `Host` and the TLS server name are those of a URL with the name in it.
 *
 * Not for names that give a random few of many addresses with each answer: upstreams would come and go. For those, put the name into the
 * upstream's URL.
 *
 * @throws OptionsError
 */
export function dnsSource(options: DnsSourceOptions): DiscoverySource {
  const read = new OptionReader('dnsSource')
  const given = read.object<DnsSourceOptions>(options, [...dnsKeys, 'host', 'port', 'weight', 'priority'])
  const host = nameOf(given.host) ?? ''
  if (host === '')
    read.problem('host', given.host, "a host name such as 'app.internal'; addresses need no DNS, write them into `upstreams`")
  const source = readSource(given, read, `dns:${host}`, addressGuard())
  const pace = readPace(given, read)
  const dns = readDns(given, read, 60_000)
  const port = read.number('port', given.port, dns.protocol === 'https' ? 443 : 80, { min: 1, max: 65_535, integer: true })
  const settings = readUpstreamSettings(given, ['weight', 'priority', 'maxConcurrent', 'meta'], read)
  read.check()

  const upstream = (address: string): UpstreamOptions => ({
    ...settings,
    url: addressUrl(dns.protocol, address, port),
    host: hostOf(dns.protocol, host, port),
  })

  return sourceOf((outlet) => {
    const resolver = dns.resolver()
    const lookup = new AddressLookup(resolver, dns.families)
    const ask = async (): Promise<Answer> => {
      const found = await lookup.find(host)
      switch (found.kind) {
        case 'found':
          return {
            list: found.addresses.map(upstream),
            freshMs: bounded(found.ttlMs, dns),
            partial: found.error === undefined ? undefined : dnsFailed(source.name, found.error),
          }
        case 'empty':
          return emptyAnswer(source.name, `there are no addresses of ${host}`, found.error, dns)
        case 'failed':
          throw dnsFailed(source.name, found.error)
      }
    }
    const question = { code: 'ERR_DISCOVERY_DNS', longestPause: dns.maxTtl, ask, cancel: () => resolver.cancel() } as const
    return poll(new Feed(source, outlet), question, pace, source)
  })
}

/** A TTL within bounds. */
export function bounded(ttlMs: number, { minTtl, maxTtl }: DnsSettings): number {
  return Math.min(Math.max(ttlMs, minTtl), maxTtl)
}

export function dnsFailed(source: string, error: unknown): DiscoveryError {
  return new DiscoveryError('ERR_DISCOVERY_DNS', source, messageOf(error), { cause: error })
}

/** What to make of "there is nothing", which is reported in either case. @throws DiscoveryError when the last good list is to be kept */
export function emptyAnswer(source: string, message: string, cause: unknown, { onEmpty, maxTtl }: DnsSettings): Answer {
  const error = new DiscoveryError('ERR_DISCOVERY_EMPTY', source, message, { cause })
  if (onEmpty === 'keep') throw error
  return { list: [], freshMs: maxTtl, partial: error }
}
