/**
 * Dictionary-Compressed Zstandard, `dcz` (RFC 9842 §5): a body packed with a dictionary that the client says it has. The dictionary is any earlier response,
 * byte for byte, known by its SHA-256. Brotli has the same (`dcb`), but node's Brotli takes no dictionary, so it is not offered.
 */
import { createHash } from 'node:crypto'
// Not by name: to import one that this node does not have is an error before anything runs.
import * as zlib from 'node:zlib'

/** A frame that decoders skip, with room for the hash. */
const magic: Uint8Array = Uint8Array.of(0x5e, 0x2a, 0x4d, 0x18, 0x20, 0x00, 0x00, 0x00)

/** What stands in front of the Zstandard frames: the decoder sees which dictionary it takes before it begins. */
export function prologueFor(hash: string): Buffer {
  return Buffer.concat([magic, Buffer.from(hash, 'base64')])
}

/** Base64, as in `Available-Dictionary`. */
export function hashOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('base64')
}

const availablePattern = /^\s*:([A-Za-z0-9+/]{43}=):\s*$/

/** The hash in `Available-Dictionary`, a byte sequence of RFC 8941; undefined for none, and for what is no SHA-256. */
export function availableHash(field: string | undefined): string | undefined {
  return field === undefined ? undefined : availablePattern.exec(field)?.[1]
}

const quoted = /"((?:[^"\\]|\\.)*)"/g
const matchMember = /(?:^|,)\s*match\s*=\s*"(\d+)"/
const typeMember = /(?:^|,)\s*type\s*=\s*([^\s;,]+)/
/** Longer ones are nobody's: what is looked for in them would be looked for again at each quote that is not closed. */
const longestOffer = 1024

/** `match` of `Use-As-Dictionary` (RFC 9842 §2.1), if it makes clients keep the response: it is required, and no type but `raw` is known. */
export function offeredMatch(field: string): string | undefined {
  if (field.length > longestOffer) return undefined
  const texts: string[] = []
  const outline = field.replaceAll(quoted, (_whole, text: string) => `"${texts.push(text) - 1}"`)
  const index = matchMember.exec(outline)?.[1]
  const type = typeMember.exec(outline)?.[1]
  if (index === undefined || (type !== undefined && type !== 'raw')) return undefined
  return texts[Number(index)]?.replaceAll(/\\(.)/g, '$1')
}

/** Zstandard would take such bytes for a dictionary in its own format, with tables, where the client takes them as they are. */
export function isFormatted(content: Uint8Array): boolean {
  return content[0] === 0x37 && content[1] === 0xa4 && content[2] === 0x30 && content[3] === 0xec
}

/** Older nodes ignore the option in silence, so it is tried: what lies in the dictionary shrinks to next to nothing, and nothing else would. */
function canUseDictionaries(): boolean {
  if (typeof (zlib as Partial<typeof zlib>).zstdCompressSync !== 'function') return false
  const sample = createHash('sha512').update('a sample that does not repeat itself').digest()
  return zlib.zstdCompressSync(sample, { dictionary: sample }).length < sample.length / 2
}

let supported: boolean | undefined

/** Whether this node can encode `dcz`: 22.19, 24.6 and later can. */
export function supportsDictionaries(): boolean {
  supported ??= canUseDictionaries()
  return supported
}
