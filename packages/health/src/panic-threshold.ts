/**
 * Fail open: when most of a pool seems to be down, what is broken is more often the check than the servers, and the few that are left would be run
 * over by everybody's traffic. Below a share of upstreams that are up, all of them are used as if they were.
 *
 * A pool that has never been above the threshold is not in panic, it is starting: upstreams that wait for their first check stay unused.
 */
import { channel } from 'node:diagnostics_channel'
import { type HealthControl, type HealthPolicy, OptionReader, type Upstream, type UpstreamState } from '@weir/core'

export interface PanicOptions {
  /** Share of upstreams up, of those up or down, below which all are used; draining ones are not counted. 0 switches it off. Default 0.5. */
  readonly below?: number
  /** Share from which on health counts again; more than `below` keeps it from flapping. Default: `below`. */
  readonly recover?: number
  /** For events. Default `panicThreshold`. */
  readonly name?: string
}

/** On `weir:health:panic`. */
export interface PanicMessage {
  readonly pool: string
  readonly policy: string
  readonly panic: boolean
  readonly up: number
  readonly down: number
}

type Mood = 'starting' | 'calm' | 'panic'

const panicked = channel('weir:health:panic')

/** @throws OptionsError */
export function panicThreshold(options?: PanicOptions): HealthPolicy {
  const read = new OptionReader('panicThreshold')
  const given = read.object<PanicOptions>(options, ['below', 'recover', 'name'])
  const below = read.number('below', given.below, 0.5, { min: 0, max: 1 })
  const recover = read.number('recover', given.recover, below, { min: below, max: 1 })
  const name = read.name('name', given.name, 'panicThreshold')
  read.check()

  const states = new Map<Upstream, UpstreamState>()
  const count: Record<UpstreamState, number> = { up: 0, down: 0, draining: 0 }
  let pool: HealthControl | undefined
  let mood: Mood = 'starting'
  let started = false

  const note = (upstream: Upstream, state: UpstreamState | undefined): void => {
    const before = states.get(upstream)
    if (before !== undefined) count[before]--
    if (state === undefined) states.delete(upstream)
    else {
      states.set(upstream, state)
      count[state]++
    }
  }

  const look = (): void => {
    const { up, down } = count
    if (!started || up + down === 0) return
    const share = up / (up + down)
    const next: Mood = mood === 'panic' ? (share < recover ? 'panic' : 'calm') : share >= below ? 'calm' : mood === 'calm' ? 'panic' : mood
    if (next === mood) return
    const tells = next === 'panic' || mood === 'panic'
    mood = next
    if (!tells || pool === undefined) return
    pool.setFailOpen(policy, next === 'panic', `${up} of ${up + down} upstreams are up`)
    if (panicked.hasSubscribers)
      panicked.publish({ pool: pool.name, policy: name, panic: next === 'panic', up, down } satisfies PanicMessage)
  }

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
    },
    start() {
      // Only now: what other policies said at their own `attach` is told to nobody.
      started = true
      for (const upstream of pool?.upstreams ?? []) note(upstream, upstream.state)
      look()
    },
    onUpstream({ upstream, to }) {
      // Another policy may have said more since; its own change is told too, but in which order depends on the list.
      note(upstream, to === undefined ? undefined : upstream.state)
      look()
    },
  }
  return policy
}
