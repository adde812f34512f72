/** Who must not be picked, at its limits: nobody there, everybody full, everybody tried, one left of ten thousand. */
import assert from 'node:assert/strict'
import type { Balancer } from '@weir/core'
import { type StubUpstream, stubExchange, stubUpstream } from '../balancer-fixtures.ts'
import { seededRandom } from '../random.ts'
import { begin, end } from './balancer-moves.ts'
import { checked } from './balancer-play.ts'

export function nobody(balancer: Balancer): void {
  assert.equal(balancer.pick(stubExchange()), undefined)
  balancer.update([])
  assert.equal(balancer.pick(stubExchange()), undefined)
  const upstream = stubUpstream()
  balancer.update([upstream])
  assert.equal(balancer.pick(stubExchange()), upstream)
  balancer.update([])
  assert.equal(balancer.pick(stubExchange()), undefined)
}

export function onlyOneHasRoom(balancer: Balancer, n: number): void {
  const random = seededRandom(n)
  const upstreams = Array.from({ length: n }, (_, i) => stubUpstream({ id: `s${i}`, maxConcurrent: 1 }))
  const exchange = stubExchange()
  balancer.update(upstreams)
  for (let i = 0; i < Math.min(n, 100); i++) begin(balancer, checked(balancer, exchange, upstreams) as StubUpstream)
  for (const upstream of upstreams) if (!upstream.full) begin(balancer, upstream)
  assert.equal(balancer.pick(exchange), undefined, 'all are full')
  for (let i = 0; i < 20; i++) {
    const free = upstreams[Math.floor(random() * n)] as StubUpstream
    end(balancer, free)
    assert.equal(balancer.pick(exchange), free, 'one has room')
    begin(balancer, free)
    assert.equal(balancer.pick(exchange), undefined, 'all are full again')
  }
}

export function onlyOneUntried(balancer: Balancer, n: number): void {
  const upstreams = Array.from({ length: n }, (_, i) => stubUpstream({ id: `s${i}`, weight: 1 + (i % 7) }))
  balancer.update(upstreams)
  assert.equal(balancer.pick(stubExchange({ tried: upstreams })), undefined)
  for (const left of upstreams) {
    const exchange = stubExchange({ tried: upstreams.filter((upstream) => upstream !== left) })
    assert.equal(balancer.pick(exchange), left)
    assert.equal(balancer.pick(exchange), left, 'asked again')
  }
}
