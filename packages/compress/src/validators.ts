/**
 * What a response says about its own bytes, when the bytes become others. A strong entity tag promises the same octets, so it is weakened: the
 * meaning is the same, the octets are not. A suffix per coding would keep it strong and is the classic mistake: the upstream does not know
 * the tag that comes back, and no request is ever answered 304 again.
 *
 * What follows from a weak tag, by RFC 9110:
 * - `If-None-Match` compares weakly (§13.1.2): our tag matches the upstream's. One that compares letters does not see it, so the stage answers
 *   304 itself when the upstream's 200 has the tag that the client holds.
 * - `If-Match` compares strongly (§13.1.1): our tag never matches, the upstream answers 412. Nothing is overwritten by mistake.
 * - `If-Range` compares strongly (§13.1.5): the whole body has to be sent. An upstream that compares carelessly would send a part of the
 *   uncompressed body to a client that holds the beginning of a compressed one, so `Range` is taken off such a request.
 */
import type { HeaderList } from '@weir/core'

function isStrong(tag: string): boolean {
  return tag.startsWith('"')
}

function isWeak(tag: string): boolean {
  return tag.startsWith('W/"')
}

export function weaken(headers: HeaderList): void {
  const tag = headers.get('etag')
  if (tag === undefined || isWeak(tag)) return
  if (isStrong(tag)) headers.set('ETag', `W/${tag}`)
  // Without quotes it is no tag, and nobody can say how it will be compared.
  else headers.delete('etag')
}

/** Does `If-None-Match` hold the weak form of this strong tag, and not the tag itself? Then what the client has was made by us. */
export function holdsWeakened(ifNoneMatch: string | undefined, tag: string | undefined): boolean {
  if (ifNoneMatch === undefined || tag === undefined || !isStrong(tag)) return false
  // An opaque tag may hold commas, so the list cannot be split at them (RFC 9110 §8.8.3).
  const held: readonly string[] = ifNoneMatch.match(/(?:W\/)?"[^"]*"/g) ?? []
  return held.includes(`W/${tag}`) && !held.includes(tag)
}

/**
 * Fields with a sum over the content or the representation. RFC 9530 §2 and §3: both digests are taken over the bytes with their content coding,
 * so both are wrong now. `Digest` (RFC 3230) and `Content-MD5` (RFC 2616) are their ancestors.
 */
const digests: readonly string[] = ['content-digest', 'repr-digest', 'digest', 'content-md5']

/** A sum that comes behind the body cannot be taken off any more. */
export function announcesDigest(headers: HeaderList): boolean {
  const announced = headers.get('trailer')
  return announced?.split(',').some((name) => digests.includes(name.trim().toLowerCase())) === true
}

export function dropDigests(headers: HeaderList): void {
  for (const name of digests) headers.delete(name)
}

/** The bytes become others. Ranges of them are not to be had: the upstream would count in the old ones. */
export function recode(headers: HeaderList): void {
  weaken(headers)
  dropDigests(headers)
  headers.delete('accept-ranges')
}

/** A range of what is not the same bytes is worse than the whole. */
export function dropWeakRange(headers: HeaderList): void {
  if (headers.get('if-range')?.startsWith('W/') !== true) return
  headers.delete('range')
  headers.delete('if-range')
}

/** Describes a body, of which a 304 has none. */
const ofTheBody: ReadonlySet<string> = new Set([
  'accept-ranges',
  'content-encoding',
  'content-length',
  'content-type',
  'trailer',
  'transfer-encoding',
  ...digests,
])

/** The fields of a 304 that stands for a 200 with these (RFC 9110 §15.4.5): all that is not about the body, so that cookies are not lost. */
export function notModifiedFields(headers: HeaderList): Record<string, string[]> {
  const fields: Record<string, string[]> = Object.create(null)
  for (const [name, value] of headers) {
    const lower = name.toLowerCase()
    if (ofTheBody.has(lower)) continue
    fields[lower] ??= []
    fields[lower].push(value)
  }
  return fields
}
