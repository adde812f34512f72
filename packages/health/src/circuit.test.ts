import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Circuit, type CircuitEvent, nextCircuit } from './circuit.ts'
import { SlidingWindow } from './sliding-window.ts'

const settings = { open: 10, maxOpen: 35, trials: 2, recovery: 20 }

describe('the circuit', () => {
  const run = (events: readonly CircuitEvent[]): Circuit =>
    events.reduce<Circuit>((circuit, event) => nextCircuit(circuit, event, settings), { kind: 'closed' })

  it('one round', () => {
    const trip: CircuitEvent = { kind: 'trip', now: 0 }
    const half: CircuitEvent[] = [trip, { kind: 'time', now: 10 }]
    const pass: CircuitEvent = { kind: 'trial', passed: true, now: 11 }
    expect(run([trip, { kind: 'time', now: 9 }])).toEqual({ kind: 'open', times: 1, until: 10 })
    expect(run(half)).toEqual({ kind: 'half-open', times: 1, passed: 0 })
    expect(run([...half, pass])).toEqual({ kind: 'half-open', times: 1, passed: 1 })
    expect(run([...half, pass, pass])).toEqual({ kind: 'recovering', times: 1, since: 11 })
    expect(run([...half, pass, pass, { kind: 'time', now: 31 }])).toEqual({ kind: 'closed' })
    expect(run([...half, pass, { kind: 'trial', passed: false, now: 12 }])).toEqual({ kind: 'open', times: 2, until: 32 })
    expect(run([...half, pass, pass, { kind: 'trip', now: 15 }])).toEqual({ kind: 'open', times: 2, until: 35 })
  })

  it('any events: only the drawn transitions, open time doubles up to its cap and is forgotten when closed', () => {
    const allowed: Record<Circuit['kind'], readonly Circuit['kind'][]> = {
      closed: ['closed', 'open'],
      open: ['open', 'half-open'],
      'half-open': ['half-open', 'open', 'recovering', 'closed'],
      recovering: ['recovering', 'open', 'closed'],
    }
    const step = fc.record({
      kind: fc.constantFrom('trip' as const, 'time' as const, 'trial' as const),
      passed: fc.boolean(),
      after: fc.nat(15),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(0, 20), (steps, recovery) => {
        let circuit: Circuit = { kind: 'closed' }
        let now = 0
        let opened = 0
        for (const { kind, passed, after } of steps) {
          now += after
          const before: Circuit = circuit
          circuit = nextCircuit(before, { kind, passed, now }, { ...settings, recovery })
          expect(allowed[before.kind]).toContain(circuit.kind)
          if (circuit.kind === 'closed') opened = 0
          if (circuit.kind === 'open' && before.kind !== 'open') {
            opened++
            expect(circuit.times).toBe(opened)
            expect(circuit.until - now).toBe(Math.min(35, 10 * 2 ** (opened - 1)))
          }
          if (circuit.kind === 'half-open') expect(circuit.passed).toBeLessThan(settings.trials)
          if (before.kind === 'open' && circuit.kind === 'half-open') expect(now).toBeGreaterThanOrEqual(before.until)
          if (before.kind === 'half-open' && circuit.kind === 'closed') expect(recovery).toBe(0)
        }
      }),
      { numRuns: 500 },
    )
  })
})

it('the window forgets everything over a long pause, at once', () => {
  const window = new SlidingWindow(100)
  window.record(1e15, true, true)
  expect(window.requests).toBe(1)
  window.record(3e15, false, false)
  expect([window.requests, window.failures]).toEqual([1, 0])
})

it('the window: any records at any times, counts are those of the last ten slices', () => {
  const record = fc.record({ after: fc.oneof(fc.nat(30), fc.nat(300)), failed: fc.boolean(), slow: fc.boolean() })
  fc.assert(
    fc.property(fc.array(record, { maxLength: 60 }), fc.nat(1000), (records, start) => {
      const window = new SlidingWindow(100)
      const seen: { at: number; failed: boolean; slow: boolean }[] = []
      let now = start
      for (const { after, failed, slow } of records) {
        now += after
        window.record(now, failed, slow)
        seen.push({ at: Math.floor(now / 10), failed, slow })
        const kept = seen.filter(({ at }) => at > Math.floor(now / 10) - 10)
        expect([window.requests, window.failures, window.slow]).toEqual([
          kept.length,
          kept.filter((one) => one.failed).length,
          kept.filter((one) => one.slow).length,
        ])
      }
      window.reset()
      expect(window.requests).toBe(0)
    }),
  )
})
