/** The options that every stage of this package has: which exchanges it looks at, and what happens when a session's upstream cannot be had. */
import type { Duration, Exchange, OptionReader, Reply, Stage } from '@weir/core'
import { Journal, type StickyStats } from './journal.ts'

export interface StickyStageOptions {
  /** Only these paths: prefixes by whole segments, such as `/app`. Default: all. */
  readonly only?: string | readonly string[]
  /** True for exchanges that need no session: bots, static files, probes. They get no cookie and are balanced. Default: none. */
  readonly bypass?: (exchange: Exchange) => boolean
  /**
   * Answers 503 rather than giving a session to another upstream when its own is down, gone, full, or has just failed. Default false. Not for
   * services that can rebuild a session, nor together with hedging.
   */
  readonly strict?: boolean
  /** `Retry-After` of such a 503, in whole seconds. Default 1 s. */
  readonly retryAfter?: Duration
  /** For order, events and errors; two stages of one proxy need two. Default: the factory's name. */
  readonly name?: string
}

/** What the factories here make. */
export interface StickyStage extends Stage {
  /** Since it was made. */
  stats(): StickyStats
}

export const stageKeys: readonly string[] = ['only', 'bypass', 'strict', 'retryAfter', 'name']

// Inside a cache, our Set-Cookie would be stored and served to strangers, and every hit would be somebody else's session.
export const stageOrder: NonNullable<Stage['order']> = { before: ['cache', 'response-cache', 'responseCache'] }

export interface StageSettings {
  readonly name: string
  readonly strict: boolean
  readonly journal: Journal
  readonly refusal: Reply
  /** True when this exchange is not to be looked at. */
  readonly skips: (exchange: Exchange) => boolean
}

export function readStageOptions(read: OptionReader, given: StickyStageOptions, fallbackName: string): StageSettings {
  const name = read.name('name', given.name, fallbackName)
  const journal = new Journal(name)
  const paths = readPaths(read, given.only)
  const bypass = read.optionalFunction('bypass', given.bypass)
  const retryAfter = read.duration('retryAfter', given.retryAfter, 1000, { min: 0 })
  return {
    name,
    strict: read.boolean('strict', given.strict, false),
    journal,
    refusal: {
      status: 503,
      headers: {
        'Content-Type': 'text/plain; charset=utf-8',
        'Cache-Control': 'no-store',
        'Retry-After': String(Math.ceil(retryAfter / 1000)),
      },
      body: '503 Service Unavailable\n',
    },
    skips(exchange) {
      const skipped = (paths !== undefined && !paths.some((path) => covers(path, exchange.url))) || bypass?.(exchange) === true
      if (skipped) journal.counts.bypassed++
      return skipped
    },
  }
}

function readPaths(read: OptionReader, value: unknown): readonly string[] | undefined {
  if (value === undefined) return undefined
  const list: unknown[] = Array.isArray(value) ? value : [value]
  if (list.length > 0 && list.every((path) => typeof path === 'string' && path.startsWith('/') && !/[?#\s]/.test(path)))
    return (list as string[]).map((path) => path.replace(/\/+$/, ''))
  read.problem('only', value, "a path prefix such as '/app', or a list of them")
  return undefined
}

/** `/app` covers `/app`, `/app/x` and `/app?x`, not `/apps`. */
function covers(path: string, url: string): boolean {
  if (!url.startsWith(path)) return false
  const next = url[path.length]
  return next === undefined || next === '/' || next === '?'
}
