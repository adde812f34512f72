/** Which web origins may read answers: by text, by pattern, or by a function. */
import type { Exchange, OptionReader } from '@weir/core'

/** `'*'` for everybody, an origin such as `'https://app.example.com'`, a RegExp that is asked with `^` and `$` around it, a function, or a list of these but `'*'`. */
export type CorsOrigin = string | RegExp | ((origin: string, exchange: Exchange) => boolean)

export type OriginCheck = (origin: string, exchange: Exchange) => boolean

/** Scheme, host, port, as browsers write it (RFC 6454 §6.2). */
const originPattern = /^[a-z][a-z0-9+.-]*:\/\/(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/

function isOrigin(text: string): boolean {
  return text.length <= 512 && originPattern.test(text)
}

/** `'*'` when everybody may. */
export function readOrigins(read: OptionReader, value: unknown): OriginCheck | '*' {
  if (value === '*') return '*'
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  const texts = new Set<string>()
  const checks: OriginCheck[] = []
  list.forEach((entry, index) => {
    if (typeof entry === 'string' && isOrigin(entry)) texts.add(entry)
    else if (typeof entry === 'function') checks.push(entry as OriginCheck)
    else if (entry instanceof RegExp && !entry.global && !entry.sticky) {
      // Half a pattern is the classic hole: /example\.com$/ lets evil-example.com in.
      const whole = new RegExp(`^(?:${entry.source})$`, entry.flags)
      checks.push((origin) => whole.test(origin))
    } else {
      const expected =
        "an origin in lower case without a path such as 'https://app.example.com', a RegExp without the flags g and y, or a function; '*' only by itself"
      if (Array.isArray(value)) read.at('origins').problem(index, entry, expected)
      else read.problem('origins', entry, expected)
    }
  })
  if (list.length === 0) read.problem('origins', value, 'at least one origin')
  return (origin, exchange) => isOrigin(origin) && (texts.has(origin) || checks.some((check) => check(origin, exchange)))
}
