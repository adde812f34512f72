/**
 * Decodes what an upstream has encoded, for a client that does not take the coding, or always, for stages outside that want to read the body.
 * An upstream that sends Brotli to everybody (a bucket of files packed once, an application that ignores `Accept-Encoding`) is why.
 *
 * A coded body is a promise about a size that nobody has checked: a few KiB of it can unpack to gigabytes. The body streams, so memory is not
 * at risk, but time and bandwidth are. What unpacks to too much is broken off.
 */
import { type Exchange, type Hooks, OptionReader, type ProxyResponse, type Size, type Stage } from '@weir/core'
import { allCodings, type Coding } from './codings.ts'
import { readCodings } from './compress-options.ts'
import { layersOf, maxLayers } from './content-encoding.ts'
import { isDecodable, makeDecoder } from './decoder.ts'
import { forbidsTransform } from './eligibility.ts'
import { type CompressDecision, type DecompressReason, decisions } from './events.ts'
import { readPreferences, weightFor } from './negotiation.ts'
import { announcesDigest, dropWeakRange, holdsWeakened, recode, weaken } from './validators.ts'
import { varyByEncoding } from './vary.ts'

export interface DecompressOptions {
  /** What is decoded. Default all: zstd, br, gzip. Zstandard is left out where node does not notice that a body is cut short. */
  readonly codings?: readonly Coding[]
  /** For every client, also those that take the coding: when a stage outside this one reads bodies. Default false. */
  readonly always?: boolean
  /** Of the decoded body, in bytes. What is larger breaks off. Default 1 GiB. */
  readonly maxSize?: Size
  /** Decoded bytes per coded byte, behind the first MiB. Default 200: texts reach 20, and files full of zeros 1000. */
  readonly maxRatio?: number
  /** For events and order. Default `'decompress'`. */
  readonly name?: string
}

export interface DecompressStats {
  /** Responses that are being decoded now. */
  readonly active: number
  /** Responses decoded so far. */
  readonly decoded: number
  /** Those of them that broke off for `maxSize` or `maxRatio`. */
  readonly refused: number
  /** Responses left alone, by reason. */
  readonly skipped: Readonly<Partial<Record<DecompressReason, number>>>
}

export interface DecompressStage extends Stage {
  /** Since the stage was made. */
  stats(): DecompressStats
}

/** Up to here any ratio is fine: a page of spaces is no attack. */
const ratioFree = 1_048_576
/** @throws OptionsError */
export function decompress(options?: DecompressOptions): DecompressStage {
  const read = new OptionReader('decompress')
  const given = read.object<DecompressOptions>(options, ['codings', 'always', 'maxSize', 'maxRatio', 'name'])
  const known: ReadonlySet<string> = new Set(readCodings(read, given.codings, allCodings).filter(isDecodable))
  const always = read.boolean('always', given.always, false)
  const maxSize = read.size('maxSize', given.maxSize, 1024 ** 3, { min: 1 })
  const maxRatio = read.number('maxRatio', given.maxRatio, 200, { min: 1 })
  const name = read.name('name', given.name, 'decompress')
  read.check()

  const active = new Map<Exchange, readonly { destroy(): unknown }[]>()
  const skipped: Partial<Record<DecompressReason, number>> = {}
  let decoded = 0
  let refused = 0

  const release = (exchange: Exchange): void => {
    const streams = active.get(exchange)
    if (streams === undefined) return
    active.delete(exchange)
    for (const stream of streams) stream.destroy()
  }

  const judge = (response: ProxyResponse, exchange: Exchange, accepted: string | undefined, held: string | undefined): DecompressReason => {
    const { headers } = response
    if (response.status === 304) {
      if (holdsWeakened(held, headers.get('etag'))) weaken(headers)
      return 'bodiless'
    }
    const layers = layersOf(headers)
    if (layers.length === 0) return 'not-encoded'
    if (layers.length > maxLayers || layers.some((layer) => !known.has(layer))) return 'unknown-coding'
    if (response.status === 206 || headers.has('content-range')) return 'range'
    if (forbidsTransform(headers) || forbidsTransform(exchange.headers)) return 'no-transform'
    if (announcesDigest(headers)) return 'digest-trailer'
    if (!always) {
      varyByEncoding(headers)
      if (accepted !== undefined && takesAll(accepted, layers)) return 'accepted'
    }
    headers.delete('content-encoding')
    // For HEAD as well, where the length is that of a body which nobody will get.
    headers.delete('content-length')
    recode(headers)
    if (!response.hasBody) return 'bodiless'
    decode(response, exchange, layers as Coding[])
    return 'decoded'
  }

  const decode = (response: ProxyResponse, exchange: Exchange, layers: readonly Coding[]): void => {
    let bytesIn = 0
    let bytesOut = 0
    response.tap({
      onChunk: (chunk) => {
        bytesIn += chunk.length
      },
    })
    // The last coding that was put on is the first to come off.
    const decoders = layers.toReversed().map(makeDecoder)
    for (const decoder of decoders) response.transform(decoder)
    response.tap({
      onChunk: (chunk) => {
        bytesOut += chunk.length
        if (bytesOut <= maxSize && (bytesOut <= ratioFree || bytesOut <= bytesIn * maxRatio)) return
        refused++
        throw new RangeError(`a coded body unpacks to more than ${bytesOut > maxSize ? '`maxSize`' : '`maxRatio`'} allows`)
      },
    })
    decoded++
    // A head that node refused is followed by an error answer of the same exchange.
    release(exchange)
    active.set(exchange, decoders)
    decoders.at(-1)?.once('close', () => {
      if (active.get(exchange) === decoders) active.delete(exchange)
    })
  }

  /** What is taken and held is remembered from the request, before a stage further in changes it. */
  const hooksFor = (accepted: string | undefined, held: string | undefined): Hooks => ({
    onResponse(response, exchange) {
      const reason = judge(response, exchange, accepted, held)
      if (reason !== 'decoded') skipped[reason] = (skipped[reason] ?? 0) + 1
      if (decisions.hasSubscribers) decisions.publish({ exchange, stage: name, coding: undefined, reason } satisfies CompressDecision)
    },
    onFinish: (_outcome, exchange) => release(exchange),
  })
  const forNobody = hooksFor(undefined, undefined)

  return {
    name,
    // Outside of it, it would undo what compress does.
    order: { after: ['compress'] },
    handle(exchange) {
      if (exchange.kind === 'upgrade') return undefined
      dropWeakRange(exchange.headers)
      const accepted = exchange.headers.get('accept-encoding')
      const held = exchange.headers.get('if-none-match')
      if (held === undefined && (always || accepted === undefined)) return forNobody
      return hooksFor(accepted, held)
    },
    stats: () => ({ active: active.size, decoded, refused, skipped: { ...skipped } }),
  }
}

function takesAll(accepted: string, layers: readonly string[]): boolean {
  const preferences = readPreferences(accepted)
  return layers.every((layer) => weightFor(preferences, layer) > 0)
}
