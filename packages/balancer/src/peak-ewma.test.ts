import { OptionsError, ProxyError } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubOutcome, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { leastTime } from './least-time.ts'
import { peakEwma } from './peak-ewma.ts'

const exchange = stubExchange()

function pool(make: typeof peakEwma | typeof leastTime, weights: readonly number[]) {
  const time = { now: 0 }
  const upstreams = stubUpstreams(weights)
  const balancer = make({ random: seededRandom(1), clock: { now: () => time.now } })
  balancer.update(upstreams)
  const begin = (upstream: StubUpstream): void => {
    upstream.inflight++
    balancer.acquire?.(upstream)
  }
  const end = (upstream: StubUpstream, ms: number, error?: ProxyError): void => {
    upstream.inflight--
    balancer.release?.(upstream, { ...stubOutcome(upstream), durationMs: ms, headMs: error ? undefined : ms, error, reused: false })
  }
  const serve = (upstream: StubUpstream, ms: number, error?: ProxyError): void => {
    begin(upstream)
    end(upstream, ms, error)
  }
  const share = (upstream: StubUpstream | undefined, picks = 2_000): number => {
    let got = 0
    for (let i = 0; i < picks; i++) if (balancer.pick(exchange) === upstream) got++
    return got / picks
  }
  return { time, upstreams, balancer, begin, end, serve, share }
}

describe.each([
  ['peakEwma', peakEwma],
  ['leastTime', leastTime],
] as const)('%s', (_, make) => {
  it('prefers the quicker of two', () => {
    const { upstreams, serve, share } = pool(make, [1, 1])
    serve(upstreams[0] as StubUpstream, 5)
    serve(upstreams[1] as StubUpstream, 50)
    expect(share(upstreams[0])).toBe(1)
  })

  it('until that has more to do than it is quicker', () => {
    const { upstreams, serve, begin, share } = pool(make, [1, 1])
    serve(upstreams[0] as StubUpstream, 10)
    serve(upstreams[1] as StubUpstream, 45)
    for (let i = 0; i < 3; i++) begin(upstreams[0] as StubUpstream)
    expect(share(upstreams[0])).toBe(1)
    for (let i = 0; i < 3; i++) begin(upstreams[0] as StubUpstream)
    expect(share(upstreams[1])).toBe(1)
  })

  it('does not take a refused connection for a quick answer', () => {
    const { upstreams, serve, share } = pool(make, [1, 1])
    serve(upstreams[0] as StubUpstream, 20)
    serve(upstreams[1] as StubUpstream, 20)
    serve(upstreams[1] as StubUpstream, 1, new ProxyError('ERR_CONNECT_REFUSED'))
    expect(share(upstreams[0])).toBe(1)
  })

  it('gives a new one neither nothing nor everything', () => {
    const { upstreams, balancer, serve, begin } = pool(make, [1, 1])
    const [old] = upstreams as [StubUpstream]
    for (let i = 0; i < 20; i++) serve(old, 30)
    const fresh = stubUpstreams([1, 1, 1])[2] as StubUpstream
    balancer.update([...upstreams, fresh])
    const got = new Map<unknown, number>()
    for (let i = 0; i < 30; i++) {
      const picked = balancer.pick(exchange) as StubUpstream
      begin(picked)
      got.set(picked, (got.get(picked) ?? 0) + 1)
    }
    expect(got.get(fresh)).toBeGreaterThanOrEqual(7)
    expect(got.get(fresh)).toBeLessThanOrEqual(13)
  })

  it('tries one again that was slow long ago', () => {
    const { upstreams, serve, share, time } = pool(make, [1, 1])
    const [slow, quick] = upstreams as [StubUpstream, StubUpstream]
    for (let i = 0; i < 20; i++) serve(quick, 20)
    serve(slow, 400)
    expect(share(slow)).toBe(0)
    time.now += 150_000
    for (let i = 0; i < 20; i++) serve(quick, 20)
    expect(share(slow)).toBeGreaterThan(0.3)
  })

  it('lets time pass also while nothing ends', () => {
    const { upstreams, serve, begin, share, time } = pool(make, [1, 1])
    const [slow, quick] = upstreams as [StubUpstream, StubUpstream]
    for (let i = 0; i < 20; i++) serve(quick, 20)
    serve(slow, 400)
    expect(share(slow)).toBe(0)
    time.now += 150_000
    expect(share(slow)).toBeGreaterThan(0.3)
    time.now += 1
    serve(quick, 20)
    serve(slow, 400)
    expect(share(slow)).toBe(0)
    for (const upstream of upstreams) begin(upstream)
    time.now += 150_000
    expect(share(slow)).toBeGreaterThan(0.3)
  })

  it('keeps what it knows when membership changes', () => {
    const { upstreams, balancer, serve, share } = pool(make, [1, 1, 1])
    const [a, b] = upstreams as [StubUpstream, StubUpstream]
    serve(a, 5)
    serve(b, 50)
    balancer.update([b, a])
    expect(share(a)).toBe(1)
  })

  it('shares by weight while all are as quick, give or take a little', () => {
    const { upstreams, serve, share } = pool(make, [1, 3])
    serve(upstreams[0] as StubUpstream, 100)
    serve(upstreams[1] as StubUpstream, 102)
    expect(Math.abs(share(upstreams[0]) - 0.25)).toBeLessThan(0.05)
  })

  it('fills up by weight', () => {
    const { upstreams, balancer, begin } = pool(make, [1, 3])
    for (let i = 0; i < 400; i++) begin(balancer.pick(exchange) as StubUpstream)
    expect(Math.abs((upstreams[0] as StubUpstream).inflight - 100)).toBeLessThanOrEqual(2)
  })

  it('refuses wrong options, in the editor and at run time', () => {
    // @ts-expect-error: no such option
    expect(() => make({ window: '1s' })).toThrow(OptionsError)
    // @ts-expect-error: no duration
    expect(() => make({ decay: 'long' })).toThrow(OptionsError)
    expect(() => make({ decay: 0 })).toThrow(OptionsError)
    expect(() => make({ failurePenalty: 0.5 })).toThrow(OptionsError)
    // @ts-expect-error: no clock
    expect(() => make({ clock: {} })).toThrow(OptionsError)
    expect(() => make({ decay: '1m', serverErrors: false, failurePenalty: 2 })).not.toThrow()
  })
})

describe('peakEwma', () => {
  it('believes one slow answer at once, where leastTime takes its average', () => {
    for (const [make, expected] of [
      [peakEwma, 0],
      [leastTime, 0.5],
    ] as const) {
      const { upstreams, serve, share, time } = pool(make, [1, 1])
      for (let i = 0; i < 100; i++)
        for (const upstream of upstreams) {
          time.now += 10
          serve(upstream, 20)
        }
      time.now += 10
      serve(upstreams[0] as StubUpstream, 200)
      expect(Math.abs(share(upstreams[0]) - expected)).toBeLessThan(expected === 0 ? 0.001 : 0.05)
    }
  })
})

describe('leastTime', () => {
  it('goes by the last byte when told so', () => {
    const upstreams = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    for (const [by, best] of [
      ['head', 0],
      ['last-byte', 1],
    ] as const) {
      const balancer = leastTime({ by, clock: { now: () => 0 } })
      balancer.update(upstreams)
      for (const [i, upstream] of upstreams.entries()) {
        balancer.acquire?.(upstream)
        balancer.release?.(upstream, { ...stubOutcome(upstream), headMs: [5, 50][i], durationMs: [900, 90][i] as number })
      }
      for (let i = 0; i < 20; i++) expect(balancer.pick(exchange)).toBe(upstreams[best])
    }
    // @ts-expect-error: no such time
    expect(() => leastTime({ by: 'connect' })).toThrow(OptionsError)
  })

  it('is exact among ten thousand', () => {
    const { upstreams, balancer, serve, begin } = pool(leastTime, new Array(10_000).fill(1))
    for (const [i, upstream] of upstreams.entries()) serve(upstream, 100 + ((i * 7_919) % 10_000))
    // The order of quickness is known; those within a step of each other may come in any order.
    for (let i = 0; i < 50; i++) {
      const picked = balancer.pick(exchange) as StubUpstream
      expect((upstreams.indexOf(picked) * 7_919) % 10_000).toBeLessThan(120)
      begin(picked)
    }
  })
})
