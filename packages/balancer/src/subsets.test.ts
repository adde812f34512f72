import { type Balancer, type Exchange, HeaderList, OptionsError, type Upstream } from '@weir/core'
import { type StubUpstream, stubExchange, stubOutcome, stubUpstream } from '@weir/testing'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { leastConnections } from './least-connections.ts'
import { subsets } from './subsets.ts'

const server = (id: string, meta: Record<string, unknown>): StubUpstream => stubUpstream({ id, meta })
const request = (...headers: string[]): Exchange => ({ ...stubExchange(), headers: new HeaderList(headers) })
const picks = (balancer: Balancer, exchange: Exchange, n = 60): string =>
  [...new Set(Array.from({ length: n }, () => balancer.pick(exchange)?.id ?? '-'))].sort().join(' ')

const all = [
  server('a', { version: 1, stage: 'prod' }),
  server('b', { version: 1, stage: 'prod' }),
  server('c', { version: 2, stage: 'prod' }),
  server('d', { version: 2, stage: 'test' }),
  server('e', { stage: 'prod' }),
  server('f', { version: { major: 1 }, stage: 'prod' }),
]

const labels = { version: 'header:x-version', stage: 'header:x-stage' } as const

afterEach(() => vi.restoreAllMocks())

describe('a request is served by those who have its labels', () => {
  it('all of them', () => {
    const balancer = subsets({ labels })
    balancer.update(all)
    expect(picks(balancer, request('x-version', '1', 'x-stage', 'prod'))).toBe('a b')
    expect(picks(balancer, request('x-version', '2', 'x-stage', 'test'))).toBe('d')
    expect(picks(balancer, request('x-version', '3', 'x-stage', 'prod'))).toBe('-')
    expect(picks(balancer, request('x-version', '1'))).toBe('-')
    expect(picks(balancer, request())).toBe('-')
  })

  it('as a function reads them from it', () => {
    const balancer = subsets({ of: ({ hashKey }) => (hashKey === undefined ? undefined : { version: hashKey }), keys: ['version'] })
    balancer.update(all)
    expect(picks(balancer, stubExchange({ hashKey: '2' }))).toBe('c d')
    expect(picks(balancer, stubExchange())).toBe('-')
  })

  it('also when labels have commas', () => {
    const balancer = subsets({ labels })
    balancer.update([server('a', { version: '1,2', stage: '3' }), server('b', { version: '1', stage: '2,3' })])
    expect(picks(balancer, request('x-version', '1,2', 'x-stage', '3'))).toBe('a')
    expect(picks(balancer, request('x-version', '1', 'x-stage', '2,3'))).toBe('b')
  })

  it('whatever labels there are', () => {
    const value = fc.constantFrom('x', 'y', 'z')
    const meta = fc.record({ a: value, b: value }, { requiredKeys: [] })
    fc.assert(
      fc.property(fc.array(meta, { maxLength: 8 }), value, fc.option(value, { nil: undefined }), (metas, a, b) => {
        const upstreams = metas.map((meta, i) => server(`s${i}`, meta))
        const balancer = subsets({ of: () => ({ a, b }), keys: ['a', 'b'] })
        balancer.update(upstreams)
        const expected = upstreams.filter(({ meta }) => b !== undefined && meta.a === a && meta.b === b)
        expect(picks(balancer, stubExchange(), 80)).toBe(expected.map(({ id }) => id).join(' ') || '-')
      }),
    )
  })
})

describe('a request that nobody is for', () => {
  it('goes to anybody', () => {
    const balancer = subsets({ labels, fallback: 'any' })
    balancer.update(all)
    expect(picks(balancer, request('x-version', '9', 'x-stage', 'prod'), 200)).toBe('a b c d e f')
    expect(picks(balancer, request(), 200)).toBe('a b c d e f')
  })

  it('goes to those who have other labels', () => {
    const balancer = subsets({ labels, fallback: { version: 2 } })
    balancer.update(all)
    expect(picks(balancer, request())).toBe('c d')
  })

  it('includes one whose subset is tried or full', () => {
    const balancer = subsets({ labels, fallback: { version: 1, stage: 'prod' } })
    balancer.update(all)
    const headers = new HeaderList(['x-version', '2', 'x-stage', 'test'])
    expect(picks(balancer, { ...stubExchange({ tried: [all[3] as Upstream] }), headers })).toBe('a b')
  })
})

describe('a change of membership', () => {
  it('keeps the strategies of subsets that go on, and what they know', () => {
    const made: Balancer[] = []
    const balancer = subsets({
      labels: { version: 'header:x-version' },
      balancer: () => {
        const strategy = leastConnections()
        made.push(strategy)
        return strategy
      },
    })
    balancer.update(all)
    const before = made.length
    balancer.update(all.slice(1))
    expect(made.length).toBe(before)
    expect(picks(balancer, request('x-version', '1'))).toBe('b')
    balancer.update(all.filter(({ meta }) => meta.version === 2))
    expect(picks(balancer, request('x-version', '1'))).toBe('-')
    balancer.update([...all, server('g', { version: 3 })])
    expect(picks(balancer, request('x-version', '3'))).toBe('g')
    expect(picks(balancer, request('x-version', '1'))).toBe('a b')
  })

  it('does not count those that lack a label', () => {
    const balancer = subsets({ labels, maxSubsets: 1 })
    balancer.update([server('a', { version: 1 }), server('b', {}), server('c', { version: 1, stage: 'prod' })])
    expect(picks(balancer, request('x-version', '1', 'x-stage', 'prod'))).toBe('c')
  })

  it('is bounded, and says so once', () => {
    const warnings: unknown[] = []
    vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(warning))
    const balancer = subsets({ labels: { shard: 'header:x-shard' }, maxSubsets: 2, fallback: 'any' })
    const shards = ['p', 'q', 'r'].map((id) => server(id, { shard: id }))
    balancer.update(shards)
    balancer.update(shards)
    expect(picks(balancer, request('x-shard', 'q'))).toBe('q')
    expect(picks(balancer, request('x-shard', 'r'))).toBe('p q r')
    expect(warnings.length).toBe(1)
  })
})

it('tells the strategies of exchanges on their own upstreams, and of those only', () => {
  const seen: string[] = []
  let made = 0
  const balancer = subsets({
    labels: { version: 'header:x-version' },
    fallback: 'any',
    balancer: () => {
      const number = made++
      const say = (what: string) => (upstream: Upstream) => void seen.push(`${number} ${what} ${upstream.id}`)
      return {
        name: 'x',
        update: () => undefined,
        pick: () => undefined,
        acquire: say('acquire'),
        onHead: say('head'),
        release: say('release'),
      }
    },
  })
  balancer.update(all.slice(0, 3))
  const told = (act: () => void): string[] => {
    seen.length = 0
    act()
    return seen.map((entry) => entry.slice(2))
  }
  const c = all[2] as Upstream
  // Its own subset, and the one that stands in for all.
  expect(told(() => balancer.acquire?.(c))).toEqual(['acquire c', 'acquire c'])
  expect(told(() => balancer.onHead?.(c, 200, []))).toEqual(['head c', 'head c'])
  balancer.update([])
  expect(told(() => balancer.release?.(c, stubOutcome(c)))).toEqual(['release c', 'release c'])
  expect(told(() => balancer.acquire?.(server('z', {})))).toEqual([])
})

it('refuses wrong options, in the editor and at run time', () => {
  const wrong: unknown[] = [
    {},
    { labels: {} },
    { labels: { version: 'nowhere' } },
    { labels, keys: ['version'] },
    { of: () => ({}), keys: [] },
    { of: () => ({}) },
    { of: 'x', keys: ['a'] },
    { labels, of: () => ({}), keys: ['a'] },
    { labels, fallback: 'all' },
    { labels, fallback: {} },
    { labels, balancer: leastConnections() },
    { labels, balancer: () => ({}) },
    { labels, maxSubsets: 0 },
  ]
  for (const options of wrong) expect(() => subsets(options as never), JSON.stringify(options)).toThrow(OptionsError)
  const one = leastConnections()
  expect(() => subsets({ labels, balancer: () => one })).toThrow(OptionsError)
  // @ts-expect-error: `of` needs `keys`
  expect(() => subsets({ of: () => ({}) })).toThrow(OptionsError)
})
