/**
 * Wrong options, refused by the editor and by the factory. Every entry is wrong for the compiler (the line below `@ts-expect-error` must fail to
 * compile, or the type check of the tests does) and for the factory, and the paths say that both see the same mistake.
 */
import type { OptionsError } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { banList, inflightLimit, keyCounters, memoryStore, type RateLimitOptions, rateLimit } from './index.ts'

function paths(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    return (error as OptionsError).problems.map(({ path }) => path)
  }
  return []
}
type Row = readonly [what: string, run: () => unknown, paths: readonly string[]]
const table = (rows: readonly Row[]): void => {
  for (const [what, run, expected] of rows) it(what, () => expect(paths(run).toSorted()).toEqual(expected.toSorted()))
}
const limit = 1
const window = '1s'

describe('rateLimit', () => {
  table([
    // @ts-expect-error no options
    ['nothing', () => rateLimit(), ['options']],
    // @ts-expect-error a limit has a number and a window
    ['no limit', () => rateLimit({}), ['limit', 'window']],
    // @ts-expect-error a number is no limit
    ['a number', () => rateLimit(5), ['options', 'limit', 'window']],
    // @ts-expect-error per what
    ['no window', () => rateLimit({ limit }), ['window']],
    // @ts-expect-error misspelt
    ['a misspelt option', () => rateLimit({ limit, window, max: 5 }), ['max']],
    // @ts-expect-error a numeral is no number
    ['a limit that is text', () => rateLimit({ limit: '5', window }), ['limit']],
    // @ts-expect-error a duration needs its unit
    ['a window without unit', () => rateLimit({ limit, window: '1' }), ['window']],
    // @ts-expect-error no such algorithm
    ['an unknown algorithm', () => rateLimit({ limit, window, algorithm: 'magic' }), ['algorithm']],
    // @ts-expect-error windows have no burst
    ['a burst of a window', () => rateLimit({ limit, window, algorithm: 'fixed-window', burst: 5 }), ['burst']],
    // @ts-expect-error only a leaky bucket waits
    ['a delay of gcra', () => rateLimit({ limit, window, maxDelay: '1s' }), ['maxDelay']],
    // @ts-expect-error only a leaky bucket waits
    ['a line of a token bucket', () => rateLimit({ limit, window, algorithm: 'token-bucket', maxWaiting: 5 }), ['maxWaiting']],
    // @ts-expect-error turns cannot be moved
    ['a leaky bucket that settles', () => rateLimit({ limit, window, algorithm: 'leaky-bucket', settle: () => 1 }), ['settle']],
    // @ts-expect-error no such key
    ['an unknown key', () => rateLimit({ limit, window, key: 'user' }), ['key']],
    // @ts-expect-error the name of the field is missing
    ['a header without name', () => rateLimit({ limit, window, key: { missing: 'ip' } }), ['key.header']],
    // @ts-expect-error nothing of that kind
    ['a header that may be anything', () => rateLimit({ limit, window, key: { header: 'a', missing: 'any' } }), ['key.missing']],
    // @ts-expect-error one of the parts is none
    ['a wrong part of a key', () => rateLimit({ limit, window, key: ['ip', 5] }), ['key[1]']],
    // @ts-expect-error a numeral is no number
    ['a cost that is text', () => rateLimit({ limit, window, cost: '5' }), ['cost']],
    // @ts-expect-error a number is no function
    ['settle with a number', () => rateLimit({ limit, window, settle: 5 }), ['settle']],
    // @ts-expect-error one range is no list
    ['one exempt range', () => rateLimit({ limit, window, exempt: '10.0.0.0/8' }), ['exempt']],
    // @ts-expect-error a flag is no text
    ['headers as text', () => rateLimit({ limit, window, headers: 'draft-11' }), ['headers']],
    // @ts-expect-error neither
    ['upstreamHeaders that is neither', () => rateLimit({ limit, window, upstreamHeaders: 'merge' }), ['upstreamHeaders']],
    // @ts-expect-error no such action
    ['onStoreError that is no action', () => rateLimit({ limit, window, onStoreError: 'ignore' }), ['onStoreError']],
    // @ts-expect-error a name is no store
    ['a store by name', () => rateLimit({ limit, window, store: 'redis' }), ['store']],
    // @ts-expect-error a moment is no clock
    ['a clock that is none', () => rateLimit({ limit, window, clock: Date.now }), ['clock']],
    // @ts-expect-error a number is no name
    ['a name that is none', () => rateLimit({ limit, window, name: 5 }), ['name']],
    // @ts-expect-error either one or many
    ['one limit and a list', () => rateLimit({ limit, window, limits: [{ name: 'a', limit, window }] }), ['limit', 'window']],
    // @ts-expect-error in a list each has a name
    ['a limit without name in a list', () => rateLimit({ limits: [{ limit, window }] }), ['limits[0].name']],
    // @ts-expect-error a limit is an object
    ['a number in a list', () => rateLimit({ limits: [5] }), ['limits[0]', 'limits[0].name', 'limits[0].limit', 'limits[0].window']],
    // @ts-expect-error belongs to the stage
    ['a status of one limit', () => rateLimit({ limits: [{ name: 'a', limit, window, status: 503 }] }), ['limits[0].status']],
  ])

  it('everything that is right together compiles', () => {
    const fine: RateLimitOptions[] = [
      { limit, window },
      { limit, window: 1000, algorithm: 'gcra', burst: 5, settle: () => undefined },
      { limit, window, algorithm: 'sliding-window', key: ['ip', 'route', { header: 'a' }, () => undefined], cost: () => 2 },
      { limit, window, algorithm: 'leaky-bucket', maxDelay: '2s', maxWaiting: 5 },
      { limits: [{ name: 'a', limit, window }], key: 'route', settle: () => 1, exempt: () => true, onRefused: () => {} },
    ]
    for (const options of fine) expect(paths(() => rateLimit(options))).toEqual([])
  })
})

describe('what no compiler sees', () => {
  table([
    ['a limit of nothing', () => rateLimit({ limit: 0, window }), ['limit']],
    ['half a limit', () => rateLimit({ limit: 1.5, window }), ['limit']],
    ['a window of nothing', () => rateLimit({ limit, window: 0 }), ['window']],
    ['a cost that can never be paid', () => rateLimit({ limit: 5, window, cost: 6 }), ['cost']],
    ['a cost below nothing', () => rateLimit({ limit: 5, window, cost: -1 }), ['cost']],
    ['a key of no parts', () => rateLimit({ limit, window, key: [] }), ['key']],
    ['a name that is no field', () => rateLimit({ limit, window, key: { header: 'x y' } }), ['key.header']],
    ['an exempt name', () => rateLimit({ limit, window, exempt: ['10.0.0.0/8', 'localhost', '10.0.0.0/33'] }), ['exempt[1]', 'exempt[2]']],
    ['a name that is no Structured Fields string', () => rateLimit({ limit, window, name: 'a"b' }), ['name']],
    ['a prefix that is none', () => rateLimit({ limit, window, ipv6Prefix: 129 }), ['ipv6Prefix']],
    ['a status that is a success', () => rateLimit({ limit, window, status: 200 }), ['status']],
    ['no patience', () => rateLimit({ limit, window, storeTimeout: 0 }), ['storeTimeout']],
    ['no memory', () => rateLimit({ limit, window, maxEntries: 0 }), ['maxEntries']],
    ['no limits', () => rateLimit({ limits: [] }), ['limits']],
    ['two limits of one name', () => rateLimit({ limits: ['a', 'a'].map((name) => ({ name, limit, window })) }), ['limits[1].name']],
    [
      'two lines to wait in',
      () => rateLimit({ limits: ['a', 'b'].map((name) => ({ name, limit, window, algorithm: 'leaky-bucket' as const })) }),
      ['limits'],
    ],
    ['a memory of nothing', () => memoryStore({ maxEntries: 0 }), ['maxEntries']],
    ['no limit at once', () => inflightLimit({ limit: 0 }), ['limit']],
    ['a rule without numbers', () => banList().after({ refusals: 0, within: 0, duration: 0 }), ['refusals', 'within', 'duration']],
  ])

  it('all at once', () => {
    const wrong = {
      limit: 0,
      window: 0,
      key: [],
      cost: -1,
      exempt: ['x'],
      status: 1,
      headers: 'no',
      onRefused: 5,
      store: {},
      clock: {},
      extra: 1,
    }
    expect(paths(() => rateLimit(wrong as unknown as RateLimitOptions)).toSorted()).toEqual(
      ['limit', 'window', 'key', 'cost', 'exempt[0]', 'status', 'headers', 'onRefused', 'store', 'clock', 'extra'].toSorted(),
    )
  })
})

describe('inflightLimit, banList, keyCounters, memoryStore', () => {
  table([
    // @ts-expect-error no options
    ['no options', () => inflightLimit(), ['limit']],
    // @ts-expect-error a rate belongs to rateLimit
    ['a window', () => inflightLimit({ limit, window }), ['window']],
    // @ts-expect-error a flag is no text
    ['a dry run as text', () => inflightLimit({ limit, dryRun: 'yes' }), ['dryRun']],
    // @ts-expect-error no such option
    ['a misspelt option of a list', () => banList({ max: 5 }), ['max']],
    // @ts-expect-error a list of names
    ['a counter alone', () => keyCounters({ counters: 'logins' }), ['counters']],
    // @ts-expect-error misspelt
    ['a misspelt window', () => keyCounters({ per: '10s' }), ['per']],
    // @ts-expect-error no such key
    ['a list by an unknown key', () => banList({ key: 'user' }), ['key']],
    // @ts-expect-error a rule has three numbers
    ['a rule of one number', () => banList().after({ refusals: 5 }), ['within', 'duration']],
    // @ts-expect-error a number is no options
    ['a number of entries', () => memoryStore(5), ['options']],
  ])
})
