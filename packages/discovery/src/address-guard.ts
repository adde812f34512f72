/**
 * Which addresses a name may lead to. Whoever can write a DNS record, or a line in a registry, can otherwise make the proxy talk to its own
 * machine's admin port or to the cloud's metadata service, from within the network (server-side request forgery). The same function serves
 * twice: sources drop what it refuses, and a pool's `allowAddress` asks it again at the moment of connecting, when a name may lead elsewhere.
 *
 * The most specific range decides, as in a routing table: `allow: ['10.1.0.0/16']` opens a part of what `deny: ['private']` closes, and
 * `allow: ['link-local']` does not open the metadata address within it. Where both are equally specific, `allow` wins, as it was typed.
 */
import { type AddressCheck, OptionReader } from '@weir/core'
import { namedRanges, type RangeName, refusedByDefault } from './address-ranges.ts'
import { type Address, contains, faces, parseAddress, parseRange, type Range } from './ip-address.ts'

/** A name of ranges, or a range: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`. */
export type AddressRange = RangeName | (string & {})

export interface AddressGuardOptions {
  /** Opens what is closed. Default: nothing. With `deny: ['all']` it is the list of what is allowed. */
  readonly allow?: readonly AddressRange[]
  /**
   * Closes more than what is closed anyway: `broadcast`, `documentation`, `link-local`, `loopback`, `metadata`, `multicast`, `reserved` and
   * `unspecified`, which go only by `allow`. Default: no more.
   */
  readonly deny?: readonly AddressRange[]
}

interface Rule extends Range {
  readonly allowed: boolean
}

/** Answers are kept, since a pool may ask at every request; a name that resolves to ever other addresses must not fill the memory. */
const mostKept = 1024

/**
 * May this address be used? IPv4 addresses within IPv6 ones (mapped, NAT64, 6to4, Teredo, ISATAP, translated, compatible) are looked at as well. What
 * is no IP address is refused.
 * @throws OptionsError
 */
export function addressGuard(options: AddressGuardOptions = {}): AddressCheck {
  const read = new OptionReader('addressGuard')
  const given = read.object<AddressGuardOptions>(options, ['allow', 'deny'])
  const rules = [
    ...rulesOf(given.allow, true, read.at('allow')),
    ...rulesOf(given.deny, false, read.at('deny')),
    ...rulesOf(refusedByDefault, false, read),
  ]
  read.check()
  // The first that fits decides; the sort is stable, so `allow` is in front of its equals.
  rules.sort((a, b) => b.bits - a.bits)
  const allows = (face: Address): boolean => rules.find((rule) => contains(rule, face))?.allowed ?? true
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

function rulesOf(list: readonly string[] | undefined, allowed: boolean, read: OptionReader): Rule[] {
  if (list === undefined) return []
  if (!Array.isArray(list)) {
    read.problem('', list, "a list such as ['private', '10.0.0.0/8']")
    return []
  }
  return list.flatMap((entry: unknown, index) => {
    const texts = typeof entry !== 'string' ? [] : Object.hasOwn(namedRanges, entry) ? namedRanges[entry as RangeName] : [entry]
    const ranges = texts.map(parseRange).filter((range) => range !== undefined)
    if (ranges.length === 0)
      read.problem(
        index,
        entry,
        `one of ${Object.keys(namedRanges).join(', ')}, an address, or a range whose last bits are 0, such as 10.0.0.0/8`,
      )
    return ranges.map((range) => ({ ...range, allowed }))
  })
}
