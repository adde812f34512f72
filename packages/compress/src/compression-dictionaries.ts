/**
 * Dictionaries for `dcz` (RFC 9842): earlier responses that clients have kept, so that the next one costs them only what is new. A client names the one it has by hash,
 * and whoever has the same bytes may use it. That is all there is to agree on, so all that is kept is bytes by hash, and nothing breaks when they go: the client gets
 * an answer without.
 *
 * They come in three ways: `add` puts in what the operator has (the last release, from disk); a response that says `Use-As-Dictionary` is kept as it passes; and
 * `offers` makes such responses of those whose upstreams say nothing. What one user alone may see is not kept: the memory is everybody's, and whether a hash is
 * known can be seen from outside.
 */
import { type Exchange, type HeaderList, OptionReader, type ProxyResponse, type Stage } from '@weir/core'
import { isForeign } from './cross-site.ts'
import {
  type CompressionDictionariesOptions,
  type DictionariesSettings,
  expectedPath,
  type Offer,
  readDictionariesOptions,
} from './dictionaries-options.ts'
import { availableHash, hashOf, isFormatted, offeredMatch, supportsDictionaries } from './dictionary-coding.ts'
import { DictionaryLessons } from './dictionary-lessons.ts'
import { clientPath, matchFrom, type PathMatch, pathMatch } from './dictionary-match.ts'
import { type Dictionary, DictionaryShelf } from './dictionary-shelf.ts'
import { lengthOf } from './eligibility.ts'
import { readPreferences, weightFor } from './negotiation.ts'

export interface CompressionDictionariesStats {
  /** Responses that are being packed with one now. */
  readonly active: number
  /** Dictionaries that are kept, and their bytes. */
  readonly dictionaries: number
  readonly bytes: number
  /** Kept so far from responses that passed. */
  readonly learnt: number
  /** Thrown out for others. */
  readonly evicted: number
  /** Requests that named one, by whether it was of use, counted where this stands in the pipeline. */
  readonly known: number
  readonly unknown: number
}

/** Goes to `compress({ dictionaries })`; and, where there is a cache, into the pipeline in front of it as well. */
export interface CompressionDictionaries extends Stage {
  /** False where node cannot do it: nothing is offered, kept or used, and all else goes on. */
  readonly supported: boolean
  /**
   * Keeps `content` (a copy), such as the bundle of the last release, for requests whose path fits `match`. What was learnt makes room for it, and what was added before
   * only when nothing else is left.
   * @returns its SHA-256 in base64, as in `Available-Dictionary`
   * @throws OptionsError when it is empty, longer than `maxDictionarySize`, or a dictionary in Zstandard's own format; or `match` is no path
   */
  add(content: Uint8Array, match: string): string
  has(hash: string): boolean
  /** @returns whether it was there */
  delete(hash: string): boolean
  stats(): CompressionDictionariesStats
}

/** @throws OptionsError */
export function compressionDictionaries(options?: CompressionDictionariesOptions): CompressionDictionaries {
  return new Dictionaries(readDictionariesOptions(options))
}

/** A shorter one saves less than its name costs in the head. */
const leastLearnt = 1024

/** Of the places that are remembered together with the hash of what came from there. */
const mostPassed = 1000
const longestPlace = 1024

export class Dictionaries implements CompressionDictionaries {
  readonly name: string
  readonly supported: boolean = supportsDictionaries()
  /** Counted by whoever packs. */
  active = 0
  readonly #settings: DictionariesSettings
  readonly #shelf: DictionaryShelf
  readonly #lessons: DictionaryLessons
  /** Hashes of what passed under a strong tag, so that the same response is not kept and hashed each time. */
  readonly #passed = new Map<string, string>()
  #learnt = 0
  #known = 0
  #unknown = 0

  constructor(settings: DictionariesSettings) {
    this.name = settings.name
    this.#settings = settings
    this.#shelf = new DictionaryShelf(settings.maxSize)
    this.#lessons = new DictionaryLessons(settings.clock)
  }

  get full(): boolean {
    return this.active >= this.#settings.maxActive
  }

  /** In front of a cache: a name that is of no use would make a variant of its own, and anybody can think of names. */
  handle(exchange: Exchange): undefined {
    const { headers } = exchange
    if (!headers.has('available-dictionary')) return
    if (accepts(headers) && this.find(exchange) !== undefined) this.#known++
    else {
      this.#unknown++
      headers.delete('available-dictionary')
      headers.delete('dictionary-id')
    }
  }

  add(content: Uint8Array, match: string): string {
    const read = new OptionReader('compressionDictionaries.add')
    const { longest } = this.#settings
    if (!(content instanceof Uint8Array) || content.length === 0 || content.length > longest)
      read.problem('content', content instanceof Uint8Array ? `${content.length} bytes` : content, `1 to ${longest} bytes`)
    else if (isFormatted(content)) read.problem('content', 'a dictionary of the Zstandard format', 'raw content, as a client has it')
    const fits = typeof match === 'string' ? pathMatch(match) : undefined
    if (fits === undefined) read.problem('match', match, expectedPath)
    read.check()
    const copy = Buffer.allocUnsafeSlow(content.length)
    copy.set(content)
    const hash = hashOf(copy)
    this.#shelf.put(hash, copy, match, fits as PathMatch, true)
    return hash
  }

  has(hash: string): boolean {
    return this.#shelf.has(hash)
  }

  delete(hash: string): boolean {
    return this.#shelf.delete(hash)
  }

  stats(): CompressionDictionariesStats {
    return {
      active: this.active,
      dictionaries: this.#shelf.size,
      bytes: this.#shelf.bytes,
      learnt: this.#learnt,
      evicted: this.#shelf.evicted,
      known: this.#known,
      unknown: this.#unknown,
    }
  }

  /** What the client has, we have, and is for what it asks for. */
  find(exchange: Exchange): Dictionary | undefined {
    const hash = availableHash(exchange.headers.get('available-dictionary'))
    if (hash === undefined || !this.supported || isForeign(exchange)) return undefined
    return this.#shelf.find(hash, clientPath(exchange))
  }

  /** Offers the response as a dictionary and keeps it when it has passed. Before it is encoded: the hash is that of the plain bytes. */
  observe(response: ProxyResponse, exchange: Exchange): void {
    const { headers } = response
    if (!this.supported || response.status !== 200 || exchange.method !== 'GET' || !response.hasBody) return
    const length = lengthOf(headers)
    if (length !== undefined && (length > this.#settings.longest || length < leastLearnt)) return
    if (!isPublic(headers, exchange)) return
    const path = clientPath(exchange)
    const offered = this.#offered(headers, path)
    if (offered === undefined) return
    const { match, fits } = offered
    const place = `${exchange.headers.get('host')} ${exchange.url}`
    const tag = headers.get('etag')
    const source = tag?.startsWith('"') === true && place.length + tag.length <= longestPlace ? `${place} ${tag}` : undefined
    const before = source === undefined ? undefined : this.#passed.get(source)
    if (before !== undefined && this.#shelf.widen(before, match, fits)) return
    const lesson = this.#lessons.begin(place, exchange, this.#settings.longest, length, (content) => {
      if (content.length >= leastLearnt && !isFormatted(content)) this.#learn(content, source, match, fits)
    })
    if (lesson !== undefined) response.tap(lesson)
  }

  release(exchange: Exchange): void {
    this.#lessons.release(exchange)
  }

  #offered(headers: HeaderList, path: string): Pick<Offer, 'match' | 'fits'> | undefined {
    const field = headers.get('use-as-dictionary')
    if (field === undefined) {
      const offer = this.#settings.offers.find(({ from }) => from(path))
      if (offer !== undefined) headers.set('Use-As-Dictionary', offer.field)
      return offer
    }
    const match = offeredMatch(field)
    const fits = match === undefined ? undefined : matchFrom(match, path)
    return fits === undefined ? undefined : { match: match as string, fits }
  }

  #learn(content: Buffer, source: string | undefined, match: string, fits: PathMatch): void {
    const hash = hashOf(content)
    const isNew = !this.#shelf.has(hash)
    if (!this.#shelf.put(hash, content, match, fits, false)) return
    if (isNew) this.#learnt++
    if (source === undefined) return
    this.#passed.delete(source)
    this.#passed.set(source, hash)
    if (this.#passed.size > mostPassed) this.#passed.delete(this.#passed.keys().next().value as string)
  }
}

function accepts(headers: HeaderList): boolean {
  return weightFor(readPreferences(headers.get('accept-encoding') ?? ''), 'dcz') > 0
}

const personal = /(?:^|,)\s*(?:no-store|private)\s*(?:[,=]|$)/i
const forAll = /(?:^|,)\s*public\s*(?:,|$)/i
const varyingByUser: readonly string[] = ['*', 'cookie', 'authorization']

/** What everybody who asks gets, as far as one can tell. Whoever took `Authorization` off has let somebody in by it. */
function isPublic(headers: HeaderList, exchange: Exchange): boolean {
  const coding = headers.get('content-encoding')
  if (coding !== undefined && coding.trim().toLowerCase() !== 'identity') return false
  if (exchange.headers.has('authorization') || exchange.req.headers.authorization !== undefined) return false
  const control = headers.get('cache-control') ?? ''
  if (personal.test(control) || headers.has('set-cookie')) return false
  for (const name of (headers.get('vary') ?? '').split(',')) if (varyingByUser.includes(name.trim().toLowerCase())) return false
  const hasCookie = exchange.headers.has('cookie') || exchange.req.headers.cookie !== undefined
  return !hasCookie || forAll.test(control)
}
