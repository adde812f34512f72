import { describe, expect, it } from 'vitest'
import { virtualClock } from './virtual-clock.ts'

describe('virtualClock', () => {
  it('runs timers at their own moment, in order of time and then of making', async () => {
    const clock = virtualClock(1000)
    const ran: string[] = []
    const note = (name: string) => () => void ran.push(`${name}@${clock.now()}`)
    clock.setTimeout(note('late'), 30)
    clock.setTimeout(note('first'), 10)
    clock.setTimeout(note('second'), 10)
    clock.setTimeout(note('never'), 31)
    await clock.advance(30)
    expect(ran).toEqual(['first@1010', 'second@1010', 'late@1030'])
    expect(clock.now()).toBe(1030)
    expect(clock.pending).toBe(1)
  })

  it('runs timers that timers set, when they fall into the same span', async () => {
    const clock = virtualClock()
    const ticks: number[] = []
    const tick = (): void => {
      ticks.push(clock.now())
      clock.setTimeout(tick, 10)
    }
    clock.setTimeout(tick, 10)
    await clock.advance(35)
    expect(ticks).toEqual([10, 20, 30])
    expect(clock.now()).toBe(35)
  })

  it('lets promises go on between timers, and before the first', async () => {
    const clock = virtualClock()
    const seen: string[] = []
    const wait = (ms: number): Promise<void> => new Promise((resolve) => void clock.setTimeout(resolve, ms))
    const work = async (): Promise<void> => {
      await Promise.resolve()
      await wait(5)
      seen.push(`one@${clock.now()}`)
      await Promise.resolve().then(() => undefined)
      await wait(5)
      seen.push(`two@${clock.now()}`)
    }
    const done = work()
    clock.setTimeout(() => seen.push(`other@${clock.now()}`), 7)
    await clock.advance(10)
    await done
    expect(seen).toEqual(['one@5', 'other@7', 'two@10'])
  })

  it('does not run what was cleared, not even within the same moment', async () => {
    const clock = virtualClock()
    const ran: string[] = []
    const second = { handle: undefined as unknown }
    clock.setTimeout(() => {
      ran.push('first')
      clock.clearTimeout(second.handle)
    }, 1)
    second.handle = clock.setTimeout(() => ran.push('second'), 1)
    clock.clearTimeout(undefined)
    await clock.advance(1)
    expect(ran).toEqual(['first'])
    expect(clock.pending).toBe(0)
  })

  it('goes to the next timer, and knows when there is none', async () => {
    const clock = virtualClock()
    let ran = 0
    clock.setTimeout(() => ran++, 60_000)
    expect(await clock.advanceToNext()).toBe(true)
    expect([ran, clock.now()]).toEqual([1, 60_000])
    expect(await clock.advanceToNext()).toBe(false)
  })

  it('throws what a timer throws, refuses to go back, and stops a timer that runs away', async () => {
    const clock = virtualClock()
    clock.setTimeout(() => {
      throw new Error('from the timer')
    }, 1)
    await expect(clock.advance(1)).rejects.toThrow('from the timer')
    await expect(clock.advance(-1)).rejects.toThrow(RangeError)
    const again = (): void => void clock.setTimeout(again, 0)
    again()
    await expect(clock.advance(1)).rejects.toThrow('without delay')
  }, 60_000)
})
