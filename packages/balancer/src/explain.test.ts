/** What each strategy says in decision records of those whom it did not choose: through a real pool, whose picks and records they are. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type Balancer, createPool, type Decision, type Exchange, type UpstreamOptions } from '@weir/core'
import { fakeTransport, seededRandom, stubExchange } from '@weir/testing'
import { expect, it, onTestFinished } from 'vitest'
import { boundedLoad } from './bounded-load.ts'
import { fallback } from './fallback.ts'
import { hash } from './hash.ts'
import { leastTime } from './least-time.ts'
import { locality } from './locality.ts'
import { peakEwma } from './peak-ewma.ts'
import { powerOfTwo } from './power-of-two.ts'
import { random } from './random.ts'
import { reportedLoad } from './reported-load.ts'
import { split } from './split.ts'
import { subsets } from './subsets.ts'

const members = (metas: readonly Record<string, string>[]): UpstreamOptions[] =>
  metas.map((meta, i) => ({ id: String.fromCharCode(97 + i), url: `http://${i}.test`, meta }))

/** Picks once, and gives what is said of each, with who was chosen marked. */
function rig(
  balancer: Balancer,
  upstreams: readonly UpstreamOptions[],
): (exchange?: Partial<Exchange>) => Record<string, string | undefined> {
  const pool = createPool({ upstreams, balancer, transport: fakeTransport() })
  onTestFinished(() => pool.close())
  return (exchange) => {
    let heard: Decision | undefined
    const listener = (message: unknown): void => {
      heard = message as Decision
    }
    subscribe('weir:decision', listener)
    ;(pool as unknown as { pick(exchange: Exchange): unknown }).pick({ ...stubExchange(), ...exchange } as Exchange)
    unsubscribe('weir:decision', listener)
    return Object.fromEntries((heard as Decision).candidates.map(({ id, note }) => [id === heard?.chosen ? `>${id}` : id, note]))
  }
}

it('subsets: who is of another subset, and when nobody has the labels', () => {
  const upstreams = members([{ version: '1' }, { version: '2' }, {}])
  const by = { of: ({ url }: Exchange) => ({ version: url.slice(1) }), keys: ['version'] }
  const strict = rig(subsets(by), upstreams)
  const other = 'not of the subset that the request asks for'
  expect(strict({ url: '/2' })).toEqual({ a: other, '>b': undefined, c: other })
  const nobody = 'nobody has the labels that the request asks for'
  expect(strict({ url: '/3' })).toEqual({ a: nobody, b: nobody, c: nobody })
  const falling = rig(subsets({ ...by, fallback: { version: '1' } }), upstreams)
  const back = 'not one of those that requests fall back to'
  expect(falling({ url: '/3' })).toEqual({ '>a': undefined, b: back, c: back })
})

it('split: who is of another arm', () => {
  const arms = [
    { labels: { arm: 'stable' }, weight: 1, name: 'stable' },
    { labels: { arm: 'canary' }, weight: 0, name: 'canary' },
  ]
  const pick = rig(split({ key: 'url', arms }), members([{ arm: 'stable' }, { arm: 'canary' }]))
  expect(pick()).toEqual({ '>a': undefined, b: 'not of the arm stable' })
})

it('locality: who is in another zone, and nobody when zones are not looked at', () => {
  const upstreams = members([{ zone: 'here' }, { zone: 'there' }, {}])
  const near = rig(locality({ zone: 'here', minUpstreams: 1, callers: { here: 1, there: 9 }, random: () => 0 }), upstreams)
  expect(near()).toEqual({ '>a': undefined, b: 'not in here', c: 'not in here' })
  const all = rig(locality({ zone: 'here', minUpstreams: 4, balancer: () => random({ random: () => 0 }) }), upstreams)
  expect(Object.values(all())).toEqual([undefined, undefined, undefined])
})

it('bounded load: who is above the bound', () => {
  const pick = rig(boundedLoad(hash({ key: 'url' }), { factor: 1.2 }), members([{}, {}]))
  const busy = Object.keys(pick())
    .find((id) => id.startsWith('>'))
    ?.slice(1) as string
  const other = busy === 'a' ? 'b' : 'a'
  // Two are to be in flight: 1.2 each, so whoever has one may have another. Of three it is 1.8.
  expect(pick()).toEqual({ [`>${busy}`]: undefined, [other]: undefined })
  expect(pick()).toEqual({ [busy]: 'above its bound of 2', [`>${other}`]: undefined })
})

it('power of two and peak EWMA: who was not drawn', () => {
  for (const [strategy, said] of [
    [powerOfTwo({ random: seededRandom(3) }), /^drawn$/],
    [peakEwma({ random: seededRandom(3) }), /^drawn; taken for \d+\.\d\d ms$/],
  ] as const) {
    const notes = rig(strategy, members([{}, {}, {}, {}]))()
    expect(Object.values(notes).filter((note) => note === 'not drawn')).toHaveLength(2)
    expect(Object.values(notes).filter((note) => said.test(note as string))).toHaveLength(2)
    expect(Object.entries(notes).find(([id]) => id.startsWith('>'))?.[1]).toMatch(said)
  }
})

it('least time and reported load: what is compared', () => {
  expect(Object.values(rig(leastTime(), members([{}, {}]))())).toEqual(['taken for 10.00 ms', 'taken for 10.00 ms'])
  const reported = rig(reportedLoad(), members([{}, {}]))()
  expect(Object.values(reported)).toEqual(['without reports of weight 1.00', 'without reports of weight 1.00'])
})

it('fallback: what the strategy says that was asked last', () => {
  const pick = rig(
    fallback(subsets({ labels: { version: 'header:x-version' } }), powerOfTwo({ random: () => 0 })),
    members([{ version: '1' }, { version: '2' }, {}]),
  )
  expect(pick()).toEqual({ '>a': 'power-of-two: drawn', b: 'power-of-two: drawn', c: 'power-of-two: not drawn' })
})

it('a strategy that fails to explain itself fails nothing else', () => {
  const broken: Balancer = {
    name: 'broken',
    update(list) {
      this.pick = () => list[0]
    },
    pick: () => undefined,
    explain: () => {
      throw new Error('mine')
    },
  }
  expect(rig(broken, members([{}]))()).toEqual({ '>a': 'broken could not explain it: mine' })
})

it('nobody is asked about an upstream that the exchange was bound to, or that could not be picked', () => {
  const pick = rig(powerOfTwo(), [...members([{}, {}]), { id: 'c', url: 'http://c.test', weight: 0 }])
  expect(pick({ affinity: 'b' })).toEqual({ a: undefined, '>b': undefined, c: undefined })
  expect(pick().c).toBeUndefined()
})
