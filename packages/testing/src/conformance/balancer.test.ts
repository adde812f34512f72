// A suite is worth what it refuses: a plain strategy that is right passes, and each way of getting it wrong fails in the case meant for it.
import { type Balancer, type Exchange, isPickable, type Upstream } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { type BalancerFactory, type BalancerTraits, balancerConformance } from './balancer.ts'

/** Scans: the least loaded, and among equals the one with the fewest turns for its weight. Slow and plain. */
class Plain implements Balancer {
  readonly name: string = 'plain'
  upstreams: readonly Upstream[] = []
  readonly turns = new Map<Upstream, number>()

  update(available: readonly Upstream[]): void {
    this.upstreams = available.slice()
    this.turns.clear()
  }

  allowed(upstream: Upstream, exchange: Exchange): boolean {
    return isPickable(upstream, exchange)
  }

  load(upstream: Upstream): number {
    return upstream.inflight / upstream.weight
  }

  turn(upstream: Upstream): number {
    return (this.turns.get(upstream) ?? 0) / upstream.weight
  }

  pick(exchange: Exchange): Upstream | undefined {
    let best: Upstream | undefined
    for (let i = 0; i < this.upstreams.length; i++) {
      const upstream = this.upstreams[i] as Upstream
      if (!this.allowed(upstream, exchange)) continue
      if (best !== undefined) {
        const difference = this.load(upstream) - this.load(best)
        if (difference > 0 || (difference === 0 && this.turn(upstream) >= this.turn(best))) continue
      }
      best = upstream
    }
    if (best !== undefined) this.turns.set(best, (this.turns.get(best) ?? 0) + 1)
    return best
  }
}

const traits: BalancerTraits = { deviation: () => 3, load: 'least' }

/** The cases that fail, of those that `only` names. */
async function failures(factory: BalancerFactory, only: RegExp, declared: BalancerTraits = traits): Promise<string[]> {
  const failed: string[] = []
  for (const { name, run } of balancerConformance('x', factory, declared))
    if (only.test(name)) await run().catch(() => failed.push(name.slice(2)))
  return failed
}

describe('the balancer conformance suite', () => {
  it('passes a strategy that is right', async () => {
    expect(await failures(() => new Plain(), /./)).toEqual([])
  })

  const playing = /picks nobody excluded/
  const history = expect.stringMatching(playing)

  it('refuses one that picks tried upstreams again', async () => {
    class Wrong extends Plain {
      override allowed(upstream: Upstream): boolean {
        return !upstream.full
      }
    }
    expect(await failures(() => new Wrong(), /was not tried|nobody excluded/)).toEqual(
      expect.arrayContaining(['finds the only one of 2 that was not tried', history]),
    )
  })

  it('refuses one that picks full upstreams', async () => {
    class Wrong extends Plain {
      override allowed(upstream: Upstream, exchange: Exchange): boolean {
        return !exchange.tried.includes(upstream)
      }
    }
    expect(await failures(() => new Wrong(), /has room|nobody excluded/)).toEqual(
      expect.arrayContaining(['finds the only one of 1 that has room', history]),
    )
  })

  it('refuses one that goes on picking those that have left', async () => {
    class Wrong extends Plain {
      override update(available: readonly Upstream[]): void {
        this.upstreams = [...new Set([...this.upstreams, ...available])]
      }
    }
    expect(await failures(() => new Wrong(), /no upstreams|nobody excluded/)).toEqual(
      expect.arrayContaining(['returns undefined while there are no upstreams', history]),
    )
  })

  it('refuses one that gives up too early', async () => {
    class Wrong extends Plain {
      override pick(exchange: Exchange): Upstream | undefined {
        const first = this.upstreams[Math.floor(this.upstreams.length / 2)]
        return first !== undefined && isPickable(first, exchange) ? first : undefined
      }
    }
    expect(await failures(() => new Wrong(), /only one of 2 |nobody excluded/, { ...traits, load: 'ignored' })).toEqual(
      expect.arrayContaining(['finds the only one of 2 that has room', 'finds the only one of 2 that was not tried', history]),
    )
  })

  it('refuses one that does not know weights', async () => {
    class Wrong extends Plain {
      override turn(upstream: Upstream): number {
        return this.turns.get(upstream) ?? 0
      }
    }
    const failed = await failures(() => new Wrong(), /shares by weight/)
    expect(failed).toEqual(expect.arrayContaining(['shares by weight: 5, 1, 1', 'shares by weight: 100 to 1']))
    expect(failed).not.toContain('shares by weight: two equal')
  })

  it('refuses one that always takes the first among equals', async () => {
    class Wrong extends Plain {
      override turn(): number {
        return 0
      }
    }
    expect(await failures(() => new Wrong(), /shares by weight/)).toContain('shares by weight: two equal')
  })

  it('refuses one that compares load without weight', async () => {
    class Wrong extends Plain {
      override load(upstream: Upstream): number {
        return upstream.inflight
      }
    }
    expect(await failures(() => new Wrong(), playing)).toContainEqual(history)
  })

  it('refuses one that counts only what it picked itself', async () => {
    class Wrong extends Plain {
      readonly counts = new Map<Upstream, number>()
      override load(upstream: Upstream): number {
        return (this.counts.get(upstream) ?? 0) / upstream.weight
      }
      override pick(exchange: Exchange): Upstream | undefined {
        const picked = super.pick(exchange)
        if (picked !== undefined) this.counts.set(picked, (this.counts.get(picked) ?? 0) + 1)
        return picked
      }
      release(upstream: Upstream): void {
        this.counts.set(upstream, Math.max(0, (this.counts.get(upstream) ?? 0) - 1))
      }
    }
    expect(await failures(() => new Wrong(), playing)).toContainEqual(history)
  })

  it('refuses one that forgets what was in flight when membership changes', async () => {
    class Wrong extends Plain {
      counts = new Map<Upstream, number>()
      override load(upstream: Upstream): number {
        return (this.counts.get(upstream) ?? 0) / upstream.weight
      }
      override update(available: readonly Upstream[]): void {
        super.update(available)
        this.counts = new Map()
      }
      acquire(upstream: Upstream): void {
        this.counts.set(upstream, (this.counts.get(upstream) ?? 0) + 1)
      }
      release(upstream: Upstream): void {
        this.counts.set(upstream, Math.max(0, (this.counts.get(upstream) ?? 0) - 1))
      }
    }
    expect(await failures(() => new Wrong(), playing)).toContainEqual(history)
  })

  it('refuses a power of two choices that may compare an upstream with itself', async () => {
    const factory: BalancerFactory = ({ random }) => {
      class Wrong extends Plain {
        override pick(exchange: Exchange): Upstream | undefined {
          const pickable = this.upstreams.filter((upstream) => isPickable(upstream, exchange))
          const a = pickable[Math.floor(random() * pickable.length)]
          const b = pickable[Math.floor(random() * pickable.length)]
          return a !== undefined && b !== undefined && b.inflight / b.weight < a.inflight / a.weight ? b : a
        }
      }
      return new Wrong()
    }
    expect(await failures(factory, playing, { deviation: () => Number.POSITIVE_INFINITY, load: 'compared' })).toContainEqual(history)
  })

  it('refuses one that draws from elsewhere', async () => {
    class Wrong extends Plain {
      override pick(exchange: Exchange): Upstream | undefined {
        const pickable = this.upstreams.filter((upstream) => isPickable(upstream, exchange))
        return pickable[Math.floor(Math.random() * pickable.length)]
      }
    }
    expect(await failures(() => new Wrong(), /same seed/, { deviation: () => Number.POSITIVE_INFINITY, load: 'ignored' })).toContain(
      'chooses the same with the same seed',
    )
  })

  it('refuses one that makes an object per pick', async () => {
    class Wrong extends Plain {
      seen: object | undefined
      override pick(exchange: Exchange): Upstream | undefined {
        this.seen = { exchange }
        return super.pick(exchange)
      }
    }
    expect(await failures(() => new Wrong(), /allocates|two equal/)).toEqual(['allocates nothing'])
  })
})
