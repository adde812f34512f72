/** How much is learnt at a time, and who makes room. */
import type { Exchange } from '@weir/core'
import { virtualClock } from '@weir/testing'
import { expect, it } from 'vitest'
import { DictionaryLessons } from './dictionary-lessons.ts'

const exchange = (): Exchange => ({}) as Exchange

it('of a crowd that fetches the same, one is enough, until it takes too long', async () => {
  const clock = virtualClock(1000)
  const lessons = new DictionaryLessons(clock)
  const learnt: string[] = []
  const begin = (place: string, by = exchange()) =>
    lessons.begin(place, by, 100, undefined, (content) => learnt.push(`${place} ${content}`))
  const first = begin('a')
  expect(first).toBeDefined()
  expect(begin('a')).toBeUndefined()
  expect(begin('b'), 'another place').toBeDefined()
  await clock.advance(2000)
  const second = begin('a')
  expect(second).toBeDefined()
  // The one that took too long is heard no more.
  first?.onChunk?.(Buffer.from('late'))
  first?.onEnd?.(true)
  expect(begin('a'), 'its end is not the end of the other').toBeUndefined()
  second?.onChunk?.(Buffer.from('in time'))
  second?.onEnd?.(true)
  expect(learnt).toEqual(['a in time'])
  expect(begin('a'), 'the place is free').toBeDefined()
})

it('eight at a time; one that takes long makes room for the next, the oldest first', async () => {
  const clock = virtualClock(1000)
  const lessons = new DictionaryLessons(clock)
  const learnt: string[] = []
  const begin = (place: string) => lessons.begin(place, exchange(), 100, undefined, () => learnt.push(place))
  const taps = []
  for (let i = 0; i < 8; i++) {
    taps.push(begin(String(i)))
    await clock.advance(100)
  }
  expect(begin('8')).toBeUndefined()
  await clock.advance(1200)
  taps.push(begin('8'))
  expect(taps[8]).toBeDefined()
  expect(begin('9'), 'the next oldest is too young still').toBeUndefined()
  for (const tap of taps) {
    tap?.onChunk?.(Buffer.from('x'))
    tap?.onEnd?.(true)
  }
  expect(learnt).toEqual(['1', '2', '3', '4', '5', '6', '7', '8'])
})

it('an exchange that is over gives its place back, and no other', () => {
  const lessons = new DictionaryLessons(virtualClock(1000))
  const one = exchange()
  const begin = (place: string, by: Exchange) => lessons.begin(place, by, 100, undefined, () => undefined)
  begin('a', one)
  begin('b', exchange())
  lessons.release(one)
  expect(begin('a', exchange())).toBeDefined()
  expect(begin('b', exchange())).toBeUndefined()
})

it('takes no more memory than the body, in however many pieces it comes', () => {
  const lessons = new DictionaryLessons(virtualClock(1000))
  let content: Buffer | undefined
  const tap = lessons.begin('a', exchange(), 300_000, undefined, (learnt) => {
    content = learnt
  })
  const piece = Buffer.alloc(1)
  for (let i = 0; i < 300_000; i++) {
    piece[0] = i
    tap?.onChunk?.(piece)
  }
  tap?.onEnd?.(true)
  expect(content?.length).toBe(300_000)
  expect(content?.every((byte, i) => byte === (i & 255))).toBe(true)
  expect(content?.buffer.byteLength).toBe(300_000)
})
