/** A reply made of a stored response (RFC 9111 §4): all of it, a part of it, or the news that the client has it already. */
import { Readable } from 'node:stream'
import { type HeaderList, type MaybePromise, type Reply, ReplyFields } from '@weir/core'
import { isNotModified, rangeStillHolds } from './conditional.ts'
import { ageOf, type CacheEntry } from './entry.ts'
import { parseHttpDate } from './http-date.ts'
import { parseRange } from './range.ts'
import type { HotBody } from './store.ts'

/** What a request says that decides about the form of an answer. */
export interface Asked {
  readonly method: string
  readonly headers: HeaderList
  /** It has `If-None-Match` or `If-Modified-Since`. */
  readonly conditional: boolean
  readonly range: string | undefined
}

export interface Content {
  readonly entry: Pick<CacheEntry, 'status' | 'fields' | 'storedAt' | 'initialAge' | 'etag' | 'lastModified'>
  /** Bytes; undefined while that is not known. */
  readonly size: number | undefined
  /** Undefined when it has gone. */
  open(start: number, end: number): MaybePromise<Uint8Array | Readable | undefined>
}

/** The answer with all of an entry's body that was sent last. Until its age in seconds or what `Cache-Status` says changes, the next one is the same. */
export class SentAnswer {
  readonly entry: CacheEntry
  /** Seconds. */
  readonly age: number
  readonly cacheStatus: string | undefined
  readonly reply: Reply

  constructor(entry: CacheEntry, age: number, cacheStatus: string | undefined, reply: Reply) {
    this.entry = entry
    this.age = age
    this.cacheStatus = cacheStatus
    this.reply = reply
  }
}

/** Fields of the representation that a 304 leaves out (RFC 9110 §15.4.5). */
const notIn304: ReadonlySet<string> = new Set([
  'content-length',
  'content-encoding',
  'content-language',
  'content-type',
  'content-range',
  'content-md5',
  'content-digest',
  'repr-digest',
])

/** What the client has is this: it is answered without a body. */
export function hasAlready(
  asked: Asked,
  { status, etag, lastModified }: Pick<CacheEntry, 'status' | 'etag' | 'lastModified'>,
  now: number,
): boolean {
  if (!asked.conditional || !succeeded(status)) return false
  return isNotModified(asked.headers, etag, lastModified === undefined ? undefined : parseHttpDate(lastModified, now), now)
}

/** Nothing but all of the body answers this. */
export function asksForAll(asked: Asked): boolean {
  return asked.method !== 'HEAD' && !asked.conditional && asked.range === undefined
}

/** To somebody who asks for all of a body that is asked for often. @param body all of it */
export function answerAgain(entry: CacheEntry, hot: HotBody, body: Uint8Array, now: number, cacheStatus: string | undefined): Reply {
  const age = ageInSeconds(entry, now)
  const { sent } = hot
  // Another entry may have the same body, since a 304 makes a new one with another head.
  if (sent !== undefined && sent.entry === entry && sent.age === age && sent.cacheStatus === cacheStatus) return sent.reply
  const fields = new ReplyFields(complete(entry.fields, String(age), cacheStatus))
  const reply: Reply = { status: entry.status, fields, body, latin1: hot.text }
  hot.sent = new SentAnswer(entry, age, cacheStatus, reply)
  return reply
}

/** Undefined when the body has gone since it was looked up. @param cacheStatus our member of `Cache-Status` */
export function answer(asked: Asked, content: Content, now: number, cacheStatus: string | undefined): MaybePromise<Reply | undefined> {
  const { entry, size } = content
  const age = String(ageInSeconds(entry, now))
  if (hasAlready(asked, entry, now)) return { status: 304, fields: complete(without(entry.fields, notIn304), age, cacheStatus) }
  if (asked.method === 'HEAD' || entry.status === 204 || entry.status === 304) {
    const fields = complete(entry.fields, age, cacheStatus)
    if (size !== undefined && entry.status !== 204) setLength(fields, size)
    return { status: entry.status, fields }
  }
  let start = 0
  let end = size ?? Number.POSITIVE_INFINITY
  let { status } = entry
  let fields = complete(entry.fields, age, cacheStatus)
  if (asked.range !== undefined && status === 200 && size !== undefined) {
    const holds = rangeStillHolds(asked.headers.get('if-range'), entry.etag, entry.lastModified, fieldOf(entry.fields, 'date'))
    const range = holds ? parseRange(asked.range, size) : 'whole'
    if (range === 'unsatisfiable') {
      fields = complete(without(entry.fields, notIn304), age, cacheStatus)
      fields.push('Content-Range', `bytes */${size}`)
      return { status: 416, fields, body: '' }
    }
    if (range !== 'whole') {
      ;({ start, end } = range)
      status = 206
      fields = complete(without(entry.fields, lengthAndRange), age, cacheStatus)
      fields.push('Content-Range', `bytes ${start}-${end - 1}/${size}`, 'Content-Length', String(end - start))
    }
  }
  const body = content.open(start, end)
  if (body === undefined) return undefined
  if (body instanceof Uint8Array || body instanceof Readable) return { status, fields, body }
  return body.then((bytes) => (bytes === undefined ? undefined : { status, fields, body: bytes }))
}

const lengthAndRange: ReadonlySet<string> = new Set(['content-length', 'content-range', 'content-md5', 'content-digest'])

function succeeded(status: number): boolean {
  return status >= 200 && status < 300
}

function fieldOf(fields: readonly string[], lower: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if ((fields[i] as string).toLowerCase() === lower) return fields[i + 1]
  return undefined
}

function ageInSeconds(entry: Content['entry'], now: number): number {
  return Math.floor(ageOf(entry, now) / 1000)
}

function complete(fields: readonly string[], age: string, cacheStatus: string | undefined): string[] {
  const all = fields.slice()
  if (cacheStatus === undefined) all.push('Age', age)
  else all.push('Age', age, 'Cache-Status', cacheStatus)
  return all
}

function without(fields: readonly string[], names: ReadonlySet<string>): string[] {
  const kept: string[] = []
  for (let i = 0; i < fields.length; i += 2)
    if (!names.has((fields[i] as string).toLowerCase())) kept.push(fields[i] as string, fields[i + 1] as string)
  return kept
}

function setLength(fields: string[], size: number): void {
  for (let i = 0; i < fields.length; i += 2) if ((fields[i] as string).toLowerCase() === 'content-length') return
  fields.push('Content-Length', String(size))
}
