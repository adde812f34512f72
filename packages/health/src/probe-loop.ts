/**
 * The probes of one target, one after the other: wait, queue for a slot, ask, tell, wait again. Intervals run from start to start. No two
 * probes of a target overlap, also when one ignores its timeout: until it ends, each further turn counts as another failure and asks nothing.
 */
import type { Clock } from '@weir/core'
import { type OpenProbe, ProbeError } from './probe.ts'
import type { ProbeGate } from './probe-gate.ts'
import type { ProbeEvent } from './target-health.ts'

export interface LoopSettings {
  readonly clock: Clock
  readonly gate: ProbeGate
  /** Milliseconds for a whole probe. */
  readonly timeout: number
  /** Milliseconds from one look to the next at a target that is not to be asked. */
  readonly idle: number
}

/** What a loop needs of its target. */
export interface LoopTarget {
  /** What to ask now, undefined for nothing. Called before each probe, and never while one runs. */
  probe(): OpenProbe | undefined
  /** Is told every result, and returns the milliseconds from the start of this probe to the next. */
  tell(event: ProbeEvent, durationMs: number): number
}

type Step =
  | { readonly kind: 'idle' }
  | { readonly kind: 'waiting'; readonly timer: unknown }
  | { readonly kind: 'queued'; readonly ask: () => void }
  | { readonly kind: 'asking'; readonly controller: AbortController; readonly timer: unknown }
  | { readonly kind: 'stopped' }

export class ProbeLoop {
  readonly #settings: LoopSettings
  readonly #target: LoopTarget
  #step: Step = { kind: 'idle' }
  /** A probe has run into its timeout and not ended. */
  #stuck = false

  constructor(settings: LoopSettings, target: LoopTarget) {
    this.#settings = settings
    this.#target = target
  }

  /** Once: the first probe in `delay` milliseconds. */
  begin(delay: number): void {
    if (this.#step.kind === 'idle') this.#wait(delay)
  }

  stop(): void {
    const step = this.#step
    this.#step = { kind: 'stopped' }
    switch (step.kind) {
      case 'waiting':
        this.#settings.clock.clearTimeout(step.timer)
        break
      case 'queued':
        this.#settings.gate.withdraw(step.ask)
        break
      case 'asking':
        this.#settings.clock.clearTimeout(step.timer)
        step.controller.abort(new Error('the health check has ended'))
        this.#settings.gate.leave()
        break
      case 'idle':
      case 'stopped':
        break
    }
  }

  #wait(ms: number): void {
    this.#step = { kind: 'waiting', timer: this.#settings.clock.setTimeout(() => this.#due(), ms) }
  }

  #due(): void {
    const idle: Step = { kind: 'idle' }
    this.#step = idle
    if (this.#stuck) {
      const error = new ProbeError('ERR_PROBE_TIMEOUT', 'the probe before this one has not ended, long after its timeout')
      const next = this.#target.tell({ kind: 'failed', error }, 0)
      if (this.#step === idle) this.#wait(next)
      return
    }
    const probe = this.#target.probe()
    // Told of new options, the pool may have closed the check.
    if (this.#step !== idle) return
    if (probe === undefined) {
      this.#wait(this.#settings.idle)
      return
    }
    const ask = (): void => this.#ask(probe)
    this.#step = { kind: 'queued', ask }
    this.#settings.gate.enter(ask)
  }

  #ask(probe: OpenProbe): void {
    const { clock, timeout, gate } = this.#settings
    const controller = new AbortController()
    const started = clock.now()
    const settled = (event: ProbeEvent): void => {
      const step = this.#step
      if (step.kind !== 'asking' || step.controller !== controller) return
      clock.clearTimeout(step.timer)
      const idle: Step = { kind: 'idle' }
      this.#step = idle
      gate.leave()
      const next = this.#target.tell(event, clock.now() - started)
      // Told of the result, the pool may have closed the check.
      if (this.#step === idle) this.#wait(Math.max(0, started + next - clock.now()))
    }
    const timer = clock.setTimeout(() => {
      const error = new ProbeError('ERR_PROBE_TIMEOUT', `no answer within ${timeout} ms`)
      this.#stuck = true
      controller.abort(error)
      settled({ kind: 'failed', error })
    }, timeout)
    this.#step = { kind: 'asking', controller, timer }
    const ended = (event: ProbeEvent): void => {
      this.#stuck = false
      settled(event)
    }
    // Asynchronous, so that a probe that throws at once is one that failed.
    const running = (async () => probe.run(controller.signal))()
    running.then(
      (result) => ended({ kind: 'passed', result: result ?? undefined }),
      (error: unknown) => ended({ kind: 'failed', error }),
    )
  }
}
