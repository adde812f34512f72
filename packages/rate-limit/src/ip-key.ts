/**
 * An address as a key. An IPv4 address is one client (or one NAT); an IPv6 client owns at least a /64 and can send every request from another address
 * of it, so whoever counts single addresses counts nothing. Hosters give out a /56 or a /48: a shorter prefix is stricter, and hits more neighbours.
 */

/** @param prefix bits of an IPv6 address that make the key */
export function ipKey(address: string, prefix: number): string {
  if (!address.includes(':')) return address
  const groups = expand(address)
  if (groups === undefined) return address
  // RFC 4291 §2.5.5.2: an IPv4 client, as a socket for both families names it. All such clients would have one key.
  if (groups[5] === 0xffff && groups.findIndex((group) => group !== 0) === 5) {
    const [, , , , , , high = 0, low = 0] = groups
    return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
  }
  for (let i = 0; i < 8; i++) {
    const bits = Math.min(16, Math.max(0, prefix - i * 16))
    groups[i] = (groups[i] as number) & (0xffff << (16 - bits)) & 0xffff
  }
  const kept = groups.slice(0, Math.ceil(prefix / 16)).map((group) => group.toString(16))
  return `${kept.join(':')}${kept.length < 8 ? '::' : ''}/${prefix}`
}

/** Eight numbers; undefined for what is no IPv6 address. Every spelling of an address gives the same ones. */
function expand(address: string): number[] | undefined {
  const zone = address.indexOf('%')
  const [head = '', tail, more] = (zone < 0 ? address : address.slice(0, zone)).split('::')
  if (more !== undefined) return undefined
  const left = numbers(head)
  const right = tail === undefined ? [] : numbers(tail)
  if (left === undefined || right === undefined) return undefined
  const gap = 8 - left.length - right.length
  if (tail === undefined ? gap !== 0 : gap < 1) return undefined
  return [...left, ...new Array<number>(gap).fill(0), ...right]
}

function numbers(part: string): number[] | undefined {
  if (part === '') return []
  const groups: number[] = []
  for (const group of part.split(':')) {
    // The last one may be written as an IPv4 address.
    const quad = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(group)
    if (quad !== null) groups.push(Number(quad[1]) * 256 + Number(quad[2]), Number(quad[3]) * 256 + Number(quad[4]))
    else if (/^[0-9a-f]{1,4}$/i.test(group)) groups.push(Number.parseInt(group, 16))
    else return undefined
  }
  return groups
}
