/**
 * The servers of a DNS service (SRV records, RFC 2782): ports, tiers and weights come from the DNS, as Consul, Kubernetes headless services and
 * others publish them. Targets are resolved to addresses as `dnsSource` does it, and with the same rules for failures, each name for itself.
 *
 * node gives no TTL for SRV records. All of it is asked for again when the TTL of the targets' addresses has passed, and after `maxTtl` at the
 * latest, which is short here by default.
 */

import { OptionReader, type UpstreamSource } from '@weir/core'
import { DiscoveryError } from './discovery-error.ts'
import { DnsClient } from './dns-client.ts'
import { type FoundOptions, type FoundSettings, foundKeys, foundServer, readFound, readName } from './found-server.ts'
import { NameAddresses } from './name-addresses.ts'
import { type NameOptions, type NameSettings, nameKeys, readNames } from './name-options.ts'
import { type Answer, type Ask, polledSource } from './polled-source.ts'
import { readSource, type SourceOptions, sourceKeys } from './source-options.ts'
import { serversOf, type Target } from './srv-records.ts'

export interface SrvSourceOptions extends SourceOptions, NameOptions, FoundOptions {
  /** `_http._tcp.example.internal`. `maxTtl` is `30s` by default. */
  readonly service: string
  /** The name that all servers go by, without a port, when it is not that of their target: for `Host` and certificates. Default: each target's. */
  readonly host?: string
}

const keys: readonly (keyof SrvSourceOptions)[] = [...sourceKeys, ...nameKeys, ...foundKeys, 'service', 'host']

/** @throws OptionsError */
export function srvSource(options: SrvSourceOptions): UpstreamSource {
  const read = new OptionReader('srvSource')
  const given = read.object<SrvSourceOptions>(options, keys)
  const service = readName('service', given.service, read)
  const host = given.host === undefined ? undefined : readName('host', given.host, read)
  const found = readFound(given, read)
  const names = readNames(given, 30_000, read)
  const settings = readSource(given, service, read)
  read.check()
  return polledSource(settings, () => asking(settings.name, service, host, found, names))
}

function asking(source: string, service: string, host: string | undefined, found: FoundSettings, names: NameSettings): Ask {
  const client = new DnsClient(names.dns)
  /** Names that are no target any more are forgotten. */
  let known = new Map<string, NameAddresses>()

  const answer = async (): Promise<Answer> => {
    const reply = await client.services(service)
    if (reply.kind === 'failed')
      throw new DiscoveryError('ERR_DISCOVERY_DNS', source, `no answer for ${service} (${reply.error.code})`, { cause: reply.error })
    if (reply.kind === 'none') {
      const error = new DiscoveryError('ERR_DISCOVERY_EMPTY', source, `${service} has no servers (${reply.error.code})`, {
        cause: reply.error,
      })
      if (!names.clears) throw error
      return { list: [], goodFor: names.maxTtl, errors: [error] }
    }
    const records = reply.records.filter(({ name }) => name !== '')
    // A target of '.' is said on purpose (RFC 2782): the service is not available here.
    if (records.length === 0) return { list: [], goodFor: names.maxTtl }
    const asked = new Map<string, NameAddresses>()
    for (const { name } of records) asked.set(name, known.get(name) ?? new NameAddresses(source, name, names))
    known = asked
    const resolved = new Map(
      await Promise.all([...asked].map(async ([name, addresses]) => [name, await addresses.resolve(client)] as const)),
    )
    const targets = records.map((record): Target => ({ ...record, addresses: resolved.get(record.name)?.addresses ?? [] }))
    const list = serversOf(targets).map(({ name, address, port, weight, priority }) =>
      foundServer(found, host ?? name, address, port, { weight, priority }),
    )
    const errors = [...resolved.values()].flatMap(({ error }) => (error === undefined ? [] : [error]))
    const goodFor = Math.min(names.maxTtl, ...[...resolved.values()].flatMap(({ ttl }) => (ttl === undefined ? [] : [ttl])))
    // When no target could be resolved for the first time, the servers of the targets before are better than none.
    if (list.length === 0 && !names.clears && errors[0] !== undefined) throw errors[0]
    return { list, goodFor, errors }
  }

  return async (signal) => {
    const cancel = (): void => client.cancel()
    signal.addEventListener('abort', cancel, { once: true })
    try {
      return await answer()
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }
}
