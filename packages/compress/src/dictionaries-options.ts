/** Options of `compressionDictionaries`, read once. */
import { type Clock, OptionReader, readClock, type Size } from '@weir/core'
import { type PathMatch, pathMatch } from './dictionary-match.ts'

export interface DictionaryOffer {
  /** For which requests clients may use the dictionary: a path in which `*` stands for anything, like `'/assets/app.*.js'`. */
  readonly match: string
  /** Which responses are such dictionaries: such a path, or a function of the path. By the path that the client asked for, without its query. Default: `match`. */
  readonly from?: string | ((path: string) => boolean)
  /** Request destinations (`'script'`, `'document'`) that the dictionary is for. Default: all. */
  readonly destinations?: readonly string[]
}

export interface CompressionDictionariesOptions {
  /** Bytes of all that is kept, half a KiB for each besides its own. Default 32 MiB. */
  readonly maxSize?: Size
  /** Longest dictionary. Default 2 MiB; at most 8 MiB, beyond which clients need not follow. Not far below the size of a bundle: a longer one is not kept at all. */
  readonly maxDictionarySize?: Size
  /**
   * Responses that are packed with one at the same time; those beyond get a coding of `codings`. Default 4, as many as node has threads for it. Not high: each holds five
   * times its dictionary, at least 2 MiB, and reads it first.
   */
  readonly maxActive?: number
  /** Responses that are sent with `Use-As-Dictionary`, in order: the first that fits. One that has the field already keeps its own. Default: none. */
  readonly offers?: readonly DictionaryOffer[]
  /** For events and order. Default `'dictionaries'`. */
  readonly name?: string
  /** For tests. Default: the real time. */
  readonly clock?: Clock
}

/** What is offered, in the form in which it is asked. */
export interface Offer {
  /** `Use-As-Dictionary`. */
  readonly field: string
  readonly match: string
  readonly fits: PathMatch
  readonly from: PathMatch
}

export interface DictionariesSettings {
  readonly name: string
  readonly maxSize: number
  readonly longest: number
  readonly maxActive: number
  readonly offers: readonly Offer[]
  readonly clock: Clock
}

export const expectedPath: string = "a path in which * stands for anything, like '/assets/app.*.js'"

/** RFC 9842 §5: the window that every client takes. A longer dictionary would leave it in the middle of a body as long. */
const mostBytes: number = 8 << 20

const names = ['maxSize', 'maxDictionarySize', 'maxActive', 'offers', 'name', 'clock'] satisfies (keyof CompressionDictionariesOptions)[]

/** @throws OptionsError */
export function readDictionariesOptions(options: CompressionDictionariesOptions | undefined): DictionariesSettings {
  const read = new OptionReader('compressionDictionaries')
  const given = read.object<CompressionDictionariesOptions>(options, names)
  const maxSize = Math.floor(read.size('maxSize', given.maxSize, 32 << 20, { min: 4096 }))
  const longest = Math.floor(
    read.size('maxDictionarySize', given.maxDictionarySize, Math.min(2 << 20, maxSize), { min: 1024, max: mostBytes }),
  )
  if (longest > maxSize) read.problem('maxDictionarySize', given.maxDictionarySize, 'a size of at most `maxSize`')
  const settings: DictionariesSettings = {
    name: read.name('name', given.name, 'dictionaries'),
    maxSize,
    longest,
    maxActive: read.number('maxActive', given.maxActive, 4, { min: 1, max: 10_000, integer: true }),
    offers: readOffers(read, given.offers),
    clock: readClock(given.clock, read),
  }
  read.check()
  return settings
}

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

const nothing: PathMatch = () => false

function readOffer(read: OptionReader, offer: DictionaryOffer): Offer {
  const { match, from, destinations = [] } = read.object<DictionaryOffer>(offer, ['match', 'from', 'destinations'])
  const fits = typeof match === 'string' ? pathMatch(match) : undefined
  if (fits === undefined) read.problem('match', match, expectedPath)
  const fromPath = typeof from === 'string' ? pathMatch(from) : undefined
  if (from !== undefined && typeof from !== 'function' && fromPath === undefined)
    read.problem('from', from, `${expectedPath}, or a function of the path`)
  const isList = Array.isArray(destinations) && destinations.every((each) => typeof each === 'string' && /^[a-z-]+$/.test(each))
  if (!isList) read.problem('destinations', destinations, "a list like ['script', 'document']")
  const list = isList && destinations.length > 0 ? `, match-dest=(${destinations.map((each) => `"${each}"`).join(' ')})` : ''
  return {
    field: `match="${match}"${list}`,
    match: match ?? '',
    fits: fits ?? nothing,
    from: typeof from === 'function' ? guarded(from) : (fromPath ?? fits ?? nothing),
  }
}

/** A path is anybody's: one that the function cannot read is none that it means. */
function guarded(from: (path: string) => boolean): PathMatch {
  return (path) => {
    try {
      return from(path) === true
    } catch {
      return false
    }
  }
}
