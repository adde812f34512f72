/**
 * Addresses as numbers. The same IPv4 address can be written in many ways, and carried inside IPv6 addresses in several more: a guard that looks
 * at the text, or at the outer address alone, is one that `::ffff:169.254.169.254` walks past. So an address is read into the list of
 * all the addresses that a packet sent to it may end up at.
 */
import { isIP } from 'node:net'

/** 4 or 16 bytes. */
export type Address = Uint8Array

/** Undefined when it is no IP address. A zone (`fe80::1%eth0`) is left out, and so are the brackets of a URL. */
export function parseAddress(text: string): Address | undefined {
  const plain = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text
  const version = isIP(plain)
  if (version === 4) return Uint8Array.from(plain.split('.'), Number)
  return version === 6 ? parseV6(plain.split('%', 1)[0] as string) : undefined
}

/** `text` is valid: node has said so. */
function parseV6(text: string): Address {
  const [left = '', right] = text.split('::', 2)
  const head = groups(left)
  const tail = right === undefined ? [] : groups(right)
  const bytes = new Uint8Array(16)
  bytes.set(head, 0)
  bytes.set(tail, 16 - tail.length)
  return bytes
}

function groups(text: string): number[] {
  if (text === '') return []
  return text.split(':').flatMap((group) => {
    if (group.includes('.')) return group.split('.').map(Number)
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 0xff]
  })
}

/**
 * The addresses that stand behind one: itself, and IPv4 addresses that it carries. One that is mapped (`::ffff:a.b.c.d`) is that IPv4 address and
 * nothing else, since the system opens an IPv4 connection for it; for all others both count.
 */
export function faces(address: Address): readonly Address[] {
  if (address.length === 4) return [address]
  const at = (offset: number): Address => address.slice(offset, offset + 4)
  // RFC 4291 §2.5.5.2.
  if (begins(address, mapped)) return [at(12)]
  const carried: Address[] = [address]
  for (const [prefix, offset] of carriers) if (begins(address, prefix)) carried.push(at(offset))
  // "Compatible", RFC 4291 §2.5.5.1, deprecated. `::` and `::1` only look like it.
  if (begins(address, compatible) && (address[12] !== 0 || address[13] !== 0 || address[14] !== 0 || (address[15] as number) > 1))
    carried.push(at(12))
  // Teredo, RFC 4380 §4: the server, and the client with all bits turned.
  if (begins(address, teredo))
    carried.push(
      at(4),
      at(12).map((byte) => byte ^ 0xff),
    )
  // ISATAP, RFC 5214 §6.1: in the interface identifier, behind any prefix.
  if (((address[8] as number) & 0xfc) === 0 && address[9] === 0 && address[10] === 0x5e && address[11] === 0xfe) carried.push(at(12))
  return carried
}

const mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
const compatible = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
const teredo = [0x20, 0x01, 0, 0]

/** What begins so carries an IPv4 address at this byte. */
const carriers: readonly (readonly [prefix: readonly number[], offset: number])[] = [
  // NAT64, RFC 6052 §2.1: the well-known prefix.
  [[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0], 12],
  // 6to4, RFC 3056 §2.
  [[0x20, 0x02], 2],
  // Stateless translation, RFC 2765 §2.1: ::ffff:0:a.b.c.d.
  [[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0], 12],
]

function begins(address: Address, prefix: readonly number[]): boolean {
  return prefix.every((byte, index) => address[index] === byte)
}

/** All addresses whose first `bits` are those of `base`. */
export interface Range {
  readonly base: Address
  readonly bits: number
}

/** `10.0.0.0/8`, `fd00::/8`, or one address. Undefined when it is neither, or has bits set behind the prefix, which is a slip of the pen. */
export function parseRange(text: string): Range | undefined {
  const [head = '', length, more] = text.split('/', 3)
  const base = head.includes('%') || head.startsWith('[') ? undefined : parseAddress(head)
  if (base === undefined || more !== undefined) return undefined
  if (length !== undefined && !/^\d{1,3}$/.test(length)) return undefined
  const bits = length === undefined ? base.length * 8 : Number(length)
  if (bits > base.length * 8) return undefined
  const range = folded({ base, bits })
  return lastBitsZero(range) ? range : undefined
}

/** A range of mapped addresses is one of IPv4 addresses. */
function folded({ base, bits }: Range): Range {
  return base.length === 16 && bits >= 96 && begins(base, mapped) ? { base: base.slice(12), bits: bits - 96 } : { base, bits }
}

function lastBitsZero({ base, bits }: Range): boolean {
  return base.every((byte, index) => {
    const kept = Math.min(8, Math.max(0, bits - index * 8))
    return (byte & (0xff >> kept)) === 0
  })
}

export function contains({ base, bits }: Range, address: Address): boolean {
  if (base.length !== address.length) return false
  const whole = bits >> 3
  for (let i = 0; i < whole; i++) if (base[i] !== address[i]) return false
  const rest = bits & 7
  return rest === 0 || (((base[whole] as number) ^ (address[whole] as number)) & (0xff00 >> rest) & 0xff) === 0
}
