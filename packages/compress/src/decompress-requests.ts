/**
 * Decodes the bodies of requests, for upstreams that cannot. Clients that pack what they send (log shippers, mobile apps, backup tools) are many, servers
 * that unpack it are few, and none of them says so before it is too late: a request has no `Accept-Encoding` to go by.
 *
 * Whoever decodes for strangers is asked to do much work for little: see decode-limits.ts. The body streams, so memory is that of the decoders alone, and
 * core carries back-pressure from the upstream to the client through them.
 *
 * What cannot be decoded goes on as it came, unless told otherwise: the upstream may know more codings than we do.
 */
import { type Exchange, type HeaderList, OptionReader, ProxyError, type Reply, type Size, type Stage } from '@weir/core'
import { allRequestCodings, type RequestCoding } from './codings.ts'
import { readCodings } from './compress-options.ts'
import { layersOf, maxLayers } from './content-encoding.ts'
import { type DecodeLimits, limitDecoders } from './decode-limits.ts'
import { type Decoder, isDecodable, makeDecoder } from './decoder.ts'
import { forbidsTransform } from './eligibility.ts'
import { type CompressDecision, type DecompressReason, decisions } from './events.ts'
import { announcesDigest, dropDigests } from './validators.ts'

export interface DecompressRequestsOptions {
  /** What is decoded. Default all: zstd, br, gzip, deflate. Zstandard is left out where node does not notice that a body is cut short. */
  readonly codings?: readonly RequestCoding[]
  /** Of the decoded body, in bytes; more is answered 413. Default 64 MiB. Not above what an upstream can take at all. The route's `maxBodySize` holds besides. */
  readonly maxSize?: Size
  /** Decoded bytes per coded byte, behind `burst`; more is answered 413. Default 200: texts reach 20, and files full of zeros 1000. */
  readonly maxRatio?: number
  /** Decoded bytes for which `maxRatio` does not count yet. Default 1 MiB. Not 0: the first bytes of a short body are in no proportion. */
  readonly burst?: Size
  /**
   * What becomes of a body that is not decoded though it is coded: `'pass'` (the default) leaves it as it came; `'refuse'` answers 415 with the codings that are
   * decoded. Not `'refuse'` where the upstream itself decodes some.
   */
  readonly unsupported?: 'pass' | 'refuse'
  /** For events and order. Default `'decompressRequests'`. */
  readonly name?: string
}

export interface DecompressRequestsStats {
  /** Requests that are being decoded now. */
  readonly active: number
  /** Requests decoded so far; those that broke off included. */
  readonly decoded: number
  /** Those of them that met `maxSize` or `maxRatio`. */
  readonly refused: number
  /** Requests with a body that was not decoded, by reason. */
  readonly skipped: Readonly<Partial<Record<DecompressReason, number>>>
}

export interface DecompressRequestsStage extends Stage {
  /** Since the stage was made. */
  stats(): DecompressRequestsStats
}

interface Settings extends DecodeLimits {
  readonly codings: readonly RequestCoding[]
  readonly unsupported: 'pass' | 'refuse'
  readonly name: string
}

/** @throws OptionsError */
export function decompressRequests(options?: DecompressRequestsOptions): DecompressRequestsStage {
  const { codings, unsupported, name, ...limits } = readSettings(options)
  const known: ReadonlySet<string> = new Set(codings)
  // RFC 9110 §15.5.16 and §12.5.3: in an answer the field says what the next request may come in.
  const refusal: Reply = { status: 415, headers: { 'Accept-Encoding': codings.join(', ') }, body: '415 Unsupported Media Type\n' }
  const skipped: Partial<Record<DecompressReason, number>> = {}
  let active = 0
  let decoded = 0
  let refused = 0

  const decode = (exchange: Exchange, layers: readonly RequestCoding[]): void => {
    // The last coding that was put on is the first to come off.
    const decoders = layers.toReversed().map(makeDecoder)
    limitDecoders(decoders, limits, () => void refused++)
    for (const decoder of decoders) {
      blameClient(decoder)
      exchange.transformRequest(decoder)
    }
    exchange.headers.delete('content-encoding')
    dropDigests(exchange.headers)
    decoded++
    active++
    // Core destroys what it was given, however the exchange ends.
    decoders.at(-1)?.once('close', () => void active--)
  }

  return {
    name,
    handle(exchange) {
      if (!exchange.hasBody) return undefined
      const layers = layersOf(exchange.headers)
      const reason = judge(exchange.headers, layers, known)
      if (reason === 'decoded') decode(exchange, layers as RequestCoding[])
      else skipped[reason] = (skipped[reason] ?? 0) + 1
      if (decisions.hasSubscribers) decisions.publish({ exchange, stage: name, coding: undefined, reason } satisfies CompressDecision)
      return unsupported === 'refuse' && reason !== 'decoded' && reason !== 'not-encoded' ? refusal : undefined
    },
    stats: () => ({ active, decoded, refused, skipped: { ...skipped } }),
  }
}

function readSettings(options: DecompressRequestsOptions | undefined): Settings {
  const read = new OptionReader('decompressRequests')
  const given = read.object<DecompressRequestsOptions>(options, ['codings', 'maxSize', 'maxRatio', 'burst', 'unsupported', 'name'])
  const settings: Settings = {
    codings: readCodings(read, given.codings, allRequestCodings).filter(isDecodable),
    maxSize: read.size('maxSize', given.maxSize, 64 * 1024 ** 2, { min: 1 }),
    maxRatio: read.number('maxRatio', given.maxRatio, 200, { min: 1 }),
    burst: read.size('burst', given.burst, 1024 ** 2),
    unsupported: read.oneOf('unsupported', given.unsupported, ['pass', 'refuse'], 'pass'),
    name: read.name('name', given.name, 'decompressRequests'),
  }
  read.check()
  return settings
}

function judge(headers: HeaderList, layers: readonly string[], known: ReadonlySet<string>): DecompressReason {
  if (layers.length === 0) return 'not-encoded'
  if (layers.length > maxLayers || layers.some((layer) => !known.has(layer))) return 'unknown-coding'
  // RFC 9110 §14.5: a part of the coded body.
  if (headers.has('content-range')) return 'range'
  if (forbidsTransform(headers)) return 'no-transform'
  return announcesDigest(headers) ? 'digest-trailer' : 'decoded'
}

/** Whatever a decoder stumbles over is what the client has sent. */
function blameClient(decoder: Decoder): void {
  const destroy = decoder._destroy.bind(decoder)
  decoder._destroy = (error, done) =>
    destroy(error === null || ProxyError.is(error) ? error : new ProxyError('ERR_BODY_CODING', { cause: error }), done)
}
