/** The only clock that shows lateness is the real one, so this test makes the process late. */
import { describe, expect, it } from 'vitest'
import { EventLoopLag } from './event-loop-lag.ts'

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1))

describe('EventLoopLag', () => {
  it('sees that the process was late, forgets it slowly, and knows nothing when it is stopped', async () => {
    const lag = new EventLoopLag()
    expect(lag.ms).toBe(0)
    lag.start()
    const until = performance.now() + 400
    while (performance.now() < until);
    while (lag.ms === 0) await turn()
    const seen = lag.ms
    // Due after 100 ms, looked at after 400.
    expect(seen).toBeGreaterThan(250)
    while (lag.ms === seen) await turn()
    expect(lag.ms).toBeLessThan(seen)
    lag.stop()
    expect(lag.ms).toBe(0)
  })

  it('goes on for the second proxy when the first has closed', async () => {
    const lag = new EventLoopLag()
    lag.start()
    lag.start()
    lag.stop()
    const until = performance.now() + 250
    while (performance.now() < until);
    while (lag.ms === 0) await turn()
    lag.stop()
    expect(lag.ms).toBe(0)
  })
})
