/**
 * The moves of a pool, as the cases make them: an exchange arrives, begins and ends. Kept in one place because they have to be made in the
 * order of a real pool: the count first, then the strategy is told.
 */
import type { Balancer, Exchange, Upstream } from '@weir/core'
import { type StubUpstream, stubExchange, stubOutcome } from '../balancer-fixtures.ts'

/** Request, headers and signal are the same for all: a strategy may read them, and making them a hundred thousand times takes seconds. */
const template = stubExchange()

/** Somebody: an address and a `hashKey` of its own, for strategies that go by the client. */
export function stubClient(random: () => number, tried: readonly Upstream[] = []): Exchange {
  const bits = Math.floor(random() * 0x1_0000_0000)
  const clientIp = `${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`
  return { ...template, clientIp, hashKey: clientIp, tried }
}

export function begin(balancer: Balancer, upstream: StubUpstream): void {
  upstream.inflight++
  balancer.acquire?.(upstream)
}

const fields: readonly string[] = ['Content-Type', 'text/plain']

/** The head comes, then the end. */
export function end(balancer: Balancer, upstream: StubUpstream): void {
  balancer.onHead?.(upstream, 200, fields)
  upstream.inflight--
  balancer.release?.(upstream, stubOutcome(upstream))
}
