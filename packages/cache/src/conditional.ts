/** Conditional requests (RFC 9110 §13) answered from a stored response: `If-None-Match` by weak comparison, else `If-Modified-Since`. */
import type { HeaderList } from '@weir/core'
import { parseHttpDate } from './http-date.ts'

/** Is the client's copy the stored one? @param etag of the stored response, as it is @param modified its `Last-Modified`, ms */
export function isNotModified(request: HeaderList, etag: string | undefined, modified: number | undefined, now: number): boolean {
  const noneMatch = request.get('if-none-match')
  if (noneMatch !== undefined) return etag === undefined ? noneMatch.trim() === '*' : matchesTag(noneMatch, etag)
  const since = request.get('if-modified-since')
  if (since === undefined || modified === undefined) return false
  const time = parseHttpDate(since, now)
  return time !== undefined && modified <= time
}

function matchesTag(list: string, etag: string): boolean {
  if (list.trim() === '*') return true
  const wanted = opaque(etag)
  for (const tag of entityTags(list)) if (opaque(tag) === wanted) return true
  return false
}

/** Without its weakness, and without the quotes that some leave out. */
function opaque(tag: string): string {
  const text = tag.startsWith('W/') ? tag.slice(2) : tag
  return text.length > 1 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1) : text
}

/** A comma may stand inside of the quotes. */
function entityTags(list: string): string[] {
  return list.match(/(?:W\/)?"[^"]*"|[^\s,]+/g) ?? []
}

/**
 * RFC 9110 §13.1.5: may the range be answered, or did the representation change? A strong comparison; a date has to be exactly `Last-Modified`, and that a second older
 * than `Date`, or there may have been another change within it (§8.8.2.2).
 */
export function rangeStillHolds(
  ifRange: string | undefined,
  etag: string | undefined,
  lastModified: string | undefined,
  date: string | undefined,
): boolean {
  if (ifRange === undefined) return true
  const value = ifRange.trim()
  if (value.startsWith('"')) return etag === value
  if (value.startsWith('W/')) return false
  if (lastModified === undefined || lastModified.trim() !== value || date === undefined) return false
  const [modified, sent] = [Date.parse(lastModified), Date.parse(date)]
  return sent - modified >= 1000
}
