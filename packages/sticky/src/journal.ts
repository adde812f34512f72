/** What became of sessions: counted always, and told on `weir:sticky:session` to whoever listens. */
import { type Channel, channel } from 'node:diagnostics_channel'
import type { Exchange } from '@weir/core'

/**
 * - `pinned`: answered by the session's own upstream
 * - `new`: a session was given one
 * - `moved`: another one answered, and has the session from now on; `reason` says why
 * - `rejected`: what the request carried was ignored; `reason` says why
 * - `refused`: strict, or `onStoreError: 'refuse'`: 503 instead of another upstream
 * - `store-error`: the store failed, or took too long; `reason` is `error` or `timeout`
 */
export type SessionEvent = 'pinned' | 'new' | 'moved' | 'rejected' | 'refused' | 'store-error'

/** On `weir:sticky:session`. Ids are those of upstreams. */
export interface SessionMessage {
  /** Name of the stage. */
  readonly stage: string
  readonly event: SessionEvent
  readonly reason: string | undefined
  /** Who has the session now. */
  readonly upstream: string | undefined
  /** `moved`, `refused`: who had it. */
  readonly from: string | undefined
  readonly exchange: Exchange | undefined
  /** `store-error`: what the store threw. */
  readonly error: unknown
}

export interface StickyStats {
  readonly pinned: number
  readonly new: number
  readonly moved: number
  readonly rejected: number
  readonly refused: number
  /** Not looked at: `bypass`, or outside `only`. */
  readonly bypassed: number
  /** Cookies set or changed. */
  readonly issued: number
  readonly storeErrors: number
  readonly storeTimeouts: number
}

const sessions: Channel = channel('weir:sticky:session')

type Counts = { -readonly [name in keyof StickyStats]: number }

export class Journal {
  readonly #stage: string
  readonly counts: Counts = {
    pinned: 0,
    new: 0,
    moved: 0,
    rejected: 0,
    refused: 0,
    bypassed: 0,
    issued: 0,
    storeErrors: 0,
    storeTimeouts: 0,
  }

  constructor(stage: string) {
    this.#stage = stage
  }

  tell(event: Exclude<SessionEvent, 'store-error'>, exchange: Exchange, upstream?: string, from?: string, reason?: string): void {
    this.counts[event]++
    if (sessions.hasSubscribers) this.#publish({ event, exchange, upstream, from, reason, error: undefined })
  }

  storeFailed(reason: 'error' | 'timeout', error: unknown): void {
    if (reason === 'error') this.counts.storeErrors++
    else this.counts.storeTimeouts++
    if (sessions.hasSubscribers)
      this.#publish({ event: 'store-error', exchange: undefined, upstream: undefined, from: undefined, reason, error })
  }

  stats(): StickyStats {
    return { ...this.counts }
  }

  #publish(message: Omit<SessionMessage, 'stage'>): void {
    sessions.publish({ stage: this.#stage, ...message } satisfies SessionMessage)
  }
}
