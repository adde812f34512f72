/**
 * HTTP dates (RFC 9110 §5.6.7): the preferred form and the two obsolete ones, of any case. What is none of them is invalid, which freshness reads as
 * "in the past": `Date.parse` would take a lot more, and each guess is a response that is served for longer than it may be.
 */

const months = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')
const imf = /^[a-z]{3}, (\d\d) ([a-z]{3}) (\d{4}) (\d\d):(\d\d):(\d\d) gmt$/i
const rfc850 = /^[a-z]{6,9}, (\d\d)-([a-z]{3})-(\d\d) (\d\d):(\d\d):(\d\d) gmt$/i
const asctime = /^[a-z]{3} ([a-z]{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})$/i

/** Milliseconds since the epoch; undefined when it is no HTTP date. @param now decides the century of a two-digit year */
export function parseHttpDate(text: string, now: number): number | undefined {
  const value = text.trim()
  let match = imf.exec(value)
  if (match !== null) return time(match[3], match[2], match[1], match[4], match[5], match[6])
  match = asctime.exec(value)
  if (match !== null) return time(match[6], match[1], match[2], match[3], match[4], match[5])
  match = rfc850.exec(value)
  if (match === null) return undefined
  // RFC 9110 §5.6.7: more than 50 years ahead is the most recent year in the past with the same last two digits.
  const thisYear = new Date(now).getUTCFullYear()
  let year = Math.floor(thisYear / 100) * 100 + Number(match[3])
  if (year > thisYear + 50) year -= 100
  return time(String(year), match[2], match[1], match[4], match[5], match[6])
}

function time(
  year: string | undefined,
  month: string | undefined,
  day: string | undefined,
  hour: string | undefined,
  minute: string | undefined,
  second: string | undefined,
): number | undefined {
  const index = months.indexOf((month ?? '').toLowerCase())
  const [h, m, s, d] = [Number(hour), Number(minute), Number(second), Number(day)]
  if (index < 0 || d < 1 || d > 31 || h > 23 || m > 59 || s > 60) return undefined
  return Date.UTC(Number(year), index, d, h, m, s)
}
