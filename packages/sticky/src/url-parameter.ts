/**
 * A session id in the URL, for clients that keep no cookies: `/cart;jsessionid=4711.node1?q=x`, or `?sid=4711`. Read only; the application gets its URL as it came.
 * Path parameters (RFC 3986 §3.3) may stand in any segment and come before the query. The first one counts.
 */
import type { Exchange, OptionReader } from '@weir/core'

/** Undefined where there is none; an empty one is ''. */
export function urlParameter({ url }: Pick<Exchange, 'url'>, name: string): string | undefined {
  if (!url.includes(name)) return undefined
  const query = url.indexOf('?')
  const path = query < 0 ? url : url.slice(0, query)
  // What begins with a semicolon, in whichever segment; it ends at the next one, or with its segment.
  for (let at = path.indexOf(';'); at >= 0; at = path.indexOf(';', at + 1)) {
    if (!path.startsWith(name, at + 1) || path[at + 1 + name.length] !== '=') continue
    const from = at + name.length + 2
    const ends = [path.indexOf(';', from), path.indexOf('/', from), path.length].filter((end) => end >= 0)
    return decoded(path.slice(from, Math.min(...ends)))
  }
  return query < 0 ? undefined : valueIn(url.slice(query + 1).split('&'), name)
}

function valueIn(pairs: readonly string[], name: string): string | undefined {
  for (const pair of pairs) if (pair.startsWith(name) && pair[name.length] === '=') return decoded(pair.slice(name.length + 1))
  return undefined
}

/** What is no percent-encoding is what it says. */
function decoded(value: string): string {
  if (!value.includes('%')) return value
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}

/** Reads the option that names one: characters that need no encoding, so that there is one spelling. */
export function readParameter(read: OptionReader, name: string, value: string | undefined): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && /^[A-Za-z0-9\-._~$!*+,@:]+$/.test(value)) return value
  read.problem(name, value, "the name of a parameter of the URL, such as 'jsessionid': letters, digits, and what needs no encoding")
  return undefined
}
