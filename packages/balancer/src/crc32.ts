/**
 * CRC-32 as in Ethernet and gzip (ISO 3309, reflected, polynomial 0xEDB88320). Poor as a hash, and here for one reason: ketama rings that other
 * programs build are made of it. `node:zlib` has it too, but wants the text as bytes, which would have to be made for every pick.
 */

const table = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1
  return crc
})

/** What a byte does to the register when 1, 2 and 3 more bytes follow: four bytes are then looked up side by side ("slicing-by-4", M. Kounavis, F. Berry, 2005). */
const after1 = Int32Array.from(table, (crc) => (crc >>> 8) ^ (table[crc & 0xff] as number))
const after2 = Int32Array.from(after1, (crc) => (crc >>> 8) ^ (table[crc & 0xff] as number))
const after3 = Int32Array.from(after2, (crc) => (crc >>> 8) ^ (table[crc & 0xff] as number))

/** The register before the first byte; a checksum is the register after the last one, inverted. */
export const crcStart: number = -1

/**
 * The register after the units of a text. Units are bytes, as in everything that node:http reads off the wire (latin1); one above 0xFF, which
 * only a program can have made, counts as two.
 */
export function crcText(register: number, text: string, start: number, end: number): number {
  let crc = register
  let i = start
  for (; i + 4 <= end; i += 4) {
    const a = text.charCodeAt(i)
    const b = text.charCodeAt(i + 1)
    const c = text.charCodeAt(i + 2)
    const d = text.charCodeAt(i + 3)
    if ((a | b | c | d) > 0xff) break
    const word = crc ^ (a | (b << 8) | (c << 16) | (d << 24))
    crc =
      (after3[word & 0xff] as number) ^
      (after2[(word >>> 8) & 0xff] as number) ^
      (after1[(word >>> 16) & 0xff] as number) ^
      (table[word >>> 24] as number)
  }
  // Two of the three that may be left side by side as well.
  if (i + 2 <= end) {
    const a = text.charCodeAt(i)
    const b = text.charCodeAt(i + 1)
    if ((a | b) <= 0xff) {
      const word = crc ^ (a | (b << 8))
      crc = (crc >>> 16) ^ (after1[word & 0xff] as number) ^ (table[(word >>> 8) & 0xff] as number)
      i += 2
    }
  }
  for (; i < end; i++) {
    const unit = text.charCodeAt(i)
    if (unit > 0xff) crc = crcByte(crc, unit >>> 8)
    crc = crcByte(crc, unit)
  }
  return crc
}

/** The register after the four bytes of a number, the lowest first. */
export function crcWord(register: number, word: number): number {
  let crc = register
  for (let shift = 0; shift < 32; shift += 8) crc = crcByte(crc, word >>> shift)
  return crc
}

export function crcByte(register: number, byte: number): number {
  return (register >>> 8) ^ (table[(register ^ byte) & 0xff] as number)
}
