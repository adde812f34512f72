/** Lists from a source: each replaces the one before it, a wrong one changes nothing, and a source that breaks is opened again. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { fakeTransport, stubExchange, type VirtualClock, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Attempt } from './attempt.ts'
import type { HealthPolicy } from './health.ts'
import { OptionsError } from './options.ts'
import { createPool, type LivePool } from './pool.ts'
import type { PoolOptions } from './pool-options.ts'
import { isSource, type UpstreamSource } from './pool-source.ts'
import type { PoolUpstream, Upstream, UpstreamInput, UpstreamOptions } from './upstream.ts'

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

/** A source whose every step the test takes. */
interface Tap extends UpstreamSource {
  /** Gives a list, and lets it be read. */
  give(list: unknown): Promise<void>
  fail(error: unknown): Promise<void>
  finish(): Promise<void>
  /** How often it was opened, and ended by `return()`. */
  readonly opened: number
  readonly returned: number
  /** Somebody waits for the next list. */
  readonly asked: boolean
}

function tap(): Tap {
  let waiting: { resolve(result: IteratorResult<never>): void; reject(error: unknown): void } | undefined
  let opened = 0
  let returned = 0
  const settle = async (act: (waiter: NonNullable<typeof waiting>) => void): Promise<void> => {
    if (waiting === undefined) throw new Error('nobody reads the source')
    const waiter = waiting
    waiting = undefined
    act(waiter)
    await turn()
  }
  return {
    [Symbol.asyncIterator]: () => {
      opened++
      return {
        next: () =>
          new Promise((resolve, reject) => {
            waiting = { resolve, reject }
          }),
        return: () => {
          returned++
          waiting?.resolve({ done: true, value: undefined })
          waiting = undefined
          return Promise.resolve({ done: true, value: undefined })
        },
      }
    },
    give: (list) => settle(({ resolve }) => resolve({ done: false, value: list as never })),
    fail: (error) => settle(({ reject }) => reject(error)),
    finish: () => settle(({ resolve }) => resolve({ done: true, value: undefined as never })),
    get opened() {
      return opened
    },
    get returned() {
      return returned
    },
    get asked() {
      return waiting !== undefined
    },
  }
}

interface Told {
  readonly pool: string
  readonly added: readonly string[]
  readonly removed: readonly string[]
  readonly changed: readonly string[]
  readonly error: unknown
}

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean()
})

function setup(source: UpstreamSource = tap(), options: Partial<PoolOptions> = {}) {
  const clock = virtualClock()
  const forgotten: Upstream[] = []
  const transport = Object.assign(fakeTransport(), { forget: (upstream: Upstream) => void forgotten.push(upstream) })
  const pool = createPool({ name: 'api', upstreams: source, health: [], transport, clock, ...options }) as LivePool
  const told: Told[] = []
  const listener = (message: unknown): void => void told.push(message as Told)
  subscribe('weir:pool:source', listener)
  cleanups.push(() => {
    unsubscribe('weir:pool:source', listener)
    void pool.close()
  })
  const ids = (): string[] => pool.upstreams.map(({ id }) => id)
  return { pool, clock, told, forgotten, ids, source: source as Tap }
}
const up = (id: string, more: Partial<UpstreamOptions> = {}): UpstreamOptions => ({ url: `http://${id}.test`, id, ...more })
const of = (pool: LivePool, id: string): PoolUpstream => pool.get(id) as PoolUpstream

describe('a list', () => {
  it('replaces the one before it: who joined, left and changed is told, who stayed is the same upstream', async () => {
    const { pool, told, ids, source, forgotten } = setup()
    void pool.start()
    await source.give([up('a'), up('b', { weight: 2 }), up('c')])
    const [a, b, c] = ['a', 'b', 'c'].map((id) => of(pool, id)) as [PoolUpstream, PoolUpstream, PoolUpstream]
    await source.give([up('b', { weight: 3, priority: 1, maxConcurrent: 7, meta: { zone: 'x' } }), up('d'), up('a')])
    expect(ids().toSorted()).toEqual(['a', 'b', 'd'])
    expect([of(pool, 'a'), of(pool, 'b')]).toEqual([a, b])
    expect(of(pool, 'a')).toBe(a)
    expect(of(pool, 'b')).toBe(b)
    expect(b).toMatchObject({ weight: 3, configuredWeight: 3, priority: 1, maxConcurrent: 7, meta: { zone: 'x' } })
    expect([c.gone, c.state]).toEqual([true, 'draining'])
    expect(forgotten).toEqual([c])
    expect(told).toEqual([
      { pool: 'api', added: ['a', 'b', 'c'], removed: [], changed: [], error: undefined },
      { pool: 'api', added: ['d'], removed: ['c'], changed: ['b'], error: undefined },
    ])
  })

  it('that is the same as before changes nothing, not even the balancer’s tables', async () => {
    let updates = 0
    const balancer = { name: 'counting', update: () => void updates++, pick: () => undefined }
    const { pool, told, source } = setup(tap(), { balancer })
    void pool.start()
    await source.give([up('a', { meta: { tags: ['x'] } }), up('b')])
    const before = updates
    await source.give([up('b'), up('a', { meta: { tags: ['x'] } })])
    expect(updates).toBe(before)
    expect(told.at(-1)).toMatchObject({ added: [], removed: [], changed: [], error: undefined })
  })

  it('with the same id at another place is another server: the old one goes on with what it has', async () => {
    const { pool, told, source, forgotten } = setup()
    void pool.start()
    await source.give([up('a')])
    const before = pool.pick(stubExchange()) as PoolUpstream
    await source.give([{ ...up('a'), url: 'http://elsewhere.test' }])
    const after = of(pool, 'a')
    expect(after).not.toBe(before)
    expect([before.gone, before.inflight, after.inflight, after.url.host]).toEqual([true, 1, 0, 'elsewhere.test'])
    expect(forgotten).toEqual([before])
    expect(told.at(-1)).toMatchObject({ added: ['a'], removed: ['a'], changed: [] })
    expect(pool.pick(stubExchange())).toBe(after)
    pool.release({ upstream: before } as unknown as Attempt)
    expect([before.inflight, after.inflight]).toEqual([0, 1])
    // A certificate name is part of the place too.
    await source.give([{ ...up('a'), url: 'http://elsewhere.test', host: 'app.test' }])
    expect(of(pool, 'a')).not.toBe(after)
  })

  it('keeps what policies and the application have said of those who stay', async () => {
    const { pool, source } = setup()
    void pool.start()
    await source.give([up('a'), up('b'), up('c')])
    const check: HealthPolicy = { name: 'check', attach() {} }
    pool.policies.setDown(of(pool, 'a'), check, 'ill')
    pool.policies.setWeightFactor(of(pool, 'b'), check, 0.5)
    pool.policies.setLimit(of(pool, 'b'), check, 3)
    void pool.drain('c')
    await source.give([up('a'), up('b', { weight: 4, maxConcurrent: 9 }), up('c', { weight: 2 })])
    expect(pool.upstreams.map(({ id, state, weight, maxConcurrent }) => [id, state, weight, maxConcurrent])).toEqual([
      ['a', 'down', 1, Number.POSITIVE_INFINITY],
      ['b', 'up', 2, 3],
      ['c', 'draining', 2, Number.POSITIVE_INFINITY],
    ])
  })

  it('of nobody empties the pool', async () => {
    const { pool, source } = setup()
    void pool.start()
    await source.give([up('a')])
    await source.give([])
    expect([pool.upstreams, pool.hasUsable]).toEqual([[], false])
    await source.give([up('a')])
    expect(pool.pick(stubExchange())?.id).toBe('a')
  })

  it('tells policies of every newcomer and everybody who goes, before the balancer hears of it', async () => {
    const log: string[] = []
    const watch: HealthPolicy = {
      name: 'watch',
      attach() {},
      onUpstream: ({ upstream, from, to }) =>
        void log.push(from === undefined ? `+${upstream.id}` : to === undefined ? `-${upstream.id}` : '?'),
    }
    const balancer = {
      name: 'noting',
      update: (list: readonly Upstream[]) => void log.push(list.map(({ id }) => id).join()),
      pick: () => undefined,
    }
    const { pool, source } = setup(tap(), { health: [watch], balancer })
    void pool.start()
    await source.give([up('a'), up('b')])
    await source.give([up('b'), up('c')])
    expect(log).toEqual(['', '+a', '+b', 'a,b', '-a', '+c', 'b,c'])
  })
})

describe('a wrong list', () => {
  const wrong: [what: string, list: unknown][] = [
    ['is no list', 'http://a.test'],
    ['is nothing', undefined],
    ['names a URL that is none', [up('a'), up('c'), 'nonsense']],
    ['has an option out of range', [up('a', { weight: -1 })]],
    ['has an option that does not exist', [{ ...up('a'), wieght: 1 }]],
    ['names one twice', [up('a'), up('c'), up('c')]],
    ['names one that the application added', [up('a'), up('mine')]],
    ['holds null', [up('a'), null]],
  ]
  for (const [what, list] of wrong)
    it(`that ${what} changes nothing, and is reported`, async () => {
      const { pool, told, ids, source, clock } = setup()
      void pool.start()
      pool.add(up('mine'))
      await source.give([up('a'), up('b')])
      const before = pool.upstreams.map((upstream) => upstream)
      await source.give(list)
      expect(ids()).toEqual(['mine', 'a', 'b'])
      for (const [index, upstream] of pool.upstreams.entries()) expect(upstream).toBe(before[index])
      expect(told.at(-1)).toMatchObject({ pool: 'api', added: [], removed: [], changed: [] })
      expect(told.at(-1)?.error).toSatisfy(OptionsError.is)
      // The source is not to blame: it is read on, not opened again.
      expect([source.opened, clock.pending]).toEqual([1, 0])
      await source.give([up('b')])
      expect(ids()).toEqual(['mine', 'b'])
    })

  it('says where in the list the mistakes are', async () => {
    const { pool, told, source } = setup()
    void pool.start()
    await source.give([up('a'), 'nonsense', up('b', { weight: -1 })])
    expect(told[0]?.error).toMatchObject({ problems: [{ path: 'upstreams[1]' }, { path: 'upstreams[2].weight' }] })
  })
})

describe('manual changes beside a source', () => {
  it('one that was added by hand stays, whatever the source says', async () => {
    const { pool, ids, source } = setup()
    pool.add(up('mine'))
    void pool.start()
    await source.give([up('a')])
    await source.give([])
    expect(ids()).toEqual(['mine'])
  })

  it('one that was removed by hand comes back with the next list that names it, as somebody new', async () => {
    const { pool, ids, source } = setup()
    void pool.start()
    await source.give([up('a'), up('b')])
    const before = of(pool, 'a')
    void pool.remove('a')
    expect(ids()).toEqual(['b'])
    await source.give([up('a'), up('b')])
    expect(ids().toSorted()).toEqual(['a', 'b'])
    expect(of(pool, 'a')).not.toBe(before)
  })

  it('one that was removed and added by hand is no longer the source’s', async () => {
    const { pool, ids, source, told } = setup()
    void pool.start()
    await source.give([up('a'), up('b')])
    void pool.remove('a')
    pool.add(up('a'))
    await source.give([up('b')])
    expect(ids().toSorted()).toEqual(['a', 'b'])
    await source.give([up('a'), up('b')])
    expect(told.at(-1)?.error).toSatisfy(OptionsError.is)
  })
})

describe('starting', () => {
  const state = (promise: Promise<void>): { done: boolean } => {
    const watched = { done: false }
    void promise.then(() => {
      watched.done = true
    })
    return watched
  }

  it('nothing is read before, and it waits for the first list', async () => {
    const { pool, source, ids, clock } = setup()
    await turn()
    expect(source.opened).toBe(0)
    const started = state(pool.start())
    await turn()
    expect([source.opened, started.done]).toEqual([1, false])
    await source.give([up('a')])
    expect([started.done, ids()]).toEqual([true, ['a']])
    expect(clock.pending).toBe(0)
  })

  const endings: [what: string, end: (source: Tap, clock: VirtualClock) => Promise<void>][] = [
    ['a first failure', (source) => source.fail(new Error('no'))],
    ['a first list that is wrong', (source) => source.give('nonsense')],
    ['an end without a list', (source) => source.finish()],
    ['10 s of silence, and no less', async (_source, clock) => await clock.advance(1)],
  ]
  for (const [what, end] of endings)
    it(`waits no longer than until ${what}`, async () => {
      const { pool, source, clock } = setup()
      const started = state(pool.start())
      await clock.advance(9999)
      expect(started.done).toBe(false)
      await end(source, clock)
      await turn()
      expect(started.done).toBe(true)
    })

  it('is over when the pool is closed', async () => {
    const { pool, source, clock } = setup()
    const started = state(pool.start())
    await turn()
    await pool.close()
    await turn()
    expect([started.done, source.returned, clock.pending]).toEqual([true, 1, 0])
  })

  it('policies that work on their own start with the first list in place', async () => {
    const seen: string[][] = []
    const prober: HealthPolicy = {
      name: 'prober',
      attach: (control) => {
        seen.push(control.upstreams.map(({ id }) => id))
      },
      start: () => void seen.push(pool.upstreams.map(({ id }) => id)),
    }
    const { pool, source } = setup(tap(), { health: [prober] })
    const started = pool.start()
    await turn()
    expect(seen).toEqual([[]])
    await source.give([up('a')])
    await started
    expect(seen).toEqual([[], ['a']])
  })
})

// Every new start opens it again, beside the ones that run.
it('a source is opened once, however often a policy fails to start', async () => {
  let tries = 0
  const prober: HealthPolicy = {
    name: 'prober',
    attach() {},
    start: async () => {
      tries++
      if (tries < 3) throw new Error('not yet')
    },
  }
  const { pool, source, ids, clock } = setup(tap(), { health: [prober] })
  const first = expect(pool.start()).rejects.toThrow('not yet')
  await turn()
  await source.give([up('a')])
  await first
  await expect(pool.start()).rejects.toThrow('not yet')
  await pool.start()
  expect([tries, source.opened, ids(), clock.pending]).toEqual([3, 1, ['a'], 0])
})

describe('a source that breaks', () => {
  it('keeps the last list, and is opened again after pauses that double up to 30 s and begin anew with a good list', async () => {
    const { pool, source, clock, told, ids } = setup()
    void pool.start()
    await source.give([up('a')])
    const error = new Error('registry gone')
    const pauses = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
    for (const [round, pause] of pauses.entries()) {
      await source.fail(error)
      expect(told.at(-1)).toEqual({ pool: 'api', added: [], removed: [], changed: [], error })
      expect(ids()).toEqual(['a'])
      await clock.advance(pause - 1)
      expect(source.opened).toBe(round + 1)
      await clock.advance(1)
      expect(source.opened).toBe(round + 2)
    }
    // A wrong list does not count as recovery.
    await source.give('nonsense')
    await source.fail(error)
    await clock.advance(29_999)
    expect(source.asked).toBe(false)
    await clock.advance(1)
    await source.give([up('b')])
    expect(ids()).toEqual(['b'])
    await source.fail(error)
    await clock.advance(1000)
    expect(source.asked).toBe(true)
  })

  it('already when it is opened, is opened again too', async () => {
    let opened = 0
    const source: UpstreamSource = {
      [Symbol.asyncIterator]: () => {
        opened++
        if (opened < 3) throw new Error('not yet')
        return { next: async () => ({ done: false, value: opened === 3 ? [up('a')] : [] }) as never }
      },
    }
    // It would go on for ever: the third opening gives lists without end.
    const once: UpstreamSource = {
      async *[Symbol.asyncIterator]() {
        for await (const list of source) {
          yield list
          return
        }
      },
    }
    const { pool, clock, ids } = setup(once)
    await pool.start()
    await clock.advance(1000)
    await clock.advance(2000)
    expect([opened, ids()]).toEqual([3, ['a']])
  })

  it('by ending keeps its last list for good', async () => {
    const { pool, source, clock, ids } = setup()
    void pool.start()
    await source.give([up('a')])
    await source.finish()
    await clock.advance(3_600_000)
    expect([ids(), source.opened, clock.pending]).toEqual([['a'], 1, 0])
  })

  it('is not opened again once the pool is closed', async () => {
    const { pool, source, clock } = setup()
    void pool.start()
    await turn()
    await source.fail(new Error('gone'))
    expect(clock.pending).toBe(1)
    await pool.close()
    await clock.advance(3_600_000)
    expect([source.opened, clock.pending]).toEqual([1, 0])
  })
})

describe('closing', () => {
  it('calls return(), once, and does not take a list that comes all the same', async () => {
    let give: (result: IteratorResult<readonly UpstreamInput[]>) => void = () => {}
    let returned = 0
    const source: UpstreamSource = {
      [Symbol.asyncIterator]: () => ({
        next: () =>
          new Promise((resolve) => {
            give = resolve
          }),
        return: async () => {
          returned++
          return { done: true, value: undefined }
        },
      }),
    }
    const { pool, ids, told } = setup(source)
    void pool.start()
    await turn()
    await pool.close()
    await pool.close()
    give({ done: false, value: [up('a')] })
    await turn()
    expect([returned, ids(), told]).toEqual([1, [], []])
  })

  it('runs the `finally` of a generator', async () => {
    let ended = false
    async function* source(): AsyncGenerator<UpstreamInput[]> {
      try {
        yield [up('a')]
        yield await new Promise<UpstreamInput[]>((resolve) => cleanups.push(() => resolve([])))
      } finally {
        ended = true
      }
    }
    const generator = source()
    // Between two lists; one that waits inside is asked to end, and does when its wait is over.
    const { pool, ids } = setup({
      [Symbol.asyncIterator]: () => ({ next: () => generator.next(), return: () => generator.return(undefined) }),
    })
    await pool.start()
    expect(ids()).toEqual(['a'])
    await pool.close()
    for (const clean of cleanups.splice(0)) clean()
    await turn()
    expect(ended).toBe(true)
  })

  const broken: [what: string, end: () => unknown][] = [
    ['rejects', () => Promise.reject(new Error('no'))],
    ['never answers', () => new Promise(() => {})],
  ]
  for (const [what, end] of broken)
    it(`of a source whose return() ${what} closes the rest`, async () => {
      const close = vi.fn()
      const watch: HealthPolicy = { name: 'watch', attach() {}, close }
      const source = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}), return: end }) } as unknown as UpstreamSource
      const { pool } = setup(source, { health: [watch] })
      void pool.start()
      await turn()
      await pool.close()
      expect(close).toHaveBeenCalledOnce()
    })

  // `close()` of the reader lets it through, and the pool stays half open.
  it('of a source whose return() throws closes the rest', async () => {
    const close = vi.fn()
    const watch: HealthPolicy = { name: 'watch', attach() {}, close }
    const source = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: () => {
          throw new Error('no')
        },
      }),
    } as unknown as UpstreamSource
    const { pool } = setup(source, { health: [watch] })
    void pool.start()
    await turn()
    await pool.close().catch(() => {})
    expect(close).toHaveBeenCalledOnce()
  })
})

it('a source is what can be iterated, and what is neither is told so', () => {
  expect([isSource(tap()), isSource(['http://a.test']), isSource(undefined), isSource(null), isSource('http://a.test')]).toEqual([
    true,
    false,
    false,
    false,
    false,
  ])
  for (const upstreams of [undefined, 'http://a.test', { a: 1 }, () => []])
    expect(() => createPool({ upstreams: upstreams as never, transport: fakeTransport() })).toThrow(OptionsError)
})

describe('any history of lists and manual changes', () => {
  const ids = ['a', 'b', 'c', 'd']
  const places = ['http://one.test', 'http://two.test'] as const
  const entry = fc.record({ id: fc.constantFrom(...ids), place: fc.nat(1), weight: fc.constantFrom(1, 2) })
  type Entry = { readonly id: string; readonly place: number; readonly weight: number }
  type Step =
    | { readonly do: 'list'; readonly entries: readonly Entry[] }
    | { readonly do: 'bad list'; readonly entries: readonly Entry[] }
    | { readonly do: 'add'; readonly entry: Entry }
    | { readonly do: 'remove' | 'hold'; readonly id: string }
    | { readonly do: 'release' }
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('list' as const), entries: fc.array(entry, { maxLength: 5 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('bad list' as const), entries: fc.array(entry, { maxLength: 3 }) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('add' as const), entry }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('remove' as const, 'hold' as const), id: fc.constantFrom(...ids) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('hold' as const), id: fc.constantFrom(...ids) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('release' as const) }) },
  )
  const input = ({ id, place, weight }: Entry): UpstreamOptions => ({ id, url: places[place] as string, weight })

  it('leaves the members that a naive model has; exchanges of those who left are released once', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 15 }), async (steps) => {
        const { pool, source } = setup()
        void pool.start()
        await turn()
        /** Whoever is a member: what it is, and whose. A place once taken by somebody keeps its object until it is left. */
        const model = new Map<string, { entry: Entry; sourced: boolean; object: Upstream | undefined }>()
        const held: PoolUpstream[] = []
        const inflight = new Map<Upstream, number>()
        let removals = 0
        const idle: string[] = []

        for (const action of steps) {
          switch (action.do) {
            case 'list': {
              const unique = new Set(action.entries.map(({ id }) => id)).size === action.entries.length
              const free = action.entries.every(({ id }) => model.get(id)?.sourced !== false)
              await source.give(action.entries.map(input))
              if (!unique || !free) break
              for (const [id, member] of model)
                if (member.sourced && !action.entries.some((each) => each.id === id && each.place === member.entry.place)) model.delete(id)
              for (const each of action.entries) model.set(each.id, { entry: each, sourced: true, object: model.get(each.id)?.object })
              break
            }
            case 'bad list':
              await source.give([...action.entries.map(input), { url: 'nonsense' }])
              break
            case 'add':
              if (model.has(action.entry.id)) expect(() => pool.add(input(action.entry))).toThrow(OptionsError)
              else {
                const object = pool.add(input(action.entry))
                model.set(action.entry.id, { entry: action.entry, sourced: false, object })
              }
              break
            case 'remove': {
              const leaving = pool.get(action.id)
              removals++
              void pool.remove(action.id).then(() => void idle.push(`${action.id} ${leaving?.inflight}`))
              model.delete(action.id)
              break
            }
            case 'hold': {
              const upstream = pool.pick({ ...stubExchange(), affinity: action.id }) as PoolUpstream | undefined
              expect(upstream === undefined).toBe(model.size === 0)
              if (upstream === undefined) break
              inflight.set(upstream, (inflight.get(upstream) ?? 0) + 1)
              held.push(upstream)
              break
            }
            case 'release': {
              const first = held.shift()
              if (first === undefined) break
              inflight.set(first, (inflight.get(first) as number) - 1)
              pool.release({ upstream: first } as unknown as Attempt)
              break
            }
          }
          const members = pool.upstreams.map(({ id, url, weight }) => `${id} ${url.origin} ${weight}`)
          const expected = [...model.values()].map(({ entry: { id, place, weight } }) => `${id} ${places[place]} ${weight}`)
          expect(members.toSorted()).toEqual(expected.toSorted())
          for (const [id, member] of model) {
            // Who stays is the same object, with its counters.
            if (member.object !== undefined) expect(pool.get(id)).toBe(member.object)
            member.object = pool.get(id)
          }
          for (const [upstream, count] of inflight) expect(upstream.inflight).toBe(count)
          expect(pool.inflight).toBe(held.length)
        }
        for (const upstream of held) pool.release({ upstream } as unknown as Attempt)
        await turn()
        expect(pool.inflight).toBe(0)
        for (const upstream of inflight.keys()) expect(upstream.inflight).toBe(0)
        // Every removal was told to be over, and when nothing ran there any more.
        expect(idle).toHaveLength(removals)
        expect(idle.filter((line) => !line.endsWith(' 0') && !line.endsWith(' undefined'))).toEqual([])
        await pool.close()
        for (const clean of cleanups.splice(0)) clean()
      }),
      { numRuns: 150 },
    )
  })
})
