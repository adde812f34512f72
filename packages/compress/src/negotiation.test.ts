/** What a client gets for what it says it takes. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { chooseCoding } from './negotiation.ts'

const offered = ['zstd', 'br', 'gzip'] as const

describe('chooseCoding', () => {
  it.each([
    // Nothing said, or nothing wanted
    [undefined, undefined],
    ['', undefined],
    ['identity', undefined],
    ['deflate, compress', undefined],
    ['gzip;q=0', undefined],
    ['*;q=0', undefined],
    // The server's order on ties, the client's weights otherwise
    ['gzip', 'gzip'],
    ['x-gzip', 'gzip'],
    ['GZip', 'gzip'],
    ['gzip, deflate, br', 'br'],
    ['gzip, deflate, br, zstd', 'zstd'],
    ['gzip;q=1, br;q=0.9, zstd;q=0.1', 'gzip'],
    ['gzip;q=0.001', 'gzip'],
    // `*`
    ['*', 'zstd'],
    ['*, zstd;q=0', 'br'],
    ['gzip, *;q=0', 'gzip'],
    ['gzip;q=0.5, *;q=0.4', 'gzip'],
    // identity
    ['identity;q=0', undefined],
    ['identity;q=0, gzip', 'gzip'],
    ['identity, gzip', 'gzip'],
    ['identity;q=1, gzip;q=0.5', undefined],
    ['identity;q=0.5, gzip;q=0.5', 'gzip'],
    // What nobody can read as it was meant
    ['gzip;q=high', undefined],
    ['gzip;q=2', undefined],
    ['gzip;q=-1', undefined],
    ['gzip;q=', undefined],
    ['gzip;q=1.5', undefined],
    ['gzip, gzip;q=0', undefined],
    [',,;q=1, ; ,gzip', 'gzip'],
    ['gzip ; Q = 0.5 , br ; q=0.4', 'gzip'],
    ['gzip;level=9', 'gzip'],
    ['gzip;level=9;q=0', undefined],
    ['gzip;q=.5', 'gzip'],
    ['gzip br', undefined],
  ])('%j: %s', (field, coding) => {
    expect(chooseCoding(field, offered)).toBe(coding)
  })

  it('follows the order in which codings are offered', () => {
    expect(chooseCoding('gzip, br', ['gzip', 'br'])).toBe('gzip')
    expect(chooseCoding('*', ['br'])).toBe('br')
    expect(chooseCoding('gzip;q=0.5, *;q=1', ['gzip'])).toBeUndefined()
  })

  /**
   * RFC 9110 §12.5.3, read a second time and without the first: rank every coding that may be sent, by its own weight or that of `*`; identity may
   * be sent unless excluded, and without a weight it is what nothing else beats down to zero.
   */
  it('agrees with another reading of the RFC, for every field of the grammar', () => {
    const weight = fc.oneof(
      fc.constant({ text: '', value: 1000 }),
      fc.integer({ min: 0, max: 1000 }).map((value) => ({ text: `;q=${(value / 1000).toFixed(3)}`, value })),
      fc.constantFrom({ text: ';q=0', value: 0 }, { text: '; q=1', value: 1000 }, { text: ' ;Q=0.5', value: 500 }),
    )
    const name = fc.constantFrom('gzip', 'br', 'zstd', 'identity', '*', 'deflate')
    const entries = fc.uniqueArray(fc.tuple(name, weight), { selector: ([n]) => n, minLength: 1 })
    const order = fc.shuffledSubarray([...offered], { minLength: 1 })
    fc.assert(
      fc.property(entries, order, fc.constantFrom(',', ', ', ' , '), (list, codings, comma) => {
        const field = list.map(([n, w]) => `${n}${w.text}`).join(comma)
        const stated = (coding: string): number | undefined => list.find(([n]) => n === coding)?.[1].value
        const ranked = [
          ...codings
            .map((coding, index) => ({ coding, index, value: stated(coding) ?? stated('*') ?? 0 }))
            .filter(({ value }) => value > 0),
          { coding: undefined, index: codings.length, value: stated('identity') ?? stated('*') ?? 0 },
        ].toSorted((a, b) => b.value - a.value || a.index - b.index)
        expect(chooseCoding(field, codings)).toBe(ranked[0]?.coding)
      }),
      { numRuns: 1000 },
    )
  })

  it('never throws, and never gives what was refused by name', () => {
    const scrap = fc.constantFrom('gzip', 'br', '*', 'identity', ';', 'q', '=', '0', '1', '.', ',', ' ', '"', '\t', '\xff')
    fc.assert(
      fc.property(fc.array(scrap, { maxLength: 40 }), (scraps) => {
        const field = `${scraps.join('')},br;q=0,gzip;q=0`
        expect([undefined, 'zstd']).toContain(chooseCoding(field, offered))
      }),
      { numRuns: 500 },
    )
  })
})
