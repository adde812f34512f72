/**
 * Client-IP hash: the same client goes to the same upstream, with no cookie and no memory, and every proxy that knows the same upstreams
 * decides the same. It is `hash` by `clientIp`, under the name that everybody looks for.
 */
import { type Balancer, OptionReader } from '@weir/core'
import { evenHash, HashBalancer, rendezvousSequence } from './hash-balancer.ts'
import { readHashKey } from './hash-key.ts'
import type { RandomOption } from './random-option.ts'

export interface IpHashOptions extends RandomOption {
  /**
   * How many leading bits of an IPv6 address make a client, 1 to 128. Default 64, the network that one host or one home is given. 56 or 48
   * keeps a customer with several networks together; 128 tells hosts apart that share a /64, such as those behind NAT64.
   */
  readonly ipv6Prefix?: number
}

/**
 * By `exchange.clientIp`. O(1) per pick, some milliseconds per change of membership. An exchange without a client address (a Unix socket) is
 * placed by `random`.
 *
 * Everybody behind one NAT or one untrusted proxy is one client: set `trustedProxies` of the proxy, or all traffic lands on one server. Where
 * sessions must not move at all, use `@weir/sticky`: addresses of phones change.
 *
 * @throws OptionsError
 */
export function ipHash(options?: IpHashOptions): Balancer {
  const read = new OptionReader('ipHash')
  const given = read.object(options, ['random', 'ipv6Prefix'])
  const key = readHashKey(read, { ...given, key: 'clientIp' }, evenHash)
  read.check()
  return new HashBalancer('ip-hash', key, rendezvousSequence)
}
