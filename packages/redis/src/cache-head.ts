/**
 * The head of a stored response as Redis keeps it: a line of what the scripts calculate with, a line of tags, and the entry as JSON. What comes back is looked at
 * before anybody relies on it, since the server is shared with others: whatever is not an entry is not there.
 */
import { createHash } from 'node:crypto'
import type { CacheEntry } from '@weir/cache'
import { keyText } from './key-text.ts'

/** The last moment that a Date can name. */
const farthest = 8.64e15

/** Which variant of its resource it is, as a name. */
export function variantName({ route, vary }: CacheEntry): string {
  return createHash('sha1')
    .update(JSON.stringify([route, ...vary]))
    .digest('base64url')
}

/** Until when it is of use, by the clock that its times are of: fresh, then stale as long as somebody may have it or ask whether it still holds. */
export function endOf(entry: CacheEntry, keepStale: number): number {
  return Math.min(farthest, entry.storedAt + Math.max(0, entry.lifetime - entry.initialAge) + beyond(entry, keepStale))
}

function beyond(entry: CacheEntry, keepStale: number): number {
  const hasValidator = entry.etag !== undefined || entry.lastModified !== undefined
  return Math.max(entry.staleWhileRevalidate, entry.staleIfError, hasValidator ? keepStale : 0)
}

/** @param asked when it was asked for, and @param ends until when it is kept, by the server's clock */
export function writeHead(entry: CacheEntry, asked: number, ends: number, keepStale: number): string {
  const { storedAt, initialAge, lifetime, size } = entry
  const numbers = [0, ends, asked, storedAt, initialAge, lifetime, beyond(entry, keepStale), 0, size]
  return `w1 ${numbers.join(' ')} ${keyText(entry.id)}\n${entry.tags.map(keyText).join(' ')}\n${JSON.stringify(entry)}`
}

const line = /^w1 \S+ \S+ \S+ \S+ \S+ (\S+) \S+ ([01]) \S+ \S+$/

/** Undefined for what is none. @param now by the clock of this process */
export function readHead(text: unknown, now: number): CacheEntry | undefined {
  if (typeof text !== 'string') return undefined
  const first = text.indexOf('\n')
  const second = text.indexOf('\n', first + 1)
  const [, life, soft] = line.exec(text.slice(0, first)) ?? []
  const entry = second < 0 ? undefined : parse(text.slice(second + 1))
  if (entry === undefined || soft === undefined) return undefined
  if (soft === '0') return entry
  // Stale whatever the difference between the clocks: that of whoever said so and this one.
  const age = entry.initialAge + Math.max(0, now - entry.storedAt)
  return { ...entry, lifetime: Math.min(Number(life), age) }
}

function parse(json: string): CacheEntry | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return isEntry(value) ? value : undefined
  } catch {
    return undefined
  }
}

const kinds = {
  string: ['id', 'key', 'url', 'route'],
  number: ['status', 'storedAt', 'initialAge', 'lifetime', 'staleWhileRevalidate', 'staleIfError', 'size'],
  boolean: ['noCache', 'mustRevalidate', 'forAuthorized'],
} as const satisfies Record<string, readonly (keyof CacheEntry)[]>
const lists = ['fields', 'vary', 'tags'] as const
const optional = ['etag', 'lastModified', 'language'] as const

function isEntry(value: unknown): value is CacheEntry {
  if (typeof value !== 'object' || value === null) return false
  const entry = value as Partial<Record<keyof CacheEntry, unknown>>
  for (const [kind, names] of Object.entries(kinds)) for (const name of names) if (typeof entry[name] !== kind) return false
  for (const name of lists) {
    const list = entry[name]
    if (!Array.isArray(list) || !list.every((item) => typeof item === 'string')) return false
  }
  // So that it looks like one that never left the process.
  for (const name of optional) {
    entry[name] ??= undefined
    if (entry[name] !== undefined && typeof entry[name] !== 'string') return false
  }
  return true
}
