/**
 * One request to the upstream for many clients. A fill begins when somebody has to ask; whoever comes meanwhile waits for its head. When the head says that it
 * may be shared, they all read along, each at its own speed, from what has come so far; when not, they go on by themselves at once. Who began it may leave.
 */
import { Readable } from 'node:stream'
import type { HeaderList } from '@weir/core'
import type { CacheEntry } from './entry.ts'
import type { Draft } from './storage.ts'

/** What a fill came to, for those who wait for its head. */
export type FillNews =
  /** Read along: `fill.reader`. */
  | { readonly kind: 'shared'; readonly fill: Fill }
  /** Look again: what was asked for is stored, or was confirmed. */
  | { readonly kind: 'stored'; readonly entry: CacheEntry }
  /** The upstream failed; this is stale, and may be served for that reason. */
  | { readonly kind: 'stale'; readonly entry: CacheEntry }
  /** Not for sharing. */
  | { readonly kind: 'uncacheable' }
  /** It came to nothing. */
  | { readonly kind: 'failed' }

export class Fill {
  /** With the route; empty for one that nobody else can join. */
  readonly key: string
  /** Key of what is fetched. */
  readonly target: string
  /** Which fills and which invalidations came first. */
  readonly began: number
  /** What its request said. */
  request: HeaderList | undefined = undefined
  /** Since the head. */
  draft: Draft | undefined = undefined
  /** From `Content-Length`. */
  length: number | undefined = undefined
  /** What it stands for was invalidated meanwhile: it is not stored. */
  obsolete: boolean = false
  /** Called when the last one who waited or read has gone, and at the moment of growing too large with nobody there. */
  onUnwanted: (() => void) | undefined = undefined
  readonly #waiting = new Set<(news: FillNews) => void>()
  readonly #readers = new Set<FillReader>()
  readonly #limit: number
  #news: FillNews | undefined = undefined
  #chunks: Uint8Array[] = []
  /** Chunks that were let go, and bytes in all. */
  #dropped = 0
  #bytes = 0
  #overflown = false
  #ended: 'complete' | 'broken' | undefined = undefined

  /** @param limit bytes that may be kept */
  constructor(key: string, target: string, began: number, limit: number) {
    this.key = key
    this.target = target
    this.began = began
    this.#limit = limit
  }

  /** Somebody besides the one who began it. */
  get wanted(): boolean {
    return this.#waiting.size > 0 || this.#readers.size > 0
  }

  get overflown(): boolean {
    return this.#overflown
  }

  /** Can somebody who comes now still read all of it? */
  get joinable(): boolean {
    // Also when all of it is there: while it is being stored, nobody finds it anywhere else.
    return this.#news === undefined || (this.#news.kind === 'shared' && !this.#overflown && this.#ended !== 'broken')
  }

  /** @returns the news if there are any, else what takes the waiter off again */
  wait(listener: (news: FillNews) => void): FillNews | (() => void) {
    if (this.#news !== undefined) return this.#news
    this.#waiting.add(listener)
    return () => {
      this.#waiting.delete(listener)
      if (!this.wanted) this.onUnwanted?.()
    }
  }

  /** The head, or what came instead. Only the first counts. */
  settle(news: FillNews): void {
    if (this.#news !== undefined) return
    this.#news = news
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const listener of waiting) listener(news)
  }

  /** The response may be shared, and its body follows. */
  share(): void {
    this.settle({ kind: 'shared', fill: this })
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes > this.#limit) this.#overflown = true
    for (const reader of this.#readers) reader.advance()
    if (this.#overflown) this.#trim()
    if (this.#overflown && !this.wanted) this.onUnwanted?.()
  }

  /** @returns the whole body when it is complete and within the limit */
  end(complete: boolean): Buffer | undefined {
    if (this.#ended !== undefined) return undefined
    this.#ended = complete ? 'complete' : 'broken'
    const whole = complete && !this.#overflown ? joined(this.#chunks, this.#bytes) : undefined
    for (const reader of [...this.#readers]) reader.advance()
    this.settle({ kind: 'failed' })
    return whole
  }

  /** From `start` up to `end` of the body. */
  reader(start: number, end: number): Readable {
    const reader = new FillReader(this, start, end)
    this.#readers.add(reader)
    return reader
  }

  // For its readers.

  /** Undefined when it has not come yet. */
  chunk(index: number): Uint8Array | undefined {
    return this.#chunks[index - this.#dropped]
  }

  get ended(): 'complete' | 'broken' | undefined {
    return this.#ended
  }

  leave(reader: FillReader): void {
    if (!this.#readers.delete(reader)) return
    if (this.#overflown) this.#trim()
    if (!this.wanted) this.onUnwanted?.()
  }

  /** Not to be kept: what all have read goes, and so does who has fallen back too far. */
  #trim(): void {
    let slowest = this.#dropped + this.#chunks.length
    for (const reader of this.#readers) {
      if (this.#bytes - reader.seen > 2 * this.#limit) {
        reader.destroy(new Error('This client is too slow for a response that is too large to be kept.'))
        continue
      }
      slowest = Math.min(slowest, reader.index)
    }
    const count = slowest - this.#dropped
    if (count > 0) {
      this.#chunks.splice(0, count)
      this.#dropped = slowest
    }
  }
}

/** In memory of exactly its size: chunks are often parts of something larger. */
function joined(chunks: readonly Uint8Array[], bytes: number): Buffer {
  const whole = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.length
  }
  return whole
}

class FillReader extends Readable {
  /** Next chunk, and bytes of those before it. */
  index = 0
  seen = 0
  readonly #fill: Fill
  readonly #start: number
  readonly #end: number
  #asked = false
  #over = false

  constructor(fill: Fill, start: number, end: number) {
    super()
    this.#fill = fill
    this.#start = start
    this.#end = end
    // It may break off before anybody reads it.
    this.on('error', () => {})
  }

  override _read(): void {
    this.#asked = true
    this.advance()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#fill.leave(this)
    done(error)
  }

  /** Something has come, or it has ended. */
  advance(): void {
    if (this.#over) return
    while (this.#asked) {
      const chunk = this.#fill.chunk(this.index)
      if (chunk === undefined) break
      const from = Math.max(0, this.#start - this.seen)
      const to = Math.min(chunk.length, this.#end - this.seen)
      this.index++
      this.seen += chunk.length
      if (from < to && !this.push(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to))) this.#asked = false
      if (this.seen >= this.#end) {
        this.#finish()
        return
      }
    }
    // What is still asked for will not come.
    if (this.#fill.chunk(this.index) !== undefined) return
    if (this.#fill.ended === 'complete') this.#finish()
    else if (this.#fill.ended === 'broken') this.destroy(new Error('The response that this client read along broke off.'))
  }

  #finish(): void {
    this.#over = true
    this.push(null)
    this.#fill.leave(this)
  }
}
