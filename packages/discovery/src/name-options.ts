/** The options of how a name is turned into addresses, shared by sources of addresses and of services. */
import type { AddressCheck, Duration, OptionReader } from '@weir/core'
import { addressGuard } from './address-guard.ts'
import { type DnsOptions, type DnsSettings, dnsKeys, readDns } from './dns-client.ts'

export interface NameOptions extends DnsOptions {
  /** Only IPv4 (A records), only IPv6 (AAAA), or both. Default `both`. */
  readonly family?: 4 | 6 | 'both'
  /** No answer is asked for again sooner, whatever its TTL. Default `1s`. */
  readonly minTtl?: Duration
  /** Every answer is asked for again after this time, however long its TTL. */
  readonly maxTtl?: Duration
  /**
   * When the DNS says that there is nobody (NXDOMAIN, no records), or the guard refuses everybody: `keep` those who were there before, or `clear` them.
   * Default `keep`: names vanish by mistake more often than by intent, and health policies see to servers that are gone.
   */
  readonly onEmpty?: 'keep' | 'clear'
  /** Which addresses are used; the others are dropped and reported. Default `addressGuard()`. `false` switches it off. */
  readonly guard?: AddressCheck | false
}

export const nameKeys: readonly (keyof NameOptions)[] = [...dnsKeys, 'family', 'minTtl', 'maxTtl', 'onEmpty', 'guard']

export interface NameSettings {
  readonly dns: DnsSettings
  readonly families: readonly (4 | 6)[]
  readonly minTtl: number
  readonly maxTtl: number
  readonly clears: boolean
  readonly guard: AddressCheck
}

export function readNames(options: Partial<NameOptions>, maxTtl: number, read: OptionReader): NameSettings {
  const family = read.oneOf<4 | 6 | 'both'>('family', options.family, [4, 6, 'both'], 'both')
  const minTtl = read.duration('minTtl', options.minTtl, 1000, { min: 1 })
  const guard = options.guard === false ? () => true : read.optionalFunction('guard', options.guard)
  return {
    dns: readDns(options, read),
    families: family === 'both' ? [4, 6] : [family],
    minTtl,
    maxTtl: read.duration('maxTtl', options.maxTtl, Math.max(minTtl, maxTtl), { min: minTtl }),
    clears: read.oneOf<'keep' | 'clear'>('onEmpty', options.onEmpty, ['keep', 'clear'], 'keep') === 'clear',
    guard: guard ?? addressGuard(),
  }
}
