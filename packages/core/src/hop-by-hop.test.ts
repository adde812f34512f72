/**
 * Hop-by-hop fields, held against the rule in its plainest form: a field goes on unless its name is on the list, or some `Connection` line
 * nominates it. The scans under test compare lengths and edit in place; the rule here does neither.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { endToEndRequestFields, endToEndResponseFields, endToEndTrailers, keepEndToEnd, nominated, withoutNominated } from './hop-by-hop.ts'

type Pair = readonly [name: string, value: string]
const lower = (text: string): string => text.toLowerCase()

const perHop = [
  'Connection',
  'Keep-Alive',
  'Proxy-Connection',
  'TE',
  'Trailer',
  'Transfer-Encoding',
  'Upgrade',
  'HTTP2-Settings',
  'Proxy-Authenticate',
  'Proxy-Authorization',
  'Proxy-Authentication-Info',
]
const forwarding = ['Forwarded', 'X-Forwarded-For', 'X-Forwarded-Host', 'X-Forwarded-Whatever', 'X-Real-IP']
// Of the same lengths as fields that are dropped, and names that merely begin like them.
const endToEnd = [
  'Host',
  'Via',
  'X-A',
  'Cookie',
  'Content-Length',
  'Content-Type',
  'Expires',
  'X-Connection',
  'X-Real-IPs',
  'Forwards',
  'Xorwarded',
  'Fancy-Fnn',
  'Content-Location',
  'Location',
  'Refresh',
  'Upgrade-Insecure-Requests',
  `X-${'long-'.repeat(20)}`,
  'a'.repeat(63),
  'b'.repeat(64),
  'c'.repeat(65),
]

const recased = (names: readonly string[]): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.constantFrom(...names),
      fc.constantFrom(
        lower,
        (text: string) => text.toUpperCase(),
        (text: string) => text,
      ),
    )
    .map(([name, change]) => change(name))
const anyName = fc.oneof(recased(perHop), recased(forwarding), recased(endToEnd), recased(['Expect']))
const nomination = fc.oneof(anyName, fc.constantFrom('close', 'Close', 'keep-alive', 'KEEP-ALIVE', '', 'x-absent', 'not a token'))
const connectionValue = fc
  .tuple(fc.array(nomination, { maxLength: 4 }), fc.constantFrom(',', ', ', ' ,\t', ',,'))
  .map(([names, separator]) => names.join(separator))
const pair: fc.Arbitrary<Pair> = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(anyName, fc.constantFrom('', '1', 'a, b', 'caf\xe9', '0')) },
  { weight: 1, arbitrary: fc.tuple(recased(['Connection']), connectionValue) },
)
// A parser lets no other lengths through.
const message = fc.array(
  pair.map((field): Pair => (lower(field[0]) === 'content-length' ? [field[0], String(field[1].length)] : field)),
  { maxLength: 14 },
)

const connectionLines = (fields: readonly Pair[]): string =>
  fields
    .filter(([name]) => lower(name) === 'connection')
    .map(([, value]) => value)
    .join(',')

/** Lower-case names that must not go on. `Host` and `Content-Length` may be nominated in vain: routing and framing are not the sender's to strip. */
function doomed(fields: readonly Pair[]): Set<string> {
  const names = new Set(perHop.map(lower))
  for (const part of connectionLines(fields).split(',')) names.add(lower(part.trim()))
  names.delete('host')
  names.delete('content-length')
  return names
}

describe('a request', () => {
  it('loses what is per hop or nominated, and nothing else: the rest survives byte for byte, in order', () => {
    fc.assert(
      fc.property(message, fc.boolean(), (fields, dropForwarding) => {
        const gone = doomed(fields)
        const expected = fields.filter(([name]) => {
          const key = lower(name)
          // What a trusted proxy tells of its client is not its client's to take off.
          if (key === 'forwarded' || key === 'x-real-ip' || key.startsWith('x-forwarded-')) return !dropForwarding
          return !gone.has(key) && key !== 'expect'
        })
        const raw = Object.freeze(fields.flat())
        expect(endToEndRequestFields(withoutNominated(raw, connectionLines(fields)), dropForwarding)).toEqual(expected.flat())
      }),
      { numRuns: 1000 },
    )
  })

  it('a nominated Host and Content-Length stay', () => {
    const raw = ['Host', 'a', 'Content-Length', '3', 'X-A', '1', 'Connection', 'host, CONTENT-LENGTH, x-a']
    expect(endToEndRequestFields(withoutNominated(raw, 'host, CONTENT-LENGTH, x-a'), true)).toEqual(['Host', 'a', 'Content-Length', '3'])
  })

  it('is told apart from its source list', () => {
    const raw: string[] = ['Host', 'a']
    endToEndRequestFields(withoutNominated(raw, ''), true).push('X-A', '1')
    expect(raw).toEqual(['Host', 'a'])
  })
})

describe('a response', () => {
  it('loses what is per hop or nominated, in place, and says what it saw on the way', () => {
    fc.assert(
      fc.property(message, fc.boolean(), (fields, takesTrailers) => {
        const gone = doomed(fields)
        const nominatedNames = new Set(
          connectionLines(fields)
            .split(',')
            .map((part) => lower(part.trim())),
        )
        const lengths = fields.filter(([name]) => lower(name) === 'content-length').map(([, value]) => Number(value))
        if (takesTrailers && lengths.length === 0 && !nominatedNames.has('trailer')) gone.delete('trailer')
        const expected = fields.filter(([name]) => !gone.has(lower(name)))
        const raw = fields.flat()
        const found = keepEndToEnd(raw, takesTrailers)
        expect(raw).toEqual(expected.flat())
        expect(found.length).toEqual(lengths.length > 1 ? Number.NaN : (lengths[0] ?? -1))
        // It may say yes too often (a nominated one), never no for one that is left.
        if (expected.some(([name]) => ['location', 'content-location', 'refresh'].includes(lower(name)))) expect(found.urls).toBe(true)
        if (!fields.some(([name]) => ['location', 'content-location', 'refresh'].includes(lower(name)))) expect(found.urls).toBe(false)
      }),
      { numRuns: 1000 },
    )
  })

  it('the announcement of trailers goes on to who takes them, unless a length rules trailers out, before it or behind it', () => {
    const keep = (raw: string[], takesTrailers: boolean): string[] => {
      keepEndToEnd(raw, takesTrailers)
      return raw
    }
    expect(keep(['Trailer', 'X-Sum', 'X-A', '1'], true)).toEqual(['Trailer', 'X-Sum', 'X-A', '1'])
    expect(keep(['Trailer', 'X-Sum', 'X-A', '1'], false)).toEqual(['X-A', '1'])
    expect(keep(['Trailer', 'X-Sum', 'Content-Length', '3'], true)).toEqual(['Content-Length', '3'])
    expect(keep(['Content-Length', '3', 'Trailer', 'X-Sum'], true)).toEqual(['Content-Length', '3'])
  })

  it('of an interim head a copy is filtered', () => {
    const raw: readonly string[] = Object.freeze([
      'Link',
      '</a>',
      'content-length',
      '3',
      'Connection',
      'X-Hop',
      'X-Hop',
      '1',
      'Trailer',
      'x',
    ])
    expect(endToEndResponseFields(raw)).toEqual(['Link', '</a>'])
  })
})

describe('nominated', () => {
  const rows: [connection: string, names: string[]][] = [
    ['', []],
    ['close', []],
    ['Keep-Alive', []],
    ['keep-alive, Upgrade', ['upgrade']],
    [' X-A ,,\tx-b', ['x-a', 'x-b']],
    ['close, host, content-length', []],
    ['HOST,X-Forwarded-For', ['x-forwarded-for']],
  ]
  for (const [connection, names] of rows) it(JSON.stringify(connection), () => expect(nominated(connection)).toEqual(names))
})

describe('trailers', () => {
  // RFC 9110 §6.5.1: framing, routing, authentication, request modifiers, response control, and how to process the content.
  const forbidden = [
    ...perHop,
    'Host',
    'Content-Length',
    'Content-Type',
    'Content-Encoding',
    'Content-Range',
    'Authorization',
    'WWW-Authenticate',
    'Cookie',
    'Set-Cookie',
    'Cache-Control',
    'Expires',
    'Age',
    'Date',
    'Vary',
    'Location',
    'Retry-After',
    'Range',
    'If-Match',
    'If-None-Match',
    'If-Modified-Since',
    'If-Unmodified-Since',
    'If-Range',
    'Expect',
    'Max-Forwards',
    'Pragma',
  ]
  const allowed = ['ETag', 'X-Checksum', 'Server-Timing', 'Grpc-Status', 'Digest', 'Content-MD5']

  it.each(forbidden)('%s is not relayed, in any case', (name) => {
    for (const spelt of [name, lower(name), name.toUpperCase()]) expect(endToEndTrailers([spelt, '1'])).toBeUndefined()
  })

  it('keep everything else byte for byte, in order; nothing left is no trailers', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.oneof(recased(forbidden), recased(allowed)), fc.constantFrom('', '1', 'caf\xe9')), { maxLength: 8 }),
        (fields) => {
          const kept = fields.filter(([name]) => allowed.some((one) => lower(one) === lower(name))).flat()
          expect(endToEndTrailers(Object.freeze(fields.flat()))).toEqual(kept.length === 0 ? undefined : kept)
        },
      ),
    )
  })
})
