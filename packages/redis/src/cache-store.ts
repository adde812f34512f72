/**
 * The store of `@weir/cache` on Redis or Valkey: what one proxy has fetched, all have, and what one invalidates, is gone for all when its call returns.
 *
 * On a cluster a tag may be on responses of every node, and a script works on one slot. So the cache is cut into shards: a key belongs to one, and everything
 * about it, its variants, bodies and tags, lives in the slot of that shard. Whatever is done to a key is one script there; a tag is invalidated in all shards,
 * each by a script of its own. More shards spread the load, and make that dearer.
 *
 * One class, a little longer than other files: each operation is a handful of lines that agree with the others on keys, shards and what a lost reply means.
 */

import type { CacheEntry, CacheStore, Invalidation } from '@weir/cache'
import { type Clock, type Duration, OptionReader, type Size } from '@weir/core'
import { endOf, readHead, variantName, writeHead } from './cache-head.ts'
import {
  bodyScript,
  clearScript,
  findScript,
  invalidateScript,
  invalidateTagScript,
  listScript,
  longestFetch,
  putScript,
  removeScript,
  touchScript,
  updateScript,
} from './cache-script.ts'
import type { BinaryRedisClient } from './client.ts'
import { keyText } from './key-text.ts'
import { type LinkOptions, type LinkSettings, linkKeys, readLink } from './link-options.ts'
import { RedisStoreError } from './redis-error.ts'
import { RedisLink } from './redis-link.ts'
import { ServerTime } from './server-time.ts'

export interface RedisCacheOptions extends LinkOptions {
  /** From `fromIoredis` or `fromNodeRedis`. */
  readonly client: BinaryRedisClient
  /** Largest body that is kept, bytes. One is sent in one piece, within `timeout`. Default 1 MiB. */
  readonly maxObjectSize?: Size
  /** Variants of one key; the oldest goes for the next one. Default 32. */
  readonly maxVariants?: number
  /** How long a stale response that can be revalidated is kept. Default 1 h. */
  readonly keepStale?: Duration
  /**
   * Parts that the cache is cut into, each in a slot of its own. Proxies with different numbers share nothing. Default 64 on a cluster, else 1. Not many
   * where tags are invalidated all the time: each of them is asked.
   */
  readonly shards?: number
}

interface CacheSettings extends LinkSettings {
  readonly client: BinaryRedisClient
  readonly maxObjectSize: number
  readonly maxVariants: number
  readonly keepStale: number
  readonly shards: number
  /** Milliseconds of the epoch, by the clock that entries are stamped with. */
  readonly now: () => number
}

/** @throws OptionsError */
export function redisCacheStore(options: RedisCacheOptions): CacheStore {
  const read = new OptionReader('redisCacheStore')
  const given = read.object<RedisCacheOptions>(options ?? {}, [...linkKeys, 'maxObjectSize', 'maxVariants', 'keepStale', 'shards'])
  const link = readLink(read, given, 200)
  const { client } = given
  if (typeof client?.evalSha === 'function' && typeof client.binary?.evalSha !== 'function')
    read.problem('client', 'one without binary', 'a client that gives bytes: fromIoredis(client) or fromNodeRedis(client)')
  const settings: CacheSettings = {
    ...link,
    client: client as BinaryRedisClient,
    maxObjectSize: read.size('maxObjectSize', given.maxObjectSize, 1 << 20, { min: 1, max: 512 << 20 }),
    maxVariants: read.number('maxVariants', given.maxVariants, 32, { min: 1, max: 1000, integer: true }),
    keepStale: read.duration('keepStale', given.keepStale, 3_600_000),
    shards: read.number('shards', given.shards, client?.cluster === true ? 64 : 1, { min: 1, max: 1024, integer: true }),
    now: given.clock === undefined ? Date.now : epoch(link.clock),
  }
  read.check()
  return new RedisCacheStore(settings)
}

/** A test's clock runs from the moment the store is made. */
function epoch(clock: Clock): () => number {
  const offset = Date.now() - clock.now()
  return () => offset + clock.now()
}

/** What one step of a long work does at most, so that the server's other clients wait for a millisecond and not for the whole. */
const stepSize = 100

/** Shards that are asked at once. */
const abreast = 16

class Shard {
  readonly base: string
  readonly ledger: string
  readonly index: string
  readonly time: ServerTime

  constructor(base: string) {
    this.base = base
    this.ledger = `${base}ledger`
    this.index = `${base}index`
    this.time = new ServerTime()
  }
}

/** Where a key lives. */
interface Place {
  readonly shard: Shard
  readonly resource: string
  readonly name: string
}

class RedisCacheStore implements CacheStore {
  readonly name: string
  readonly #settings: CacheSettings
  readonly #shards: readonly Shard[]
  // A server that is full refuses to store, and that must keep nobody from reading, nor from invalidating: each has a circuit of its own.
  readonly #reads: RedisLink
  readonly #writes: RedisLink
  readonly #invalidations: RedisLink

  constructor(settings: CacheSettings) {
    this.name = `redis (${settings.client.name})`
    this.#settings = settings
    const { prefix, shards } = settings
    this.#shards = Array.from({ length: shards }, (_, i) => new Shard(`${prefix}:cache:{${shards}.${i}}:`))
    this.#reads = new RedisLink('cache', settings)
    this.#writes = new RedisLink('cache put', settings)
    this.#invalidations = new RedisLink('cache invalidation', settings)
  }

  /** So that the first response already can be kept; where the server cannot be reached yet, the second one is the first. */
  async start(): Promise<void> {
    await Promise.allSettled(this.#shards.map((shard) => this.#touch(shard)))
  }

  async find(key: string): Promise<readonly CacheEntry[]> {
    const { shard, resource, name } = this.#place(key)
    const [time, ...heads] = listOf(await this.#reads.run(findScript, [shard.ledger, name], [shard.base, resource]))
    this.#heard(shard, time)
    const now = this.#settings.now()
    const entries: CacheEntry[] = []
    for (const head of heads) {
      const entry = readHead(head, now)
      if (entry?.key === key) entries.push(entry)
    }
    return entries
  }

  async body(entry: CacheEntry, start: number, end: number): Promise<Buffer | undefined> {
    const { shard, resource, name } = this.#place(entry.key)
    const id = keyText(entry.id)
    const args = [shard.base, resource, id, String(entry.size), String(start), String(end)]
    const answer = await this.#reads.run(bodyScript, [bodyName(shard, id), name], args, this.#settings.client.binary)
    if (answer === null || answer === undefined) return undefined
    if (!Buffer.isBuffer(answer) || answer.length !== end - start) throw notOurs('bytes of a body')
    return answer
  }

  async put(entry: CacheEntry, body: Uint8Array): Promise<boolean> {
    const { maxObjectSize, maxVariants } = this.#settings
    const { shard, resource, name } = this.#place(entry.key)
    const variant = variantName(entry)
    if (body.length > maxObjectSize) {
      await this.#writes.run(removeScript, [shard.ledger, name], [shard.base, resource, 'field', variant])
      return false
    }
    const head = await this.#head(shard, entry)
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.length)
    const keys = [shard.ledger, shard.index, name, bodyName(shard, keyText(entry.id))]
    const args = [shard.base, resource, variant, head, String(maxVariants), bytes]
    return this.#count(shard, await this.#writes.run(putScript, keys, args)) === 1
  }

  async update(entry: CacheEntry): Promise<boolean> {
    const { shard, resource, name } = this.#place(entry.key)
    const head = await this.#head(shard, entry)
    const keys = [shard.ledger, shard.index, name, bodyName(shard, keyText(entry.id))]
    return this.#count(shard, await this.#writes.run(updateScript, keys, [shard.base, resource, variantName(entry), head])) === 1
  }

  async remove(entry: CacheEntry): Promise<boolean> {
    const { shard, resource, name } = this.#place(entry.key)
    const answer = await this.#invalidations.run(removeScript, [shard.ledger, name], [shard.base, resource, 'id', keyText(entry.id)])
    return this.#count(shard, answer) > 0
  }

  async invalidate(key: string, how: Invalidation): Promise<number> {
    const { shard, resource, name } = this.#place(key)
    return this.#count(shard, await this.#invalidations.run(invalidateScript, [shard.ledger, name], [shard.base, resource, ...wayOf(how)]))
  }

  async invalidateTag(tag: string, how: Invalidation): Promise<number> {
    const name = keyText(tag)
    let count = 0
    await this.#everywhere(async (shard) => {
      let cursor = '0'
      do {
        const args = [shard.base, name, ...wayOf(how), cursor, String(stepSize)]
        const answer = listOf(await this.#invalidations.run(invalidateTagScript, [shard.ledger, `${shard.base}t:${name}`], args))
        count += this.#count(shard, answer)
        cursor = cursorOf(answer[2])
      } while (cursor !== '0')
    })
    return count
  }

  async *entries(): AsyncIterable<CacheEntry> {
    for (const shard of this.#shards) {
      let cursor = '0'
      do {
        const [next, ...heads] = listOf(await this.#list(shard, cursor))
        const now = this.#settings.now()
        for (const head of heads) {
          const entry = readHead(head, now)
          if (entry !== undefined) yield entry
        }
        cursor = cursorOf(next)
      } while (cursor !== '0')
    }
  }

  async clear(): Promise<void> {
    await this.#everywhere(async (shard) => {
      await this.#invalidations.run(clearScript, [shard.ledger], [])
      // It is gone; this only gives back the memory.
      let cursor = '0'
      do cursor = cursorOf(listOf(await this.#list(shard, cursor))[0])
      while (cursor !== '0')
    })
  }

  /** Only the server knows, and it is not asked for a number of a page: `DBSIZE` and `INFO memory` are. */
  stats(): { readonly entries: number; readonly bytes: number } {
    return { entries: 0, bytes: 0 }
  }

  #list(shard: Shard, cursor: string): Promise<unknown> {
    return this.#invalidations.run(listScript, [shard.ledger, shard.index], [shard.base, cursor, String(stepSize)])
  }

  /** All shards, some at a time; one that fails keeps no other from being asked. */
  async #everywhere(act: (shard: Shard) => Promise<void>): Promise<void> {
    const failures: unknown[] = []
    for (let i = 0; i < this.#shards.length; i += abreast) {
      const results = await Promise.allSettled(this.#shards.slice(i, i + abreast).map((shard) => act(shard)))
      for (const result of results) if (result.status === 'rejected') failures.push(result.reason)
    }
    if (failures.length > 0) throw failures[0]
  }

  #place(key: string): Place {
    const shard = this.#shards[hash(key) % this.#shards.length] as Shard
    const resource = keyText(key)
    return { shard, resource, name: `${shard.base}r:${resource}` }
  }

  /** With its times as the server has them. */
  async #head(shard: Shard, entry: CacheEntry): Promise<string> {
    if (shard.time.offset === undefined) await this.#touch(shard)
    const { now, keepStale } = this.#settings
    const offset = shard.time.offset ?? 0
    // Without its own word for it, it was asked for at the latest when its age began, but hardly longer ago than any response takes to come.
    const asked = entry.requestedAt ?? Math.max(entry.storedAt - entry.initialAge, now() - longestFetch / 2)
    return writeHead(entry, asked + offset, endOf(entry, keepStale) + offset, keepStale)
  }

  async #touch(shard: Shard): Promise<void> {
    this.#heard(shard, listOf(await this.#reads.run(touchScript, [shard.ledger], []))[0])
  }

  #heard(shard: Shard, time: unknown): void {
    const server = typeof time === 'string' ? Number(time) : Number.NaN
    if (!Number.isFinite(server)) throw notOurs('a time')
    shard.time.heard(server, this.#settings.now())
  }

  #count(shard: Shard, answer: unknown): number {
    const [time, count] = listOf(answer)
    this.#heard(shard, time)
    const number = typeof count === 'string' ? Number(count) : Number.NaN
    if (!Number.isInteger(number)) throw notOurs('a count')
    return number
  }
}

function bodyName(shard: Shard, id: string): string {
  return `${shard.base}b:${id}`
}

function wayOf(how: Invalidation): [string, string] {
  return how.kind === 'stale' ? ['stale', String(how.now)] : ['delete', '0']
}

function listOf(answer: unknown): readonly unknown[] {
  if (!Array.isArray(answer)) throw notOurs('a list')
  return answer
}

function cursorOf(value: unknown): string {
  if (typeof value !== 'string' || !/^\d+$/.test(value)) throw notOurs('a cursor')
  return value
}

function notOurs(what: string): RedisStoreError {
  return new RedisStoreError('ERR_REDIS_REPLY', `not ${what}: no answer of this script`)
}

/** FNV-1a. */
function hash(key: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < key.length; i++) value = Math.imul(value ^ key.charCodeAt(i), 0x01000193)
  return value >>> 0
}
