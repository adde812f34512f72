/**
 * Asking again and again: when what was found is no longer fresh, or, after a failure, sooner at first and then ever more rarely, because whoever
 * is in trouble is not helped by being asked more often. Jitter only ever lengthens a pause: asking a resolver before its own entry has expired
 * would bring the same answer.
 */
import type { UpstreamInput } from '@weir/core'
import { DiscoveryError, type DiscoveryErrorCode, messageOf } from './discovery-error.ts'
import type { Feed } from './feed.ts'
import type { Pace, SourceSettings } from './source-options.ts'

export interface Answer {
  /** Undefined: as before. */
  readonly list: readonly UpstreamInput[] | undefined
  /** When to ask again. */
  readonly freshMs: number
  /** Some of it could not be found out. Is reported, and asked again as after a failure. */
  readonly partial?: DiscoveryError | undefined
}

export interface Question {
  /** What to call an error that is not a `DiscoveryError`. */
  readonly code: DiscoveryErrorCode
  /** The longest pause that the other side may ask for. */
  readonly longestPause: number
  ask(): Promise<Answer>
  /** Gives up a running `ask`; what it then says is not heard. */
  cancel(): void
}

/** @returns what ends it */
export function poll(feed: Feed, question: Question, pace: Pace, { name, clock, random }: SourceSettings): () => void {
  let timer: unknown
  let failures = 0

  const backOff = (): number => Math.min(pace.retryMin * 2 ** Math.min(failures++, 30), pace.retryMax)

  /** Asks once. Returns the pause until the next time. */
  const turn = async (): Promise<number> => {
    try {
      const { list, freshMs, partial } = await question.ask()
      if (feed.closed) return 0
      if (list !== undefined) feed.offer(list)
      if (partial !== undefined) {
        feed.report(partial)
        return Math.min(freshMs, backOff())
      }
      failures = 0
      return freshMs
    } catch (thrown) {
      if (feed.closed) return 0
      const error = DiscoveryError.is(thrown) ? thrown : new DiscoveryError(question.code, name, messageOf(thrown), { cause: thrown })
      feed.fail(error)
      return Math.max(backOff(), Math.min(error.retryAfterMs ?? 0, question.longestPause))
    }
  }

  const run = async (): Promise<void> => {
    const pause = await turn()
    if (!feed.closed) timer = clock.setTimeout(() => void run(), pause * (1 + pace.jitter * random()))
  }

  void run()
  return () => {
    clock.clearTimeout(timer)
    question.cancel()
  }
}
