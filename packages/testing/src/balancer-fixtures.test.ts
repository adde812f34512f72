import { isPickable } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { stubExchange, stubOutcome, stubUpstream, stubUpstreams } from './balancer-fixtures.ts'

describe('stub upstreams', () => {
  it('are full when their load says so', () => {
    const upstream = stubUpstream({ maxConcurrent: 2 })
    expect(isPickable(upstream, stubExchange())).toBe(true)
    upstream.inflight = 2
    expect(isPickable(upstream, stubExchange())).toBe(false)
  })

  it('have ids of their own, and addresses', () => {
    const upstreams = stubUpstreams(new Array(30).fill(1))
    expect(new Set(upstreams.map(({ id }) => id)).size).toBe(30)
    expect(upstreams.map(({ id }) => id).slice(24, 28)).toEqual(['y', 'z', 'u26', 'u27'])
    expect(stubUpstreams([5, 1]).map(({ weight }) => weight)).toEqual([5, 1])
    expect(stubUpstream({ id: 'b' }).url.href).toBe('http://upstream.test/')
    expect(stubUpstream({ id: 'http://10.0.0.1:3000' }).url.href).toBe('http://10.0.0.1:3000/')
  })
})

describe('stub exchanges', () => {
  it('know their client and whom they have tried', () => {
    const upstream = stubUpstream()
    expect(isPickable(upstream, stubExchange({ tried: [upstream] }))).toBe(false)
    expect(stubExchange({ clientIp: '2001:db8::1' }).clientIp).toBe('2001:db8::1')
  })

  it('have a request that a strategy may read', () => {
    const { req, headers, signal } = stubExchange({ method: 'PUT', url: '/a' })
    expect([req.method, req.url, headers.size, signal.aborted]).toEqual(['PUT', '/a', 0, false])
  })
})

describe('stub outcomes', () => {
  it('are of the upstream, and well', () => {
    const upstream = stubUpstream()
    expect(stubOutcome(upstream)).toMatchObject({ upstream, status: 200, error: undefined })
  })
})
