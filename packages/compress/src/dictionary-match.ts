/**
 * For which requests a dictionary is (`match` of RFC 9842 §2.1.1). It is a URL pattern, of which this file knows what nearly everybody writes: a path in which `*` stands
 * for anything. A client decides by its own reading which dictionary it names; here the same is asked once more, for else whoever has read a hash
 * somewhere could have any answer packed with it, at the price of reading the dictionary each time.
 */
import type { Exchange } from '@weir/core'

export type PathMatch = (path: string) => boolean

/** What has no meaning of its own in a URL pattern, and stands in a path as it is. */
const plainPath = /^\/(?!\/)[\w\-.~!$&',;=@%/*]*$/

/** Undefined when it is more than a path with stars. */
export function pathMatch(pattern: string): PathMatch | undefined {
  return plainPath.test(pattern) ? globOf(pattern) : undefined
}

/** A pattern that may be relative to the path of the response that says it. */
export function matchFrom(pattern: string, path: string): PathMatch | undefined {
  return pathMatch(pattern.startsWith('/') ? pattern : path.slice(0, path.lastIndexOf('/') + 1) + pattern)
}

/** In one pass, for the path is anybody's: a regular expression with several `.*` goes back and forth. */
function globOf(pattern: string): PathMatch {
  const parts = pattern.split('*')
  const first = parts[0] as string
  if (parts.length === 1) return (path) => path === pattern
  const last = parts.at(-1) as string
  const between = parts.slice(1, -1)
  return (path) => {
    if (!path.startsWith(first)) return false
    let at = first.length
    for (const part of between) {
      const found = path.indexOf(part, at)
      if (found < 0) return false
      at = found + part.length
    }
    return path.length - last.length >= at && path.endsWith(last)
  }
}

/** As the client asked for it, whatever a stage or a framework has made of it since; without the query. */
export function clientPath(exchange: Exchange): string {
  const { req, url, parent } = exchange
  const asked = (req as { originalUrl?: string }).originalUrl ?? req.url
  // An absolute target, or a request of the proxy's own.
  const target = parent === undefined && asked?.startsWith('/') === true ? asked : url
  const end = target.indexOf('?')
  return end < 0 ? target : target.slice(0, end)
}
