import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { initialHealth, inTransition, nextHealth, type ProbeEvent, type TargetHealth } from './target-health.ts'

const passed: ProbeEvent = { kind: 'passed', result: undefined }
const failed: ProbeEvent = { kind: 'failed', error: 'no' }
const after = (start: TargetHealth, events: string, rise = 2, fall = 3): TargetHealth =>
  events.split('').reduce<TargetHealth>((health, event) => nextHealth(health, event === '+' ? passed : failed, { rise, fall }), start)

describe('thresholds', () => {
  it('fall failures in a row take down, fewer do not', () => {
    expect(after(initialHealth('up'), '--').kind).toBe('up')
    expect(after(initialHealth('up'), '---').kind).toBe('down')
    expect(after(initialHealth('up'), '--+--').kind).toBe('up')
  })

  it('rise passes in a row bring up, fewer do not', () => {
    expect(after(initialHealth('down'), '+').kind).toBe('down')
    expect(after(initialHealth('down'), '++').kind).toBe('up')
    expect(after(initialHealth('down'), '+-+').kind).toBe('down')
  })

  it('pending: the first result decides alone', () => {
    expect(after(initialHealth('pending'), '+').kind).toBe('up')
    expect(after(initialHealth('pending'), '-')).toEqual({ kind: 'down', passes: 0, error: 'no' })
  })
})

it('degraded and draining follow the last pass, and go with a fall', () => {
  const result = { degraded: true, draining: true }
  const up = nextHealth(initialHealth('up'), { kind: 'passed', result }, { rise: 1, fall: 2 })
  expect(up).toMatchObject(result)
  expect(nextHealth(up, failed, { rise: 1, fall: 2 })).toMatchObject({ ...result, failures: 1 })
  expect(nextHealth(up, passed, { rise: 1, fall: 2 })).toMatchObject({ degraded: false, draining: false })
})

it('any history: the state is what the last results say, counted the simple way', () => {
  const events = fc.array(
    fc.oneof(
      fc.record({ kind: fc.constant('passed' as const), result: fc.option(fc.record({ degraded: fc.boolean() }), { nil: undefined }) }),
      fc.record({ kind: fc.constant('failed' as const), error: fc.integer() }),
    ),
    { maxLength: 60 },
  )
  const limit = fc.integer({ min: 1, max: 4 })
  fc.assert(
    fc.property(fc.constantFrom('up' as const, 'down' as const, 'pending' as const), events, limit, limit, (initial, list, rise, fall) => {
      let health = initialHealth(initial)
      let up: boolean | undefined = initial === 'pending' ? undefined : initial === 'up'
      let row = 0
      for (const event of list) {
        health = nextHealth(health, event, { rise, fall })
        // The model: a row of results against the present state.
        const pass = event.kind === 'passed'
        if (up === undefined) up = pass
        else if (pass === up) row = 0
        else if (++row >= (up ? fall : rise)) {
          up = pass
          row = 0
        }
        expect(health.kind).toBe(up ? 'up' : 'down')
        expect(inTransition(health)).toBe(row > 0)
        if (health.kind === 'up') expect(health.failures).toBeLessThan(fall)
        if (health.kind === 'down') expect(health.passes).toBeLessThan(rise)
        if (health.kind === 'down' && !pass && event.kind === 'failed') expect(health.error).toBe(event.error)
        if (health.kind === 'up' && event.kind === 'passed') expect(health.degraded).toBe(event.result?.degraded === true)
      }
    }),
    { numRuns: 500 },
  )
})
