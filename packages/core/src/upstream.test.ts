/** One entry of `upstreams`: what it becomes, what is refused, what may change without its being another server. */
import { describe, expect, it } from 'vitest'
import type { HealthPolicy } from './health.ts'
import { OptionReader, OptionsError } from './options.ts'
import { serverNameOf } from './transport/tls.ts'
import { type PoolUpstream, parseUpstream, type UpstreamInput, type UpstreamOptions } from './upstream.ts'
import { Verdicts } from './verdicts.ts'

const parse = (input: UpstreamInput, maxConcurrent = Number.POSITIVE_INFINITY): PoolUpstream => {
  const read = new OptionReader('test')
  const upstream = parseUpstream(input, read, maxConcurrent)
  read.check()
  return upstream as PoolUpstream
}
const problems = (input: unknown): string[] => {
  try {
    parse(input as UpstreamInput)
  } catch (error) {
    if (OptionsError.is(error)) return error.problems.map(({ path }) => path)
    throw error
  }
  return []
}

describe('host', () => {
  const rows: [given: Omit<UpstreamOptions, 'id'>, authority: string, serverName: string][] = [
    [{ url: 'http://10.0.0.1:3000' }, '10.0.0.1:3000', '10.0.0.1'],
    [{ url: 'http://10.0.0.1:80' }, '10.0.0.1', '10.0.0.1'],
    [{ url: 'https://[fd00::1]:8443' }, '[fd00::1]:8443', 'fd00::1'],
    [{ url: 'https://api.test' }, 'api.test', 'api.test'],
    [{ url: 'unix:/run/app.sock' }, 'localhost', ''],
    [{ url: 'https://10.0.0.1:8443', host: 'app.internal' }, 'app.internal', 'app.internal'],
    [{ url: 'https://10.0.0.1', host: 'app.internal:8443' }, 'app.internal:8443', 'app.internal'],
    [{ url: 'https://[fd00::1]', host: 'App_1.internal' }, 'App_1.internal', 'App_1.internal'],
    [{ url: 'unix:/run/app.sock', host: 'app.internal' }, 'app.internal', 'app.internal'],
  ]
  for (const [given, authority, serverName] of rows)
    it(`${JSON.stringify(given)} goes by ${authority}, and by ${serverName || 'no name'} over TLS`, () => {
      const upstream = parse(given)
      expect([upstream.authority, upstream.host]).toEqual([authority, given.host])
      expect(serverNameOf(upstream, undefined)).toBe(serverName)
      // The options of TLS have the last word.
      expect(serverNameOf(upstream, 'all.test')).toBe('all.test')
    })

  it('takes no part in the id', () => {
    expect(parse({ url: 'https://10.0.0.1', host: 'app.internal' }).id).toBe('https://10.0.0.1')
  })

  for (const host of ['', 'a b', 'a/b', 'http://a', 'a:', 'a:port', 'a:123456', 'a@b', '[::1]', 'a\r\nb', 5, null])
    it(`${JSON.stringify(host)} is refused`, () => expect(problems({ url: 'https://10.0.0.1', host })).toEqual(['host']))

  // Five digits are not yet a port.
  it('a port beyond 65535 is refused', () => expect(problems({ url: 'https://10.0.0.1', host: 'app.internal:65536' })).toEqual(['host']))
})

describe('mistakes', () => {
  it('are told together', () => {
    expect(
      problems({
        url: 'ftp://a',
        id: '',
        host: '',
        weight: 0.5,
        priority: 1,
        backup: true,
        maxConcurrent: 0,
        meta: 5,
        wieght: 1,
      }).toSorted(),
    ).toEqual(['backup', 'host', 'id', 'maxConcurrent', 'meta', 'url', 'weight', 'wieght'])
  })
  for (const url of [
    'x',
    'ftp://a.test',
    'http://user:pw@a.test',
    'http://a.test/?q',
    'http://a.test/#f',
    'unix:',
    'unix:/',
    'unix://host/a',
    5,
  ])
    it(`${JSON.stringify(url)} is no address`, () => expect(problems({ url })).toEqual(['url']))
  it('a password is not repeated in the message', () => {
    expect(() => parse('http://user:hunter2@a.test')).toThrow(/^(?!.*hunter2)/s)
  })
})

describe('adopt', () => {
  const base: UpstreamOptions = { url: 'http://a.test', id: 'a', weight: 2, priority: 1, maxConcurrent: 5, meta: { tags: ['x'] } }

  it('of the same changes nothing', () => {
    const upstream = parse(base)
    const { meta } = upstream
    expect(upstream.adopt(parse({ ...base, meta: { tags: ['x'] } }))).toBe(false)
    expect(upstream.meta).toBe(meta)
  })

  const changes: [Partial<UpstreamOptions>, Partial<PoolUpstream>][] = [
    [{ weight: 3 }, { weight: 3, configuredWeight: 3 }],
    [{ weight: 0 }, { weight: 0, configuredWeight: 0 }],
    [{ priority: 0 }, { priority: 0 }],
    [{ maxConcurrent: 9 }, { maxConcurrent: 9, configuredLimit: 9 }],
    [{ meta: { tags: ['y'] } }, { meta: { tags: ['y'] } }],
  ]
  for (const [change, expected] of changes)
    it(`of ${JSON.stringify(change)} takes it over, and nothing else`, () => {
      const upstream = parse(base)
      const before = Object.fromEntries(Object.entries(upstream))
      expect(upstream.adopt(parse({ ...base, ...change }))).toBe(true)
      expect(Object.fromEntries(Object.entries(upstream))).toEqual({ ...before, ...expected })
    })

  it('keeps state, load and what policies say', () => {
    const policy: HealthPolicy = { name: 'p', attach() {} }
    const upstream = parse(base)
    upstream.verdicts = new Verdicts()
    upstream.verdicts.of(policy).factor = 0.5
    upstream.verdicts.of(policy).limit = 3
    upstream.state = 'down'
    upstream.inflight = 4
    upstream.rate()
    expect(upstream.adopt(parse({ ...base, weight: 8, maxConcurrent: 100 }))).toBe(true)
    expect(upstream).toMatchObject({ weight: 4, configuredWeight: 8, maxConcurrent: 3, configuredLimit: 100, state: 'down', inflight: 4 })
    expect(upstream.adopt(parse({ ...base, weight: 8, maxConcurrent: 2 }))).toBe(true)
    expect([upstream.maxConcurrent, upstream.full]).toEqual([2, true])
  })

  it('rating after the last verdict has gone is as configured', () => {
    const upstream = parse(base)
    upstream.verdicts = new Verdicts()
    upstream.verdicts.of({ name: 'p', attach() {} }).factor = 0.25
    upstream.rate()
    expect(upstream.weight).toBe(0.5)
    upstream.verdicts = undefined
    upstream.rate()
    expect([upstream.weight, upstream.maxConcurrent]).toEqual([2, 5])
  })
})

it('a cap of its own goes before that of the pool', () => {
  expect([parse('http://a.test', 7).maxConcurrent, parse({ url: 'http://a.test', maxConcurrent: 3 }, 7).maxConcurrent]).toEqual([7, 3])
})
