/**
 * The question to one upstream, as its options are now. A source may say another `meta` of an upstream that stays in its pool, and no policy is told of
 * that; so it is looked at before each probe. As long as nothing has changed that costs the comparison of two references.
 *
 * Options that turn out wrong must not take down a server that works: those that were good stay in force. Only where there never were any is the
 * upstream down, since nobody knows how to ask it.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Upstream } from '@weir/core'
import type { ProbeOverrides } from './overrides.ts'
import { type OpenProbe, reasonOf } from './probe.ts'
import { type InitialState, initialHealth, type TargetHealth } from './target-health.ts'

type Question =
  | { readonly kind: 'asked'; readonly overrides: ProbeOverrides; readonly probe: OpenProbe }
  | { readonly kind: 'exempt'; readonly overrides: false }
  | { readonly kind: 'wrong'; readonly error: unknown; readonly overrides?: undefined }

/** What an upstream is before its first answer. */
export function healthBefore(question: Question, initial: InitialState): TargetHealth {
  switch (question.kind) {
    case 'asked':
      return initialHealth(initial)
    case 'exempt':
      return initialHealth('up')
    case 'wrong':
      return { kind: 'down', passes: 0, error: question.error }
  }
}

export class TargetProbe {
  readonly #upstream: Upstream
  readonly #read: () => ProbeOverrides | false
  readonly #open: (overrides: ProbeOverrides) => OpenProbe
  #meta: Upstream['meta']
  #question: Question

  /** @param read says how this upstream is asked, `false` for not at all, and may throw as `open` may */
  constructor(upstream: Upstream, read: () => ProbeOverrides | false, open: (overrides: ProbeOverrides) => OpenProbe) {
    this.#upstream = upstream
    this.#read = read
    this.#open = open
    this.#meta = upstream.meta
    this.#question = this.#make(undefined)
  }

  get question(): Question {
    return this.#question
  }

  /** Looks whether it is another one by now. Not while the probe runs. */
  look(): Question {
    if (this.#meta === this.#upstream.meta) return this.#question
    this.#meta = this.#upstream.meta
    const before = this.#question
    const next = this.#make(before)
    if (next.kind === 'wrong' && before.kind !== 'wrong') {
      const text = `The health check of upstream ${this.#upstream.id} goes on as before, since its new options are wrong: ${reasonOf(next.error)}`
      process.emitWarning(text, { code: 'WEIR_HEALTH_OPTIONS' })
      return before
    }
    if (next !== before) this.close()
    this.#question = next
    return next
  }

  /** Lets go of a kept connection. */
  close(): void {
    if (this.#question.kind === 'asked') this.#question.probe.close?.()
  }

  #make(before: Question | undefined): Question {
    try {
      const overrides = this.#read()
      if (before?.overrides !== undefined && isDeepStrictEqual(overrides, before.overrides)) return before
      return overrides === false ? { kind: 'exempt', overrides } : { kind: 'asked', overrides, probe: this.#open(overrides) }
    } catch (error) {
      return { kind: 'wrong', error }
    }
  }
}
