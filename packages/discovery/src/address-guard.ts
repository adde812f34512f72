/**
 * Which addresses may be used as upstreams. Whoever can write a DNS record, or a line in a registry, can otherwise make the proxy talk to its own
 * machine's admin port or to the cloud's metadata service from within the network (server-side request forgery). The same function serves
 * twice: sources drop what it refuses, and a pool's `allowAddress` asks it again at the moment of connecting, when a name may lead elsewhere.
 *
 * Special ranges, such as loopback, are closed until they are named: `allow: ['0.0.0.0/0']` says something about addresses in general and nothing about
 * 127.0.0.1. So of the ranges that hold an address the longest prefix decides between `allow` and what is closed by default, as in a routing
 * table; `deny` is beyond discussion.
 */
import { OptionReader } from '@weir/core'
import { namedRanges, type RangeName, specialRanges } from './address-ranges.ts'
import { type Address, contains, faces, parseAddress, parseRange, type Range } from './ip-address.ts'
import type { Guard } from './source-options.ts'

/** A name of ranges, or a range: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`. */
export type AddressRange = RangeName | 'public' | (string & {})

export interface AddressGuardOptions {
  /**
   * Only these. A special range (loopback, link-local, metadata, unspecified, multicast, broadcast, documentation, reserved) is opened only by its own name,
   * or by a range within it: `'private'` leaves the metadata address `fd00:ec2::254` closed, which lies in it. Default: all but the special
   * ranges, so public and private addresses.
   */
  readonly allow?: readonly AddressRange[]
  /** Never these, whatever `allow` says; besides the special ranges, which stay closed. Default: none. */
  readonly deny?: readonly AddressRange[]
}

/** A pool may ask for each connection, and names may resolve to ever other addresses: answers are kept, but not without end. */
const mostKept = 1024

/**
 * May this address be used? IPv4 addresses inside IPv6 ones (mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP) are looked at as well as the
 * address that carries them. What is no IP address is refused. A network-specific NAT64 prefix cannot be known: put it into `deny`.
 *
 * @throws OptionsError
 */
export function addressGuard(options?: AddressGuardOptions): Guard {
  const read = new OptionReader('addressGuard')
  const given = read.object<AddressGuardOptions>(options, ['allow', 'deny'])
  const allow = given.allow === undefined ? everything : readRanges(given.allow, read.at('allow'))
  const deny = readRanges(given.deny ?? [], read.at('deny'))
  read.check()
  const allows = (face: Address): boolean => {
    const opened = longest(allow, face)
    return opened >= 0 && opened >= longest(special, face) && longest(deny, face) < 0
  }
  const kept = new Map<string, boolean>()
  return function guard(address) {
    const known = kept.get(address)
    if (known !== undefined) return known
    const parsed = typeof address === 'string' ? parseAddress(address) : undefined
    const allowed = parsed !== undefined && faces(parsed).every(allows)
    if (kept.size >= mostKept) kept.clear()
    kept.set(address, allowed)
    return allowed
  }
}

/** `public`: whatever has no other name. */
type Ranges = readonly (Range | 'public')[]

const everything: Ranges = [parseRange('0.0.0.0/0'), parseRange('::/0')].filter((range) => range !== undefined)
const special: Ranges = specialRanges.flatMap(rangesNamed)
const named: Ranges = (Object.keys(namedRanges) as RangeName[]).flatMap(rangesNamed)

function rangesNamed(name: RangeName): Range[] {
  return namedRanges[name].map(parseRange).filter((range) => range !== undefined)
}

/** The length of the longest prefix that holds the address, -1 when none does. */
function longest(ranges: Ranges, face: Address): number {
  let bits = -1
  for (const range of ranges) {
    if (range === 'public') bits = Math.max(bits, longest(named, face) < 0 ? 0 : -1)
    else if (range.bits > bits && contains(range, face)) bits = range.bits
  }
  return bits
}

function readRanges(list: unknown, read: OptionReader): Ranges {
  if (!Array.isArray(list)) {
    read.problem('', list, "a list such as ['private', '192.0.2.0/24']")
    return []
  }
  return list.flatMap((entry: unknown, index): (Range | 'public')[] => {
    if (entry === 'public') return [entry]
    if (typeof entry === 'string' && Object.hasOwn(namedRanges, entry)) return rangesNamed(entry as RangeName)
    const range = typeof entry === 'string' ? parseRange(entry) : undefined
    if (range !== undefined) return [range]
    const names = ['public', ...Object.keys(namedRanges)].join(', ')
    read.problem(index, entry, `one of ${names}, an address, or a range whose last bits are 0, such as 10.0.0.0/8`)
    return []
  })
}
