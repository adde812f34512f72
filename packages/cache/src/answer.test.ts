/** An answer that is made once and sent many times, against the one that is made anew each time. */
import { HeaderList, type Reply, ReplyFields } from '@weir/core'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { answer, answerAgain, asksForAll } from './answer.ts'
import { entryOf } from './fixtures/entries.ts'
import { HotText, HotTexts } from './hot-texts.ts'

const asked = { method: 'GET', headers: new HeaderList([]), conditional: false, range: undefined }
const body = Buffer.from('body')

it('an answer that is sent again is the one that would be made', () => {
  const hot = new HotTexts(10_000).of(Object.assign(new HotText(), { uses: 1 }), body, 4)
  if (hot === undefined) throw new Error('no text')
  // What shares a body: an entry, and those that a 304 has made of it. Their ages and lifetimes have nothing to do with each other.
  const entries = [
    entryOf('1', 4, { fields: ['ETag', '"1"', 'Content-Length', '4'], storedAt: 0, initialAge: 0 }),
    entryOf('1', 4, { fields: ['ETag', '"2"', 'Content-Length', '4'], storedAt: 0, initialAge: 0 }),
    entryOf('1', 4, { fields: ['Content-Length', '4'], storedAt: 500, initialAge: 300, status: 203 }),
  ]
  const step = fc.record({
    entry: fc.constantFrom(...entries),
    now: fc.constantFrom(0, 1, 999, 1000, 1199, 1200, 5000),
    line: fc.constantFrom(undefined, 'weir; hit; ttl=9', 'weir; hit; ttl=8'),
  })
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) => {
      for (const { entry, now, line } of steps) {
        const { fields: again, ...rest } = answerAgain(entry, hot, body, now, line)
        const made = answer(asked, { entry, size: 4, open: () => body }, now, line) as Reply
        expect([again instanceof ReplyFields && again.list, rest]).toEqual([made.fields, { status: made.status, body, latin1: 'body' }])
      }
    }),
  )
})

it('whoever wants another form of it than all of it is not answered so', () => {
  expect(asksForAll(asked)).toBe(true)
  for (const other of [{ method: 'HEAD' }, { conditional: true }, { range: 'bytes=0-1' }])
    expect(asksForAll({ ...asked, ...other })).toBe(false)
})
