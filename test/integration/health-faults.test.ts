/**
 * Backends in trouble, seen from the client: with the health policies at work and retries for what may be retried, no GET fails, whatever happens
 * to one of three servers. The set-up without any of it shows that there was something to survive.
 */
import { describe, expect, it } from 'vitest'
import { type FaultResult, faultScenarios, faultSetups, playFault } from './fault-scenarios.ts'

const seconds = 3
const rate = 150

function play(scenario: string, setup: number): Promise<FaultResult> {
  const found = faultScenarios.find(({ name }) => name === scenario)
  const options = faultSetups[setup]
  if (found === undefined || options === undefined) throw new Error(`no scenario ${scenario}`)
  return playFault(found, options, seconds, rate)
}

describe('one of three servers', () => {
  it.each(faultScenarios.map(({ name }) => name))('%s: no request fails', async (scenario) => {
    const { errors, requests } = await play(scenario, 2)
    expect(requests).toBeGreaterThan(seconds * rate * 0.8)
    expect(errors).toBe(0)
  })

  it('without health and retries each kind of trouble costs requests', async () => {
    for (const scenario of ['killed', 'flapping', 'stalled: takes requests, answers none', 'answers 500 to everything']) {
      const { errors, requests } = await play(scenario, 0)
      // A third of the traffic for most of the time.
      expect(errors, scenario).toBeGreaterThan(requests * 0.1)
    }
  })

  it('that answers nothing but 500 is sent less than its share', async () => {
    const scenario = 'answers 500 to everything'
    const bare = await play(scenario, 0)
    const guarded = await play(scenario, 2)
    expect(guarded.toPatient).toBeLessThan(bare.toPatient)
  })
})
