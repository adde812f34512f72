/**
 * Active health checks: Weir asks each upstream at intervals whether it is well, instead of finding out from requests that fail. The parts:
 * what is asked is a probe (probe.ts), when is a loop per upstream (probe-loop.ts), what follows from the answers is a state machine per
 * upstream (target-health.ts). This file joins them to the pool.
 *
 * Probes are spread: those of a thousand upstreams run evenly over the interval, not all in one burst, and no more than `maxConcurrent` at once.
 */
import { channel } from 'node:diagnostics_channel'
import { type Duration, type HealthControl, type HealthPolicy, OptionReader, type Upstream } from '@weir/core'
import { followCheck } from './follow-check.ts'
import { type HttpProbeOptions, httpProbe } from './http-probe.ts'
import { httpKeys, type OverridesFor, overridesOf } from './overrides.ts'
import { isProbe, type OpenProbe, type Probe, type ProbeFunction, toProbe } from './probe.ts'
import { ProbeGate } from './probe-gate.ts'
import { ProbeLoop } from './probe-loop.ts'
import { type InitialState, inTransition, nextHealth, type ProbeEvent, type TargetHealth } from './target-health.ts'
import { healthBefore, TargetProbe } from './target-probe.ts'
import { applyVerdict, type OnDown, sameVerdict, unchecked, type Verdict, verdictOf } from './verdict.ts'

export interface ActiveCheckOptions extends HttpProbeOptions {
  /** What is asked: `httpProbe()`, `tcpProbe()`, `tlsProbe()`, `grpcProbe()`, `allOf(...)`, `anyOf(...)` or a function. Default: HTTP, as the other options say. */
  readonly probe?: Probe | ProbeFunction
  /** From the start of one probe to the start of the next, while the upstream is up. Default 5 s. */
  readonly interval?: Duration
  /** The same, while it is down. Default: `interval`. */
  readonly downInterval?: Duration
  /** The same, in transition: up with failures, or down with passes. Default: the least of 1 s, `interval` and `downInterval`. */
  readonly edgeInterval?: Duration
  /** Share by which each wait is longer or shorter at random, from 0 to 0.5. Default 0.1. */
  readonly jitter?: number
  /** For a whole probe: name, connection, TLS, answer. Default 5 s. */
  readonly timeout?: Duration
  /** Passes in a row that bring an upstream up. Default 2. */
  readonly rise?: number
  /** Failures in a row that take it down. Default 3. */
  readonly fall?: number
  /** What an upstream is before anybody asked: `pending` gets nothing until its first probe, which comes at once and decides alone; the proxy's first request waits until one is up, or all are known. Default `up`. */
  readonly initial?: InitialState
  /** What happens to exchanges in flight on an upstream that goes down: they go on, its tunnels are ended, or all are. Default `keep`. */
  readonly onDown?: OnDown
  /** Most probes at once. Default 64. */
  readonly maxConcurrent?: number
  /**
   * One upstream's exceptions; `false` exempts it. `upstream.meta.health` says the same, and what is returned here goes before it. Called when
   * an upstream joins, and before its next probe when its `meta` has changed.
   */
  readonly overrides?: OverridesFor
  /** For events. Default `activeCheck`. */
  readonly name?: string
}

export interface ActiveCheck extends HealthPolicy {
  /**
   * A policy for another pool, which repeats there what this check says of the upstream with the same id: one probe for both. Upstreams that
   * this check does not know, or knows no more because they have left its pool, count as up. The check is started by whichever pool starts
   * first, and ends with its own: then it knows nobody.
   */
  follow(): HealthPolicy
}

/** On `weir:health:probe`, one per probe. */
export interface ProbeMessage {
  readonly pool: string
  readonly policy: string
  readonly upstream: Upstream
  /** Undefined: it passed. */
  readonly error: unknown
  readonly durationMs: number
  /** What follows. */
  readonly health: TargetHealth
}

const probed = channel('weir:health:probe')

const ownKeys: readonly string[] = [
  'probe',
  'interval',
  'downInterval',
  'edgeInterval',
  'jitter',
  'timeout',
  'rise',
  'fall',
  'initial',
  'onDown',
  'maxConcurrent',
  'overrides',
  'name',
]

interface Target {
  readonly upstream: Upstream
  readonly own: TargetProbe
  readonly loop: ProbeLoop
  health: TargetHealth
  verdict: Verdict
  /** Its wait is yet to be shifted, so that those who began together do not stay together. */
  shift: number
}

/** @throws OptionsError */
export function activeCheck(options?: ActiveCheckOptions): ActiveCheck {
  const read = new OptionReader('activeCheck')
  const given = read.object<ActiveCheckOptions>(options, [...ownKeys, ...httpKeys])
  const interval = read.duration('interval', given.interval, 5000, { min: 1 })
  const downInterval = read.duration('downInterval', given.downInterval, interval, { min: 1 })
  const edgeInterval = read.duration('edgeInterval', given.edgeInterval, Math.min(1000, interval, downInterval), { min: 1 })
  const jitter = read.number('jitter', given.jitter, 0.1, { min: 0, max: 0.5 })
  const timeout = read.duration('timeout', given.timeout, 5000, { min: 1 })
  const rise = read.number('rise', given.rise, 2, { min: 1, max: 1000, integer: true })
  const fall = read.number('fall', given.fall, 3, { min: 1, max: 1000, integer: true })
  const initial = read.oneOf('initial', given.initial, ['up', 'down', 'pending'] as const, 'up')
  const onDown = read.oneOf('onDown', given.onDown, ['keep', 'tunnels', 'all'] as const, 'keep')
  const maxConcurrent = read.number('maxConcurrent', given.maxConcurrent, 64, { min: 1, integer: true })
  const name = read.name('name', given.name, 'activeCheck')
  if (given.overrides !== undefined && typeof given.overrides !== 'function')
    read.problem('overrides', given.overrides, 'a function of an upstream')
  const probe = readProbe(read, given)
  read.check()

  const gate = new ProbeGate(maxConcurrent)
  /** By id. */
  const targets = new Map<string, Target>()
  const followers = new Set<(id: string) => void>()
  let pool: HealthControl | undefined
  let running: 'not yet' | 'yes' | 'closed' = 'not yet'
  let made = 0

  const waitAfter = (target: Target, control: HealthControl): number => {
    const { health } = target
    const base = inTransition(health) ? edgeInterval : health.kind === 'down' ? downInterval : interval
    const wait = base * (1 + jitter * (2 * control.random() - 1))
    if (inTransition(health) || target.shift === 0) return wait
    const shift = target.shift * base
    target.shift = 0
    return wait + shift
  }

  const tellFollowers = (id: string): void => {
    for (const follower of followers) follower(id)
  }

  const settle = (target: Target, verdict: Verdict, control: HealthControl): void => {
    const before = target.verdict
    if (sameVerdict(before, verdict)) return
    target.verdict = verdict
    applyVerdict(control, policy, target.upstream, before, verdict, onDown)
    tellFollowers(target.upstream.id)
  }

  const told = (target: Target, control: HealthControl, event: ProbeEvent, durationMs: number): number => {
    target.health = nextHealth(target.health, event, { rise, fall })
    if (probed.hasSubscribers) {
      const error = event.kind === 'failed' ? event.error : undefined
      probed.publish({
        pool: control.name,
        policy: name,
        upstream: target.upstream,
        error,
        durationMs,
        health: target.health,
      } satisfies ProbeMessage)
    }
    settle(target, verdictOf(target.health), control)
    decided(target)
    return waitAfter(target, control)
  }

  /** What to ask now. Options that came or went make a new beginning; others for the same question leave the health as it is. */
  const asked = (target: Target, control: HealthControl): OpenProbe | undefined => {
    const before = target.own.question
    const now = target.own.look()
    if (now !== before && (now.kind !== 'asked' || before.kind !== 'asked')) {
      // One that was exempt has served so far, and goes on until its probes say otherwise.
      target.health = healthBefore(now, before.kind === 'exempt' ? 'up' : initial)
      settle(target, target.health.kind === 'up' ? unchecked : verdictOf(target.health), control)
      if (now.kind === 'exempt') decided(target)
    }
    return now.kind === 'asked' ? now.probe : undefined
  }

  const join = (upstream: Upstream, control: HealthControl, strict: boolean): Target => {
    // Golden ratio: however many come, their parts of the interval lie evenly.
    const phase = (made++ * 0.618_033_988_749_894_9) % 1
    const own = new TargetProbe(
      upstream,
      () => overridesOf('activeCheck', upstream, given.overrides),
      (overrides) => probe.open({ upstream, overrides, tls: control.tls, allowAddress: control.allowAddress }),
    )
    const { question } = own
    // At creation the mistake is the caller's to see. Later on there is no caller: the upstream is down, and says why.
    if (strict && question.kind === 'wrong') throw question.error
    const loop = new ProbeLoop(
      { clock: control.clock, gate, timeout, idle: interval },
      { probe: () => asked(target, control), tell: (event, ms) => told(target, control, event, ms) },
    )
    const target: Target = { upstream, own, loop, health: healthBefore(question, initial), verdict: unchecked, shift: phase }
    targets.set(upstream.id, target)
    settle(target, verdictOf(target.health), control)
    return target
  }

  const part = (target: Target): void => {
    target.loop.stop()
    target.own.close()
    decided(target)
  }

  /** Those that nothing is known of, and who waits for them. */
  const pending = new Set<Target>()
  const known = Promise.withResolvers<void>()

  const decided = (target: Target): void => {
    if (!pending.delete(target)) return
    if (pending.size === 0 || target.health.kind === 'up') known.resolve()
  }

  const begin = (): void => {
    running = 'yes'
    for (const target of targets.values()) if (target.health.kind === 'pending') pending.add(target)
    for (const target of targets.values()) {
      // Nobody waits for those that are up: they begin at their part of the interval, and stay there.
      if (target.health.kind === 'up') {
        target.loop.begin(target.shift * interval)
        target.shift = 0
      } else target.loop.begin(0)
    }
  }

  /** Whoever comes second waits for the same. */
  const start = (): Promise<void> | undefined => {
    if (running === 'not yet' && pool !== undefined) begin()
    return pending.size === 0 ? undefined : known.promise
  }

  const policy: ActiveCheck = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) join(upstream, control, true)
    },
    start,
    onUpstream({ upstream, from, to }) {
      if (pool === undefined || running === 'closed') return
      if (to === undefined) {
        const target = targets.get(upstream.id)
        targets.delete(upstream.id)
        if (target !== undefined) part(target)
        // One that is replaced leaves before the other joins: followers would be told "up" in between, also where the other waits for its first probe.
        queueMicrotask(() => tellFollowers(upstream.id))
      } else if (from === undefined) {
        const target = join(upstream, pool, false)
        if (running !== 'yes') return
        if (target.health.kind === 'pending') pending.add(target)
        target.loop.begin(0)
      }
    },
    follow: () =>
      followCheck(`${name} (followed)`, onDown, {
        start,
        verdict: (id) => targets.get(id)?.verdict ?? unchecked,
        subscribe(follower) {
          followers.add(follower)
          return () => void followers.delete(follower)
        },
      }),
    close() {
      running = 'closed'
      gate.close()
      known.resolve()
      const all = [...targets.values()]
      targets.clear()
      for (const target of all) {
        part(target)
        tellFollowers(target.upstream.id)
      }
    },
  }
  return policy
}

function readProbe(read: OptionReader, given: Partial<ActiveCheckOptions>): Probe {
  const http = Object.fromEntries(Object.entries(given).filter(([key]) => httpKeys.includes(key)))
  if (given.probe !== undefined) {
    if (!isProbe(given.probe)) read.problem('probe', given.probe, 'a probe such as tcpProbe() (mind the call), or a function')
    for (const [key, value] of Object.entries(http))
      if (value !== undefined) read.problem(key, value, `nothing beside \`probe\`: give it to the probe, as in httpProbe({ ${key}: ... })`)
    return isProbe(given.probe) ? toProbe(given.probe) : httpProbe()
  }
  try {
    return httpProbe(http)
  } catch (error) {
    for (const problem of (error as { problems?: { path: string; given: string; expected: string }[] }).problems ?? [])
      read.problem(problem.path, problem.given, problem.expected)
    return httpProbe()
  }
}
