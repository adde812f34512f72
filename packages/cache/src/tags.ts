/**
 * Names for groups of responses, given by the origin: `Cache-Tag: a, b`, `Surrogate-Key: a b` (xkey), and `Cache-Groups: "a", "b"` (RFC 9875). Groups belong
 * to an origin (§2), so their names begin with it; tags are as global as the cache.
 */
import type { HeaderList } from '@weir/core'
import { parseStringList } from './structured-field.ts'

/** More than this and the response is not stored: a tag that was dropped could not be invalidated. */
const maxTags = 256
const maxTagLength = 1024

/** Headers whose tags stand between spaces; those of all others stand between commas. */
const spaced: ReadonlySet<string> = new Set(['surrogate-key', 'xkey'])

/** Undefined when there are too many, or one is too long. */
export function tagsOf(headers: HeaderList, tagHeaders: readonly string[], url: string): readonly string[] | undefined {
  const tags = new Set<string>()
  for (const header of tagHeaders) {
    const field = headers.get(header)
    if (field === undefined) continue
    for (const part of field.split(spaced.has(header.toLowerCase()) ? /[\s,]+/ : ',')) {
      const tag = part.trim()
      if (tag !== '') tags.add(tag)
    }
  }
  const groups = headers.get('cache-groups')
  for (const group of groups === undefined ? [] : (parseStringList(groups) ?? [])) tags.add(groupTag(url, group))
  if (tags.size > maxTags) return undefined
  for (const tag of tags) if (tag.length > maxTagLength) return undefined
  return tags.size === 0 ? none : [...tags]
}

const none: readonly string[] = []

/** The tag that stands for a group of this URL's origin. */
export function groupTag(url: string, group: string): string {
  return `${originOf(url)} "${group}"`
}

/** The tag of what is stored for a URL under other keys than its own. No origin can give it: a field has no line breaks. */
export function urlTag(url: string): string {
  return `\nurl ${url}`
}

/** The tag of what is found under several queries of a path. */
export function pathTag(url: string): string {
  return `\npath ${url.split('?', 1)[0]}`
}

/** Those that an origin gave. */
export function givenTags(tags: readonly string[]): readonly string[] {
  return tags.some((tag) => tag.startsWith('\n')) ? tags.filter((tag) => !tag.startsWith('\n')) : tags
}

/** `https://shop.example` of `https://shop.example/a`. */
export function originOf(url: string): string {
  const slash = url.indexOf('/', url.indexOf('://') + 3)
  return slash < 0 ? url : url.slice(0, slash)
}
