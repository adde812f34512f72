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
  // A segment's name comes before its first semicolon, and is no parameter.
  for (const segment of path.split('/')) {
    const found = valueIn(segment.split(';').slice(1), name)
    if (found !== undefined) return found
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
