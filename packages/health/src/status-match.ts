/** Sets of response statuses as people write them: `200`, `'2xx'`, `'200-399'`, or a list of these. */
import type { OptionReader } from '@weir/core'

export type StatusMatch = number | `${1 | 2 | 3 | 4 | 5}xx` | `${number}-${number}`
/** One, or any of several. `[200, 399]` is the two statuses; the range is `'200-399'`. */
export type StatusMatches = StatusMatch | readonly StatusMatch[]

export type StatusSet = (status: number) => boolean

const expected = "a status, a class or a range, or a list of them: 200, '2xx', '200-399', ['2xx', 304]"

/** A look-up in 500 bits: one test per status, however many ranges there are. */
export function readStatuses(read: OptionReader, name: string, value: unknown, fallback: StatusMatches): StatusSet {
  const wanted = new Uint8Array(600)
  const given = value ?? fallback
  const list: readonly unknown[] = Array.isArray(given) ? given : [given]
  for (const entry of list) {
    const range = rangeOf(entry)
    if (range === undefined) {
      read.problem(name, value, expected)
      break
    }
    wanted.fill(1, range[0], range[1] + 1)
  }
  return (status) => wanted[status] === 1
}

function rangeOf(value: unknown): readonly [number, number] | undefined {
  if (typeof value === 'string') {
    if (/^[1-5]xx$/.test(value)) return [Number(value[0]) * 100, Number(value[0]) * 100 + 99]
    const match = /^(\d{3})-(\d{3})$/.exec(value)
    const [from, to] = [Number(match?.[1]), Number(match?.[2])]
    return from >= 100 && to <= 599 && from <= to ? [from, to] : undefined
  }
  return Number.isInteger(value) && (value as number) >= 100 && (value as number) <= 599 ? [value as number, value as number] : undefined
}
