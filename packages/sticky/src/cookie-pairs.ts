/**
 * The request's `Cookie` fields, read and edited without being re-written. What the proxy does not own must reach the application as the client
 * sent it, octet for octet, so a line is cut at its semicolons (RFC 6265 §5.4; quotes do not protect a semicolon) and put together again from
 * the same pieces. Whatever comes is a line: nothing here throws, and everything is one pass over it.
 */
import type { HeaderList } from '@weir/core'

/** More cookies of one name than this come from somebody who wants to see us work. */
const mostCandidates = 4

/** Values of the first cookies of this name, in order; quotes around a value are taken off. */
export function cookieValues(headers: HeaderList, name: string): string[] {
  const values: string[] = []
  if (!headers.has('cookie')) return values
  for (const line of headers.getAll('cookie')) {
    if (!line.includes(name)) continue
    for (const piece of line.split(';')) {
      const value = pairValue(piece, name)
      if (value !== undefined && values.push(unquote(value)) === mostCandidates) return values
    }
  }
  return values
}

/**
 * Gives every cookie of this name what `edit` makes of its value, in quotes where it was; undefined takes the pair out. Lines that hold no such cookie keep their octets.
 * True when anything was changed.
 */
export function editCookies(headers: HeaderList, name: string, edit: (value: string) => string | undefined): boolean {
  if (!headers.has('cookie')) return false
  let changed = false
  const lines: string[] = []
  for (const line of headers.getAll('cookie')) {
    const next = line.includes(name) ? editLine(line, name, edit) : line
    if (next !== line) changed = true
    if (next !== '') lines.push(next)
  }
  if (!changed) return false
  if (lines.length === 0) headers.delete('cookie')
  else headers.set(spelling(headers, 'cookie'), lines)
  return true
}

function editLine(line: string, name: string, edit: (value: string) => string | undefined): string {
  const kept: string[] = []
  let removed = false
  for (const piece of line.split(';')) {
    const value = pairValue(piece, name)
    if (value === undefined) {
      kept.push(piece)
      continue
    }
    const next = edit(unquote(value))
    if (next === undefined) removed = true
    else kept.push(next === unquote(value) ? piece : `${kept.length === 0 ? '' : ' '}${name}=${quoteAs(value, next)}`)
  }
  const joined = kept.join(';')
  return removed ? joined.replace(/^[ \t]+/, '') : joined
}

function pairValue(piece: string, name: string): string | undefined {
  const equals = piece.indexOf('=')
  // Cookie names have case (RFC 6265 §5.3).
  return equals < 0 || piece.slice(0, equals).trim() !== name ? undefined : piece.slice(equals + 1).trim()
}

export function unquote(value: string): string {
  return value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
}

/** `next` in quotes, if `value` was. */
export function quoteAs(value: string, next: string): string {
  return value === unquote(value) ? next : `"${next}"`
}

/** How the sender spells this field: HTTP/2 wants lower case, HTTP/1.1 peers may want their own. */
export function spelling(headers: HeaderList, lower: string): string {
  const { raw } = headers
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (name.length === lower.length && name.toLowerCase() === lower) return name
  }
  return lower
}
