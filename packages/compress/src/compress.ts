/**
 * Compresses responses. The decision has two halves, taken where each can be: what the client takes, when the request comes in, before a stage
 * further in changes `Accept-Encoding` for its own ends; what the response allows, when its head is there. Whatever is compressed is one stream
 * of node:zlib that core pipes the body through, so back-pressure is core's and this file has none.
 *
 * A stream holds memory outside the heap until it is destroyed. It is destroyed when it has ended, when core breaks the exchange off, and for
 * whatever may have happened in between, when the exchange finishes.
 */
import type { Exchange, HeaderList, Hooks, ProxyResponse, Stage } from '@weir/core'
import type { Coding, ResponseCoding } from './codings.ts'
import { type CompressOptions, type CompressSettings, readCompressOptions } from './compress-options.ts'
import { essenceOf, isLive } from './content-types.ts'
import { isCrossSiteWithCredentials } from './cross-site.ts'
import type { Dictionary } from './dictionary-shelf.ts'
import { forbidsTransform, lengthOf, objection } from './eligibility.ts'
import { type Encoder, flushKind, makeEncoder } from './encoder.ts'
import { EventLoopLag } from './event-loop-lag.ts'
import { type CompressDecision, type CompressReason, decisions } from './events.ts'
import { chooseCoding } from './negotiation.ts'
import { TimelyFlush } from './timely-flush.ts'
import { dropWeakRange, holdsWeakened, notModifiedFields, recode, weaken } from './validators.ts'
import { varyByDictionary, varyByEncoding } from './vary.ts'

export interface CompressStats {
  /** Responses that are being compressed now. */
  readonly active: number
  /** Responses compressed so far, by coding; those that broke off included. */
  readonly compressed: Readonly<Record<ResponseCoding, number>>
  /** Those of them at the fastest level, because of `overload`. */
  readonly reduced: number
  /** Responses that were not compressed, by reason. */
  readonly skipped: Readonly<Partial<Record<CompressReason, number>>>
  /** Bytes given to the encoders, and what they made of them. */
  readonly bytesIn: number
  readonly bytesOut: number
}

export interface CompressStage extends Stage {
  /** Since the stage was made. */
  stats(): CompressStats
}

/** @throws OptionsError */
export function compress(options?: CompressOptions): CompressStage {
  const settings = readCompressOptions(options)
  const compressor = new Compressor(settings)
  const byCoding = new Map<Coding | undefined, Hooks>()
  for (const coding of [undefined, ...settings.codings]) byCoding.set(coding, hooksFor(compressor, undefined, coding))
  const withDictionary: readonly ResponseCoding[] = ['dcz', ...settings.codings]
  return {
    name: settings.name,
    handle(exchange) {
      if (exchange.kind === 'upgrade') return undefined
      dropWeakRange(exchange.headers)
      const accept = exchange.headers.get('accept-encoding')
      // As they are here: those of the client, or of a cache further out that asks for itself. A stage further in may ask for others.
      const held = exchange.headers.get('if-none-match')
      const dictionary = settings.dictionaries?.find(exchange)
      const coding = chooseCoding(accept, settings.codings)
      if (dictionary !== undefined && chooseCoding(accept, withDictionary) === 'dcz')
        return differenceHooks(compressor, held, dictionary, coding)
      return held === undefined ? byCoding.get(coding) : hooksFor(compressor, held, coding)
    },
    start: () => compressor.lag.start(),
    close: () => compressor.lag.stop(),
    stats: () => compressor.stats(),
  }
}

/** One per coding for the life of the stage: but for a dictionary or held tags, nothing is made for a request. */
function hooksFor(compressor: Compressor, held: string | undefined, coding: Coding | undefined): Hooks {
  const onResponse = (response: ProxyResponse, exchange: Exchange): void => compressor.decide(response, exchange, held, coding)
  if (coding === undefined && !compressor.learns) return { onResponse }
  return { onResponse, onFinish: (_outcome, exchange) => compressor.release(exchange) }
}

/** @param otherwise the coding where a dictionary is not worth it */
function differenceHooks(compressor: Compressor, held: string | undefined, dictionary: Dictionary, otherwise: Coding | undefined): Hooks {
  return {
    onResponse: (response, exchange) =>
      compressor.isWorth(dictionary, response.headers)
        ? compressor.decide(response, exchange, held, 'dcz', dictionary)
        : compressor.decide(response, exchange, held, otherwise),
    onFinish: (_outcome, exchange) => compressor.release(exchange),
  }
}

/** A dictionary is read before anything is packed with it: for a body shorter than this share of it, that costs more than it saves. */
const leastShare = 1 / 16

class Compressor {
  readonly lag: EventLoopLag = new EventLoopLag()
  readonly #settings: CompressSettings
  readonly #active = new Map<Exchange, Encoder>()
  readonly #compressed: Record<ResponseCoding, number> = { gzip: 0, br: 0, zstd: 0, dcz: 0 }
  readonly #skipped: Partial<Record<CompressReason, number>> = {}
  #reduced = 0
  #bytesIn = 0
  #bytesOut = 0

  constructor(settings: CompressSettings) {
    this.#settings = settings
  }

  stats(): CompressStats {
    return {
      active: this.#active.size,
      compressed: { ...this.#compressed },
      reduced: this.#reduced,
      skipped: { ...this.#skipped },
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
    }
  }

  get learns(): boolean {
    return this.#settings.dictionaries !== undefined
  }

  /** A stream of events stays for hours, and would hold its place and its memory for as long. */
  isWorth({ content }: Dictionary, headers: HeaderList): boolean {
    const length = lengthOf(headers)
    if (this.#settings.dictionaries?.full !== false || isLive(essenceOf(headers.get('content-type')))) return false
    return length === undefined || length >= content.length * leastShare
  }

  /** @param held `If-None-Match` of whoever is answered */
  decide(
    response: ProxyResponse,
    exchange: Exchange,
    held: string | undefined,
    coding: ResponseCoding | undefined,
    dictionary?: Dictionary,
  ): void {
    this.#settings.dictionaries?.observe(response, exchange)
    const reason = this.#judge(response, exchange, held, coding, dictionary)
    if (reason !== 'compressed') this.#skipped[reason] = (this.#skipped[reason] ?? 0) + 1
    if (decisions.hasSubscribers)
      decisions.publish({
        exchange,
        stage: this.#settings.name,
        coding: reason === 'compressed' ? coding : undefined,
        reason,
      } satisfies CompressDecision)
  }

  release(exchange: Exchange): void {
    this.#settings.dictionaries?.release(exchange)
    this.#discard(exchange)
  }

  #discard(exchange: Exchange): void {
    const encoder = this.#active.get(exchange)
    if (encoder === undefined) return
    this.#active.delete(exchange)
    encoder.destroy()
  }

  #judge(
    response: ProxyResponse,
    exchange: Exchange,
    held: string | undefined,
    coding: ResponseCoding | undefined,
    dictionary?: Dictionary,
  ): CompressReason {
    const settings = this.#settings
    const no = objection(response, settings)
    if (no !== undefined) return no
    const { headers } = response
    varyByEncoding(headers)
    if (settings.dictionaries?.supported === true) varyByDictionary(headers)
    if (!response.hasBody) {
      // The tag of a 304 has to be the one that the client holds, or a cache does not know what was confirmed (RFC 9111 §4.3.4).
      if (response.status === 304 && holdsWeakened(held, headers.get('etag'))) weaken(headers)
      return 'bodiless'
    }
    if (coding === undefined) return 'not-accepted'
    // RFC 9111 §5.2.1.6: the client may ask for it, too.
    if (forbidsTransform(exchange.headers)) return 'no-transform'
    if (settings.skipCrossSite && isCrossSiteWithCredentials(exchange)) return 'cross-site'
    if (response.status === 200 && exchange.method === 'GET' && holdsWeakened(held, headers.get('etag'))) {
      weaken(headers)
      response.replace({ status: 304, headers: notModifiedFields(headers) })
      return 'not-modified'
    }
    if (this.#active.size >= settings.maxActive) return 'busy'
    const lag = settings.overload === undefined ? 0 : (settings.overload.lag?.() ?? this.lag.ms)
    if (settings.overload !== undefined && lag >= settings.overload.skipAt) return 'overload'
    const fast = settings.overload !== undefined && lag >= settings.overload.reduceAt
    this.#encode(response, exchange, coding, fast, dictionary)
    return 'compressed'
  }

  #encode(response: ProxyResponse, exchange: Exchange, coding: ResponseCoding, fast: boolean, dictionary?: Dictionary): void {
    const { headers } = response
    const live = isLive(essenceOf(headers.get('content-type')))
    const encoder = makeEncoder(coding, this.#settings.encoders, { length: lengthOf(headers), live, fast, dictionary })
    const flush = new TimelyFlush(encoder, flushKind[coding], this.#settings.flushAfter, this.#settings.clock)
    this.#compressed[coding]++
    if (fast) this.#reduced++
    // A head that node refused is followed by an error answer of the same exchange: one encoder at a time.
    this.#discard(exchange)
    this.#active.set(exchange, encoder)
    const dictionaries = dictionary && this.#settings.dictionaries
    if (dictionaries !== undefined) dictionaries.active++
    encoder.once('close', () => {
      flush.stop()
      if (dictionaries !== undefined) dictionaries.active--
      if (this.#active.get(exchange) === encoder) this.#active.delete(exchange)
    })
    headers.set('Content-Encoding', coding)
    recode(headers)
    response.tap({
      onChunk: (chunk) => {
        this.#bytesIn += chunk.length
        if (!live) flush.touch()
      },
    })
    response.transform(encoder)
    response.tap({
      onChunk: (chunk) => {
        this.#bytesOut += chunk.length
      },
    })
  }
}
