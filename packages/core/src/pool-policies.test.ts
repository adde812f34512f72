/** What policies are told, and when; what becomes of what they say, beside the state itself (verdicts.test.ts) and votes (pool-health.test.ts). */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { fakeTransport, stubExchange, stubOutcome } from '@weir/testing'
import { describe, expect, it, vi } from 'vitest'
import type { Attempt } from './attempt.ts'
import type { Balancer } from './balancer.ts'
import { ProxyError } from './errors.ts'
import type { AttemptOutcome, Exchange } from './exchange.ts'
import type { HealthControl, HealthPolicy, UpstreamChange } from './health.ts'
import { createPool, type LivePool } from './pool.ts'
import type { PoolOptions } from './pool-options.ts'
import type { PoolUpstream, Upstream } from './upstream.ts'

const policy = (more: Partial<HealthPolicy> = {}): HealthPolicy => ({ name: 'check', attach() {}, ...more })
const poolOf = (ids: readonly string[], health: readonly HealthPolicy[] = [], more: Partial<PoolOptions> = {}): LivePool =>
  createPool({ upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })), health, transport: fakeTransport(), ...more }) as LivePool
const get = (pool: LivePool, id: string): Upstream => pool.get(id) as Upstream
const end = (pool: LivePool, upstream: Upstream): void => pool.release({ upstream } as unknown as Attempt)

/** Notes what it is offered, on the log of the test. */
const noting = (log: string[]): Balancer => {
  let list: readonly Upstream[] = []
  return {
    name: 'noting',
    update: (available) => {
      list = available
      log.push(`balancer ${available.map(({ id, weight }) => (weight === 1 ? id : `${id}*${weight}`)).join()}`)
    },
    pick: ({ tried }) => list.find((upstream) => !upstream.full && !tried.includes(upstream)),
  }
}
const shown = ({ upstream, from, to, reason }: UpstreamChange): string => `${upstream.id} ${from}>${to} ${reason}`

/** What is published on `name` while `act` runs. */
function published(name: string, act: () => void): Record<string, unknown>[] {
  const heard: Record<string, unknown>[] = []
  const listener = (message: unknown): void => void heard.push(message as Record<string, unknown>)
  subscribe(name, listener)
  try {
    act()
  } finally {
    unsubscribe(name, listener)
  }
  return heard
}

describe('changes of upstreams', () => {
  it('are told before the balancer hears of them: joining, every state, leaving', () => {
    const log: string[] = []
    const watch = policy({ onUpstream: (change) => void log.push(shown(change)) })
    const pool = poolOf(['a'], [watch], { balancer: noting(log) })
    const step = (act: () => void): string[] => {
      log.length = 0
      act()
      return [...log]
    }
    expect(log).toEqual(['balancer a'])
    expect(step(() => void pool.add({ url: 'http://b.test', id: 'b' }))).toEqual(['b undefined>up joined', 'balancer a,b'])
    expect(step(() => pool.policies.setDown(get(pool, 'b'), watch, 'ill'))).toEqual(['b up>down ill', 'balancer a'])
    expect(step(() => pool.policies.setDraining(get(pool, 'b'), watch, true, 'busy'))).toEqual(['b down>draining busy', 'balancer a'])
    expect(step(() => pool.policies.setUp(get(pool, 'b'), watch, 'well'))).toEqual([])
    expect(step(() => pool.policies.setDraining(get(pool, 'b'), watch, false, 'idle'))).toEqual(['b draining>up idle', 'balancer a,b'])
    expect(step(() => void pool.remove('b')).at(-1)).toBe('balancer a')
    expect(log).toHaveLength(2)
    expect(log[0]).toMatch(/^b \w+>undefined removed$/)
  })

  // Told as from draining, which it never was for anybody.
  it('leaving is told from the state that was told before', () => {
    const changes: UpstreamChange[] = []
    const pool = poolOf(['a', 'b', 'c'], [policy({ onUpstream: (change) => void changes.push(change) })])
    pool.policies.setDown(get(pool, 'b'), policy(), 'ill')
    for (const id of ['a', 'b']) void pool.remove(id)
    expect(changes.map(shown)).toEqual(['b up>down ill', 'a up>undefined removed', 'b down>undefined removed'])
  })

  it('what a policy says of a newcomer from within is in force from the first pick on', () => {
    const log: string[] = []
    let control: HealthControl | undefined
    const slow = policy({
      attach: (pool) => {
        control = pool
      },
      onUpstream: ({ upstream, from }) => {
        if (from === undefined) control?.setWeightFactor(upstream, slow, 0.25)
      },
    })
    const pool = poolOf(['a'], [slow], { balancer: noting(log) })
    pool.add({ url: 'http://b.test', id: 'b' })
    const told = log.filter((line) => line.includes('b'))
    expect(told.length).toBeGreaterThan(0)
    for (const line of log.slice(1)) expect(line).toBe('balancer a,b*0.25')
  })

  it('what a policy says while it is attached is in force from the first pick on', () => {
    const log: string[] = []
    const pending = policy({
      attach: (control) => {
        for (const upstream of control.upstreams) control.setDown(upstream, pending, 'not checked yet')
      },
    })
    const pool = poolOf(['a', 'b'], [pending], { balancer: noting(log) })
    expect(log.filter((line) => line !== 'balancer ' && line !== 'balancer b')).toEqual([])
    expect(log.at(-1)).toBe('balancer ')
    expect(pool.pick(stubExchange())).toBeUndefined()
    pool.policies.setUp(get(pool, 'b'), pending, 'checked')
    expect(pool.pick(stubExchange())?.id).toBe('b')
  })

  // Nobody is told anything before everybody is attached, and nothing makes up for it.
  it('a state that a later policy brought about while it was attached is told to an earlier one', () => {
    const changes: string[] = []
    const watch = policy({ onUpstream: (change) => void changes.push(shown(change)) })
    const pending = policy({ attach: (control) => void control.setDown(control.upstreams[0] as Upstream, pending, 'not checked yet') })
    poolOf(['a', 'b'], [watch, pending])
    expect(changes).toEqual(['a up>down not checked yet'])
  })

  it('a policy may answer a change with another; everybody hears of both', () => {
    const [one, two]: string[][] = [[], []]
    const follow = policy({
      onUpstream: ({ upstream, to }) => {
        one?.push(`${upstream.id}>${to}`)
        if (upstream.id === 'a' && to === 'down') pool.policies.setDown(get(pool, 'b'), follow, 'the same rack')
      },
    })
    const pool = poolOf(['a', 'b', 'c'], [follow, policy({ onUpstream: ({ upstream, to }) => void two?.push(`${upstream.id}>${to}`) })])
    pool.policies.setDown(get(pool, 'a'), policy(), 'ill')
    expect(pool.upstreams.map(({ state }) => state)).toEqual(['down', 'down', 'up'])
    expect([one?.toSorted(), two?.toSorted()]).toEqual([
      ['a>down', 'b>down'],
      ['a>down', 'b>down'],
    ])
    expect(pool.pick(stubExchange())?.id).toBe('c')
  })
})

describe('the data path', () => {
  const exchange: Exchange = stubExchange()

  it('admits unless a policy refuses; the first refusal counts, and later policies are not asked', () => {
    const asked: string[] = []
    const refusing = (name: string, error: ProxyError | undefined): HealthPolicy =>
      policy({
        name,
        admit: (given) => {
          expect(given).toBe(exchange)
          asked.push(name)
          return error
        },
      })
    const [open, full] = [new ProxyError('ERR_CIRCUIT_OPEN'), new ProxyError('ERR_OVERLOADED')]
    const pool = poolOf(['a'], [policy(), refusing('a', undefined), refusing('b', open), refusing('c', full)])
    expect(pool.admit(exchange)).toBe(open)
    expect(asked).toEqual(['a', 'b'])
    expect(poolOf(['a'], [refusing('d', undefined)]).admit(exchange)).toBeUndefined()
    expect(poolOf(['a'], [policy()]).admit(exchange)).toBeUndefined()
  })

  it('an acquisition is told with its exchange, however it was chosen, and an attempt follows for each', () => {
    const log: string[] = []
    const watch = policy({
      onAcquire: (upstream, given) => void log.push(`+${upstream.id} ${given.url} ${upstream.inflight}`),
      onAttempt: ({ upstream }: AttemptOutcome) => void log.push(`-${upstream.id} ${upstream.inflight}`),
    })
    const pool = poolOf(['a', 'b'], [policy(), watch])
    const first = pool.pick({ ...stubExchange(), url: '/1', tried: [get(pool, 'b')] }) as Upstream
    const second = pool.pick({ ...stubExchange(), url: '/2', affinity: first.id }) as Upstream
    pool.policies.setDown(first, policy(), 'ill', { soft: true })
    const third = pool.pick({ ...stubExchange(), url: '/3', tried: [get(pool, 'b')] }) as Upstream
    expect([second.id, third.id]).toEqual([first.id, first.id])
    for (let i = 0; i < 3; i++) end(pool, first)
    expect(log).toEqual(['+a /1 1', '+a /2 2', '+a /3 3', '-a 2', '-a 1', '-a 0'])
    expect(pool.inflight).toBe(0)
  })

  it('nobody picked, nobody told', () => {
    const log: string[] = []
    const pool = poolOf([], [policy({ onAcquire: () => void log.push('acquired') })])
    expect(pool.pick(exchange)).toBeUndefined()
    expect([log, pool.inflight]).toEqual([[], 0])
  })

  it('heads are told to those who listen, the balancer first; without listeners the pool does not ask for them', () => {
    const log: string[] = []
    const heads = policy({
      onHead: (upstream, status, headers, attempt) => void log.push(`policy ${upstream.id} ${status} ${headers.join()} ${attempt.number}`),
    })
    const balancer: Balancer = { ...noting([]), onHead: (upstream, status) => void log.push(`balancer ${upstream.id} ${status}`) }
    const pool = poolOf(['a'], [policy(), heads], { balancer })
    expect(pool.watchesHeads).toBe(true)
    pool.onHead({ ...stubOutcome(get(pool, 'a')), number: 7 }, 503, ['Retry-After', '1'])
    expect(log).toEqual(['balancer a 503', 'policy a 503 Retry-After,1 7'])
    expect(poolOf(['a'], [policy()]).watchesHeads).toBe(false)
    expect(poolOf(['a'], [], { balancer: { ...balancer } }).watchesHeads).toBe(true)
    expect(poolOf(['a'], [heads]).watchesHeads).toBe(true)
  })

  it('a raised limit lets a waiter go, a lowered one cuts nobody', () => {
    const pool = poolOf(['a'])
    const limit = policy()
    const a = get(pool, 'a')
    pool.policies.setLimit(a, limit, 1)
    expect(pool.pick(exchange)?.id).toBe('a')
    expect(pool.pick(exchange)).toBeUndefined()
    let woken = 0
    pool.wait(exchange, (error) => {
      expect(error).toBeUndefined()
      woken++
      return pool.pick(exchange) !== undefined
    })
    expect([pool.policies.waiting, pool.policies.inflight]).toEqual([1, 1])
    pool.policies.setLimit(a, limit, 2)
    expect([woken, pool.policies.waiting, a.inflight]).toEqual([1, 0, 2])
    pool.policies.setLimit(a, limit, 1)
    expect([a.inflight, a.maxConcurrent, a.full]).toEqual([2, 1, true])
  })

  it('one that may be used again lets waiters go, and the last one that goes fails them', () => {
    const pool = poolOf(['a', 'b'], [], { maxConcurrent: 1 })
    const check = policy()
    pool.policies.setDown(get(pool, 'b'), check, 'ill')
    pool.pick(exchange)
    const codes: (string | undefined)[] = []
    for (let i = 0; i < 2; i++)
      pool.wait(exchange, (error) => {
        codes.push(error?.code)
        return error !== undefined || pool.pick(exchange) !== undefined
      })
    pool.policies.setUp(get(pool, 'b'), check, 'well')
    expect(codes).toEqual([undefined])
    pool.policies.setDown(get(pool, 'a'), check, 'ill')
    expect(codes).toEqual([undefined])
    pool.policies.setDraining(get(pool, 'b'), check, true, 'leaving')
    expect(codes).toEqual([undefined, 'ERR_NO_UPSTREAM'])
  })
})

describe('cut', () => {
  /** Attempts that run on `a`, the odd ones tunnels; what they are told is noted. */
  function running() {
    const pool = poolOf(['a', 'b'])
    const a = get(pool, 'a')
    const lost: string[] = []
    for (const [name, tunnelling] of [
      ['request 1', false],
      ['tunnel 1', true],
      ['request 2', false],
      ['tunnel 2', true],
    ] as const) {
      pool.pick({ ...stubExchange(), affinity: 'a' })
      const attempt = {
        upstream: a,
        tunnelling,
        lose(error: ProxyError) {
          expect([error.code, error.upstream]).toEqual(['ERR_UPSTREAM_DOWN', a])
          lost.push(name)
          pool.release(attempt as unknown as Attempt)
        },
      }
      pool.enter(attempt as unknown as Attempt)
    }
    pool.pick({ ...stubExchange(), affinity: 'b' })
    return { pool, a, lost }
  }

  it('`tunnels` ends tunnels, `all` what is left, nothing ends nothing', () => {
    const { pool, a, lost } = running()
    const check = policy()
    expect(pool.policies.setDown(a, check, 'ill')).toBe(true)
    expect(lost).toEqual([])
    expect(pool.policies.setDown(a, check, 'worse', { cut: 'tunnels' })).toBe(true)
    expect(lost.toSorted()).toEqual(['tunnel 1', 'tunnel 2'])
    expect(pool.policies.setDown(a, check, 'dead', { cut: 'all' })).toBe(true)
    expect(lost.toSorted()).toEqual(['request 1', 'request 2', 'tunnel 1', 'tunnel 2'])
    expect([a.inflight, get(pool, 'b').inflight, pool.inflight]).toEqual([0, 1, 1])
  })

  it('a verdict that is not accepted cuts nobody', () => {
    const { pool, a, lost } = running()
    pool.policies.setDown(get(pool, 'b'), policy(), 'ill')
    expect(pool.policies.setDown(a, policy(), 'ill', { keepLast: true, cut: 'all' })).toBe(false)
    void pool.remove('a')
    expect(pool.policies.setDown(a, policy(), 'ill', { cut: 'all' })).toBe(false)
    expect(lost).toEqual([])
  })

  it('whoever is cut is down already: its retry does not come back', () => {
    const pool = poolOf(['a', 'b'])
    const a = get(pool, 'a')
    let retried: string | undefined
    pool.pick({ ...stubExchange(), affinity: 'a' })
    const attempt = {
      upstream: a,
      lose() {
        pool.release(attempt as unknown as Attempt)
        retried = pool.pick(stubExchange())?.id
      },
    }
    pool.enter(attempt as unknown as Attempt)
    pool.policies.setDown(a, policy(), 'ill', { cut: 'all' })
    expect(retried).toBe('b')
  })
})

describe('"down" that spares the last one', () => {
  const hard = policy({ name: 'hard' })
  const shy = policy({ name: 'shy' })
  /** Two upstreams, `a` down by `shy` on the condition that somebody is left, and then nobody is. */
  function spared(): LivePool {
    const pool = poolOf(['a', 'b'])
    expect(pool.policies.setDown(get(pool, 'a'), shy, 'slow', { keepLast: true })).toBe(true)
    expect(pool.pick(stubExchange())?.id).toBe('b')
    pool.policies.setDown(get(pool, 'b'), hard, 'dead')
    return pool
  }

  it('is lifted when nobody else is usable, and holds again when somebody is', () => {
    const pool = spared()
    expect(pool.pick(stubExchange())?.id).toBe('a')
    // Lent, not acquitted.
    expect(get(pool, 'a').state).toBe('down')
    pool.policies.setUp(get(pool, 'b'), hard, 'well')
    expect(pool.pick(stubExchange())?.id).toBe('b')
    pool.setWeight('b', 0)
    expect(pool.pick(stubExchange())?.id).toBe('a')
    pool.setWeight('b', 1)
    void pool.drain('b')
    expect(pool.pick(stubExchange())?.id).toBe('a')
    pool.add({ url: 'http://c.test', id: 'c' })
    expect(pool.pick(stubExchange())?.id).toBe('c')
    void pool.remove('c')
    expect(pool.pick(stubExchange())?.id).toBe('a')
  })

  it('is lifted for all of whom it was said', () => {
    const pool = poolOf(['a', 'b', 'c'])
    for (const id of ['a', 'b']) pool.policies.setDown(get(pool, id), shy, 'slow', { keepLast: true })
    void pool.remove('c')
    const seen = new Set(Array.from({ length: 4 }, () => pool.pick(stubExchange())?.id))
    expect(seen).toEqual(new Set(['a', 'b']))
  })

  it('is not lifted for one that another policy calls down without that condition', () => {
    const pool = poolOf(['a', 'b'])
    pool.policies.setDown(get(pool, 'a'), hard, 'dead')
    pool.policies.setDown(get(pool, 'a'), shy, 'slow', { keepLast: true })
    pool.policies.setDown(get(pool, 'b'), hard, 'dead')
    expect(pool.pick(stubExchange())).toBeUndefined()
  })

  // The state stays `down`, and with it the old list of those who may be picked.
  it('is not lifted any more once another policy calls it down without that condition', () => {
    const pool = spared()
    pool.policies.setDown(get(pool, 'a'), hard, 'dead')
    expect(pool.pick(stubExchange())).toBeUndefined()
  })

  it('is lifted as soon as the last unconditional verdict is taken back', () => {
    const pool = poolOf(['a', 'b'])
    pool.policies.setDown(get(pool, 'a'), shy, 'slow', { keepLast: true })
    pool.policies.setDown(get(pool, 'a'), hard, 'dead')
    pool.policies.setDown(get(pool, 'b'), hard, 'dead')
    pool.policies.setUp(get(pool, 'a'), hard, 'answers')
    expect(pool.pick(stubExchange())?.id).toBe('a')
  })
})

describe('events and the report', () => {
  it('degraded and fail-open are published when they change, with who and why', () => {
    const pool = poolOf(['a', 'b'], [], { name: 'api' })
    const [p, q] = [policy({ name: 'p' }), policy({ name: 'q' })]
    const a = get(pool, 'a')
    expect(
      published('weir:upstream:degraded', () => {
        pool.policies.setDegraded(a, p, false, 'nothing')
        pool.policies.setDegraded(a, p, true, 'one')
        pool.policies.setDegraded(a, q, true, 'two')
        pool.policies.setDegraded(a, p, false, 'three')
        pool.policies.setDegraded(a, q, false, 'four')
      }),
    ).toEqual([
      { pool: 'api', upstream: a, degraded: true, reason: 'one' },
      { pool: 'api', upstream: a, degraded: false, reason: 'four' },
    ])
    expect(
      published('weir:pool:fail-open', () => {
        pool.policies.setFailOpen(p, false, 'nothing')
        pool.policies.setFailOpen(p, true, 'one')
        pool.policies.setFailOpen(q, true, 'two')
        pool.policies.setFailOpen(p, false, 'three')
        pool.policies.setFailOpen(q, false, 'four')
      }),
    ).toEqual([
      { pool: 'api', failOpen: true, reason: 'one' },
      { pool: 'api', failOpen: false, reason: 'four' },
    ])
  })

  it('a state is published with the error that made a policy say so', () => {
    const pool = poolOf(['a', 'b'])
    const error = new ProxyError('ERR_CONNECT_REFUSED')
    const heard = published('weir:upstream:state', () => {
      pool.policies.setDown(get(pool, 'a'), policy(), 'refused', { error })
    })
    expect(heard).toEqual([{ pool: 'pool', upstream: get(pool, 'a'), from: 'up', to: 'down', reason: 'refused', error }])
  })

  it('the report tells states, why, since when, and the error while it lasts', () => {
    const before = Date.now()
    const pool = poolOf(['a', 'b'], [], { name: 'api' })
    const check = policy()
    const error = new Error('refused')
    pool.policies.setWeightFactor(get(pool, 'b'), check, 0.5)
    pool.policies.setDegraded(get(pool, 'b'), check, true, 'slow')
    pool.policies.setDown(get(pool, 'a'), check, 'refused', { error })
    pool.policies.setFailOpen(check, true, 'too few')
    const report = pool.health()
    expect(report).toMatchObject({
      name: 'api',
      failOpen: true,
      upstreams: [
        { id: 'a', state: 'down', degraded: false, weight: 1, inflight: 0, reason: 'refused', error },
        { id: 'b', state: 'up', degraded: true, weight: 0.5, inflight: 0, reason: undefined, error: undefined },
      ],
    })
    for (const { since } of report.upstreams) expect(since).toSatisfy((at: number) => at >= before && at <= Date.now())
    pool.policies.setUp(get(pool, 'a'), check, 'answers')
    pool.policies.setFailOpen(check, false, 'enough')
    expect(pool.health()).toMatchObject({ failOpen: false, upstreams: [{ state: 'up', reason: 'answers', error: undefined }, {}] })
  })

  // The reason stays the first one, beside the newest error.
  it('said again, "down" replaces reason and error in the report', () => {
    const pool = poolOf(['a', 'b'])
    const check = policy()
    pool.policies.setDown(get(pool, 'a'), check, 'slow', { error: 'one' })
    pool.policies.setDown(get(pool, 'a'), check, 'refused', { error: 'two' })
    expect(pool.health().upstreams[0]).toMatchObject({ state: 'down', reason: 'refused', error: 'two' })
  })

  // `reason` is what happened last, not why it is in its state.
  it('the reason of one that is down is that of a verdict that stands', () => {
    const pool = poolOf(['a', 'b'])
    const [p, q] = [policy({ name: 'p' }), policy({ name: 'q' })]
    pool.policies.setDown(get(pool, 'a'), p, 'slow')
    pool.policies.setDown(get(pool, 'a'), q, 'refused')
    pool.policies.setUp(get(pool, 'a'), p, 'quick')
    expect(pool.health().upstreams[0]).toMatchObject({ state: 'down', reason: 'refused' })
    void pool.drain('a')
    pool.undrain('a')
    expect(pool.health().upstreams[0]).toMatchObject({ state: 'down', reason: 'refused' })
  })
})

it('nothing that is said of one that has left has any effect, and nothing throws', () => {
  const log: string[] = []
  const pool = poolOf(['a', 'b'], [policy({ onUpstream: (change) => void log.push(shown(change)) })], { balancer: noting(log) })
  const a = get(pool, 'a') as PoolUpstream
  const check = policy()
  pool.policies.setWeightFactor(a, check, 0.5)
  void pool.remove('a')
  log.length = 0
  expect(pool.policies.setDown(a, check, 'x', { cut: 'all' })).toBe(false)
  pool.policies.setUp(a, check, 'x')
  pool.policies.setDegraded(a, check, true, 'x')
  pool.policies.setDraining(a, check, false, 'x')
  pool.policies.setWeightFactor(a, check, 1)
  pool.policies.setLimit(a, check, 1)
  expect([log, a.state, a.degraded, a.weight, a.maxConcurrent]).toEqual([[], 'draining', false, 0.5, Number.POSITIVE_INFINITY])
})

it('the control shows the pool as it is, with its clock, chance and TLS', () => {
  const clock = { now: () => 5, setTimeout: () => 0, clearTimeout: () => {} }
  const random = (): number => 0.5
  let control: HealthControl | undefined
  const watch = policy({
    attach: (given) => {
      control = given
    },
  })
  const pool = createPool({ name: 'api', upstreams: ['http://a.test'], health: [watch], clock, random, tls: { servername: 'a.test' } })
  expect(control).toMatchObject({ name: 'api', clock, random, tls: { servername: 'a.test' }, inflight: 0, waiting: 0 })
  pool.add('http://b.test')
  expect(control?.upstreams.map(({ id }) => id)).toEqual(['http://a.test', 'http://b.test'])
})

describe('start and close', () => {
  it('starts every policy once, side by side, and resolves when the last has', async () => {
    const log: string[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const starting = (name: string, wait?: Promise<void>): HealthPolicy =>
      policy({
        start: () => {
          log.push(name)
          return wait
        },
      })
    const pool = poolOf(['a'], [starting('a', promise), policy(), starting('b')])
    expect(log).toEqual([])
    let started = false
    const both = Promise.all([pool.start(), pool.start()]).then(() => {
      started = true
    })
    await new Promise((next) => setImmediate(next))
    expect([log, started]).toEqual([['a', 'b'], false])
    resolve()
    await both
    await pool.start()
    expect(log).toEqual(['a', 'b'])
  })

  it('a pool that is closed starts nothing', async () => {
    const start = vi.fn()
    const pool = poolOf(['a'], [policy({ start })])
    await pool.close()
    await pool.start()
    expect(start).not.toHaveBeenCalled()
  })

  // The rejected promise is kept, and every request of every proxy gets it.
  it('a policy that failed to start is tried again', async () => {
    let tries = 0
    const pool = poolOf(
      ['a'],
      [
        policy({
          start: async () => {
            tries++
            if (tries === 1) throw new Error('not yet')
          },
        }),
      ],
    )
    await expect(pool.start()).rejects.toThrow('not yet')
    await pool.start()
    expect(tries).toBe(2)
  })

  // The first failure ends the loop: later policies keep their timers, and the transport its connections.
  it('a policy that fails to close leaves nothing else open', async () => {
    const close = vi.fn()
    const failing = policy({ close: () => Promise.reject(new Error('no')) })
    const pool = createPool({ upstreams: ['http://a.test'], health: [failing, policy({ close })] })
    await expect(pool.close()).rejects.toThrow('no')
    expect(close).toHaveBeenCalledOnce()
  })
})
