/** Decisions played to another strategy: what it is shown, what is counted, and that a strategy agrees with itself. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type Balancer, createProxy, type Decision, type Exchange, type Upstream } from '@weir/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fakeTransport } from './fake-transport.ts'
import { type CandidateRecord, type DecisionRecord, replayDecisions } from './replay-decisions.ts'

const candidate = (id: string, more: Partial<CandidateRecord> = {}): CandidateRecord => ({
  id,
  url: `http://${id}.test/`,
  weight: 1,
  priority: 0,
  state: 'up',
  inflight: 0,
  maxConcurrent: null,
  latencyMs: 0,
  meta: {},
  ...more,
})
const record = (candidates: readonly CandidateRecord[], chosen?: string, more: Partial<DecisionRecord> = {}): DecisionRecord => ({
  pool: 'api',
  balancer: 'recorded-one',
  at: 0,
  attempt: 1,
  request: { method: 'GET', url: '/', clientIp: '192.0.2.1', headers: [] },
  candidates,
  by: chosen === undefined ? 'none' : 'balancer',
  ...(chosen === undefined ? null : { chosen }),
  ...more,
})

/** Chooses with `choose`, and notes all that it is told. */
function spy(choose: (list: readonly Upstream[], exchange: Exchange) => Upstream | undefined) {
  const log: string[] = []
  let list: readonly Upstream[] = []
  const balancer: Balancer = {
    name: 'spy',
    update: (available) => {
      list = available
      log.push(`update ${available.map(({ id, weight }) => (weight === 1 ? id : `${id}*${weight}`)).join()}`)
    },
    pick: (exchange) => {
      log.push(`pick of ${list.map(({ id, inflight, full }) => `${id}${inflight}${full ? '!' : ''}`).join()}`)
      return choose(list, exchange)
    },
    acquire: ({ id }) => void log.push(`+${id}`),
    release: ({ id }) => void log.push(`-${id}`),
  }
  return { balancer, log }
}
const byId =
  (id: string) =>
  (list: readonly Upstream[]): Upstream | undefined =>
    list.find((upstream) => upstream.id === id)

/** The least busy, in the order given. */
function least(): Balancer {
  let list: readonly Upstream[] = []
  return {
    name: 'least',
    update: (available) => {
      list = available
    },
    pick: ({ tried }) => {
      let best: Upstream | undefined
      for (const upstream of list)
        if (
          !upstream.full &&
          !tried.includes(upstream) &&
          (best === undefined || upstream.inflight / upstream.weight < best.inflight / best.weight)
        )
          best = upstream
      return best
    },
  }
}

/** In turn, by its own count of what was taken: right only when it hears of every `acquire` and `release`. */
function counting(): Balancer {
  let list: readonly Upstream[] = []
  const taken = new Map<Upstream, number>()
  const add = (upstream: Upstream, by: number): void => void taken.set(upstream, (taken.get(upstream) ?? 0) + by)
  return {
    name: 'counting',
    update: (available) => {
      list = available
    },
    pick: ({ tried }) =>
      list
        .filter((upstream) => !upstream.full && !tried.includes(upstream))
        .toSorted((one, other) => (taken.get(one) ?? 0) - (taken.get(other) ?? 0))[0],
    acquire: (upstream) => add(upstream, 1),
    release: (upstream) => add(upstream, -1),
  }
}

describe('what comes out', () => {
  it('is how often each was chosen on both sides, how often both agree, and how even both are', () => {
    const both = [candidate('a'), candidate('b')]
    const { balancer } = spy(byId('b'))
    const records = [record(both, 'a'), record(both, 'b'), record(both, 'a'), record(both, 'b')]
    expect(replayDecisions(records, balancer)).toEqual({
      decisions: 4,
      asked: 4,
      agreed: 2,
      recorded: { balancer: 'recorded-one', counts: { a: 2, b: 2 }, imbalance: 1 },
      replayed: { balancer: 'spy', counts: { a: 0, b: 4 }, imbalance: 2 },
    })
  })

  it('counts everybody who was ever offered, and nobody who never was', () => {
    const { balancer } = spy(byId('a'))
    const { recorded, replayed } = replayDecisions(
      [record([candidate('a'), candidate('b', { excluded: 'down', state: 'down' })], 'a'), record([candidate('a'), candidate('c')], 'a')],
      balancer,
    )
    expect(recorded).toMatchObject({ counts: { a: 2, c: 0 }, imbalance: 2 })
    expect(replayed.counts).toEqual({ a: 2, c: 0 })
  })

  it('of nothing is even', () => {
    const nothing = { counts: {}, imbalance: 1 }
    expect(replayDecisions([], least())).toEqual({
      decisions: 0,
      asked: 0,
      agreed: 0,
      recorded: { balancer: '', ...nothing },
      replayed: { balancer: 'least', ...nothing },
    })
  })

  it('agreement on nobody is agreement, and somebody in place of nobody is not', () => {
    const full = [candidate('a', { inflight: 1, maxConcurrent: 1, excluded: 'full' })]
    expect(replayDecisions([record(full)], least())).toMatchObject({ asked: 1, agreed: 1, replayed: { counts: { a: 0 } } })
    const eager = spy(byId('a'))
    expect(replayDecisions([record(full)], eager.balancer)).toMatchObject({ asked: 1, agreed: 0, replayed: { counts: { a: 1 } } })
    // No record tells when that one would have ended.
    expect(eager.log.slice(-2)).toEqual(['+a', '-a'])
  })

  it('is of one pool', () => {
    expect(() => replayDecisions([record([], undefined), record([], undefined, { pool: 'other' })], least())).toThrow(RangeError)
  })
})

describe('what the strategy is shown', () => {
  it('is told of membership when those who are offered change, and not for who is full or was tried', () => {
    const { balancer, log } = spy(byId('a'))
    const b = candidate('b')
    replayDecisions(
      [
        record([candidate('a'), b], 'a'),
        record([candidate('a', { excluded: 'tried' }), b], 'b'),
        record([candidate('a'), candidate('b', { excluded: 'full' })], 'a'),
        record([candidate('a'), candidate('b', { excluded: 'draining', state: 'draining' })], 'a'),
        record([candidate('a'), candidate('b', { weight: 0.5 })], 'a'),
        record([candidate('a'), candidate('b', { weight: 0.5 }), candidate('c', { excluded: 'tier', priority: 1 })], 'a'),
        record([candidate('a'), candidate('b', { weight: 0.5, meta: { zone: 'x' } })], 'a'),
      ],
      balancer,
    )
    expect(log.filter((line) => line.startsWith('update'))).toEqual(['update a,b', 'update a', 'update a,b*0.5', 'update a,b*0.5'])
  })

  it('sees the upstreams and the request of the record, as JSON has kept them', () => {
    const seen: unknown[] = []
    const live = {
      ...record([
        candidate('a', {
          weight: 2,
          inflight: 3,
          maxConcurrent: Number.POSITIVE_INFINITY,
          latencyMs: 7,
          meta: { zone: 'x' },
          excluded: undefined,
        }),
        candidate('b', { maxConcurrent: 2, inflight: 2, excluded: 'full' }),
        candidate('c', { excluded: 'tried' }),
      ]),
      request: { method: 'PUT', url: '/a?b', clientIp: '192.0.2.9', hashKey: 'k', affinity: 'z', headers: ['Host', 'x.test', 'x-a', '1'] },
    }
    const { balancer } = spy((list, exchange) => {
      const { method, url, clientIp, hashKey, affinity, headers, tried } = exchange
      seen.push([method, url, clientIp, hashKey, affinity, headers.get('X-A'), tried.map(({ id }) => id)])
      for (const { id, url: place, weight, inflight, maxConcurrent, full, latencyMs, meta } of list)
        seen.push([id, place.href, weight, inflight, maxConcurrent, full, latencyMs, meta])
      return undefined
    })
    replayDecisions([JSON.parse(JSON.stringify(live)) as DecisionRecord], balancer)
    expect(seen).toEqual([
      ['PUT', '/a?b', '192.0.2.9', 'k', 'z', '1', ['c']],
      ['a', 'http://a.test/', 2, 3, Number.POSITIVE_INFINITY, false, 7, { zone: 'x' }],
      ['b', 'http://b.test/', 1, 2, 2, true, 0, {}],
      ['c', 'http://c.test/', 1, 0, Number.POSITIVE_INFINITY, false, 0, {}],
    ])
  })

  it('the same upstream is the same object, until it is another server under that id', () => {
    const seen: Upstream[] = []
    const { balancer } = spy((list) => {
      seen.push(list[0] as Upstream)
      return list[0]
    })
    const elsewhere = candidate('a', { url: 'http://elsewhere.test/' })
    replayDecisions(
      [record([candidate('a')], 'a'), record([candidate('a')], 'a'), record([elsewhere], 'a'), record([elsewhere], 'a')],
      balancer,
    )
    expect([seen[0] === seen[1], seen[1] === seen[2], seen[2] === seen[3]]).toEqual([true, false, true])
  })
})

describe('load', () => {
  /** Three arrive, one after the other, and none ends: the record put them all on `a`. */
  const piled = [0, 1, 2].map((inflight) => record([candidate('a', { inflight }), candidate('b')], 'a'))

  it('is what there was, unless told otherwise', () => {
    const { balancer, log } = spy(byId('b'))
    replayDecisions(piled, balancer)
    expect(log.filter((line) => line.startsWith('pick'))).toEqual(['pick of a0,b0', 'pick of a1,b0', 'pick of a2,b0'])
    expect(replayDecisions(piled, least()).replayed.counts).toEqual({ a: 1, b: 2 })
  })

  it('`replayed` is what its own choices have led to', () => {
    const { balancer, log } = spy(byId('b'))
    replayDecisions(piled, balancer, { load: 'replayed' })
    expect(log.filter((line) => line.startsWith('pick'))).toEqual(['pick of a0,b0', 'pick of a0,b1', 'pick of a0,b2'])
    expect(replayDecisions(piled, least(), { load: 'replayed' }).replayed.counts).toEqual({ a: 2, b: 1 })
  })

  it('an exchange ends when it ended in the record, wherever the replay had put it; the oldest first', () => {
    const { balancer, log } = spy((list, { url }) => byId(url.slice(1))(list))
    const at = (a: number, b: number, chosen: string, wanted: string): DecisionRecord =>
      record([candidate('a', { inflight: a }), candidate('b', { inflight: b })], chosen, {
        request: { method: 'GET', url: `/${wanted}`, clientIp: '', headers: [] },
      })
    replayDecisions([at(0, 0, 'a', 'b'), at(1, 0, 'a', 'a'), at(1, 0, 'b', 'a'), at(0, 0, 'a', 'b')], balancer, { load: 'replayed' })
    expect(log).toEqual([
      'update a,b',
      'pick of a0,b0',
      '+b',
      'pick of a0,b1',
      '+a',
      // One on `a` has ended: the first, which the replay had on `b`.
      '-b',
      'pick of a1,b0',
      '+a',
      // Both others have.
      '-a',
      '-a',
      'pick of a0,b0',
      '+b',
    ])
  })

  it('what ran before the first record is where it was', () => {
    const { balancer, log } = spy(byId('a'))
    replayDecisions([record([candidate('a', { inflight: 2 })], 'a'), record([candidate('a', { inflight: 1 })], 'a')], balancer, {
      load: 'replayed',
    })
    expect(log).toEqual(['update a', '+a', '+a', 'pick of a2', '+a', '-a', '-a', 'pick of a1', '+a'])
  })

  it('of one that has left ends', () => {
    const { balancer, log } = spy(byId('a'))
    replayDecisions([record([candidate('a'), candidate('b')], 'b'), record([candidate('a')], 'a')], balancer, { load: 'replayed' })
    expect(log).toEqual(['update a,b', 'pick of a0,b0', '+a', '-a', 'update a', 'pick of a0', '+a'])
  })
})

describe('what no strategy decides', () => {
  it('affinity goes where it went, and is no question', () => {
    const { balancer, log } = spy(byId('a'))
    const both = [candidate('a'), candidate('b', { excluded: 'draining', state: 'draining' })]
    expect(replayDecisions([record(both, 'b', { by: 'affinity' })], balancer)).toMatchObject({
      asked: 0,
      agreed: 0,
      recorded: { counts: { a: 0, b: 1 } },
      replayed: { counts: { a: 0, b: 1 } },
    })
    expect(log).toEqual(['update a', '+b'])
  })

  it('a last resort is where it was when the strategy has nobody either', () => {
    const retry = [candidate('a', { excluded: 'tried' }), candidate('b', { excluded: 'tier', priority: 1 })]
    const records = [record(retry, 'b', { by: 'last-resort', attempt: 2 })]
    expect(replayDecisions(records, least())).toMatchObject({ asked: 1, agreed: 1, replayed: { counts: { a: 0, b: 1 } } })
  })
})

describe('records of a proxy that served', () => {
  type Step =
    | { readonly do: 'request'; readonly sticky: number }
    | { readonly do: 'end' | 'weight' | 'drain' | 'undrain' | 'remove' | 'add'; readonly on: number }
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('request' as const), sticky: fc.nat(9) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('end' as const), on: fc.nat(9) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constantFrom('weight' as const, 'drain' as const, 'undrain' as const, 'remove' as const, 'add' as const),
        on: fc.nat(3),
      }),
    },
  )
  const ids = ['a', 'b', 'c', 'd']
  const settle = (): Promise<void> => new Promise((resolve) => void setImmediate(() => setImmediate(resolve)))

  async function recordOf(balancer: Balancer, steps: readonly Step[]): Promise<DecisionRecord[]> {
    const lines: string[] = []
    const listener = (decision: unknown): void => void lines.push(JSON.stringify(decision as Decision))
    const endings: (() => void)[] = []
    const proxy = createProxy({
      upstreams: ids.map((id) => ({ url: `http://${id}.test`, id, maxConcurrent: 2, backup: id === 'd' })),
      balancer,
      health: [],
      queue: false,
      transport: fakeTransport(() => new Promise((resolve) => endings.push(() => resolve({})))),
      use: [
        (exchange) => {
          exchange.affinity = exchange.headers.get('x-sticky')
        },
      ],
    })
    const pool = proxy.pool as NonNullable<typeof proxy.pool>
    const running: Promise<unknown>[] = []
    subscribe('weir:decision', listener)
    try {
      for (const action of steps) {
        const id = action.do === 'request' ? '' : (ids[action.on % ids.length] as string)
        if (action.do === 'request') {
          const sticky = ids[action.sticky]
          running.push(proxy.inject({ method: 'GET', url: '/', headers: sticky === undefined ? {} : { 'X-Sticky': sticky } }))
        } else if (action.do === 'end') endings.splice(action.on % Math.max(1, endings.length), 1)[0]?.()
        else if (action.do === 'weight' && pool.get(id) !== undefined) pool.setWeight(id, action.on)
        else if (action.do === 'drain') void pool.drain(id)
        else if (action.do === 'undrain') pool.undrain(id)
        else if (action.do === 'remove') void pool.remove(id)
        else if (action.do === 'add' && pool.get(id) === undefined) pool.add({ url: `http://${id}.test`, id, maxConcurrent: 2 })
        await settle()
      }
    } finally {
      unsubscribe('weir:decision', listener)
      for (const end of endings) end()
      await Promise.all(running)
      await proxy.close()
    }
    return lines.map((line) => JSON.parse(line) as DecisionRecord)
  }

  // Looks at nothing but what the pool, or the replay, sets.
  it('a strategy that goes by load agrees with itself on every decision, whichever load it is shown', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30 }), async (steps) => {
        const records = await recordOf(least(), steps)
        expect(records).toHaveLength(steps.filter((action) => action.do === 'request').length)
        for (const load of ['recorded', 'replayed'] as const) {
          const replay = replayDecisions(records, least(), { load })
          expect(replay.agreed).toBe(replay.asked)
          expect(replay.replayed.counts).toEqual(replay.recorded.counts)
          expect(replay.asked).toBe(records.filter(({ by }) => by !== 'affinity').length)
        }
      }),
      { numRuns: 40 },
    )
  })

  it('every `acquire` of the replay has one `release` at most, in any history', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30 }), async (steps) => {
        const records = await recordOf(least(), steps)
        const held = new Map<Upstream, number>()
        const inner = counting()
        const balancer: Balancer = {
          ...inner,
          acquire: (upstream) => {
            held.set(upstream, (held.get(upstream) ?? 0) + 1)
            inner.acquire?.(upstream)
          },
          release: (upstream, outcome) => {
            held.set(upstream, (held.get(upstream) ?? 0) - 1)
            expect(held.get(upstream)).toBeGreaterThanOrEqual(0)
            inner.release?.(upstream, outcome)
          },
        }
        const { decisions } = replayDecisions(records, balancer, { load: 'replayed' })
        expect(decisions).toBe(records.length)
        for (const [upstream, count] of held) expect(upstream.inflight).toBe(count)
      }),
      { numRuns: 20 },
    )
  })
})
