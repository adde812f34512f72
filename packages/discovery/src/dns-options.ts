/** Options that the two DNS sources share, and what they are read into. How names and addresses become URLs is here for both, too. */
import { Resolver } from 'node:dns/promises'
import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import type { Duration, OptionReader } from '@weir/core'
import type { Family } from './address-lookup.ts'
import { listProblems } from './list-check.ts'
import { type PaceOptions, paceKeys, type SourceOptions, sourceKeys } from './source-options.ts'

export interface DnsOptions extends SourceOptions, PaceOptions {
  /** How upstreams are spoken to. Default `http`. */
  readonly protocol?: 'http' | 'https'
  /**
   * A records (4), AAAA records (6), or both, the default. Where every server has an address of each kind, choose one: with `both` such a server counts as
   * two upstreams.
   */
  readonly family?: Family | 'both'
  /** Asks no sooner than this after an answer, however short its TTL. At least 1 ms, default 1 s. */
  readonly minTtl?: Duration
  /** Asks no later than this after an answer, however long its TTL. Default 1 min, for services 30 s. */
  readonly maxTtl?: Duration
  /**
   * What a name without records means (NXDOMAIN, or no record of the kind). `keep` (the default): a mistake; the last good list stays. `clear`: that nobody is
   * left; the pool is emptied and answers 503. Not `clear` where a slip of the DNS must not take the service down.
   */
  readonly onEmpty?: 'keep' | 'clear'
  /** DNS servers to ask, `10.0.0.2`, `10.0.0.2:5353` or `[2001:db8::53]:53`. Default: those of the system. */
  readonly servers?: readonly string[]
  /** How long one try at one server may take at first; c-ares waits longer with each further one. Default 2 s. */
  readonly timeout?: Duration
  /** How often each server is tried. Default 2. */
  readonly tries?: number
  /** Most exchanges at once to each upstream. Default: the pool's. */
  readonly maxConcurrent?: number
  readonly meta?: Readonly<Record<string, unknown>>
}

export interface DnsSettings {
  readonly protocol: 'http' | 'https'
  readonly families: readonly Family[]
  readonly minTtl: number
  readonly maxTtl: number
  readonly onEmpty: 'keep' | 'clear'
  /** Opens nothing until it is asked. */
  readonly resolver: () => Resolver
}

export const dnsKeys: readonly string[] = [
  ...sourceKeys,
  ...paceKeys,
  'protocol',
  'family',
  'minTtl',
  'maxTtl',
  'onEmpty',
  'servers',
  'timeout',
  'tries',
  'maxConcurrent',
  'meta',
]

/** @param maxTtl when none is given */
export function readDns(given: DnsOptions, read: OptionReader, maxTtl: number): DnsSettings {
  const family = read.oneOf('family', given.family, [4, 6, 'both'] as const, 'both')
  const minTtl = read.duration('minTtl', given.minTtl, 1000, { min: 1 })
  const timeout = read.duration('timeout', given.timeout, 2000, { min: 1 })
  const tries = read.number('tries', given.tries, 2, { min: 1, max: 10, integer: true })
  const { servers } = given
  const resolver = (): Resolver => {
    const resolver = new Resolver({ timeout, tries })
    if (servers !== undefined) resolver.setServers(servers)
    return resolver
  }
  try {
    resolver()
    if (servers?.length === 0) throw new TypeError('no servers')
  } catch {
    read.problem(
      'servers',
      servers,
      "a list of addresses of DNS servers with or without a port, such as ['10.0.0.2', '[2001:db8::53]:5353']",
    )
  }
  return {
    protocol: read.oneOf('protocol', given.protocol, ['http', 'https'] as const, 'http'),
    families: family === 'both' ? [4, 6] : [family],
    minTtl,
    maxTtl: read.duration('maxTtl', given.maxTtl, Math.max(maxTtl, minTtl), { min: minTtl }),
    onEmpty: read.oneOf('onEmpty', given.onEmpty, ['keep', 'clear'] as const, 'keep'),
    resolver,
  }
}

/** Settings of the upstreams themselves are checked by the rules of the pool that will get them. */
export function readUpstreamSettings<T extends object>(given: T, names: readonly (keyof T & string)[], read: OptionReader): Partial<T> {
  const settings = Object.fromEntries(names.filter((name) => given[name] !== undefined).map((name) => [name, given[name]])) as Partial<T>
  for (const { path, expected } of listProblems([{ url: 'http://192.0.2.1', ...settings }])) {
    const name = path.replace(/^\$\[0\]\./, '')
    read.problem(name, settings[name as keyof T], expected)
  }
  return settings
}

/** A DNS name in ASCII, without the dot of the root; undefined when it is none. */
export function nameOf(value: unknown): string | undefined {
  const name = typeof value === 'string' ? domainToASCII(value.replace(/\.$/, '')) : ''
  const usable = name.length <= 253 && isIP(name) === 0 && /^(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}$/.test(name)
  return usable ? name : undefined
}

/** `https://[2001:db8::1]:8443`. */
export function addressUrl(protocol: string, address: string, port: number): string {
  return new URL(`${protocol}://${address.includes(':') ? `[${address}]` : address}:${port}`).href
}

/** The name as a `Host` field has it: no default port. */
export function hostOf(protocol: string, name: string, port: number): string {
  return port === (protocol === 'https' ? 443 : 80) ? name : `${name}:${port}`
}
