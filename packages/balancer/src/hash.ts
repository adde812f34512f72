/**
 * Hash of anything in the request: the same key goes to the same upstream, with no cookie set and no memory, and every proxy that knows the
 * same upstreams decides the same. It rests on `rendezvous-table.ts`: when upstreams come and go, the least possible number of keys moves.
 */
import { type Balancer, OptionReader } from '@weir/core'
import { evenHash, HashBalancer, rendezvousSequence } from './hash-balancer.ts'
import { type HashKeyOptions, hashKeyNames, readHashKey } from './hash-key.ts'

export interface HashOptions extends HashKeyOptions {}

/**
 * By weighted rendezvous. O(1) per pick, some milliseconds per change of membership. When one of n upstreams leaves, its own keys move and no
 * others; a key whose upstream is tried or full goes to its next best, the same one each time.
 *
 * Not where a few keys make most of the traffic (one tenant, one hot path): all of it lands on one server. `boundedLoad` caps that. Nor where a
 * client chooses its key freely and could pile requests on one server on purpose. Where sessions must not move at all, use `@weir/sticky`.
 *
 * @throws OptionsError
 */
export function hash(options: HashOptions): Balancer {
  const read = new OptionReader('hash')
  const key = readHashKey(read, read.object(options, hashKeyNames), evenHash)
  read.check()
  return new HashBalancer('hash', key, rendezvousSequence)
}
