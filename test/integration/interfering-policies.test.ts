/**
 * Policies and strategies that speak, or throw, at the worst moment: from within the very call that tells them of a head, an attempt's end or a pick. Whatever
 * they do, the exchange has one end, and what was counted in is counted out.
 */
import { channel } from 'node:diagnostics_channel'
import { setImmediate as turn } from 'node:timers/promises'
import { leastConnections } from '@weir/balancer'
import {
  type AttemptOutcome,
  type Balancer,
  createPool,
  createProxy,
  type Exchange,
  type HealthControl,
  type HealthPolicy,
  type ProxyOptions,
  type ReverseProxy,
  roundRobin,
  type Upstream,
} from '@weir/core'
import { type FakeResponse, fakeTransport, type VirtualClock, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'

/** Always the first that is free and has not been tried. */
class InOrder implements Balancer {
  readonly name = 'in-order'
  list: readonly Upstream[] = []
  update(available: readonly Upstream[]): void {
    this.list = available
  }
  pick(exchange: Exchange): Upstream | undefined {
    return this.list.find((upstream) => !upstream.full && !exchange.tried.includes(upstream))
  }
}

const never = new Promise<never>(() => {})

interface Rig {
  readonly proxy: ReverseProxy
  readonly clock: VirtualClock
  inflight(): readonly (number | undefined)[]
}

/** Two upstreams, `http://a` and `http://b`, on a transport without a network. */
function rig(respond: (upstream: Upstream) => FakeResponse | Promise<FakeResponse>, options: Partial<ProxyOptions>): Rig {
  const clock = virtualClock(1000)
  const proxy = createProxy({
    upstreams: ['http://a', 'http://b'],
    balancer: new InOrder(),
    transport: fakeTransport((_request, upstream) => respond(upstream), { clock }),
    health: [],
    clock,
    ...options,
  })
  return { proxy, clock, inflight: () => proxy.stats().pools[0]?.upstreams.map((upstream) => upstream.inflight) ?? [] }
}

const isA = (upstream: Upstream): boolean => upstream.url.host === 'a'
const slowA = (upstream: Upstream): FakeResponse | Promise<FakeResponse> => (isA(upstream) ? never : { body: 'b' })
const hedge = { hedge: { after: 50 } }

/** A policy that does something when it is told of something. */
function policyOf(listen: (control: () => HealthControl, self: () => HealthPolicy) => Partial<HealthPolicy>): HealthPolicy {
  let control: HealthControl | undefined
  const policy: HealthPolicy = {
    name: 'meddler',
    attach: (given) => {
      control = given
    },
    ...listen(
      () => control as HealthControl,
      () => policy,
    ),
  }
  return policy
}

describe('a policy that cuts from within what it is told', () => {
  it('of a head: the exchange is retried, and answered once', async () => {
    const meddler = policyOf((control, self) => ({
      onHead: (upstream) => {
        if (isA(upstream)) control().setDown(upstream, self(), 'said so in its head', { cut: 'all' })
      },
    }))
    const { proxy, inflight } = rig(({ url }) => ({ body: url.host }), { health: [meddler] })
    expect((await proxy.inject({})).text()).toBe('b')
    expect(inflight()).toEqual([0, 0])
  })

  it('of the end of the try that lost: whatever the client gets, nobody is released twice', async () => {
    const meddler = policyOf((control, self) => ({
      onAttempt: ({ error }: AttemptOutcome) => {
        const [, b] = control().upstreams
        if (error?.code === 'ERR_HEDGE_LOST') control().setDown(b as Upstream, self(), 'cut by its own victory', { cut: 'all' })
      },
    }))
    const { proxy, clock, inflight } = rig(slowA, { health: [meddler], retry: { attempts: 1, ...hedge } })
    const answer = proxy.inject({})
    await clock.advance(60)
    expect((await answer).status).toBe(502)
    expect(inflight()).toEqual([0, 0])
  })
})

describe('a policy or strategy that throws', () => {
  it('when a hedge asks it: there is no hedge, and the first try goes on', async () => {
    class Fickle extends InOrder {
      #picks = 0
      override pick(exchange: Exchange): Upstream | undefined {
        if (this.#picks++ > 0) throw new Error('no second pick')
        return super.pick(exchange)
      }
    }
    const { proxy, clock, inflight } = rig(slowA, { balancer: new Fickle(), retry: hedge, timeouts: { total: 100 } })
    const answer = proxy.inject({})
    // What a timer throws is thrown here; with real timers it would end the process.
    await clock.advance(60)
    expect(inflight()).toEqual([1, 0])
    await clock.advance(60)
    expect((await answer).status).toBe(504)
  })

  it.each([
    ['onAcquire', 200],
    ['acquire', 500],
  ] as const)('in `%s`: the exchange is answered %d, and the place that it took is free again', async (where, status) => {
    const fail = (): never => {
      throw new Error('mine')
    }
    const { proxy, inflight } = rig(() => ({}), {
      ...(where === 'onAcquire' ? { health: [policyOf(() => ({ onAcquire: fail }))] } : null),
      ...(where === 'acquire' ? { balancer: Object.assign(new InOrder(), { acquire: fail }) } : null),
    })
    expect((await proxy.inject({})).status).toBe(status)
    expect(inflight()).toEqual([0, 0])
  })

  it('in `onAttempt`: who waits for the place gets it', async () => {
    const meddler = policyOf(() => ({
      onAttempt: () => {
        throw new Error('mine')
      },
    }))
    const { proxy } = rig(() => ({ body: 'ok' }), {
      health: [meddler],
      upstreams: ['http://a'],
      maxConcurrent: 1,
      queue: { timeout: 1000 },
    })
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    const answers = Promise.all([proxy.inject({}), proxy.inject({})])
    const outcome = await Promise.race([answers, turns(20)])
    process.off('unhandledRejection', note)
    expect([outcome?.map(({ status }) => status), unhandled]).toEqual([[200, 200], []])
  })

  it('in `update`: what the source is said to have changed is what has changed', async () => {
    let next = (): void => {}
    const told: { added: readonly string[]; removed: readonly string[] }[] = []
    const listener = (message: unknown): void => void told.push(message as (typeof told)[number])
    channel('weir:pool:source').subscribe(listener)
    const balancer = new InOrder()
    const pool = createPool({
      upstreams: (async function* () {
        yield ['http://a']
        await new Promise<void>((resolve) => {
          next = resolve
        })
        yield ['http://b']
      })(),
      balancer,
      health: [],
    })
    await pool.start()
    balancer.update = () => {
      throw new Error('mine')
    }
    next()
    await turns(5)
    channel('weir:pool:source').unsubscribe(listener)
    await pool.close()
    // Either all of it or nothing: members and report agree.
    const members = pool.upstreams.map(({ id }) => id)
    const mirrored = new Set<string>()
    for (const { added, removed } of told) {
      for (const id of removed) mirrored.delete(id)
      for (const id of added) mirrored.add(id)
    }
    expect([...mirrored]).toEqual(members)
  })
})

it.each([
  ['roundRobin', roundRobin],
  ['leastConnections', leastConnections],
])('a limit that is raised brings an upstream back at once, not with its next release: %s', async (_name, balancer) => {
  const meddler = policyOf(() => ({}))
  let control: HealthControl | undefined
  meddler.attach = (given) => {
    control = given
  }
  const { promise, resolve } = Promise.withResolvers<FakeResponse>()
  const served: string[] = []
  const proxy = createProxy({
    upstreams: ['http://a', 'http://b'],
    balancer: balancer(),
    transport: fakeTransport((_request, { url }) => {
      served.push(url.host)
      return promise
    }),
    health: [meddler],
  })
  const answers: Promise<unknown>[] = []
  const hold = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      answers.push(proxy.inject({}))
      await turns(3)
    }
  }
  const [a] = (control as HealthControl | undefined)?.upstreams ?? []
  control?.setLimit(a as Upstream, meddler, 1)
  // One for `a`, which the strategy then finds full.
  await hold(5)
  expect(served.filter((host) => host === 'a')).toEqual(['a'])
  control?.setLimit(a as Upstream, meddler, 100)
  served.length = 0
  await hold(4)
  resolve({})
  await Promise.all(answers)
  expect(served).toContain('a')
})

async function turns(count: number): Promise<undefined> {
  for (let i = 0; i < count; i++) await turn()
}
