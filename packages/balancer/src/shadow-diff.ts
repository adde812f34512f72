/**
 * Two answers to one request, and where they differ. Fields that differ between any two answers of one server (dates, request ids) are left
 * out by name; everything else that is known to differ is the caller's to even out beforehand, with `normalise`.
 */

/** One side: what came back, or why nothing did. */
export interface ShadowAnswer {
  readonly status: number
  /** Flat list, case and order as received. */
  readonly headers: readonly string[]
  /** The first bytes, at most `maxCompare`. */
  readonly body: Buffer
  /** The body was longer than what is kept of it; only the kept part is compared. */
  readonly truncated: boolean
  /** From sending to the last byte, milliseconds. */
  readonly durationMs: number
}

export type ShadowDifference =
  | { readonly kind: 'status'; readonly primary: number; readonly shadow: number }
  /** Values in order of appearance; an empty list: the side has no such field. */
  | { readonly kind: 'header'; readonly name: string; readonly primary: readonly string[]; readonly shadow: readonly string[] }
  /** `offset` of the first byte that differs. */
  | { readonly kind: 'body'; readonly offset: number }

/** @param ignored names in lower case */
export function differences(primary: ShadowAnswer, shadow: ShadowAnswer, ignored: ReadonlySet<string>): ShadowDifference[] {
  const found: ShadowDifference[] = []
  if (primary.status !== shadow.status) found.push({ kind: 'status', primary: primary.status, shadow: shadow.status })
  const left = byName(primary.headers)
  const right = byName(shadow.headers)
  for (const name of new Set([...left.keys(), ...right.keys()])) {
    const ours = left.get(name) ?? []
    const theirs = right.get(name) ?? []
    if (!ignored.has(name) && !(ours.length === theirs.length && ours.every((value, i) => value === theirs[i])))
      found.push({ kind: 'header', name, primary: ours, shadow: theirs })
  }
  const offset = firstDifference(primary.body, shadow.body)
  if (offset >= 0) found.push({ kind: 'body', offset })
  return found
}

function byName(raw: readonly string[]): Map<string, string[]> {
  const fields = new Map<string, string[]>()
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    const values = fields.get(name)
    if (values === undefined) fields.set(name, [raw[i + 1] as string])
    else values.push(raw[i + 1] as string)
  }
  return fields
}

/** -1 when both are the same. */
function firstDifference(a: Buffer, b: Buffer): number {
  if (a.equals(b)) return -1
  const shorter = Math.min(a.length, b.length)
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return i
  return shorter
}
