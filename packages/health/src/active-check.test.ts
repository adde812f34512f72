/** Active checks in a real pool, on a virtual clock, with probes that the test answers; and at the end over real sockets. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createPool, createProxy, type Pool, type UpstreamInput, type UpstreamSource } from '@weir/core'
import { fakeTransport, seededRandom, testUpstream, type VirtualClock, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ActiveCheck, type ActiveCheckOptions, activeCheck, type ProbeMessage } from './active-check.ts'
import type { ProbeFunction, ProbeResult } from './probe.ts'

type Answer = ProbeResult | Error | 'silence'

interface Rig {
  readonly clock: VirtualClock
  readonly pool: Pool
  readonly check: ActiveCheck
  /** When each upstream was asked. */
  readonly asked: Map<string, number[]>
  /** Probes that have not ended. */
  readonly running: () => number
  most: () => number
  answer(id: string, answer: Answer): void
  state(id: string): string | undefined
}

function rig(ids: readonly string[], options: ActiveCheckOptions = {}, latency = 0): Rig {
  const clock = virtualClock()
  const asked = new Map<string, number[]>()
  const answers = new Map<string, Answer>()
  let running = 0
  let most = 0
  const probe: ProbeFunction = ({ upstream: { id } }, signal) => {
    asked.set(id, [...(asked.get(id) ?? []), clock.now()])
    most = Math.max(most, ++running)
    return new Promise<ProbeResult>((resolve, reject) => {
      const answer = answers.get(id) ?? {}
      let over = false
      const once = (settle: () => void): void => {
        if (over) return
        over = true
        running--
        settle()
      }
      signal.addEventListener('abort', () => once(() => reject(signal.reason)))
      const end = (): void => {
        if (answer !== 'silence') once(() => (answer instanceof Error ? reject(answer) : resolve(answer)))
      }
      if (latency === 0) end()
      else clock.setTimeout(end, latency)
    })
  }
  const check = activeCheck({ probe, jitter: 0, ...options })
  const pool = createPool({
    upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })),
    health: [check],
    transport: fakeTransport(),
    clock,
    random: seededRandom(1),
  })
  return {
    clock,
    pool,
    check,
    asked,
    running: () => running,
    most: () => most,
    answer: (id, answer) => void answers.set(id, answer),
    state: (id) => pool.get(id)?.state,
  }
}

/** A source that gives what is pushed. */
function listFeed(): UpstreamSource & { push(list: readonly UpstreamInput[]): void } {
  const lists: (readonly UpstreamInput[])[] = []
  let wake = Promise.withResolvers<void>()
  return {
    push(list) {
      lists.push(list)
      wake.resolve()
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        await wake.promise
        wake = Promise.withResolvers()
        while (lists.length > 0) yield lists.shift() as readonly UpstreamInput[]
      }
    },
  }
}

const no = new Error('no')
const times = (r: Rig, id: string): number[] => r.asked.get(id) ?? []

describe('a life', () => {
  it('nothing runs before start, and start is once', async () => {
    const r = rig(['a'])
    await r.clock.advance(60_000)
    expect(r.asked.size).toBe(0)
    expect(r.clock.pending).toBe(0)
    await r.pool.start()
    await r.pool.start()
    await r.clock.advance(10_000)
    expect(times(r, 'a')).toEqual([60_000, 65_000, 70_000])
  })

  it('falls after three failures and rises after two passes, asked faster in between', async () => {
    const r = rig(['a', 'b'], { interval: '5s', downInterval: '20s', edgeInterval: '1s' })
    await r.pool.start()
    await r.clock.advance(0)
    r.answer('a', no)
    await r.clock.advance(6999)
    expect(times(r, 'a')).toEqual([0, 5000, 6000])
    expect(r.state('a')).toBe('up')
    await r.clock.advance(1)
    expect(r.state('a')).toBe('down')
    expect(r.state('b')).toBe('up')
    r.answer('a', {})
    await r.clock.advance(20_000)
    expect(times(r, 'a').slice(2)).toEqual([6000, 7000, 27_000])
    expect(r.state('a')).toBe('down')
    await r.clock.advance(1000)
    expect(r.state('a')).toBe('up')
    await r.clock.advance(5000)
    expect(times(r, 'a').slice(4)).toEqual([27_000, 28_000, 33_000])
  })

  it('intervals run from start to start, however long a probe takes', async () => {
    const r = rig(['a'], { interval: 1000 }, 300)
    await r.pool.start()
    await r.clock.advance(2500)
    expect(times(r, 'a')).toEqual([0, 1000, 2000])
    const slow = rig(['a'], { interval: 1000 }, 1700)
    await slow.pool.start()
    await slow.clock.advance(4000)
    expect(times(slow, 'a')).toEqual([0, 1700, 3400])
  })

  it('waits are longer or shorter by jitter, no more than that, and not all the same', async () => {
    const r = rig(['a'], { interval: 1000, jitter: 0.5 })
    await r.pool.start()
    await r.clock.advance(50_000)
    const waits = times(r, 'a')
      .map((at, i, all) => at - (all[i - 1] ?? at))
      .slice(1)
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(500)
    expect(Math.max(...waits)).toBeLessThanOrEqual(1500)
    expect(Math.min(...waits)).toBeLessThan(700)
    expect(Math.max(...waits)).toBeGreaterThan(1300)
  })

  it('says why, and keeps the last error', async () => {
    const r = rig(['a'], { fall: 1 })
    r.answer('a', no)
    await r.pool.start()
    await r.clock.advance(0)
    const report = (): unknown => r.pool.health().upstreams[0]?.reason
    expect(report()).toBe('health check failed: no')
  })

  it('close leaves no timer and no probe, also in the middle of one', async () => {
    const r = rig(['a', 'b', 'c'], { maxConcurrent: 1 })
    for (const id of ['a', 'b', 'c']) r.answer(id, 'silence')
    await r.pool.start()
    await r.clock.advance(4000)
    expect(r.running()).toBe(1)
    await r.pool.close()
    await r.clock.advance(0)
    expect(r.running()).toBe(0)
    expect(r.clock.pending).toBe(0)
    expect(r.asked.size).toBe(1)
  })
})

describe('initial', () => {
  it('pending: gets nothing until its first probe, which comes at once and decides alone', async () => {
    const r = rig(['a', 'b'], { initial: 'pending' })
    expect([r.state('a'), r.state('b')]).toEqual(['down', 'down'])
    r.answer('b', no)
    void r.pool.start()
    await r.clock.advance(0)
    expect(times(r, 'b')).toEqual([0])
    expect([r.state('a'), r.state('b')]).toEqual(['up', 'down'])
  })

  it('down: has to rise', async () => {
    const r = rig(['a'], { initial: 'down' })
    expect(r.state('a')).toBe('down')
    await r.pool.start()
    await r.clock.advance(0)
    expect(r.state('a')).toBe('down')
    await r.clock.advance(1000)
    expect(r.state('a')).toBe('up')
  })
})

describe('who joins and leaves', () => {
  it('is asked at once, and not again', async () => {
    const r = rig(['a'], { initial: 'pending' })
    void r.pool.start()
    await r.clock.advance(1234)
    r.pool.add({ url: 'http://b.test', id: 'b' })
    expect(r.state('b')).toBe('down')
    await r.clock.advance(0)
    expect(times(r, 'b')).toEqual([1234])
    expect(r.state('b')).toBe('up')
    await r.pool.remove('b')
    await r.pool.remove('a')
    expect(r.clock.pending).toBe(0)
    await r.clock.advance(60_000)
    expect(times(r, 'b')).toEqual([1234])
  })

  it('before start waits for it', async () => {
    const r = rig([])
    r.pool.add({ url: 'http://b.test', id: 'b' })
    await r.clock.advance(100)
    expect(r.asked.size).toBe(0)
    await r.pool.start()
    await r.clock.advance(0)
    expect(times(r, 'b')).toEqual([100])
  })
})

describe('timeouts', () => {
  it('a probe without an answer is a failure at its timeout', async () => {
    const r = rig(['a'], { timeout: '2s', fall: 1 })
    r.answer('a', 'silence')
    await r.pool.start()
    await r.clock.advance(1999)
    expect(r.state('a')).toBe('up')
    await r.clock.advance(1)
    expect(r.state('a')).toBe('down')
    expect(r.running()).toBe(0)
  })

  it('one that ignores its signal is never joined by a second; every turn counts as a failure', async () => {
    let asked = 0
    const { promise, resolve } = Promise.withResolvers<void>()
    const r = rig(['a', 'b'], {
      probe: ({ upstream }) => {
        if (upstream.id === 'b') return Promise.resolve()
        asked++
        return asked === 1 ? promise : Promise.resolve()
      },
      timeout: '1s',
      interval: '5s',
      fall: 3,
      rise: 1,
      maxConcurrent: 1,
    })
    await r.pool.start()
    await r.clock.advance(20_000)
    expect(asked).toBe(1)
    expect(r.state('a')).toBe('down')
    expect(r.state('b')).toBe('up')
    resolve()
    await r.clock.advance(5000)
    expect(asked).toBe(2)
    expect(r.state('a')).toBe('up')
  })

  it('a probe that throws at once is one that failed', async () => {
    const r = rig(['a'], {
      probe: () => {
        throw new Error('at once')
      },
      fall: 1,
    })
    await r.pool.start()
    await r.clock.advance(0)
    expect(r.state('a')).toBe('down')
  })
})

describe('a thousand', () => {
  const ids = Array.from({ length: 1000 }, (_, i) => `u${i}`)
  /** The most and fewest probes in any half second from `from` to `to`. */
  const spread = (r: Rig, from: number, to: number): { least: number; most: number } => {
    const slots = new Array<number>((to - from) / 500).fill(0)
    for (const at of [...r.asked.values()].flat()) {
      const slot = Math.floor((at - from) / 500)
      if (slot >= 0 && slot < slots.length) slots[slot] = (slots[slot] ?? 0) + 1
    }
    return { least: Math.min(...slots), most: Math.max(...slots) }
  }

  it('are spread evenly over the interval from the start', async () => {
    const r = rig(ids, { jitter: 0.1 }, 50)
    await r.pool.start()
    await r.clock.advance(10_000)
    // From 4.5 s on, jitter lets the first ones come again.
    const first = spread(r, 0, 4500)
    expect(first.least).toBeGreaterThan(90)
    expect(first.most).toBeLessThan(110)
    expect(spread(r, 5000, 10_000).most).toBeLessThan(150)
    expect(r.most()).toBeLessThan(30)
    await r.pool.close()
  })

  it('that wait for their first probe are asked at once but boundedly, and spread afterwards', async () => {
    const r = rig(ids, { initial: 'pending', maxConcurrent: 64, jitter: 0 }, 50)
    void r.pool.start()
    await r.clock.advance(49)
    expect(r.asked.size).toBe(64)
    await r.clock.advance(800)
    expect(r.asked.size).toBe(1000)
    expect(r.most()).toBe(64)
    await r.clock.advance(12_000)
    const later = spread(r, 6000, 11_000)
    expect(later.least).toBeGreaterThan(60)
    expect(later.most).toBeLessThan(140)
    await r.pool.close()
  })
})

describe('what a pass says besides', () => {
  it('degraded and draining come and go, and a fall takes them along', async () => {
    const r = rig(['a', 'b'], { interval: '1s', fall: 1, rise: 1 })
    await r.pool.start()
    r.answer('a', { degraded: true })
    await r.clock.advance(2000)
    expect(r.pool.get('a')).toMatchObject({ state: 'up', degraded: true })
    r.answer('a', { draining: true })
    await r.clock.advance(1000)
    expect(r.pool.get('a')).toMatchObject({ state: 'draining', degraded: false })
    r.answer('a', no)
    await r.clock.advance(1000)
    expect(r.state('a')).toBe('down')
    r.answer('a', { draining: true, degraded: true })
    await r.clock.advance(1000)
    expect(r.pool.get('a')).toMatchObject({ state: 'draining', degraded: true })
    r.answer('a', {})
    await r.clock.advance(1000)
    expect(r.pool.get('a')).toMatchObject({ state: 'up', degraded: false })
  })
})

describe('overrides', () => {
  it('exempt an upstream, or say something else for it', async () => {
    const seen: unknown[] = []
    const clock = virtualClock()
    const check = activeCheck({
      jitter: 0,
      probe: async ({ upstream, overrides }) => void seen.push([upstream.id, overrides.path, overrides.port]),
      overrides: ({ id }) => (id === 'b' ? false : id === 'c' ? { path: '/c' } : undefined),
    })
    const pool = createPool({
      upstreams: [
        { url: 'http://a.test', id: 'a', meta: { health: { path: '/meta', port: 1 } } },
        { url: 'http://b.test', id: 'b' },
        { url: 'http://c.test', id: 'c', meta: { health: { path: '/meta', port: 2 } } },
        { url: 'http://d.test', id: 'd', meta: { health: false } },
      ],
      health: [check],
      transport: fakeTransport(),
      clock,
    })
    await pool.start()
    await clock.advance(4999)
    expect(seen).toHaveLength(2)
    expect(new Set(seen)).toEqual(
      new Set([
        ['a', '/meta', 1],
        ['c', '/c', 2],
      ]),
    )
    await pool.close()
  })

  it('that are wrong throw where the pool is made; later they take the upstream down', async () => {
    const health = { port: 99_999, pth: '/' }
    const wrong = { url: 'http://b.test', id: 'b', meta: { health } }
    const make = (upstreams: (string | typeof wrong)[]) =>
      createPool({ upstreams, health: [activeCheck()], transport: fakeTransport(), clock: virtualClock() })
    expect(() => make([wrong])).toThrow('meta.health.pth')
    const pool = make(['http://a.test'])
    pool.add({ ...wrong, meta: { health: { port: 99_999 } } })
    expect(pool.get('b')?.state).toBe('down')
    expect(pool.health().upstreams[1]?.reason).toContain('port')
    await pool.close()
  })
})

describe('follow', () => {
  /** Another pool, which follows the check of `r`. */
  const following = (r: Rig, ids: readonly string[]): Pool =>
    createPool({
      upstreams: ids.map((id) => ({ url: `http://${id}.test:81`, id })),
      health: [r.check.follow()],
      transport: fakeTransport(),
      clock: r.clock,
    })

  it('repeats in another pool what the check says, by id, without asking again', async () => {
    const r = rig(['a', 'b'], { interval: '1s', fall: 1, rise: 1 })
    const other = following(r, ['a', 'c'])
    r.answer('a', no)
    // The follower starts the check: its own pool may never see a request.
    await other.start()
    await r.clock.advance(1000)
    expect([r.state('a'), other.get('a')?.state, other.get('c')?.state]).toEqual(['down', 'down', 'up'])
    other.add({ url: 'http://b.test:81', id: 'b' })
    await other.remove('a')
    other.add({ url: 'http://a2.test:81', id: 'a' })
    expect([other.get('a')?.state, other.get('b')?.state]).toEqual(['down', 'up'])
    r.answer('a', { degraded: true })
    await r.clock.advance(1000)
    expect(other.get('a')).toMatchObject({ state: 'up', degraded: true })
    await other.close()
    r.answer('a', no)
    await r.clock.advance(1000)
    expect([r.state('a'), other.get('a')?.state]).toEqual(['down', 'up'])
    await r.pool.close()
  })

  it('whichever pool starts the check, both wait until somebody is up', async () => {
    const r = rig(['a'], { initial: 'pending' }, 50)
    const other = following(r, ['a'])
    const started: string[] = []
    void other.start().then(() => started.push(`follower ${other.get('a')?.state}`))
    void r.pool.start().then(() => started.push(`own ${r.state('a')}`))
    await r.clock.advance(49)
    expect(started).toEqual([])
    await r.clock.advance(1)
    expect(started.toSorted()).toEqual(['follower up', 'own up'])
    await other.close()
    await r.pool.close()
  })

  it('the pool of the check waits for its first list and for who is in it, also when a follower has started the check before', async () => {
    const clock = virtualClock()
    const check = activeCheck({ initial: 'pending', probe: () => new Promise((resolve) => void clock.setTimeout(() => resolve({}), 50)) })
    const lists = listFeed()
    const pool = createPool({ upstreams: lists, health: [check], transport: fakeTransport(), clock })
    const other = createPool({ upstreams: [], health: [check.follow()], transport: fakeTransport(), clock })
    await other.start()
    let started = false
    void pool.start().then(() => (started = true))
    lists.push([{ url: 'http://a.test', id: 'a' }])
    await clock.advance(49)
    expect([started, pool.get('a')?.state]).toEqual([false, 'down'])
    await clock.advance(1)
    expect([started, pool.get('a')?.state]).toEqual([true, 'up'])
    await other.close()
    await pool.close()
  })

  it('when its own pool gets another server by the same name from a source, that one is what the check says', async () => {
    const r = rig(['a'], { interval: '1s', fall: 1, rise: 1 })
    r.answer('a', no)
    const lists = listFeed()
    const other = createPool({ upstreams: lists, health: [r.check.follow()], transport: fakeTransport(), clock: r.clock })
    lists.push([{ url: 'http://a.test:81', id: 'a' }])
    await other.start()
    await r.clock.advance(1000)
    const before = other.get('a')
    lists.push([{ url: 'http://a.test:82', id: 'a' }])
    await r.clock.advance(0)
    expect(other.get('a')).not.toBe(before)
    expect([before?.state, other.get('a')?.state]).toEqual(['draining', 'down'])
    r.answer('a', {})
    await r.clock.advance(1000)
    expect(other.get('a')?.state).toBe('up')
    await other.close()
    await r.pool.close()
  })

  for (const answer of [no, { degraded: true }, { draining: true }])
    it(`whom the check knows no more is up, after ${answer === no ? 'a failure' : JSON.stringify(answer)} too`, async () => {
      const r = rig(['a', 'b'], { interval: '1s', fall: 1, rise: 1 })
      r.answer('a', answer)
      const other = following(r, ['a', 'b'])
      await other.start()
      await r.clock.advance(1000)
      expect(other.get('a')).toMatchObject({ state: r.state('a'), degraded: r.pool.get('a')?.degraded })
      await r.pool.remove('a')
      await r.clock.advance(0)
      expect(other.get('a')).toMatchObject({ state: 'up', degraded: false })
      expect(other.health().upstreams[0]?.reason).not.toBe('health check passed')
      await other.close()
      await r.pool.close()
    })

  it('a check that has ended knows nobody', async () => {
    const r = rig(['a'], { interval: '1s', fall: 1 })
    r.answer('a', no)
    const other = following(r, ['a'])
    await other.start()
    await r.clock.advance(1000)
    expect(other.get('a')?.state).toBe('down')
    await r.pool.close()
    expect(other.get('a')?.state).toBe('up')
    other.add({ url: 'http://b.test:81', id: 'b' })
    expect(other.get('b')?.state).toBe('up')
    await other.close()
  })

  it('another server by the same name in the pool of the check begins anew for both', async () => {
    const r = rig(['a'], { interval: '1s', fall: 1 })
    r.answer('a', no)
    const other = following(r, ['a'])
    await other.start()
    await r.clock.advance(1000)
    r.answer('a', {})
    void r.pool.remove('a')
    r.pool.add({ url: 'http://a2.test', id: 'a' })
    await r.clock.advance(0)
    expect([r.state('a'), other.get('a')?.state]).toEqual(['up', 'up'])
    r.answer('a', no)
    await r.clock.advance(2000)
    expect([r.state('a'), other.get('a')?.state]).toEqual(['down', 'down'])
    await other.close()
    await r.pool.close()
  })

  it('and gets nothing in between when it has to wait for its first probe', async () => {
    const r = rig(['a'], { interval: '1s', fall: 1, initial: 'pending' })
    const changes: string[] = []
    const other = createPool({
      upstreams: [{ url: 'http://a.test:81', id: 'a' }],
      health: [r.check.follow(), { name: 'listener', attach() {}, onUpstream: ({ to }) => void changes.push(String(to)) }],
      transport: fakeTransport(),
      clock: r.clock,
    })
    r.answer('a', 'silence')
    void other.start()
    await r.clock.advance(0)
    // Both at once, as a list from a source does it.
    void r.pool.remove('a')
    r.pool.add({ url: 'http://a2.test', id: 'a' })
    await r.clock.advance(0)
    expect([other.get('a')?.state, changes]).toEqual(['down', []])
    await other.close()
    await r.pool.close()
  })
})

it('every probe is told on a channel', async () => {
  const messages: ProbeMessage[] = []
  const listener = (message: unknown): void => void messages.push(message as ProbeMessage)
  subscribe('weir:health:probe', listener)
  try {
    const r = rig(['a'], { interval: '1s' }, 20)
    r.answer('a', no)
    void r.pool.start()
    await r.clock.advance(20)
    expect(messages).toHaveLength(1)
    expect(messages[0]).toMatchObject({
      pool: 'pool',
      policy: 'activeCheck',
      error: no,
      durationMs: 20,
      health: { kind: 'up', failures: 1 },
    })
    await r.pool.close()
  } finally {
    unsubscribe('weir:health:probe', listener)
  }
})

it('any history of answers and churn: the pool says what the results say, probes never overlap, nothing is left', async () => {
  const action = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.integer({ min: 0, max: 3000 }) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('answer' as const),
        id: fc.constantFrom('a', 'b', 'c'),
        answer: fc.constantFrom<Answer>({}, no, 'silence', { degraded: true }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('toggle' as const), id: fc.constantFrom('a', 'b', 'c') }) },
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(action, { maxLength: 30 }),
      fc.constantFrom('up' as const, 'down' as const, 'pending' as const),
      async (actions, initial) => {
        const r = rig(
          ['a', 'b', 'c'],
          { initial, interval: 1000, edgeInterval: 500, timeout: 700, fall: 2, rise: 2, jitter: 0.3, maxConcurrent: 2 },
          30,
        )
        const seen: ProbeMessage[] = []
        const listener = (message: unknown): void => void seen.push(message as ProbeMessage)
        subscribe('weir:health:probe', listener)
        void r.pool.start()
        for (const step of actions) {
          if (step.kind === 'time') await r.clock.advance(step.ms)
          else if (step.kind === 'answer') r.answer(step.id, step.answer)
          else if (r.pool.get(step.id) === undefined) r.pool.add({ url: `http://${step.id}.test`, id: step.id })
          else await r.pool.remove(step.id)
          expect(r.most()).toBeLessThanOrEqual(2)
          for (const upstream of r.pool.upstreams) {
            const last = seen.findLast((message) => message.upstream === upstream)?.health
            const kind = last?.kind ?? initial
            expect(upstream.state).toBe(kind === 'up' ? 'up' : 'down')
            expect(upstream.degraded).toBe(last?.kind === 'up' && last.degraded)
          }
        }
        unsubscribe('weir:health:probe', listener)
        await r.pool.close()
        // What is left are the timers of the probes themselves.
        await r.clock.advance(30)
        expect(r.clock.pending).toBe(0)
        expect(r.running()).toBe(0)
      },
    ),
    { numRuns: 60 },
  )
})

describe('options', () => {
  const problems = (options: unknown): string[] => {
    try {
      activeCheck(options as ActiveCheckOptions)
      return []
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
  }
  it('wrong ones are named, those of the probe too', () => {
    expect(problems({ interval: 0, jitter: 0.6, rise: 0, fall: 1.5, initial: 'no', onDown: 'cut', overrides: {}, path: 'x' })).toEqual([
      'interval',
      'jitter',
      'rise',
      'fall',
      'initial',
      'onDown',
      'overrides',
      'path',
    ])
    expect(problems({ probe: async () => {}, path: '/x' })).toEqual(['path'])
    expect(problems({ probe: 'tcp' })).toEqual(['probe'])
    expect(problems({ pth: '/x' })).toEqual(['pth'])
    expect(problems(undefined)).toEqual([])
  })
})

describe('over real sockets', () => {
  it('a server that dies is left out before a request finds it, and used again when it is back', async () => {
    await using a = await testUpstream({ '/up': {}, '*': { body: 'a' } })
    await using b = await testUpstream({ '/up': {}, '*': { body: 'b' } })
    await using proxy = createProxy({
      upstreams: [a.url, b.url],
      health: [activeCheck({ path: '/up', interval: 20, edgeInterval: 10, timeout: 1000, fall: 2, rise: 2 })],
      retry: false,
    })
    const changes: string[] = []
    let changed = (): void => {}
    const listener = (message: unknown): void => {
      const { upstream, to, error } = message as { upstream: { id: string }; to: string; error?: { code?: string } }
      changes.push(`${upstream.id === a.url ? 'a' : 'b'} ${to} ${error?.code ?? ''}`)
      changed()
    }
    const next = (): Promise<void> => new Promise((resolve) => (changed = resolve))
    subscribe('weir:upstream:state', listener)
    try {
      await proxy.start()
      const down = next()
      await a.kill()
      await down
      expect(changes).toEqual(['a down ERR_PROBE_CONNECTION'])
      for (let i = 0; i < 4; i++) expect((await proxy.inject({ url: '/' })).text()).toBe('b')
      const up = next()
      await a.restart()
      await up
      expect(changes).toEqual(['a down ERR_PROBE_CONNECTION', 'a up '])
      const answers = new Set<string>()
      for (let i = 0; i < 4; i++) answers.add((await proxy.inject({ url: '/' })).text())
      expect(answers).toEqual(new Set(['a', 'b']))
    } finally {
      unsubscribe('weir:upstream:state', listener)
    }
  })

  it('onDown ends what runs', async () => {
    let healthy = true
    const { promise: asked, resolve } = Promise.withResolvers<void>()
    await using server = await testUpstream((req, res) => {
      if (req.url === '/up') res.writeHead(healthy ? 200 : 500).end()
      else {
        res.writeHead(200).write('begun')
        resolve()
      }
    })
    await using proxy = createProxy({
      upstreams: [server.url],
      health: [activeCheck({ path: '/up', interval: 10, timeout: 1000, fall: 1, onDown: 'all' })],
    })
    await proxy.start()
    const running = proxy.inject({ url: '/slow' }).then(
      () => 'complete',
      () => 'broken off',
    )
    await asked
    healthy = false
    expect(await running).toBe('broken off')
  })
})
