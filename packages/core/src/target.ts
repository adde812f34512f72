/**
 * From the client's target to the upstream's: prefix off, prefix or base path on, everything else byte for byte. A base path is a promise
 * that nothing outside it can be reached, and servers behind us decode differently, so with one in force every spelling of `..` (raw,
 * percent-encoded, behind a backslash, with path parameters) is refused rather than resolved.
 */
import { ProxyError } from './errors.ts'

const separator = '(?:[/\\\\]|%2f|%5c)'
const climbing = new RegExp(`(?:^|${separator})(?:\\.|%2e){2}(?:$|[?;#\\0]|${separator}|%3b|%00|%23|%3f)`, 'i')

/** Segment-aware: `/api` covers `/api`, `/api/` and `/api?x`, not `/apix`. `prefix` is without a trailing slash. */
export function hasPrefix(url: string, prefix: string): boolean {
  if (!url.startsWith(prefix)) return false
  if (url.length === prefix.length) return true
  const next = url.charCodeAt(prefix.length)
  return next === 0x2f || next === 0x3f
}

/** Takes a prefix off; what is left starts with a slash and keeps its query. */
export function stripPrefix(url: string, prefix: string): string {
  const rest = url.slice(prefix.length)
  return rest.charCodeAt(0) === 0x2f ? rest : `/${rest}`
}

/** @throws ProxyError ERR_TARGET */
export function refuseClimbing(url: string): void {
  const query = url.indexOf('?')
  let path = query < 0 ? url : url.slice(0, query)
  // Servers in a row may each decode once: every depth is looked at. Each pass shortens the path, so this ends.
  for (;;) {
    if (climbing.test(path))
      throw new ProxyError('ERR_TARGET', { message: 'The target climbs out of its base path (some spelling of "..").' })
    if (!path.includes('%')) return
    // A percent sign that was itself encoded, however often, is undone in the same pass: one level a pass would let 16 KB of `%25` take 8,000.
    const decoded = path.replace(/%(?:25)*([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    if (decoded === path) return
    path = decoded
  }
}

/** `/base` + `/path`; `*` belongs to the server as a whole and has no base. */
export function joinBase(base: string, url: string): string {
  return base === '' || url === '*' ? url : base + url
}
