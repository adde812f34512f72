import { stubUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { allOf, anyOf } from './combined-probe.ts'
import type { Probe, ProbeFunction } from './probe.ts'

const target = { upstream: stubUpstream(), overrides: {}, tls: undefined }
const run = (probe: Probe, signal = new AbortController().signal) => probe.open(target).run(signal)

const yes: ProbeFunction = async () => {}
const no =
  (reason: string): ProbeFunction =>
  async () => {
    throw new Error(reason)
  }
/** Runs until it is called off; then ends, a turn later, with the reason. */
const endless = (): ProbeFunction & { ended: boolean } => {
  const probe: ProbeFunction & { ended: boolean } = Object.assign(
    (_target: unknown, signal: AbortSignal) =>
      new Promise<void>((_resolve, reject) =>
        signal.addEventListener('abort', () =>
          setImmediate(() => {
            probe.ended = true
            reject(signal.reason)
          }),
        ),
      ),
    { ended: false },
  )
  return probe
}

describe('allOf', () => {
  it('passes when all pass, and says what any of them says', async () => {
    expect(await run(allOf(yes, yes))).toEqual({ degraded: false, draining: false })
    expect(await run(allOf(yes, async () => ({ degraded: true })))).toEqual({ degraded: true, draining: false })
    expect(await run(allOf(async () => ({ draining: true }), yes))).toEqual({ degraded: false, draining: true })
  })

  it('one failure fails it, with its reason, and calls the others off before it answers', async () => {
    const other = endless()
    await expect(run(allOf(other, yes, no('full disk')))).rejects.toThrow('full disk')
    expect(other.ended).toBe(true)
  })
})

describe('anyOf', () => {
  it('passes with the first that passes, and calls the others off before it answers', async () => {
    const other = endless()
    expect(await run(anyOf(other, no('a'), async () => ({ degraded: true })))).toEqual({ degraded: true })
    expect(other.ended).toBe(true)
    expect(await run(anyOf(no('a'), yes))).toBeUndefined()
  })

  it('fails with all reasons', async () => {
    const error = await run(anyOf(no('a'), no('b'))).then(
      () => undefined,
      (reason: AggregateError) => reason,
    )
    expect(error).toBeInstanceOf(AggregateError)
    expect(error?.message).toBe('a; b')
    expect(error?.errors).toHaveLength(2)
  })
})

it('both end with their signal', async () => {
  for (const combine of [allOf, anyOf]) {
    const controller = new AbortController()
    const running = run(combine(endless(), endless()), controller.signal)
    controller.abort(new Error('enough'))
    await expect(running).rejects.toThrow('enough')
  }
})

it('they nest, are named for what they hold, and close what they opened', () => {
  let closed = 0
  const probe: Probe = { name: 'mine', open: () => ({ run: async () => {}, close: () => void closed++ }) }
  const both = allOf(probe, anyOf(probe, probe))
  expect(both.name).toBe('allOf(mine, anyOf(mine, mine))')
  both.open(target).close?.()
  expect(closed).toBe(3)
})

it('one that cannot be opened leaves nothing open', () => {
  let closed = 0
  const fine: Probe = { name: 'fine', open: () => ({ run: async () => {}, close: () => void closed++ }) }
  const broken: Probe = {
    name: 'broken',
    open: () => {
      throw new TypeError('wrong overrides')
    },
  }
  expect(() => allOf(fine, broken).open(target)).toThrow('wrong overrides')
  expect(closed).toBe(1)
})

it('wrong arguments are named', () => {
  expect(() => allOf()).toThrow('at least one probe')
  expect(() => anyOf(yes, {} as Probe)).toThrow('[1]')
})
