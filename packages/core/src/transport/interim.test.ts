/** Whatever the pieces in which the bytes arrive, the parser sees the stream without its `100 (Continue)` heads, and all else intact. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { InterimFilter, mayBeInterim } from './interim.ts'

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')

/** Stands for more bytes than the filter would ever hold; short, so that a counterexample can be read. */
const long = '<long>'
const expand = (text: string): string => text.replaceAll(long, 'x'.repeat(20_000))

/** Feeds `stream` in pieces that end at `cuts`; what the parser sees. */
function seen(stream: string, cuts: readonly number[]): string {
  const filter = new InterimFilter()
  const ends = [...new Set(cuts.map((cut) => cut % (stream.length + 1))), stream.length].sort((a, b) => a - b)
  let out = ''
  let at = 0
  for (const end of ends) {
    if (end === at) continue
    const passed = filter.filter(latin1(stream.slice(at, end)))
    if (passed !== null) {
      expect(passed.length).toBeGreaterThan(0)
      out += passed.toString('latin1')
    }
    at = end
  }
  return out
}
const everyByte = (stream: string): number[] => Array.from(stream, (_, i) => i)

const fields = fc
  .array(fc.constantFrom('Link: </a>; rel=preload\r\n', 'X-A: \xe9\r\n', 'Date: now\r\n', `X-Long: ${'x'.repeat(500)}\r\n`), {
    maxLength: 3,
  })
  .map((lines) => lines.join(''))
const version = fc.constantFrom('HTTP/1.1', 'HTTP/1.0')
const continues = fc
  .tuple(version, fc.constantFrom(' Continue', ' ', '', ' 200 OK'), fields)
  .map(([v, reason, lines]) => `${v} 100${reason}\r\n${lines}\r\n`)
const otherInterim = fc
  .tuple(version, fc.constantFrom('102 Processing', '103 Early Hints', '103', '110 x', '199 x', '104 HTTP/1.1 100'), fields)
  .map(([v, status, lines]) => `${v} ${status}\r\n${lines}\r\n`)
const body = fc.oneof(
  fc.string({ maxLength: 40 }).map((text) => Buffer.from(text).toString('latin1')),
  fc.constantFrom(
    'HTTP/1.1 100 Continue\r\n\r\n',
    '\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nx',
    'HTTP/1.1 103 x\r\n',
    `${long}HTTP/1.1 100 \r\n\r\n`,
  ),
)
const final = fc
  .tuple(version, fc.constantFrom('200 OK', '204', '404 Not Found', '500 HTTP/1.1 100'), fields, body)
  .map(([v, status, lines, content]) => `${v} ${status}\r\n${lines}\r\n${content}`)
// What follows a 101 is another protocol and may look like anything.
const switching = fc.tuple(version, fields, body).map(([v, lines, content]) => `${v} 101 Switching Protocols\r\n${lines}\r\n${content}`)

const message = fc
  .tuple(
    fc.array(
      fc.oneof(
        continues.map((head) => ({ head, cut: true })),
        otherInterim.map((head) => ({ head, cut: false })),
      ),
      { maxLength: 4 },
    ),
    fc.oneof(final, switching),
  )
  .map(([heads, last]) => ({
    stream: heads.map(({ head }) => head).join('') + last,
    expected:
      heads
        .filter(({ cut }) => !cut)
        .map(({ head }) => head)
        .join('') + last,
  }))

describe('the filter', () => {
  it('cuts the 100s out and nothing else, for any pieces', () => {
    fc.assert(
      fc.property(message, fc.array(fc.nat(30_000), { maxLength: 12 }), ({ stream, expected }, cuts) => {
        expect(seen(expand(stream), cuts)).toBe(expand(expected))
      }),
      { numRuns: 1000 },
    )
  })

  it('also byte by byte, and in one piece', () => {
    fc.assert(
      fc.property(message, ({ stream, expected }) => {
        if (!stream.includes(long)) expect(seen(stream, everyByte(stream))).toBe(expected)
        expect(seen(expand(stream), [])).toBe(expand(expected))
      }),
    )
  })
})

it('is out of the way behind the final head: the very same buffer passes', () => {
  const filter = new InterimFilter()
  const chunk = latin1('HTTP/1.1 100 Continue\r\n\r\n')
  expect(filter.awaiting).toBe(true)
  filter.filter(latin1('HTTP/1.1 200 OK\r\n'))
  expect(filter.awaiting).toBe(false)
  expect(filter.filter(chunk)).toBe(chunk)
})

it('a head without a 1xx in front of it passes as the very same buffer', () => {
  const filter = new InterimFilter()
  const chunk = latin1('HTTP/1.1 200 OK\r\n\r\n')
  expect(filter.filter(chunk)).toBe(chunk)
})

it('is asked for by what begins as a 1xx, or may yet, and by nothing else', () => {
  for (const start of ['H', 'HTTP/1.1 1', 'HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.0 103 x'])
    expect(mayBeInterim(latin1(start)), start).toBe(true)
  for (const start of ['x', 'HTTP/1.1 200 OK', 'HTTP/1.1 101 Switching', 'HTTP/1.1 2'])
    expect(mayBeInterim(latin1(start)), start).toBe(false)
})

it('waits while it cannot tell', () => {
  for (const start of ['H', 'HTTP/1.', 'HTTP/1.1 1', 'HTTP/1.1 100', 'HTTP/1.1 100 Continue\r\n', 'HTTP/1.1 103 Early\r\nLink: x\r\n']) {
    const filter = new InterimFilter()
    expect(filter.filter(latin1(start)), start).toBeNull()
  }
})

it('does not hold what it was given: the sender may use its buffer again', () => {
  const filter = new InterimFilter()
  const first = latin1('HTTP/1.1 10')
  expect(filter.filter(first)).toBeNull()
  first.fill(0)
  expect(filter.filter(latin1('3 x\r\n\r\n'))?.toString()).toBe('HTTP/1.1 103 x\r\n\r\n')
})

describe('what is no HTTP goes to the parser as it is, which knows what to say to it', () => {
  const junk = [
    'x',
    'SSH-2.0-x\r\n\r\n',
    'HTTP/1.1 1000 x\r\n\r\n',
    'HTTP/1.1 1/: x\r\n\r\n',
    'HTTP/1.1 1ab x\r\n\r\n',
    'HxTP/1.1 100 x\r\n\r\n',
    'HTTP/2.0 100 x\r\n\r\n',
    'HTTP/1.1  100 x\r\n\r\n',
    'HTTP/1.1-100 x\r\n\r\n',
    'HTTP/1.11100 x\r\n\r\n',
    '\r\nHTTP/1.1 100 x\r\n\r\n',
  ]
  for (const stream of junk)
    it(JSON.stringify(stream), () => {
      const whole = `${stream}HTTP/1.1 200 OK\r\n\r\n`
      expect(seen(whole, [])).toBe(whole)
      expect(seen(whole, everyByte(whole))).toBe(whole)
    })

  it('a 1xx head without end is not collected without end', () => {
    const filter = new InterimFilter()
    let held = 0
    let passed: Buffer | null = null
    filter.filter(latin1('HTTP/1.1 100 Continue\r\n'))
    while (passed === null && held < 1_000_000) {
      held += 1000
      passed = filter.filter(latin1(`X: ${'x'.repeat(995)}\r\n`))
    }
    expect(held).toBeLessThan(20_000)
    expect(passed?.toString('latin1').startsWith('HTTP/1.1 100 Continue\r\nX: x')).toBe(true)
  })
})
