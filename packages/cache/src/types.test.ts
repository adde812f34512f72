/** The same mistakes, seen by the compiler and, for those who have none, by the factory. Each row is wrong for both. */
import type { OptionsError, Stage } from '@weir/core'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { type CacheStore, memoryStore, type ResponseCache, responseCache } from './index.ts'

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
const maxSize = '1MiB'

describe('what the compiler sees', () => {
  table([
    // @ts-expect-error unbounded
    ['no size', () => responseCache({}), ['maxSize']],
    // @ts-expect-error the store has its own
    ['a size beside a store', () => responseCache({ maxSize, store: memoryStore({ maxSize }) }), ['maxSize']],
    // @ts-expect-error misspelt
    ['a misspelt option', () => responseCache({ maxSize, ttl: 5 }), ['ttl']],
    // @ts-expect-error MB is ambiguous
    ['a decimal size', () => responseCache({ maxSize: '1MB' }), ['maxSize']],
    // @ts-expect-error no such way
    ['cookies', () => responseCache({ maxSize, setCookie: 'ignore' }), ['setCookie']],
    // @ts-expect-error a list
    ['one target', () => responseCache({ maxSize, targets: 'CDN-Cache-Control' }), ['targets']],
    // @ts-expect-error a duration
    ['a lifetime in words', () => responseCache({ maxSize, negative: { 404: 'short' } }), ['negative.404']],
    // @ts-expect-error a list in it
    ['a query by name', () => responseCache({ maxSize, key: { query: { ignore: 'utm' } } }), ['key.query']],
    // @ts-expect-error a function
    ['a bypass that is a flag', () => responseCache({ maxSize, bypass: true }), ['bypass']],
    // @ts-expect-error no methods
    ['a store that is none', () => responseCache({ store: {} }), ['store']],
    // @ts-expect-error required
    ['a memory store without a size', () => memoryStore({}), ['maxSize']],
    // @ts-expect-error no such policy
    ['an admission', () => memoryStore({ maxSize, admission: 'lru' }), ['admission']],
  ])
})

describe('what only the factory sees', () => {
  table([
    [
      'everything at once',
      () => responseCache({ maxSize: 10, minUses: 0, refreshAhead: 2, name: 'two words' }),
      ['maxSize', 'minUses', 'refreshAhead', 'name'],
    ],
    ['a status that is none', () => responseCache({ maxSize, negative: { 99: 5, 206: 5 } }), ['negative.206', 'negative.99']],
    ['a field name with a space', () => responseCache({ maxSize, tagHeaders: ['Cache Tag'] }), ['tagHeaders']],
  ])
})

it('is a stage with a collection', () => {
  expectTypeOf<ResponseCache>().toExtend<Stage>()
  expectTypeOf(memoryStore({ maxSize })).toEqualTypeOf<CacheStore>()
  expectTypeOf(responseCache({ maxSize }).invalidateTag('a')).toEqualTypeOf<Promise<number>>()
})
