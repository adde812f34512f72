/**
 * The waiting line against a plain array: first in, first out; never longer than its limit; everybody is settled once or leaves unsettled;
 * and whoever has gone, by whichever way, leaves no timer behind.
 */
import { stubExchange, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ErrorCode } from './errors.ts'
import { ProxyError } from './errors.ts'
import { type Waiter, WaitQueue } from './queue.ts'

const exchange = stubExchange()
/** How many waiters a wake looks at. */
const looked = 256

type Operation =
  | { readonly do: 'enter' }
  /** The nth of all who ever entered, also of those who have gone. */
  | { readonly do: 'leave'; readonly who: number }
  /** Everybody with `who % modulus === rest` may go. */
  | { readonly do: 'wake'; readonly modulus: number; readonly rest: number }
  | { readonly do: 'advance'; readonly ms: number }
  | { readonly do: 'fail' }

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 8, arbitrary: fc.constant({ do: 'enter' as const }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('leave' as const), who: fc.nat(40) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wake' as const), modulus: fc.integer({ min: 1, max: 20 }), rest: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.nat(60) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'fail' as const }) },
)

it('does what an array does', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 20 }), fc.array(operation, { maxLength: 50 }), async (limit, operations) => {
      const timeout = 100
      const clock = virtualClock()
      const queue = new WaitQueue(clock, limit, timeout)
      const waiters: Waiter[] = []
      const settled: [who: number, how: ErrorCode | 'go'][] = []
      let line: { who: number; due: number }[] = []
      const expected: [who: number, how: ErrorCode | 'go'][] = []

      for (const op of operations) {
        switch (op.do) {
          case 'enter': {
            const who = waiters.length
            const waiter = queue.enter(exchange, (error) => settled.push([who, error?.code ?? 'go']) > 0)
            expect(waiter === undefined).toBe(line.length >= limit)
            if (waiter === undefined) break
            waiters.push(waiter)
            line.push({ who, due: clock.now() + timeout })
            break
          }
          case 'leave': {
            const waiter = waiters[op.who]
            if (waiter === undefined) break
            expect(queue.leave(waiter)).toBe(line.some(({ who }) => who === op.who))
            line = line.filter(({ who }) => who !== op.who)
            break
          }
          case 'wake': {
            queue.wake((waiter) => waiters.indexOf(waiter) % op.modulus === op.rest)
            const first = line.slice(0, looked).find(({ who }) => who % op.modulus === op.rest)
            if (first === undefined) break
            expected.push([first.who, 'go'])
            line = line.filter((entry) => entry !== first)
            break
          }
          case 'advance': {
            await clock.advance(op.ms)
            for (const entry of line) if (entry.due <= clock.now()) expected.push([entry.who, 'ERR_QUEUE_TIMEOUT'])
            line = line.filter(({ due }) => due > clock.now())
            break
          }
          case 'fail': {
            queue.fail(() => new ProxyError('ERR_NO_UPSTREAM'))
            for (const { who } of line) expected.push([who, 'ERR_NO_UPSTREAM'])
            line = []
            break
          }
        }
        expect(settled).toEqual(expected)
        expect(queue.size).toBe(line.length)
        expect(clock.pending).toBe(line.length)
      }
    }),
    { numRuns: 200 },
  )
})

describe('inside a settle', () => {
  const setup = (limit = 10) => {
    const queue = new WaitQueue(virtualClock(), limit, 100)
    const settled: string[] = []
    const enter = (name: string, then?: () => void): Waiter => {
      const waiter: Waiter = queue.enter(exchange, (error) => {
        settled.push(`${name}:${error?.code ?? 'go'}`)
        if (error === undefined) queue.leave(waiter)
        then?.()
        return true
      }) as Waiter
      return waiter
    }
    return { queue, settled, enter }
  }

  it('others may leave', () => {
    const { queue, settled, enter } = setup()
    let second: Waiter | undefined
    enter('first', () => queue.leave(second as Waiter))
    second = enter('second')
    enter('third')
    queue.fail(() => new ProxyError('ERR_DRAINING'))
    expect(settled).toEqual(['first:ERR_DRAINING', 'third:ERR_DRAINING'])
    expect(queue.size).toBe(0)
  })

  it('one may line up again, at the end, and is not let go twice by one wake', () => {
    const { queue, settled, enter } = setup()
    enter('first', () => enter('first again'))
    enter('second')
    queue.wake(() => true)
    expect(settled).toEqual(['first:go'])
    queue.wake(() => true)
    queue.wake(() => true)
    expect(settled).toEqual(['first:go', 'second:go', 'first again:go'])
  })

  it('the place is free already', () => {
    const { queue, settled, enter } = setup(1)
    enter('first', () => enter('next'))
    queue.wake(() => true)
    expect(queue.size).toBe(1)
    expect(settled).toEqual(['first:go'])
  })
})

it('who takes nothing keeps its place, and the next one is asked', () => {
  const queue = new WaitQueue(virtualClock(), 100, 100)
  const asked: number[] = []
  for (let i = 0; i < 4; i++) queue.enter(exchange, () => asked.push(i) > 0 && i === 2)
  expect([queue.wake(() => true), asked, queue.size]).toEqual([true, [0, 1, 2], 3])
  expect([queue.wake(() => true), asked, queue.size]).toEqual([false, [0, 1, 2, 0, 1, 3], 3])
})

it('a wake looks at the first 256: enough to pass over those who cannot go, and no scan without an end', () => {
  const queue = new WaitQueue(virtualClock(), 300, 100)
  const settled: number[] = []
  const waiters = Array.from({ length: 260 }, (_, i) => queue.enter(exchange, () => settled.push(i) > 0))
  let looks = 0
  queue.wake((waiter) => {
    looks++
    return waiters.indexOf(waiter) >= looked
  })
  expect([looks, settled]).toEqual([looked, []])
  queue.wake((waiter) => waiters.indexOf(waiter) >= looked - 1)
  expect(settled).toEqual([looked - 1])
})

it('who has left is not settled by anything', async () => {
  const clock = virtualClock()
  const queue = new WaitQueue(clock, 5, 100)
  let settled = 0
  const waiter = queue.enter(exchange, () => ++settled > 0) as Waiter
  expect(queue.leave(waiter)).toBe(true)
  expect(queue.leave(waiter)).toBe(false)
  queue.wake(() => true)
  queue.fail(() => new ProxyError('ERR_DRAINING'))
  await clock.advance(1000)
  expect(settled).toBe(0)
})
