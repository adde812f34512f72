import { OptionsError, type Upstream } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubUpstream, stubUpstreams } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseLoadReport } from './load-report.ts'
import { type ReportedLoadOptions, reportedLoad } from './reported-load.ts'

describe('a load report', () => {
  it.each<[string, ReturnType<typeof parseLoadReport>]>([
    ['TEXT cpu_utilization=0.3,rps_fractional=10.5,eps=1', { utilization: 0.3, rps: 10.5, eps: 1 }],
    ['text  rps_fractional = 10 , named_metrics.x=7, cpu_utilization = 1e-1', { utilization: 0.1, rps: 10, eps: 0 }],
    ['JSON {"cpu_utilization": 0.3, "rps_fractional": 10, "eps": 2, "named_metrics": {"x": 1}}', { utilization: 0.3, rps: 10, eps: 2 }],
    ['JSON {"cpuUtilization":0.3,"rpsFractional":"10"}', { utilization: 0.3, rps: 10, eps: 0 }],
    ['TEXT cpu_utilization=0.3,application_utilization=0.6,rps_fractional=10', { utilization: 0.6, rps: 10, eps: 0 }],
    ['TEXT cpu_utilization=0.3,application_utilization=0,rps_fractional=10', { utilization: 0.3, rps: 10, eps: 0 }],
    ['TEXT cpu_utilization=1.7,rps_fractional=10', { utilization: 1.7, rps: 10, eps: 0 }],
    ['TEXT cpu_utilization=0.3', undefined],
    ['TEXT rps_fractional=10', undefined],
    ['TEXT cpu_utilization=-1,rps_fractional=10', undefined],
    ['TEXT cpu_utilization=NaN,rps_fractional=10', undefined],
    ['TEXT cpu_utilization=,rps_fractional=10', undefined],
    ['TEXT cpu_utilization=0.3,rps_fractional=Infinity', undefined],
    ['cpu_utilization=0.3,rps_fractional=10', undefined],
    ['BIN CZqZmZmZmbk/', undefined],
    ['JSON {"cpu_utilization": 0.3', undefined],
    ['JSON null', undefined],
    ['JSON []', undefined],
    [`TEXT cpu_utilization=0.3,rps_fractional=10,${'x=1,'.repeat(2_000)}`, undefined],
    ['', undefined],
  ])('%s', (text, expected) => expect(parseLoadReport(text)).toEqual(expected))

  it('never throws, and never has a number that cannot be used', () => {
    const line = fc.oneof(
      fc.string(),
      fc.string().map((text) => `TEXT ${text}`),
      fc.json().map((text) => `JSON ${text}`),
      fc.record({ cpu_utilization: fc.anything(), rps_fractional: fc.double() }).map((report) => {
        try {
          return `JSON ${JSON.stringify(report)}`
        } catch {
          return 'JSON'
        }
      }),
    )
    fc.assert(
      fc.property(line, (text) => {
        const report = parseLoadReport(text)
        if (report === undefined) return
        expect(report.utilization > 0 && report.rps > 0 && report.eps >= 0).toBe(true)
        expect(Number.isFinite(report.utilization + report.rps + report.eps)).toBe(true)
      }),
    )
  })
})

const exchange = stubExchange()

function pool(upstreams: readonly StubUpstream[], options: ReportedLoadOptions = {}) {
  const time = { now: 50_000 }
  const balancer = reportedLoad({ random: seededRandom(1), clock: { now: () => time.now }, ...options })
  balancer.update(upstreams)
  const report = (upstream: Upstream, text: string, header = 'Endpoint-Load-Metrics'): void =>
    balancer.onHead?.(upstream, 200, ['Content-Type', 'text/plain', header, text])
  const share = (upstream: Upstream | undefined): number => {
    let got = 0
    for (let i = 0; i < 4_000; i++) if (balancer.pick(exchange) === upstream) got++
    return got / 4_000
  }
  /** All report, and time passes until that counts. */
  const settle = (texts: readonly string[]): void => {
    for (let i = 0; i < 12; i++) {
      upstreams.forEach((upstream, at) => {
        if (texts[at]) report(upstream, texts[at])
      })
      time.now += 1_000
    }
  }
  return { time, balancer, report, share, settle }
}

const at = (utilization: number, rps: number, eps = 0): string => `TEXT cpu_utilization=${utilization},rps_fractional=${rps},eps=${eps}`
const near = (got: number, expected: number): void => expect(Math.abs(got - expected)).toBeLessThan(0.04)

describe('reportedLoad', () => {
  it('shares by what servers can do', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const { share, settle } = pool([a, b])
    settle([at(0.5, 100), at(0.5, 300)])
    near(share(a), 0.25)
    settle([at(0.25, 100), at(1, 300)])
    near(share(a), 4 / 7)
  })

  it('brings servers to the same utilization', () => {
    const capacities = [100, 250, 400]
    const upstreams = stubUpstreams([1, 1, 1])
    const { share, settle } = pool(upstreams)
    let loads = [200, 200, 200]
    for (let round = 0; round < 3; round++) {
      settle(loads.map((rps, i) => at(rps / (capacities[i] as number), rps)))
      loads = upstreams.map((upstream) => 600 * share(upstream))
    }
    for (const [i, load] of loads.entries()) expect(Math.abs(load / (capacities[i] as number) - 0.8)).toBeLessThan(0.1)
  })

  it('counts errors against them', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    for (const [errorPenalty, expected] of [
      [1, 1 / 3],
      [0, 0.5],
    ] as const) {
      const { share, settle } = pool([a, b], { errorPenalty })
      settle([at(0.5, 100, 50), at(0.5, 100)])
      near(share(a), expected)
    }
  })

  it('takes those who do not report for the mean, by their weight', () => {
    const upstreams = stubUpstreams([1, 1, 4])
    const { share, settle } = pool(upstreams)
    settle([at(0.5, 100), at(0.5, 200)])
    // 200 and 400 reported per weight 1, so 4 x 300 are assumed.
    near(share(upstreams[2]), 1_200 / 1_800)
  })

  it('without any report shares by weight', () => {
    const upstreams = stubUpstreams([1, 3])
    near(pool(upstreams).share(upstreams[0]), 0.25)
  })

  it('applies the factor of a slow start to what is reported', () => {
    const [a, b] = [stubUpstream({ id: 'a', weight: 0.2, configuredWeight: 2 }), stubUpstream({ id: 'b', weight: 2 })]
    const { share, settle } = pool([a, b])
    settle([at(0.5, 100), at(0.5, 100)])
    near(share(a), 0.1 / 1.1)
  })

  it('does not use the reports of the first ten seconds', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const { share, report, time } = pool([a, b])
    for (let i = 0; i < 10; i++) {
      report(a, at(0.5, 100))
      report(b, at(0.5, 900))
      near(share(a), 0.5)
      time.now += 1_000
    }
    near(share(a), 0.1)
  })

  it('forgets a report that is too old, and then begins anew', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const { share, settle, report, time } = pool([a, b])
    settle([at(0.5, 100), at(0.5, 900)])
    time.now += 170_000
    near(share(a), 0.1)
    time.now += 10_000
    near(share(a), 0.5)
    report(a, at(0.5, 100))
    report(b, at(0.5, 900))
    time.now += 2_000
    near(share(a), 0.5)
  })

  it('computes weights once per interval, not per pick', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const { share, settle, report, time } = pool([a, b], { interval: '5s' })
    settle([at(0.5, 100), at(0.5, 100)])
    share(a)
    report(a, at(0.5, 900))
    time.now += 4_999
    near(share(a), 0.5)
    time.now += 1
    near(share(a), 0.9)
  })

  it('keeps reports when membership changes', () => {
    const [a, b, c] = stubUpstreams([1, 1, 1]) as [StubUpstream, StubUpstream, StubUpstream]
    const { balancer, share, settle } = pool([a, b, c])
    settle([at(0.5, 100), at(0.5, 900), at(0.5, 100)])
    balancer.update([b, a])
    near(share(a), 0.1)
  })

  it('reads the header it is told, whatever its case', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const { share, report, time } = pool([a, b], { header: 'X-Load', blackout: 0 })
    report(a, at(0.5, 100), 'x-LOAD')
    report(b, at(0.5, 900), 'X-Load')
    report(b, at(0.5, 100))
    time.now += 1_000
    near(share(a), 0.1)
  })

  it('takes nothing from one that is unknown, or writes nonsense', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const { share, settle, report } = pool([a])
    expect(() => report(b, at(0.5, 100))).not.toThrow()
    settle(['TEXT cpu_utilization=x'])
    expect(share(a)).toBe(1)
  })

  it('refuses wrong options, in the editor and at run time', () => {
    // @ts-expect-error: no such option
    expect(() => reportedLoad({ format: 'JSON' })).toThrow(OptionsError)
    expect(() => reportedLoad({ header: 'a b' })).toThrow(OptionsError)
    expect(() => reportedLoad({ interval: 0 })).toThrow(OptionsError)
    expect(() => reportedLoad({ errorPenalty: -1 })).toThrow(OptionsError)
    // @ts-expect-error: no duration
    expect(() => reportedLoad({ blackout: 'short' })).toThrow(OptionsError)
  })
})
