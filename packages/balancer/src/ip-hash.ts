/**
 * Client-IP hash: the same client goes to the same upstream, with no cookie and no memory, and every proxy that knows the same upstreams
 * decides the same. It rests on `rendezvous-table.ts`: when upstreams come and go, about 1/n of the clients move, and no more.
 *
 * A client whose upstream is tried or full goes to its next best, which is again the same one each time: the owner of the next cell in a
 * sequence that starts from its address.
 */
import { type Balancer, type Exchange, isPickable, OptionReader, type Upstream } from '@weir/core'
import { hashAddress, hashText, mix } from './client-address.ts'
import { type RandomOption, readRandom } from './random-option.ts'
import { RendezvousTable } from './rendezvous-table.ts'

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
  const random = readRandom(read, given.random)
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 1, max: 128, integer: true })
  read.check()
  return new IpHash(random, ipv6Prefix)
}

/** Cells tried before the search among all: with half of the upstreams pickable, one search in 65,000 exchanges that have to look further. */
const mostCells = 16

class IpHash implements Balancer {
  readonly name: string = 'ip-hash'
  readonly #random: () => number
  readonly #ipv6Prefix: number
  #upstreams: readonly Upstream[] = []
  #table = new RendezvousTable([])
  #idHashes = new Int32Array(0)

  constructor(random: () => number, ipv6Prefix: number) {
    this.#random = random
    this.#ipv6Prefix = ipv6Prefix
  }

  update(available: readonly Upstream[]): void {
    this.#upstreams = available.slice()
    this.#table = new RendezvousTable(available)
    this.#idHashes = Int32Array.from(available, ({ id }) => hashText(id, 4))
  }

  pick(exchange: Exchange): Upstream | undefined {
    if (this.#upstreams.length === 0) return undefined
    const { clientIp } = exchange
    const key = clientIp === '' ? (this.#random() * 0x1_0000_0000) | 0 : hashAddress(clientIp, this.#ipv6Prefix)
    let hash = key
    for (let cells = 0; cells < mostCells; cells++) {
      const upstream = this.#upstreams[this.#table.owner(hash)] as Upstream
      if (isPickable(upstream, exchange)) return upstream
      hash = mix((hash + 0x9e37_79b9) | 0)
    }
    return this.#search(key, exchange)
  }

  /** Bids of all who are pickable, for this key alone: a weighted rendezvous (Schindelhauer and Schomaker 2005). */
  #search(key: number, exchange: Exchange): Upstream | undefined {
    let best: Upstream | undefined
    let earliest = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.#upstreams.length; i++) {
      const upstream = this.#upstreams[i] as Upstream
      if (!isPickable(upstream, exchange)) continue
      const arrival = -Math.log(((mix(key ^ (this.#idHashes[i] as number)) >>> 0) + 1) / 0x1_0000_0001) / upstream.weight
      if (arrival < earliest) {
        earliest = arrival
        best = upstream
      }
    }
    return best
  }
}
