/**
 * The ketama ring, point for point as nginx builds it for `hash $key consistent`: for those who come from nginx, or run one beside Weir, and
 * whose servers hold something per key (a cache, a shard) that must not be looked for elsewhere.
 */
import { type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { hashAddress } from './client-address.ts'
import { crcStart, crcText } from './crc32.ts'
import { HashBalancer } from './hash-balancer.ts'
import { type HashKeyOptions, hashKeyNames, type KeyHash, readHashKey } from './hash-key.ts'
import { KetamaRing } from './ketama-ring.ts'
import { Rendezvous } from './rendezvous.ts'
import type { Gate, Sequence } from './sequence.ts'

export interface KetamaOptions extends HashKeyOptions {
  /**
   * What the upstream is called in nginx's configuration, since that text is hashed: `server 10.0.0.1:3000` and `server 10.0.0.1:3000 weight=2`
   * are called `10.0.0.1:3000`. Default: host and port of its URL, the port only when it is not 80, as one writes it for nginx (`app.internal`,
   * `app.internal:443`, `unix:/run/app.sock`); with an `id` of your own, that `id`. Give a function when your nginx says `:80`, or a host name
   * with capitals. Two upstreams of the same text share its points, and only the first by id is found: keep them different.
   */
  readonly server?: (upstream: Upstream) => string
}

/**
 * 160 points per unit of weight: a server's share is within about 8 % of what it should be (one standard deviation) with weight 1, less with more.
 * O(1) per pick; a change of membership takes about 1 ms with 10 upstreams, 100 ms with 10,000. When one of n leaves, its keys go to its
 * neighbours on the ring and no others move. A key whose upstream is tried or full goes on along the ring.
 *
 * Take `hash` when no nginx and no older ring has to be matched: it spreads more evenly.
 *
 * @throws OptionsError
 */
export function ketama(options: KetamaOptions): Balancer {
  const read = new OptionReader('ketama')
  const given = read.object(options, [...hashKeyNames, 'server'])
  const key = readHashKey(read, given, crcHash)
  const { server = nginxName } = given
  if (typeof server !== 'function') read.problem('server', server, 'a function from an upstream to its name in nginx')
  read.check()
  return new HashBalancer('ketama', key, (upstreams) => new RingSequence(upstreams, server))
}

/** As nginx hashes `$arg_x`, `$cookie_x` or `$remote_addr` of IPv4. IPv6 goes by prefix, which nginx has nothing to compare with. */
const crcHash: KeyHash = {
  text: (text, start, end) => ~crcText(crcStart, text, start, end),
  address: (address, ipv6Prefix) =>
    address.includes(':') ? hashAddress(address, ipv6Prefix) : ~crcText(crcStart, address, 0, address.length),
}

function nginxName({ id, url }: Upstream): string {
  if (id !== url.href.replace(/\/+$/, '')) return id
  if (url.protocol === 'unix:') return `unix:${url.pathname}`
  // nginx has no paths here; they tell apart upstreams that are parts of one server.
  const path = url.pathname.replace(/\/+$/, '')
  return `${url.host}${url.protocol === 'https:' && url.port === '' ? ':443' : ''}${path}`
}

/** Points walked before the search among all; every point, up to six upstreams of weight 1. */
const mostPoints = 1024

class RingSequence implements Sequence {
  readonly #upstreams: readonly Upstream[]
  readonly #ring: KetamaRing
  readonly #rest: Rendezvous

  constructor(upstreams: readonly Upstream[], server: (upstream: Upstream) => string) {
    this.#upstreams = upstreams
    this.#ring = new KetamaRing(upstreams.map((upstream) => ({ name: server(upstream), weight: upstream.weight })))
    this.#rest = new Rendezvous(upstreams)
  }

  find(key: number, exchange: Exchange, gate: Gate): Upstream | undefined {
    const { size } = this.#ring
    let point = this.#ring.point(key)
    let last = -1
    for (let steps = Math.min(size, mostPoints); steps > 0; steps--) {
      const owner = this.#ring.owner(point)
      if (owner !== last) {
        const upstream = this.#upstreams[owner] as Upstream
        if (gate.admits(upstream, exchange)) return upstream
        last = owner
      }
      point = point + 1 === size ? 0 : point + 1
    }
    return this.#rest.find(key, exchange, gate)
  }
}
