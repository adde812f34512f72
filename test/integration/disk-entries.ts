/**
 * Entries of a disk store for tests in several processes: a body is made of its id, so that whoever reads it can tell whether it is whole.
 */
import { createHash } from 'node:crypto'
import type { CacheEntry } from '@weir/cache'

export function diskEntry(key: string, id: string, size: number, lifetime: number): CacheEntry {
  return {
    id,
    key,
    url: `https://shop.example/${key}`,
    status: 200,
    fields: ['Content-Type', 'text/plain'],
    route: 'shop',
    vary: [],
    storedAt: 1_700_000_000_000,
    initialAge: 0,
    lifetime,
    staleWhileRevalidate: 0,
    staleIfError: 0,
    noCache: false,
    mustRevalidate: false,
    forAuthorized: false,
    etag: undefined,
    lastModified: undefined,
    language: undefined,
    tags: [`tag-${key}`],
    size,
  }
}

export function diskBody(id: string, size: number): Buffer {
  const pattern = createHash('sha512').update(id).digest()
  const body = Buffer.alloc(size, pattern)
  // Blocks are not alike, either.
  for (let at = 0; at + 4 <= size; at += 1024) body.writeUInt32BE(at, at)
  return body
}
