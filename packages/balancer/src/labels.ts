/**
 * Labels of upstreams, as they stand in `meta`: `{ version: 'canary', stage: 'prod' }`. Compared as texts, so that `meta: { shard: 7 }` answers to
 * a header that says `7`.
 */
import type { OptionReader, Upstream } from '@weir/core'

/** Name to value. All of them have to be there. */
export type Labels = Readonly<Record<string, string | number | boolean>>

export function isLabels(value: unknown): value is Labels {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.keys(value).length > 0 &&
    Object.values(value).every((label) => ['string', 'number', 'boolean'].includes(typeof label))
  )
}

export const expectedLabels: string = "labels such as { version: 'canary' }: names to texts, numbers or booleans, at least one"

export function readLabels(read: OptionReader, name: string, value: unknown): Labels | undefined {
  if (value === undefined || isLabels(value)) return value
  read.problem(name, value, expectedLabels)
  return undefined
}

/** The label as a text; undefined when the upstream has none of that name, or one that is no label. */
export function labelOf({ meta }: Upstream, name: string): string | undefined {
  const value = meta[name]
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}

export function hasLabels(upstream: Upstream, labels: Labels): boolean {
  return Object.entries(labels).every(([name, value]) => labelOf(upstream, name) === String(value))
}
