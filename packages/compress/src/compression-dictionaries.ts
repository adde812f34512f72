/**
 * Dictionaries for `dcz` (RFC 9842): earlier responses that clients have kept, so that the next one costs them only what is new. A client names the one it has by hash,
 * and whoever has the same bytes may use it. That is all there is to agree on, so all that this file keeps is bytes by hash, the least recently used go
 * first, and nothing breaks when they do: the client gets an answer without.
 *
 * They come in three ways: `add` puts in what the operator has (the last release, from disk); a response that says `Use-As-Dictionary` is kept as it passes; and
 * `offers` makes such responses of those whose upstreams say nothing. What one user alone may see is not kept: the memory is everybody's.
 */
import { type Exchange, type HeaderList, OptionReader, type ProxyResponse, type Size, type Stage } from '@weir/core'
import { LRUCache } from 'lru-cache'
import { availableHash, hashOf, isFormatted, offersDictionary, supportsDictionaries } from './dictionary-coding.ts'
import { lengthOf } from './eligibility.ts'
import { readPreferences, weightFor } from './negotiation.ts'

export interface DictionaryOffer {
  /**
   * For which requests clients may use the dictionary: a URL pattern without regular expressions, resolved against the response's own URL, like
   * `'/assets/app.*.js'`.
   */
  readonly match: string
  /**
   * Which responses are such dictionaries: a path without query in which `*` stands for anything, or a function of the path; by the path that went to the upstream,
   * which a stage may have rewritten. Default: `match`, which then has to be such a path.
   */
  readonly from?: string | ((path: string) => boolean)
  /** Request destinations (`'script'`, `'document'`) that the dictionary is for. Default: all. */
  readonly destinations?: readonly string[]
}

export interface CompressionDictionariesOptions {
  /** Bytes of all that is kept. Default 32 MiB. */
  readonly maxSize?: Size
  /** Longest dictionary. Default 2 MiB; at most 8 MiB, beyond which clients need not follow. Not far below the size of a bundle: a longer one is not kept at all. */
  readonly maxDictionarySize?: Size
  /**
   * Responses that are packed with one at the same time; those beyond get a coding of `codings`. Default 16. Not high: each holds five times its dictionary, at
   * least 2 MiB.
   */
  readonly maxActive?: number
  /** Responses that are sent with `Use-As-Dictionary`, in order: the first that fits. One that has the field already keeps its own. Default: none. */
  readonly offers?: readonly DictionaryOffer[]
  /** For events and order. Default `'dictionaries'`. */
  readonly name?: string
}

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
  /** Requests that named one, by whether it was there. */
  readonly known: number
  readonly unknown: number
}

/** Goes to `compress({ dictionaries })`; and, where there is a cache, into the pipeline in front of it as well. */
export interface CompressionDictionaries extends Stage {
  /** False where node cannot do it: nothing is offered, kept or used, and all else goes on. */
  readonly supported: boolean
  /**
   * Keeps `content` (a copy), such as the bundle of the last release.
   * @returns its SHA-256 in base64, as in `Available-Dictionary`
   * @throws OptionsError when it is empty, longer than `maxDictionarySize`, or a dictionary in Zstandard's own format
   */
  add(content: Uint8Array): string
  has(hash: string): boolean
  /** @returns whether it was there */
  delete(hash: string): boolean
  stats(): CompressionDictionariesStats
}

/** @throws OptionsError */
export function compressionDictionaries(options?: CompressionDictionariesOptions): CompressionDictionaries {
  const read = new OptionReader('compressionDictionaries')
  const given = read.object<CompressionDictionariesOptions>(options, ['maxSize', 'maxDictionarySize', 'maxActive', 'offers', 'name'])
  const maxSize = Math.floor(read.size('maxSize', given.maxSize, 32 << 20, { min: 4096 }))
  const longest = Math.floor(
    read.size('maxDictionarySize', given.maxDictionarySize, Math.min(2 << 20, maxSize), { min: 1, max: mostBytes }),
  )
  if (longest > maxSize) read.problem('maxDictionarySize', given.maxDictionarySize, 'a size of at most `maxSize`')
  const maxActive = read.number('maxActive', given.maxActive, 16, { min: 1, max: 10_000, integer: true })
  const offers = readOffers(read, given.offers)
  const name = read.name('name', given.name, 'dictionaries')
  read.check()
  return new Dictionaries(name, maxSize, longest, maxActive, offers)
}

/** RFC 9842 §5: the window that every client takes. A longer dictionary would leave it in the middle of a body as long. */
const mostBytes: number = 8 << 20

/** Bodies that are kept at the same time while they pass; the next ones pass unseen and are learnt another time. */
const mostLessons = 16

interface Offer {
  readonly field: string
  readonly from: (path: string) => boolean
}

export class Dictionaries implements CompressionDictionaries {
  readonly name: string
  readonly supported: boolean = supportsDictionaries()
  /** Counted by whoever packs. */
  active = 0
  readonly #longest: number
  readonly #maxActive: number
  readonly #offers: readonly Offer[]
  readonly #contents: LRUCache<string, Buffer>
  /** Hashes of what passed under a strong tag, so that the same response is not hashed each time. */
  readonly #passed = new LRUCache<string, string>({ max: 1000 })
  /** Where what is being learnt comes from: of a crowd that fetches the same, one is enough. */
  readonly #lessons = new Map<Exchange, string>()
  readonly #places = new Set<string>()
  #learnt = 0
  #evicted = 0
  #known = 0
  #unknown = 0

  constructor(name: string, maxSize: number, longest: number, maxActive: number, offers: readonly Offer[]) {
    this.name = name
    this.#longest = longest
    this.#maxActive = maxActive
    this.#offers = offers
    this.#contents = new LRUCache({
      maxSize,
      sizeCalculation: (content) => content.length,
      dispose: (_content, _hash, reason) => {
        if (reason === 'evict') this.#evicted++
      },
    })
  }

  get full(): boolean {
    return this.active >= this.#maxActive
  }

  /** In front of a cache: a name that nobody here knows would make a variant of its own, and anybody can think of names. */
  handle({ headers }: Exchange): undefined {
    const field = headers.get('available-dictionary')
    if (field === undefined) return
    const hash = availableHash(field)
    const useful = this.supported && hash !== undefined && this.#contents.has(hash) && accepts(headers)
    if (useful) this.#known++
    else {
      this.#unknown++
      headers.delete('available-dictionary')
      headers.delete('dictionary-id')
    }
  }

  add(content: Uint8Array): string {
    const read = new OptionReader('compressionDictionaries.add')
    if (!(content instanceof Uint8Array) || content.length === 0 || content.length > this.#longest)
      read.problem('content', content instanceof Uint8Array ? `${content.length} bytes` : content, `1 to ${this.#longest} bytes`)
    else if (isFormatted(content)) read.problem('content', 'a dictionary of the Zstandard format', 'raw content, as a client has it')
    read.check()
    const copy = Buffer.from(content)
    const hash = hashOf(copy)
    this.#contents.set(hash, copy)
    return hash
  }

  has(hash: string): boolean {
    return this.#contents.has(hash)
  }

  delete(hash: string): boolean {
    return this.#contents.delete(hash)
  }

  stats(): CompressionDictionariesStats {
    return {
      active: this.active,
      dictionaries: this.#contents.size,
      bytes: this.#contents.calculatedSize,
      learnt: this.#learnt,
      evicted: this.#evicted,
      known: this.#known,
      unknown: this.#unknown,
    }
  }

  find(hash: string): Buffer | undefined {
    return this.supported ? this.#contents.get(hash) : undefined
  }

  /** Offers the response as a dictionary and keeps it when it has passed. Before it is encoded: the hash is that of the plain bytes. */
  observe(response: ProxyResponse, exchange: Exchange): void {
    const { headers } = response
    if (!this.supported || response.status !== 200 || exchange.method !== 'GET' || !response.hasBody) return
    const length = lengthOf(headers)
    if ((length ?? 1) > this.#longest || length === 0 || !isPublic(response, exchange)) return
    let field = headers.get('use-as-dictionary')
    if (field === undefined) {
      const path = pathOf(exchange.url)
      field = this.#offers.find(({ from }) => from(path))?.field
      if (field === undefined) return
      headers.set('Use-As-Dictionary', field)
    } else if (!offersDictionary(field)) return
    const place = `${exchange.headers.get('host')} ${exchange.url}`
    const tag = headers.get('etag')
    const source = tag?.startsWith('"') === true ? `${place} ${tag}` : undefined
    const before = source === undefined ? undefined : this.#passed.get(source)
    if ((before !== undefined && this.#contents.has(before)) || this.#places.has(place) || this.#places.size >= mostLessons) return
    // A head that node refused is followed by an error answer of the same exchange.
    this.release(exchange)
    this.#places.add(place)
    this.#lessons.set(exchange, place)
    response.tap(new Lesson(this.#longest, (content) => this.#learn(content, source)))
  }

  /** The exchange is over, whatever became of the body. */
  release(exchange: Exchange): void {
    const place = this.#lessons.get(exchange)
    if (place === undefined) return
    this.#lessons.delete(exchange)
    this.#places.delete(place)
  }

  #learn(content: Buffer, source: string | undefined): void {
    if (isFormatted(content)) return
    const hash = hashOf(content)
    if (source !== undefined) this.#passed.set(source, hash)
    if (!this.#contents.has(hash)) this.#learnt++
    this.#contents.set(hash, content)
  }
}

/** One body on its way: a copy of it, forgotten when it breaks off or grows too long. */
class Lesson {
  readonly #longest: number
  readonly #done: (content: Buffer) => void
  #chunks: Buffer[] = []
  #length = 0

  constructor(longest: number, done: (content: Buffer) => void) {
    this.#longest = longest
    this.#done = done
  }

  onChunk(chunk: Uint8Array): void {
    this.#length += chunk.length
    // The bytes may lie in memory that is read into again.
    if (this.#length <= this.#longest) this.#chunks.push(Buffer.from(chunk))
    else this.#chunks = []
  }

  onEnd(complete: boolean): void {
    if (complete && this.#length > 0 && this.#length <= this.#longest) this.#done(Buffer.concat(this.#chunks))
    this.#chunks = []
  }
}

function accepts(headers: HeaderList): boolean {
  return weightFor(readPreferences(headers.get('accept-encoding') ?? ''), 'dcz') > 0
}

const personal = /(?:^|,)\s*(?:no-store|private)\s*(?:[,=]|$)/i

function isPublic({ headers }: ProxyResponse, exchange: Exchange): boolean {
  const coding = headers.get('content-encoding')
  if (coding !== undefined && coding.trim().toLowerCase() !== 'identity') return false
  return !personal.test(headers.get('cache-control') ?? '') && !headers.has('set-cookie') && !exchange.headers.has('authorization')
}

function pathOf(url: string): string {
  const end = url.indexOf('?')
  return end < 0 ? url : url.slice(0, end)
}

/** Also as a URL pattern: without what has a meaning of its own there. */
const plainPath = /^\/[\w\-.~!$&'*,;=@%/]*$/
const forbiddenInString = /[^\x20-\x7e]/

function readOffers(read: OptionReader, given: CompressionDictionariesOptions['offers']): readonly Offer[] {
  if (given === undefined) return []
  if (!Array.isArray(given)) {
    read.problem('offers', given, "a list like [{ match: '/assets/app.*.js' }]")
    return []
  }
  const list: readonly DictionaryOffer[] = given
  const at = read.at('offers')
  return list.map((offer, index) => readOffer(at.at(index), offer))
}

function readOffer(read: OptionReader, offer: DictionaryOffer): Offer {
  const { match, from, destinations = [] } = read.object<DictionaryOffer>(offer, ['match', 'from', 'destinations'])
  if (typeof match !== 'string' || match === '' || forbiddenInString.test(match) || match.includes('(')) {
    read.problem('match', match, "a URL pattern in ASCII without groups, like '/assets/app.*.js'")
    return { field: '', from: () => false }
  }
  if (from !== undefined && typeof from !== 'function' && !(typeof from === 'string' && plainPath.test(from)))
    read.problem('from', from, "a path without query like '/assets/app.*.js', or a function of the path")
  if (from === undefined && !plainPath.test(match))
    read.problem('from', from, '`match` is more than a path, so say which responses are meant')
  const isList = Array.isArray(destinations) && destinations.every((each) => typeof each === 'string' && /^[a-z-]+$/.test(each))
  if (!isList) read.problem('destinations', destinations, "a list like ['script', 'document']")
  const list = isList && destinations.length > 0 ? `, match-dest=(${destinations.map(asString).join(' ')})` : ''
  return {
    field: `match=${asString(match)}${list}`,
    from: typeof from === 'function' ? from : globOf(typeof from === 'string' ? from : match),
  }
}

/** RFC 8941 §4.1.6. */
function asString(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`
}

/** In one pass, for the path is anybody's: a regular expression with several `.*` goes back and forth. */
function globOf(pattern: string): (path: string) => boolean {
  const parts = pattern.split('*')
  const first = parts[0] as string
  if (parts.length === 1) return (path) => path === pattern
  const last = parts.at(-1) as string
  const between = parts.slice(1, -1)
  return (path) => {
    if (!path.startsWith(first)) return false
    let at = first.length
    for (const part of between) {
      const found = path.indexOf(part, at)
      if (found < 0) return false
      at = found + part.length
    }
    return path.length - last.length >= at && path.endsWith(last)
  }
}
