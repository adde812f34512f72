/** The same mistakes, seen by the compiler and, for those who have none, by the factory. Each row is wrong for both. */
import type { OptionsError, Stage } from '@weir/core'
import { describe, expect, expectTypeOf, it } from 'vitest'
import {
  type CompressionDictionaries,
  type CompressStage,
  compress,
  compressionDictionaries,
  type DecompressRequestsStage,
  type DecompressStage,
  decompress,
  decompressRequests,
} from './index.ts'

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

describe('what the compiler sees', () => {
  table([
    // @ts-expect-error misspelt
    ['a misspelt option', () => compress({ minLength: 5 }), ['minLength']],
    // @ts-expect-error no such coding
    ['deflate', () => compress({ codings: ['deflate'] }), ['codings[0]']],
    // @ts-expect-error required
    ['an offer for nothing', () => compressionDictionaries({ offers: [{ from: '/x' }] }), ['offers[0].match']],
    // @ts-expect-error not made by compressionDictionaries
    ['a list of dictionaries', () => compress({ dictionaries: [] }), ['dictionaries']],
    // @ts-expect-error a list
    ['one coding', () => compress({ codings: 'gzip' }), ['codings']],
    // @ts-expect-error KB is ambiguous
    ['a decimal size', () => compress({ minSize: '1KB' }), ['minSize']],
    // @ts-expect-error a list
    ['one type', () => compress({ types: 'text/html' }), ['types']],
    // @ts-expect-error numbers
    ['a class of statuses', () => compress({ statuses: ['2xx'] }), ['statuses[0]']],
    // @ts-expect-error Brotli calls it quality
    ['a level of Brotli', () => compress({ brotli: { level: 5 } }), ['brotli.level']],
    // @ts-expect-error a flag
    ['cross-site by text', () => compress({ skipCrossSite: 'yes' }), ['skipCrossSite']],
    // @ts-expect-error true says nothing
    ['overload: true', () => compress({ overload: true }), ['overload']],
    // @ts-expect-error a function
    ['a lag that is a number', () => compress({ overload: { lag: 5 } }), ['overload.lag']],
    // @ts-expect-error misspelt
    ['decompress with a misspelt option', () => decompress({ force: true }), ['force']],
    // @ts-expect-error a flag
    ['always by text', () => decompress({ always: 'yes' }), ['always']],
    // @ts-expect-error that is what maxSize is for
    ['decompressRequests with a limit by another name', () => decompressRequests({ limit: '1MiB' }), ['limit']],
    // @ts-expect-error no such coding
    ['decompressRequests of compress', () => decompressRequests({ codings: ['compress'] }), ['codings[0]']],
    // @ts-expect-error pass or refuse
    ['unsupported by flag', () => decompressRequests({ unsupported: true }), ['unsupported']],
  ])

  it('stages are stages', () => {
    expectTypeOf(compress).returns.toEqualTypeOf<CompressStage>()
    expectTypeOf(compressionDictionaries).returns.toEqualTypeOf<CompressionDictionaries>()
    expectTypeOf<CompressionDictionaries>().toExtend<Stage>()
    expectTypeOf(decompress).returns.toEqualTypeOf<DecompressStage>()
    expectTypeOf(decompressRequests).returns.toEqualTypeOf<DecompressRequestsStage>()
    expectTypeOf<CompressStage>().toExtend<Stage>()
    expectTypeOf<DecompressRequestsStage>().toExtend<Stage>()
    expectTypeOf<DecompressStage>().toExtend<Stage>()
    expect([compress().name, decompress().name, decompressRequests().name, compress({ name: 'zip' }).name]).toEqual([
      'compress',
      'decompress',
      'decompressRequests',
      'zip',
    ])
  })
})

describe('what only the factory sees, all of it at once', () => {
  const nonsense = { a: 1 } as never
  table([
    [
      'compress',
      () =>
        compress({
          codings: ['gzip', 'br', 'gzip'],
          gzip: { level: 0, windowBits: 16, memLevel: 10 },
          brotli: { quality: 12, windowBits: 9 },
          zstd: { level: 20, windowBits: 24 },
          minSize: -1,
          types: ['text/*', 'text/html; charset=utf-8', '', '+', 'html'],
          statuses: [200, 99, 200.5],
          flushAfter: '2m',
          skipCrossSite: nonsense,
          clock: nonsense,
          maxActive: 0,
          overload: { reduceAt: '1s', skipAt: '50ms', lag: nonsense },
          name: '',
        }),
      [
        'codings[2]',
        'gzip.level',
        'gzip.windowBits',
        'gzip.memLevel',
        'brotli.quality',
        'brotli.windowBits',
        'zstd.level',
        'zstd.windowBits',
        'minSize',
        'types[1]',
        'types[2]',
        'types[3]',
        'types[4]',
        'statuses[1]',
        'statuses[2]',
        'flushAfter',
        'skipCrossSite',
        'clock',
        'maxActive',
        'overload.skipAt',
        'overload.lag',
        'name',
      ],
    ],
    [
      'compressionDictionaries',
      () =>
        compressionDictionaries({
          maxSize: 10,
          maxDictionarySize: '9MiB',
          maxActive: 0,
          offers: [
            { match: '' },
            { match: '/(a|b)' },
            { match: '/é' },
            { match: '/a/:b' },
            { match: 'app.js' },
            { match: '//other.example/x' },
            { match: '/x y' },
            { match: '/x', from: '/y?z' },
            { match: '/x', from: nonsense, destinations: ['A B'] },
            { match: '/x', to: 1 } as never,
            'x' as never,
          ],
          clock: nonsense,
          name: '',
        }),
      [
        'maxSize',
        'maxDictionarySize',
        'maxActive',
        ...[0, 1, 2, 3, 4, 5, 6].map((i) => `offers[${i}].match`),
        'offers[7].from',
        'offers[8].from',
        'offers[8].destinations',
        'offers[9].to',
        'offers[10]',
        'offers[10].match',
        'clock',
        'name',
      ],
    ],
    ['dictionaries in no list', () => compressionDictionaries({ offers: nonsense }), ['offers']],
    [
      'dictionaries longer than all of them',
      () => compressionDictionaries({ maxSize: '1MiB', maxDictionarySize: '2MiB' }),
      ['maxDictionarySize'],
    ],
    ['dictionaries of somebody else', () => compress({ dictionaries: { has: () => true } as never }), ['dictionaries']],
    ['compress in nothing', () => compress({ codings: [] }), ['codings']],
    ['compress by nonsense', () => compress({ gzip: 6 as never, types: nonsense, statuses: nonsense }), ['gzip', 'types', 'statuses']],
    [
      'levels that are no whole numbers',
      () => compress({ gzip: { level: 5.5 }, zstd: { level: Number.NaN } }),
      ['gzip.level', 'zstd.level'],
    ],
    [
      'decompress',
      () => decompress({ codings: ['gzip', 'deflate' as never], always: nonsense, maxSize: 0, maxRatio: 0.5, name: '' }),
      ['codings[1]', 'always', 'maxSize', 'maxRatio', 'name'],
    ],
    [
      'decompressRequests',
      () => decompressRequests({ codings: ['deflate', 'deflate'], maxSize: 0, maxRatio: 0.5, burst: -1, unsupported: nonsense, name: '' }),
      ['codings[1]', 'maxSize', 'maxRatio', 'burst', 'unsupported', 'name'],
    ],
  ])

  it('the ends of every range are right', () => {
    const low = {
      gzip: { level: 1, windowBits: 10, memLevel: 1 },
      brotli: { quality: 0, windowBits: 10 },
      zstd: { level: 1, windowBits: 10 },
    }
    const high = {
      gzip: { level: 9, windowBits: 15, memLevel: 9 },
      brotli: { quality: 11, windowBits: 24 },
      zstd: { level: 19, windowBits: 23 },
    }
    expect(paths(() => [compress(low), compress(high), compress({ minSize: 0, maxActive: 1, overload: false })])).toEqual([])
    expect(paths(() => compress({ overload: { reduceAt: 300 } }))).toEqual([])
  })

  it('decompress inside of compress, not around it', () => {
    expect(decompress().order).toEqual({ after: ['compress'] })
  })
})
