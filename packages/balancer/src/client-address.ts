/**
 * A client's address as a number to hash by. An IPv4 address is one client, or one NAT. An IPv6 host is given a whole /64 and changes its
 * address within it at will (RFC 8981), so by default only the first 64 bits count: else a phone would be another client every day.
 *
 * IPv6 addresses have many spellings (`2001:DB8::1`, `2001:db8:0:0:0:0:0:1`), and a forwarding header may hold any of them, so they are
 * parsed; by hand and one character at a time, because splitting would allocate for every request. Core has seen to it that the text is an
 * address. Anything else gets a hash too, only not a meaningful one.
 */
import { hashText, mix, stir } from './text-hash.ts'

/** @param ipv6Prefix leading bits that count, 1 to 128 @returns 32 bits, signed */
export function hashAddress(address: string, ipv6Prefix: number): number {
  if (!address.includes(':')) return hashText(address, 0)
  parse(address)
  let hash = 0
  for (let i = 0, bits = ipv6Prefix; bits > 0; i++, bits -= 16) {
    const group = groups[i] as number
    hash = stir(hash, bits >= 16 ? group : group & (0xffff << (16 - bits)))
  }
  return mix(hash)
}

const groups = new Uint16Array(8)

/** Fills `groups` with an IPv6 address (RFC 4291 §2.2). Writing beyond the eighth has no effect. */
function parse(text: string): void {
  let count = 0
  let gap = -1
  let digits = 0
  let hex = 0
  // The last 32 bits may be written as IPv4, which shows only at the first dot.
  let decimal = 0
  let octets = -1
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    // A zone (RFC 4007) names an interface of this machine, not the client.
    if (code === 0x25) break
    if (code === 0x3a) {
      if (digits > 0) groups[count++] = hex
      else gap = count
    } else if (code === 0x2e) {
      octets = Math.max(octets, 0) * 256 + decimal
    } else {
      const digit = code <= 0x39 ? code - 0x30 : (code | 0x20) - 0x57
      hex = hex * 16 + digit
      decimal = decimal * 10 + digit
      digits++
      continue
    }
    digits = 0
    hex = 0
    decimal = 0
  }
  if (octets >= 0) {
    groups[count++] = octets >>> 8
    groups[count++] = (octets << 8) | decimal
  } else if (digits > 0) groups[count++] = hex
  fillGap(gap, count)
}

/** `::` stands for as many zeros as are missing. */
function fillGap(gap: number, count: number): void {
  const missing = 8 - count
  if (gap < 0 || missing <= 0) {
    groups.fill(0, Math.min(count, 8))
    return
  }
  groups.copyWithin(gap + missing, gap, count)
  groups.fill(0, gap, gap + missing)
}
