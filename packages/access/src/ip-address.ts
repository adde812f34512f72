/**
 * Addresses and ranges as 32-bit words: one for IPv4, four for IPv6, written into an array that the caller owns, so that reading the address of
 * a client allocates nothing. The same IPv4 client may come as `::ffff:a.b.c.d`; it is folded here, because a rule that can be walked past by
 * another spelling is none.
 */
import { isIP } from 'node:net'

export type Family = 4 | 6

/**
 * Reads `text` into `words`: word 0 for IPv4, words 0 to 3 for IPv6. A zone (`%eth0`) is no part of an address. 0 when it is no address.
 * Written out character by character: `split` and `isIP` make garbage, and this runs for every request.
 */
export function readAddress(text: string, words: Uint32Array): Family | 0 {
  return text.includes(':') ? readV6(text, words) : readV4(text, 0, text.length, words, 0) ? 4 : 0
}

const scratch = new Uint32Array(4)

/** One spelling for each address; what is none stays as it is. */
export function oneSpelling(text: string): string {
  const family = readAddress(text, scratch)
  if (family === 0) return text
  const [first = 0] = scratch
  if (family === 4) return `${first >>> 24}.${(first >>> 16) & 255}.${(first >>> 8) & 255}.${first & 255}`
  return Array.from(scratch, (word) => `${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`).join(':')
}

function readV4(text: string, from: number, end: number, words: Uint32Array, at: number): boolean {
  let word = 0
  let octet = -1
  let dots = 0
  for (let i = from; i < end; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x2e) {
      if (octet < 0 || dots === 3) return false
      word = (word << 8) | octet
      octet = -1
      dots++
    } else {
      // A leading zero is octal to some and decimal to others: no address for node either.
      if (code < 0x30 || code > 0x39 || octet === 0) return false
      octet = (octet < 0 ? 0 : octet * 10) + code - 0x30
      if (octet > 255) return false
    }
  }
  if (dots !== 3 || octet < 0) return false
  words[at] = (word << 8) | octet
  return true
}

const groups = new Uint16Array(8)

function readV6(text: string, words: Uint32Array): Family | 0 {
  const zone = text.indexOf('%')
  const end = zone < 0 ? text.length : zone
  let count = 0
  let gap = -1
  let i = 0
  if (text.charCodeAt(0) === 0x3a) {
    if (text.charCodeAt(1) !== 0x3a) return 0
    gap = 0
    i = 2
  }
  while (i < end) {
    if (count === 8) return 0
    const start = i
    let value = 0
    let code = 0
    for (; i < end; i++) {
      code = text.charCodeAt(i)
      const digit = hexDigit(code)
      if (digit < 0) break
      value = (value << 4) | digit
    }
    if (i < end && code === 0x2e) {
      // The last 32 bits may be written as an IPv4 address (RFC 4291 §2.2).
      if (count > 6 || !readV4(text, start, end, words, 0)) return 0
      groups[count++] = (words[0] as number) >>> 16
      groups[count++] = (words[0] as number) & 0xffff
      i = end
      break
    }
    if (i === start || i - start > 4) return 0
    groups[count++] = value
    if (i === end) break
    if (code !== 0x3a) return 0
    i++
    if (i < end && text.charCodeAt(i) === 0x3a) {
      if (gap >= 0) return 0
      gap = count
      i++
    } else if (i === end) return 0
  }
  if (gap < 0 ? count !== 8 : count > 7) return 0
  if (gap >= 0) {
    const tail = count - gap
    groups.copyWithin(8 - tail, gap, count)
    groups.fill(0, gap, 8 - tail)
  }
  // RFC 4291 §2.5.5.2.
  if (groups[0] === 0 && groups[1] === 0 && groups[2] === 0 && groups[3] === 0 && groups[4] === 0 && groups[5] === 0xffff) {
    words[0] = ((groups[6] as number) << 16) | (groups[7] as number)
    return 4
  }
  for (let word = 0; word < 4; word++) words[word] = ((groups[word * 2] as number) << 16) | (groups[word * 2 + 1] as number)
  return 6
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const lower = code | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

/** All addresses whose first `bits` are those of `base`. */
export interface Range {
  readonly family: Family
  /** One word or four. */
  readonly base: Uint32Array
  readonly bits: number
}

const namedRanges: Readonly<Record<string, readonly string[]>> = {
  all: ['0.0.0.0/0', '::/0'],
  loopback: ['127.0.0.0/8', '::1'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  // RFC 1918, RFC 4193, RFC 6598.
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'],
}

export const rangeExpected: string =
  "an IP address, a CIDR range without bits behind its prefix such as '10.0.0.0/8' or 'fd00::/8', or 'all', 'loopback', 'private', 'linklocal'"

/** One address, a CIDR range, or a named set (core's names, and `all`). Undefined when it is none of them. */
export function parseRanges(text: unknown): readonly Range[] | undefined {
  if (typeof text !== 'string') return undefined
  const named = Object.hasOwn(namedRanges, text) ? namedRanges[text] : undefined
  if (named !== undefined) return named.map((range) => parseRange(range) as Range)
  const range = parseRange(text)
  return range === undefined ? undefined : [range]
}

/** Undefined also when bits are set behind the prefix: `10.0.0.1/8` is a slip of the pen, and which half of it is right nobody can tell. */
function parseRange(text: string): Range | undefined {
  const slash = text.indexOf('/')
  const address = slash < 0 ? text : text.slice(0, slash)
  const prefix = slash < 0 ? undefined : text.slice(slash + 1)
  const version = isIP(address)
  if (version === 0 || address.includes('%') || (prefix !== undefined && !/^(?:0|[1-9]\d{0,2})$/.test(prefix))) return undefined
  const words = new Uint32Array(4)
  const family = readAddress(address, words)
  if (family === 0) return undefined
  const written = version === 4 ? 32 : 128
  let bits = prefix === undefined ? written : Number(prefix)
  if (bits > written) return undefined
  if (version === 6 && family === 4) {
    // A range that only begins within the mapped ones would be one of IPv6 and of IPv4 at once.
    if (bits < 96) return undefined
    bits -= 96
  }
  const base = words.slice(0, family === 4 ? 1 : 4)
  return base.every((word, at) => (word & hostMask(bits, at)) === 0) ? { family, base, bits } : undefined
}

/** The bits of word `at` that lie behind a prefix of `bits`. */
export function hostMask(bits: number, at: number): number {
  const kept = bits - at * 32
  return kept >= 32 ? 0 : kept <= 0 ? 0xffffffff : 0xffffffff >>> kept
}
