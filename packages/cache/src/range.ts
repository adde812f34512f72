/**
 * `Range` (RFC 9110 §14) over a stored body of known length. One range is answered with 206; of several, those that can be satisfied are not sent as
 * `multipart/byteranges` but as the whole representation, which a server may do and which cannot be made larger than the original by overlapping them.
 */

export interface ByteRange {
  readonly start: number
  /** Exclusive. */
  readonly end: number
}

/** `whole`: send all of it (no byte ranges, or not well-formed, or several); `unsatisfiable`: 416. */
export function parseRange(field: string, length: number): ByteRange | 'whole' | 'unsatisfiable' {
  const match = /^bytes[ \t]*=[ \t]*(.*)$/i.exec(field.trim())
  if (match === null) return 'whole'
  const ranges: ByteRange[] = []
  let specs = 0
  for (const spec of (match[1] as string).split(',')) {
    const text = spec.trim()
    if (text === '') continue
    specs++
    const parts = /^(\d*)-(\d*)$/.exec(text)
    if (parts === null || (parts[1] === '' && parts[2] === '')) return 'whole'
    const range = resolve(parts[1] as string, parts[2] as string, length)
    if (range === 'malformed') return 'whole'
    if (range !== undefined) ranges.push(range)
  }
  if (specs === 0) return 'whole'
  if (ranges.length === 0) return 'unsatisfiable'
  return specs === 1 ? (ranges[0] as ByteRange) : 'whole'
}

function resolve(first: string, last: string, length: number): ByteRange | 'malformed' | undefined {
  if (first === '') {
    const suffix = Number(last)
    return suffix === 0 || length === 0 ? undefined : { start: Math.max(0, length - suffix), end: length }
  }
  const start = Number(first)
  if (last !== '' && Number(last) < start) return 'malformed'
  if (start >= length) return undefined
  return { start, end: last === '' ? length : Math.min(Number(last) + 1, length) }
}
