/** Options of `compress`, read once. */
import { type Clock, type Duration, OptionReader, type ProxyResponse, readClock, type Size } from '@weir/core'
import { allCodings, type Coding, isAvailable } from './codings.ts'
import { type CompressionDictionaries, Dictionaries } from './compression-dictionaries.ts'
import { defaultTypes, isTypePattern, typeMatcher } from './content-types.ts'
import type { Eligibility } from './eligibility.ts'
import type { BrotliOptions, EncoderSettings, GzipOptions, ZstdOptions } from './encoder.ts'

export interface OverloadOptions {
  /** From this lateness of the event loop on, the fastest level of each coding. Default 50 ms. */
  readonly reduceAt?: Duration
  /** From this one on, nothing new is compressed. Default 200 ms. Not below `reduceAt`. */
  readonly skipAt?: Duration
  /** The lateness in milliseconds, asked for each response: a measure of your own, or a test's. Default: a timer that measures its own. */
  readonly lag?: () => number
}

export interface CompressOptions {
  /** What is offered; the order decides when a client likes several equally. Default `['zstd', 'br', 'gzip']`. Zstandard is left out where Node has none. */
  readonly codings?: readonly Coding[]
  readonly gzip?: GzipOptions
  readonly brotli?: BrotliOptions
  readonly zstd?: ZstdOptions
  /** A known length below this is left alone, in bytes. Default 1 KiB. An unknown length is compressed. Not 0: below some 200 bytes bodies grow. */
  readonly minSize?: Size
  /** Media types: `'text/html'`, `'text/*'`, `'+json'`; or a function of the type without parameters. Default: text, JSON, XML, scripts, SVG, WebAssembly and the like. */
  readonly types?: readonly string[] | ((type: string, response: ProxyResponse) => boolean)
  /** Statuses whose bodies are compressed; or a function. Default: all. 204, 206 and 304 never are. */
  readonly statuses?: readonly number[] | ((status: number) => boolean)
  /**
   * Longest that a byte is kept in the encoder, up to a minute; five times that while the encoder is behind. Default 10 ms. Event streams and NDJSON do not
   * wait at all. Not 0: a flush per packet makes bodies a tenth larger.
   */
  readonly flushAfter?: Duration
  /** What clients may have kept of earlier responses: see `compressionDictionaries`. Whoever takes `dcz` gets it in preference to the others. Default: none. */
  readonly dictionaries?: CompressionDictionaries
  /** Leaves alone what another site made a browser fetch with cookies or `Authorization` (BREACH). Default false. */
  readonly skipCrossSite?: boolean
  /** Responses that are compressed at the same time; those beyond go out as they are. Default 500. Each takes up to a megabyte. */
  readonly maxActive?: number
  /** What becomes of compression when the event loop is late. Default as below; `false` where something else protects the process. */
  readonly overload?: OverloadOptions | false
  /** For events and order. Default `'compress'`. */
  readonly name?: string
  /** For tests. Default: the real time. */
  readonly clock?: Clock
}

export interface Overload {
  readonly reduceAt: number
  readonly skipAt: number
  readonly lag: (() => number) | undefined
}

export interface CompressSettings extends Eligibility {
  readonly codings: readonly Coding[]
  readonly encoders: EncoderSettings
  readonly flushAfter: number
  readonly dictionaries: Dictionaries | undefined
  readonly skipCrossSite: boolean
  readonly maxActive: number
  readonly overload: Overload | undefined
  readonly name: string
  readonly clock: Clock
}

const names = [
  'codings',
  'gzip',
  'brotli',
  'zstd',
  'minSize',
  'types',
  'statuses',
  'flushAfter',
  'dictionaries',
  'skipCrossSite',
  'maxActive',
  'overload',
  'name',
  'clock',
] satisfies (keyof CompressOptions)[]

/** @throws OptionsError */
export function readCompressOptions(options: CompressOptions | undefined): CompressSettings {
  const read = new OptionReader('compress')
  const given = read.object<CompressOptions>(options, names)
  const settings: CompressSettings = {
    codings: readCodings(read, given.codings, allCodings).filter(isAvailable),
    encoders: readEncoders(read, given),
    minSize: read.size('minSize', given.minSize, 1024),
    types: readTypes(read, given.types),
    statuses: readStatuses(read, given.statuses),
    flushAfter: read.duration('flushAfter', given.flushAfter, 10, { max: 60_000 }),
    dictionaries: readDictionaries(read, given.dictionaries),
    skipCrossSite: read.boolean('skipCrossSite', given.skipCrossSite, false),
    maxActive: read.number('maxActive', given.maxActive, 500, { min: 1, max: 1_000_000, integer: true }),
    overload: given.overload === false ? undefined : readOverload(read.at('overload'), given.overload),
    name: read.name('name', given.name, 'compress'),
    clock: readClock(given.clock, read),
  }
  read.check()
  return settings
}

export function readCodings<C extends string>(read: OptionReader, given: readonly C[] | undefined, known: readonly C[]): readonly C[] {
  if (given === undefined) return known
  if (!Array.isArray(given) || given.length === 0) {
    read.problem('codings', given, `a list of ${known.join(', ')}; for none, leave the stage out`)
    return known
  }
  const at = read.at('codings')
  for (const [index, coding] of given.entries()) {
    if (!known.includes(coding)) at.problem(index, coding, `one of ${known.join(', ')}`)
    else if (given.indexOf(coding) !== index) at.problem(index, coding, 'each coding once')
  }
  return [...given]
}

function readDictionaries(read: OptionReader, given: unknown): Dictionaries | undefined {
  if (given === undefined || given instanceof Dictionaries) return given
  read.problem('dictionaries', given, 'what `compressionDictionaries()` gives')
  return undefined
}

function readEncoders(read: OptionReader, given: Partial<CompressOptions>): EncoderSettings {
  const whole = (at: OptionReader, name: string, value: unknown, fallback: number, min: number, max: number): number =>
    at.number(name, value, fallback, { min, max, integer: true })
  const atGzip = read.at('gzip')
  const gzip = atGzip.object<GzipOptions>(given.gzip, ['level', 'windowBits', 'memLevel'])
  const atBrotli = read.at('brotli')
  const brotli = atBrotli.object<BrotliOptions>(given.brotli, ['quality', 'windowBits'])
  const atZstd = read.at('zstd')
  const zstd = atZstd.object<ZstdOptions>(given.zstd, ['level', 'windowBits'])
  return {
    gzip: {
      level: whole(atGzip, 'level', gzip.level, 6, 1, 9),
      windowBits: whole(atGzip, 'windowBits', gzip.windowBits, 15, 10, 15),
      memLevel: whole(atGzip, 'memLevel', gzip.memLevel, 8, 1, 9),
    },
    br: {
      quality: whole(atBrotli, 'quality', brotli.quality, 4, 0, 11),
      windowBits: whole(atBrotli, 'windowBits', brotli.windowBits, 19, 10, 24),
    },
    zstd: {
      level: whole(atZstd, 'level', zstd.level, 3, 1, 19),
      windowBits: whole(atZstd, 'windowBits', zstd.windowBits, 19, 10, 23),
    },
  }
}

function readTypes(read: OptionReader, given: CompressOptions['types'] = defaultTypes): Eligibility['types'] {
  if (typeof given === 'function') return given
  if (!Array.isArray(given)) {
    read.problem('types', given, "a list like ['text/*', '+json', 'application/json'], or a function")
    return () => false
  }
  const list: readonly string[] = given
  const at = read.at('types')
  for (const [index, type] of list.entries())
    if (!isTypePattern(type)) at.problem(index, type, "a media type without parameters, 'text/*', or a suffix like '+json'")
  return typeMatcher(list.filter(isTypePattern))
}

function readStatuses(read: OptionReader, given: CompressOptions['statuses']): Eligibility['statuses'] {
  if (given === undefined) return () => true
  if (typeof given === 'function') return given
  if (!Array.isArray(given)) {
    read.problem('statuses', given, 'a list of statuses, or a function')
    return () => true
  }
  const list: readonly number[] = given
  const at = read.at('statuses')
  for (const [index, status] of list.entries()) at.at(index).number('', status, 0, { min: 200, max: 599, integer: true })
  const set = new Set(list)
  return (status) => set.has(status)
}

function readOverload(read: OptionReader, options: OverloadOptions | undefined): Overload {
  const given = read.object<OverloadOptions>(options, ['reduceAt', 'skipAt', 'lag'])
  const reduceAt = read.duration('reduceAt', given.reduceAt, 50)
  const skipAt = read.duration('skipAt', given.skipAt, Math.max(200, reduceAt))
  if (skipAt < reduceAt) read.problem('skipAt', given.skipAt, 'a duration of at least `reduceAt`')
  return { reduceAt, skipAt, lag: read.optionalFunction('lag', given.lag) }
}
