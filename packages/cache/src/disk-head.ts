/**
 * An entry as text, and the name of its file. A tuple instead of an object: half the bytes, and this text is what the index keeps in
 * memory, one flat string instead of some thirty objects that every collection would have to walk.
 */
import { hash } from 'node:crypto'
import type { CacheEntry } from './entry.ts'

export function encodeHead(entry: CacheEntry): string {
  return JSON.stringify([
    entry.id,
    entry.key,
    entry.url,
    entry.status,
    entry.fields,
    entry.route,
    entry.vary,
    entry.storedAt,
    entry.initialAge,
    finite(entry.lifetime),
    finite(entry.staleWhileRevalidate),
    finite(entry.staleIfError),
    entry.noCache,
    entry.mustRevalidate,
    entry.forAuthorized,
    entry.etag ?? null,
    entry.lastModified ?? null,
    entry.language ?? null,
    entry.tags,
    entry.size,
    entry.requestedAt ?? null,
  ])
}

/** JSON has no infinity, and would make null of it. */
function finite(milliseconds: number): number {
  return Math.min(milliseconds, Number.MAX_VALUE)
}

type Tuple = [
  ...[string, string, string, number, string[], string, string[], number, number, number, number, number, boolean, boolean, boolean],
  ...[string | null, string | null, string | null, string[], number, number | null],
]

/** Of what `encodeHead` gave. @throws SyntaxError, TypeError for anything else */
export function decodeHead(text: string): CacheEntry {
  const t = JSON.parse(text) as Tuple
  if (!Array.isArray(t) || t.length !== 21 || typeof t[1] !== 'string' || !Number.isSafeInteger(t[19]) || t[19] < 0)
    throw new TypeError('not the head of an entry')
  const entry = {
    id: t[0],
    key: t[1],
    url: t[2],
    status: t[3],
    fields: t[4],
    route: t[5],
    vary: t[6],
    storedAt: t[7],
    initialAge: t[8],
    lifetime: t[9],
    staleWhileRevalidate: t[10],
    staleIfError: t[11],
    noCache: t[12],
    mustRevalidate: t[13],
    forAuthorized: t[14],
    etag: t[15] ?? undefined,
    lastModified: t[16] ?? undefined,
    language: t[17] ?? undefined,
    tags: t[18],
    size: t[19],
  }
  return t[20] === null ? entry : { ...entry, requestedAt: t[20] }
}

/** `5f0`: every variant of a key is in this one, so that reading one small directory tells everything about a key. 4096 of them. */
export function folderOf(key: string): string {
  return hash('sha256', key, 'hex').slice(0, 3)
}

/** `5f0/` and 64 digits. Nothing that a client or an upstream says gets into a path but through this hash. */
export function pathOf(entry: Pick<CacheEntry, 'key' | 'route' | 'vary'>): string {
  return `${folderOf(entry.key)}/${hash('sha256', JSON.stringify([entry.key, entry.route, ...entry.vary]), 'hex')}`
}

export const folderPattern: RegExp = /^[0-9a-f]{3}$/
export const filePattern: RegExp = /^[0-9a-f]{64}$/
