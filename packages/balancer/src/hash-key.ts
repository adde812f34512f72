/**
 * What a hash strategy goes by: a part of the request that says who, or what, it is about. All hash strategies take the same options, so that
 * one can be exchanged for another without a thought.
 *
 * A key that is not there is the case to think about. Hashing "nothing" would send every such request to one server; so there is a stated
 * policy, and an empty value counts as missing.
 */
import type { Exchange, OptionReader } from '@weir/core'
import { KeySources } from './key-source.ts'
import { readSources } from './key-source-options.ts'
import { type RandomOption, readRandom } from './random-option.ts'

/** One place in the request where the key may be. Values are compared byte for byte: nothing is decoded, trimmed or lower-cased. */
export type HashKey =
  /** The first line of this header field; names have no case. */
  | { readonly header: string }
  | `header:${string}`
  /** The value of this cookie, with its quotes if it has any; names have case. */
  | { readonly cookie: string }
  | `cookie:${string}`
  /** The value of this query parameter, percent-encoded as it came; names have case. */
  | { readonly query: string }
  | `query:${string}`
  /** The path without its query; with `depth`, at most so many leading segments of it. */
  | 'path'
  | { readonly path: { readonly depth?: number } }
  /** Path and query. */
  | 'url'
  /** `exchange.clientIp`: IPv4 in full, IPv6 by `ipv6Prefix`, however it is spelt. */
  | 'clientIp'
  /** `exchange.hashKey`, which a stage may have set. */
  | 'hashKey'
  /** Runs on every pick: it must be quick, and give the same text for the same client. What it throws fails the exchange with a 500. */
  | ((exchange: Exchange) => string | undefined)

export interface HashKeyOptions extends RandomOption {
  /** Where the key is. Of a list, the first that is present and not empty counts. */
  readonly key: HashKey | readonly HashKey[]
  /**
   * An exchange without the key is placed by chance (`random`, the default), by its client's address (`clientIp`; by chance when it has none), or
   * gets no answer (`none`): for use inside `fallback`, since on its own that is a 503.
   */
  readonly missing?: 'random' | 'clientIp' | 'none'
  /** Leading bits of an IPv6 address that make a client, 1 to 128. Default 64, the network that one host or one home is given. */
  readonly ipv6Prefix?: number
}

export const hashKeyNames: readonly string[] = ['key', 'missing', 'random', 'ipv6Prefix']

/** How a strategy makes a number of a key. Signed 32 bits. */
export interface KeyHash {
  /** Of the units from `start` up to `end`. */
  text(text: string, start: number, end: number): number
  address(address: string, ipv6Prefix: number): number
}

/** Reads the key options of any hash strategy. Problems go to `read`, which the caller checks. */
export function readHashKey(read: OptionReader, given: Partial<HashKeyOptions>, hash: KeyHash): KeyReader {
  const random = readRandom(read, given.random)
  const missing = read.oneOf('missing', given.missing, ['random', 'clientIp', 'none'] as const, 'random')
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 1, max: 128, integer: true })
  return new KeyReader(new KeySources(readSources(read, given.key)), missing, random, ipv6Prefix, hash)
}

/**
 * The key of one exchange after the other. What was read is left in `hash`, for the same reason as everywhere here: a pair would be an object
 * per pick. Picks are synchronous, so there is never more than one reading at a time.
 */
export class KeyReader {
  /** Of the last exchange that had a key, or was given one by `missing`. */
  hash: number = 0
  /** `hash` was drawn, and would be another one if it were read again. */
  byChance: boolean = false
  readonly #sources: KeySources
  readonly #missing: 'random' | 'clientIp' | 'none'
  readonly #random: () => number
  readonly #ipv6Prefix: number
  readonly #hash: KeyHash

  constructor(sources: KeySources, missing: 'random' | 'clientIp' | 'none', random: () => number, ipv6Prefix: number, hash: KeyHash) {
    this.#sources = sources
    this.#missing = missing
    this.#random = random
    this.#ipv6Prefix = ipv6Prefix
    this.#hash = hash
  }

  /** False when there is none, and none is to be made up. */
  read(exchange: Exchange): boolean {
    const sources = this.#sources
    this.byChance = false
    if (sources.find(exchange))
      this.hash = sources.isAddress
        ? this.#hash.address(sources.text, this.#ipv6Prefix)
        : this.#hash.text(sources.text, sources.start, sources.end)
    else if (this.#missing === 'none') return false
    else if (this.#missing === 'clientIp' && exchange.clientIp !== '') this.hash = this.#hash.address(exchange.clientIp, this.#ipv6Prefix)
    else {
      this.byChance = true
      this.hash = (this.#random() * 0x1_0000_0000) | 0
    }
    return true
  }
}
