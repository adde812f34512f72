/**
 * A ring of points, in which a key belongs to the first point at or behind its hash. Every server has as many points as it has weight, at places
 * that come from its name alone: one that leaves gives its stretches to whoever comes next on the ring, and nobody else's keys move.
 *
 * The places are those of nginx's `hash ... consistent`, which are those of the Perl client Cache::Memcached::Fast: 160 per unit of weight, each
 * the CRC-32 of the host, a zero byte, the port, and the four bytes of the point before. So Weir can stand beside an nginx, or take its place,
 * and every key stays where it is.
 */
import { crcByte, crcStart, crcText, crcWord } from './crc32.ts'

export interface RingServer {
  /** As it would stand behind `server` in an nginx configuration: `10.0.0.1:3000`, `app.internal`, `unix:/run/app.sock`. */
  readonly name: string
  readonly weight: number
}

const pointsPerWeight = 160

/** Most points of one ring: 160 for each of 13,000 servers, and some 20 MB. With more weight than that, each gets fewer in proportion. */
const mostPoints = 2 ** 21

const indexBits = 14

export class KetamaRing {
  /** Ascending. */
  readonly #hashes: Uint32Array
  readonly #owners: Int32Array
  /** The first point at or behind each 2^-14 of the circle: a key then finds its point in a few steps, where a bisection takes twenty. */
  readonly #index: Int32Array

  /** @param servers not empty; where two have a point in the same place, it belongs to the one that is listed first */
  constructor(servers: readonly RingServer[]) {
    const total = servers.reduce((sum, { weight }) => sum + weight, 0)
    const perWeight = Math.min(pointsPerWeight, mostPoints / total)
    // A weight need not be whole while a slow start ramps it. Points are laid in the same order whatever their number, so a ramp only ever adds.
    const counts = servers.map(({ weight }) => Math.max(1, Math.round(weight * perWeight)))
    const length = counts.reduce((sum, count) => sum + count, 0)
    let hashes: Uint32Array<ArrayBufferLike> = new Uint32Array(length)
    let owners: Int32Array<ArrayBufferLike> = new Int32Array(length)
    let at = 0
    servers.forEach(({ name }, owner) => {
      const base = crcName(name)
      let previous = 0
      for (let points = counts[owner] as number; points > 0; points--) {
        previous = ~crcWord(base, previous)
        hashes[at] = previous
        owners[at++] = owner
      }
    })
    ;[hashes, owners] = sort(hashes, owners)
    let kept = 0
    for (let i = 1; i < length; i++) {
      if (hashes[i] === hashes[kept]) continue
      kept++
      hashes[kept] = hashes[i] as number
      owners[kept] = owners[i] as number
    }
    this.#hashes = hashes.slice(0, kept + 1)
    this.#owners = owners.slice(0, kept + 1)
    this.#index = new Int32Array(2 ** indexBits)
    for (let cell = 0, point = 0; cell < this.#index.length; cell++) {
      while (point <= kept && (this.#hashes[point] as number) < cell * 2 ** (32 - indexBits)) point++
      this.#index[cell] = point
    }
  }

  get size(): number {
    return this.#hashes.length
  }

  /** The point that a hash (signed 32 bits) belongs to. */
  point(hash: number): number {
    let point = this.#index[hash >>> (32 - indexBits)] as number
    while (point < this.#hashes.length && (this.#hashes[point] as number) < hash >>> 0) point++
    return point === this.#hashes.length ? 0 : point
  }

  /** Index of the server that has this point. */
  owner(point: number): number {
    return this.#owners[point] as number
  }
}

/** What a server is called before the first point. A port is what stands behind a last colon, if that is nothing but digits. */
function crcName(name: string): number {
  let start = 0
  let end = name.length
  let port = name.length
  if (/^unix:/i.test(name)) start = 5
  else {
    const digits = /:(\d*)$/.exec(name)
    if (digits !== null) {
      end = digits.index
      port = digits.index + 1
    }
  }
  return crcText(crcByte(crcText(crcStart, name, start, end), 0), name, port, name.length)
}

/** By radix, since a comparison sort of a million points stops the process for a fifth of a second. Stable: of equals the first stays first. */
function sort(
  hashes: Uint32Array<ArrayBufferLike>,
  owners: Int32Array<ArrayBufferLike>,
): [Uint32Array<ArrayBufferLike>, Int32Array<ArrayBufferLike>] {
  let from: [Uint32Array<ArrayBufferLike>, Int32Array<ArrayBufferLike>] = [hashes, owners]
  let to: [Uint32Array<ArrayBufferLike>, Int32Array<ArrayBufferLike>] = [new Uint32Array(hashes.length), new Int32Array(hashes.length)]
  for (let shift = 0; shift < 32; shift += 11) {
    const [keys, values] = from
    const [sortedKeys, sortedValues] = to
    const places = new Int32Array(2 ** 11 + 1)
    for (let i = 0; i < keys.length; i++) (places[(((keys[i] as number) >>> shift) & 0x7ff) + 1] as number)++
    for (let digit = 1; digit < places.length; digit++) (places[digit] as number) += places[digit - 1] as number
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as number
      const digit = (key >>> shift) & 0x7ff
      const place = places[digit] as number
      places[digit] = place + 1
      sortedKeys[place] = key
      sortedValues[place] = values[i] as number
    }
    ;[from, to] = [to, from]
  }
  return from
}
