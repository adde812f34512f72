/** Votes: an upstream is down while anybody says so, draining outranks both, and the last one can be kept. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { fakeTransport, stubExchange } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Attempt } from './attempt.ts'
import type { AttemptOutcome } from './exchange.ts'
import type { HealthControl, HealthPolicy } from './health.ts'
import { createPool, type LivePool } from './pool.ts'
import type { Upstream, UpstreamState } from './upstream.ts'

const policy = (name = 'check'): HealthPolicy => ({ name, attach() {} })
const poolOf = (ids: readonly string[], health: readonly HealthPolicy[] = []): LivePool =>
  createPool({ upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })), health, transport: fakeTransport() }) as LivePool
const get = (pool: LivePool, id: string): Upstream => pool.get(id) as Upstream

describe('votes', () => {
  it('any history of votes and drains: the state is what the votes that stand say', () => {
    const policies = [policy('a'), policy('b'), policy('c')]
    type Step = { readonly do: 'down' | 'up'; readonly by: number } | { readonly do: 'drain' | 'undrain' }
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('down' as const, 'up' as const), by: fc.nat(2) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('drain' as const, 'undrain' as const) }) },
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const pool = poolOf(['x', 'y'])
        const x = get(pool, 'x')
        const votes = new Set<number>()
        let draining = false
        for (const action of steps) {
          if (action.do === 'down') {
            expect(pool.policies.setDown(x, policies[action.by] as HealthPolicy, 'x')).toBe(true)
            votes.add(action.by)
          } else if (action.do === 'up') {
            pool.policies.setUp(x, policies[action.by] as HealthPolicy, 'x')
            votes.delete(action.by)
          } else if (action.do === 'drain') {
            void pool.drain('x')
            draining = true
          } else {
            pool.undrain('x')
            draining = false
          }
          const expected: UpstreamState = draining ? 'draining' : votes.size > 0 ? 'down' : 'up'
          expect(x.state).toBe(expected)
          expect(pool.pick({ ...stubExchange(), tried: [get(pool, 'y')] })?.id).toBe(expected === 'up' ? 'x' : undefined)
        }
      }),
    )
  })

  it('of one policy about several upstreams are apart', () => {
    const pool = poolOf(['x', 'y'])
    const check = policy()
    pool.policies.setDown(get(pool, 'x'), check, 'x')
    pool.policies.setUp(get(pool, 'y'), check, 'x')
    expect(pool.stats().upstreams.map(({ state }) => state)).toEqual(['down', 'up'])
  })

  it('about one that has left are not accepted', () => {
    const pool = poolOf(['x', 'y'])
    const x = get(pool, 'x')
    void pool.remove('x')
    expect(pool.policies.setDown(x, policy(), 'x')).toBe(false)
    pool.policies.setUp(x, policy(), 'x')
    expect(x.state).toBe('draining')
  })
})

describe('keepLast', () => {
  const down = (pool: LivePool, id: string): boolean => pool.policies.setDown(get(pool, id), policy(), 'x', { keepLast: true })

  it('refuses the last one that is up, and nothing else', () => {
    const pool = poolOf(['x', 'y', 'z'])
    expect([down(pool, 'x'), down(pool, 'y'), down(pool, 'z')]).toEqual([true, true, false])
    expect(pool.upstreams.map(({ state }) => state)).toEqual(['down', 'down', 'up'])
  })

  it('one that gets no traffic is no other', () => {
    const pool = poolOf(['x', 'y'])
    pool.setWeight('y', 0)
    expect(down(pool, 'x')).toBe(false)
    pool.setWeight('y', 1)
    void pool.drain('y')
    expect(down(pool, 'x')).toBe(false)
    pool.undrain('y')
    expect(down(pool, 'x')).toBe(true)
  })

  it('without it the last one goes down too', () => {
    const pool = poolOf(['x'])
    expect(pool.policies.setDown(get(pool, 'x'), policy(), 'x')).toBe(true)
    expect(pool.pick(stubExchange())).toBeUndefined()
  })
})

describe('policies', () => {
  it('are attached once, hear every attempt that ended, and are closed with the pool', async () => {
    const log: string[] = []
    const watching = (name: string): HealthPolicy => ({
      name,
      attach: (control: HealthControl) => void log.push(`${name} attached to ${control.upstreams.map(({ id }) => id).join()}`),
      onAttempt: (outcome: AttemptOutcome) => void log.push(`${name} heard ${outcome.upstream.id}`),
      close: () => void log.push(`${name} closed`),
    })
    const pool = poolOf(['x'], [watching('a'), policy('deaf'), watching('b')])
    const check = policy()
    const upstream = pool.pick(stubExchange()) as Upstream
    pool.policies.setDown(upstream, check, 'x')
    pool.release({ upstream } as unknown as Attempt)
    await pool.close()
    await pool.close()
    expect(log).toEqual(['a attached to x', 'b attached to x', 'a heard x', 'b heard x', 'a closed', 'b closed'])
  })
})

it('changes of state are told, with their reason, and only changes', () => {
  const heard: unknown[] = []
  const listener = (message: unknown): void => {
    const { pool, upstream, from, to, reason } = message as { pool: string; upstream: Upstream; from: string; to: string; reason: string }
    heard.push(`${pool} ${upstream.id} ${from}>${to} ${reason}`)
  }
  subscribe('weir:upstream:state', listener)
  try {
    const pool = poolOf(['x', 'y'])
    const [a, b] = [policy('a'), policy('b')]
    const x = get(pool, 'x')
    pool.policies.setDown(x, a, 'one')
    pool.policies.setDown(x, b, 'two')
    pool.policies.setUp(x, a, 'three')
    pool.policies.setUp(x, b, 'four')
    void pool.drain('x')
    pool.policies.setDown(x, a, 'five')
    pool.undrain('x')
    void pool.remove('x')
  } finally {
    unsubscribe('weir:upstream:state', listener)
  }
  expect(heard).toEqual([
    'pool x up>down one',
    'pool x down>up four',
    expect.stringMatching(/^pool x up>draining /),
    expect.stringMatching(/^pool x draining>down /),
    'pool x down>draining removed',
  ])
})
