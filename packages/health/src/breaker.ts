/**
 * One circuit with what it is judged by: counts in a window, a row of failures, and the timer that moves it on. What it does to traffic is told to
 * `effects`, since a pool refuses where an upstream is left out.
 *
 * A quantile above a limit needs no quantiles: the q-quantile is above it exactly when more than a share 1 - q of all is. One more count will do.
 */
import type { AttemptOutcome, Clock } from '@weir/core'
import { attemptVerdict } from './attempt-verdict.ts'
import type { BreakerSettings } from './breaker-options.ts'
import { type Circuit, type CircuitEvent, nextCircuit } from './circuit.ts'
import { SlidingWindow } from './sliding-window.ts'

export interface BreakerEffects {
  /** The circuit is about to be `to`; false refuses, and it is closed instead. */
  enter(from: Circuit, to: Circuit, reason: string, error: unknown): boolean
}

export class Breaker {
  circuit: Circuit = { kind: 'closed' }
  readonly #settings: BreakerSettings
  readonly #clock: Clock
  readonly #effects: BreakerEffects
  readonly #window: SlidingWindow
  #row = 0
  #inflight = 0
  /** Of those in flight, how many began before the state did. What becomes of them says nothing about it. */
  #old = 0
  #epoch = Number.NEGATIVE_INFINITY
  /** Trials in flight whose head has been judged. */
  readonly #told = new Set<AttemptOutcome>()
  #timer: unknown
  #closed = false

  constructor(settings: BreakerSettings, clock: Clock, effects: BreakerEffects) {
    this.#settings = settings
    this.#clock = clock
    this.#effects = effects
    this.#window = new SlidingWindow(settings.window)
  }

  /** Half-open: trials that run and have passed so far are fewer than it takes. */
  get hasRoom(): boolean {
    return this.#inflight < this.limit
  }

  /** Half-open: so many may be in flight. What began before, and trials that have been judged and go on, take no place of a trial. */
  get limit(): number {
    return this.circuit.kind === 'half-open'
      ? this.#settings.trials - this.circuit.passed + this.#old + this.#told.size
      : Number.POSITIVE_INFINITY
  }

  /** Recovering: the share of traffic to let through, a line from a tenth. */
  get share(): number {
    if (this.circuit.kind !== 'recovering') return 1
    return Math.min(1, Math.max(0.1, (this.#clock.now() - this.circuit.since) / this.#settings.recovery))
  }

  begun(): void {
    this.#inflight++
  }

  /** A head has come. That is what a trial is judged by: a tunnel or an event stream may never end, and has shown by then that it is served. */
  head(attempt: AttemptOutcome): void {
    if (this.circuit.kind !== 'half-open' || this.#closed || attempt.startedAt < this.#epoch) return
    this.#told.add(attempt)
    this.#trial(attempt, this.#settings.isFailure(attempt.status ?? 0))
  }

  #trial(attempt: AttemptOutcome, failed: boolean): void {
    const { latency } = this.#settings
    const slow = latency !== undefined && (attempt.headMs ?? attempt.durationMs) - attempt.uploadMs > latency.above
    this.#move(
      { kind: 'trial', passed: !failed && !slow, now: this.#clock.now() },
      failed ? 'a trial failed' : slow ? 'a trial was slow' : 'trials passed',
      attempt.error,
    )
  }

  ended(outcome: AttemptOutcome): void {
    if (this.#inflight > 0) this.#inflight--
    const told = this.#told.delete(outcome)
    if (this.#old > 0 && outcome.startedAt < this.#epoch) {
      this.#old--
      return
    }
    this.#old = Math.min(this.#old, this.#inflight)
    const verdict = attemptVerdict(outcome)
    if (verdict === 'ignored' || this.#closed) return
    // That it broke off behind its head is news; the head is not.
    if (told && verdict === 'answered') return
    const { latency, isFailure } = this.#settings
    const failed = verdict === 'failed' || isFailure(outcome.status ?? 0)
    const slow = latency !== undefined && (outcome.headMs ?? outcome.durationMs) - outcome.uploadMs > latency.above
    const now = this.#clock.now()
    switch (this.circuit.kind) {
      case 'closed':
      case 'recovering':
        this.#window.record(now, failed, slow)
        this.#row = failed ? this.#row + 1 : 0
        this.#judge(now, outcome.error)
        return
      case 'half-open':
        this.#trial(outcome, failed)
        return
      case 'open':
        return
    }
  }

  close(): void {
    this.#closed = true
    this.#clock.clearTimeout(this.#timer)
  }

  #judge(now: number, error: unknown): void {
    const { errorRatio, latency, consecutive } = this.#settings
    const { requests, failures, slow } = this.#window
    if (this.#row >= consecutive) this.#move({ kind: 'trip', now }, `${this.#row} failures in a row`, error)
    else if (errorRatio !== undefined && requests >= errorRatio.minRequests && failures >= errorRatio.threshold * requests)
      this.#move({ kind: 'trip', now }, `${failures} of ${requests} requests failed`, error)
    else if (latency !== undefined && requests >= latency.minRequests && slow - (1 - latency.quantile) * requests > 1e-9)
      this.#move({ kind: 'trip', now }, `${slow} of ${requests} requests took longer than ${latency.above} ms`, error)
  }

  #move(event: CircuitEvent, reason: string, error?: unknown): void {
    const before = this.circuit
    let next = nextCircuit(before, event, this.#settings)
    if (next === before) return
    if (next.kind === before.kind) {
      this.circuit = next
      return
    }
    this.#clock.clearTimeout(this.#timer)
    this.#window.reset()
    this.#row = 0
    this.#old = this.#inflight
    this.#told.clear()
    this.#epoch = event.now
    this.circuit = next
    if (!this.#effects.enter(before, next, reason, error)) {
      next = { kind: 'closed' }
      this.circuit = next
    }
    const until = next.kind === 'open' ? next.until : next.kind === 'recovering' ? next.since + this.#settings.recovery : undefined
    if (until === undefined) return
    const over = next.kind === 'open' ? 'its time is over' : 'recovered'
    this.#timer = this.#clock.setTimeout(
      () => this.#move({ kind: 'time', now: Math.max(until, this.#clock.now()) }, over),
      until - event.now,
    )
  }
}
