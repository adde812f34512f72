/**
 * The servers of a DNS service (SRV records, RFC 2782), as Consul, headless services of Kubernetes and others publish them: ports, tiers and
 * weights come from the DNS too. Targets are names, resolved as `dnsSource` does it; each is remembered for itself, so that one name which cannot be
 * resolved just now costs no server.
 *
 * Node tells no TTL of SRV records. All of it is asked again when the TTL of the targets' addresses has passed, and after `maxTtl` at the
 * latest, which is therefore short here.
 */
import type { SrvRecord } from 'node:dns'
import { OptionReader } from '@weir/core'
import { addressGuard } from './address-guard.ts'
import { AddressLookup, type Found, isEmpty } from './address-lookup.ts'
import type { DiscoveryError } from './discovery-error.ts'
import { addressUrl, type DnsOptions, dnsKeys, hostOf, nameOf, readDns, readUpstreamSettings } from './dns-options.ts'
import { bounded, dnsFailed, emptyAnswer } from './dns-source.ts'
import { Feed } from './feed.ts'
import { type DiscoverySource, sourceOf } from './list-iterator.ts'
import { type Answer, poll } from './poll.ts'
import { readPace, readSource } from './source-options.ts'
import { serversOf } from './srv-records.ts'

export interface SrvSourceOptions extends DnsOptions {
  /** `_http._tcp.example.internal`: the whole name. `maxTtl` is 30 s by default; give the TTL of the SRV record itself where it is known. */
  readonly service: string
}

/** A service may have thousands of targets; a resolver is not asked for all of them in one moment. */
const lanes = 32

/**
 * Keeps a pool in step with a service. The lowest priority is the pool's tier 0, the next one tier 1 and so on; a weight of 0 gets a little rather than
 * nothing; a target with several addresses shares its weight among them; the target `.` means that the service is not there, and empties the
 * pool.
 *
 * @throws OptionsError
 */
export function srvSource(options: SrvSourceOptions): DiscoverySource {
  const read = new OptionReader('srvSource')
  const given = read.object<SrvSourceOptions>(options, [...dnsKeys, 'service'])
  const service = nameOf(given.service) ?? ''
  if (service === '') read.problem('service', given.service, "the name of a service such as '_http._tcp.example.internal'")
  const source = readSource(given, read, `srv:${service}`, addressGuard())
  const pace = readPace(given, read)
  const dns = readDns(given, read, 30_000)
  const settings = readUpstreamSettings(given, ['maxConcurrent', 'meta'], read)
  read.check()

  return sourceOf((outlet) => {
    const resolver = dns.resolver()
    const lookup = new AddressLookup(resolver, dns.families)

    const ask = async (): Promise<Answer> => {
      let answered: readonly SrvRecord[]
      try {
        answered = await resolver.resolveSrv(service)
      } catch (error) {
        if (isEmpty(error)) return emptyAnswer(source.name, `${service} has no servers`, error, dns)
        throw dnsFailed(source.name, error)
      }
      const records = answered.filter(({ name }) => name !== '')
      // Said on purpose, unlike an empty answer.
      if (records.length === 0) return { list: [], freshMs: dns.maxTtl }
      const names = [...new Set(records.map(({ name }) => name))]
      lookup.keepOnly(names)
      return answer(records, await findAll(lookup, names))
    }

    const answer = (records: readonly SrvRecord[], found: ReadonlyMap<string, Found>): Answer => {
      const targets = records.map((record) => ({ ...record, addresses: addressesOf(found.get(record.name)) }))
      const list = serversOf(targets).map(({ name, address, port, priority, weight }) => ({
        ...settings,
        url: addressUrl(dns.protocol, address, port),
        ...(nameOf(name) === undefined ? null : { host: hostOf(dns.protocol, name, port) }),
        priority,
        weight,
      }))
      const failures = [...found.values()].flatMap((one) => (one.kind === 'empty' || one.error === undefined ? [] : [one.error]))
      const partial: DiscoveryError | undefined = failures.length === 0 ? undefined : dnsFailed(source.name, failures[0])
      if (list.length > 0) {
        const ttls = [...found.values()].flatMap((one) => (one.kind === 'found' ? [one.ttlMs] : []))
        return { list, freshMs: bounded(Math.min(dns.maxTtl, ...ttls), dns), partial }
      }
      if (partial !== undefined) throw partial
      return emptyAnswer(source.name, `no target of ${service} has an address`, [...found.values()][0]?.error, dns)
    }

    const question = { code: 'ERR_DISCOVERY_DNS', longestPause: dns.maxTtl, ask, cancel: () => resolver.cancel() } as const
    return poll(new Feed(source, outlet), question, pace, source)
  })
}

function addressesOf(found: Found | undefined): readonly string[] {
  return found === undefined || found.kind === 'empty' ? [] : found.addresses
}

async function findAll(lookup: AddressLookup, names: readonly string[]): Promise<ReadonlyMap<string, Found>> {
  const found = new Map<string, Found>()
  const left = names.values()
  const lane = async (): Promise<void> => {
    for (const name of left) found.set(name, await lookup.find(name))
  }
  await Promise.all(Array.from({ length: Math.min(lanes, names.length) }, lane))
  return found
}
