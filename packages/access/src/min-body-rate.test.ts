/** The account in virtual time, against what the options promise; the stage with uploads that flow and stand. Slow clients on real sockets: test/integration. */
import { type Exchange, OptionsError, type RequestTap } from '@weir/core'
import { virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { minBodyRate, PaceAccount } from './min-body-rate.ts'

interface Step {
  readonly reading: boolean
  readonly wait: number
  readonly bytes: number
}

const steps = fc.array(fc.record({ reading: fc.boolean(), wait: fc.nat(3000), bytes: fc.nat(4000) }), { maxLength: 60 })

describe('an account', () => {
  it('is overdrawn exactly when in some stretch of reading the client was further behind the rate than the grace', () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: 10_000 }), (list: Step[], rate, grace) => {
        const account = new PaceAccount(rate, grace)
        let now = 0
        let seen = false
        // By the definition: the reading time from any byte (or the start) to now, less what the bytes since then pay for, stays within the grace.
        const marks: { time: number; paid: number }[] = [{ time: 0, paid: 0 }]
        let readingTime = 0
        let paid = 0
        let behind = false
        for (const step of list) {
          if (step.reading) account.run(now)
          else account.stop(now)
          now += step.wait
          if (step.reading) readingTime += step.wait
          seen ||= account.overdrawn(now)
          behind ||= marks.some((mark) => readingTime - mark.time - (paid - mark.paid) > grace + 1e-6)
          account.pay(now, step.bytes)
          paid += (step.bytes * 1000) / rate
          marks.push({ time: readingTime, paid })
        }
        // Rounding decides where both are within a millionth of the edge.
        const edge = marks.some((mark) => Math.abs(readingTime - mark.time - (paid - mark.paid) - grace) < 1e-3)
        if (!edge) expect(seen).toBe(behind)
      }),
    )
  })
})

/** A body that the test plays. */
function upload(stage: ReturnType<typeof minBodyRate>): { tap: RequestTap; failed: string[]; finish(): void } {
  const failed: string[] = []
  let tap: RequestTap | undefined
  const exchange = {
    hasBody: true,
    tapRequest: (given: RequestTap) => {
      tap = given
    },
    fail: (error: { code: string }) => void failed.push(error.code),
  }
  const hooks = stage.handle(exchange as unknown as Exchange) as { onFinish(): void }
  return { tap: tap as RequestTap, failed, finish: () => hooks.onFinish() }
}

describe('an upload', () => {
  it('is ended when it stays behind, and not before', async () => {
    const clock = virtualClock()
    const stage = minBodyRate({ rate: 100, grace: '10s', clock })
    const { tap, failed } = upload(stage)
    tap.onFlow?.(true)
    await clock.advance(9000)
    expect(failed).toEqual([])
    tap.onChunk?.(new Uint8Array(500))
    // One second was left, and five were put back.
    await clock.advance(5900)
    expect(failed).toEqual([])
    await clock.advance(2200)
    expect(failed).toEqual(['ERR_BODY_TOO_SLOW'])
    expect(stage.stats()).toEqual({ allowed: 0, refused: 1, dry: 0, watched: 0 })
    expect(clock.pending).toBe(0)
  })

  it('that keeps the rate is left alone, however long it takes', async () => {
    const clock = virtualClock()
    const stage = minBodyRate({ rate: 100, grace: '10s', clock })
    const { tap, failed } = upload(stage)
    tap.onFlow?.(true)
    for (let i = 0; i < 500; i++) {
      await clock.advance(1000)
      tap.onChunk?.(new Uint8Array(100))
    }
    tap.onEnd?.(true)
    expect(failed).toEqual([])
    expect(stage.stats()).toEqual({ allowed: 1, refused: 0, dry: 0, watched: 0 })
    expect(clock.pending).toBe(0)
  })

  it('cannot save up time by a quick beginning', async () => {
    const clock = virtualClock()
    const { tap, failed } = upload(minBodyRate({ rate: 100, grace: '10s', clock }))
    tap.onFlow?.(true)
    tap.onChunk?.(new Uint8Array(1_000_000))
    await clock.advance(12_100)
    expect(failed).toEqual(['ERR_BODY_TOO_SLOW'])
  })

  it('is not charged for the time in which nobody reads it', async () => {
    const clock = virtualClock()
    const stage = minBodyRate({ rate: 100, grace: '10s', clock })
    const { tap, failed } = upload(stage)
    // Waits in a queue, is read, meets a slow upstream, is read again.
    await clock.advance(60_000)
    tap.onFlow?.(true)
    await clock.advance(6000)
    tap.onFlow?.(false)
    expect(clock.pending).toBe(0)
    await clock.advance(600_000)
    tap.onFlow?.(true)
    await clock.advance(3900)
    expect(failed).toEqual([])
    await clock.advance(2200)
    expect(failed).toEqual(['ERR_BODY_TOO_SLOW'])
  })

  it('gets a second look when this process has stood still', async () => {
    const clock = virtualClock()
    const { tap, failed } = upload(minBodyRate({ rate: 100, grace: '10s', clock }))
    tap.onFlow?.(true)
    // The look after the stall comes before the sockets are read, and finds it behind; then the bytes that had been there come.
    await clock.advance(11_050)
    tap.onChunk?.(new Uint8Array(1000))
    await clock.advance(5000)
    expect(failed).toEqual([])
  })

  it('is let go when its exchange has ended, what is left of it too', async () => {
    const clock = virtualClock()
    const stage = minBodyRate({ grace: '1s', clock })
    const { tap, failed, finish } = upload(stage)
    tap.onFlow?.(true)
    expect(stage.stats().watched).toBe(1)
    finish()
    tap.onFlow?.(false)
    tap.onFlow?.(true)
    await clock.advance(60_000)
    expect(stage.stats()).toEqual({ allowed: 0, refused: 0, dry: 0, watched: 0 })
    expect(failed).toEqual([])
    expect(clock.pending).toBe(0)
  })

  it('goes on in a dry run, and is counted once', async () => {
    const clock = virtualClock()
    const stage = minBodyRate({ grace: '1s', dryRun: true, clock })
    const { tap, failed } = upload(stage)
    tap.onFlow?.(true)
    await clock.advance(60_000)
    tap.onFlow?.(false)
    tap.onFlow?.(true)
    await clock.advance(60_000)
    tap.onEnd?.(true)
    expect(failed).toEqual([])
    expect(stage.stats()).toMatchObject({ refused: 0, dry: 1 })
    expect(clock.pending).toBe(0)
  })
})

it('names every wrong option', () => {
  const wrong = (): unknown => minBodyRate({ rate: 0, grace: 'soon' as never, dryRun: 1 as never, nmae: 'x' } as never)
  expect(wrong).toThrow(OptionsError)
  for (const path of ['rate: ', 'grace: ', 'dryRun: ', 'nmae: ']) expect(wrong).toThrow(path)
})
