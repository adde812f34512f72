/**
 * The one option that all strategies share. Chance is an input, so that a test can repeat it; whoever leaves it out gets the real one.
 */
import type { OptionReader } from '@weir/core'

export interface RandomOption {
  /** Gives numbers from 0 up to, not including, 1. Default `Math.random`; in tests, `seededRandom(1)` of `@weir/testing`. */
  readonly random?: () => number
}

export function readRandom(read: OptionReader, value: unknown): () => number {
  if (value === undefined) return Math.random
  if (typeof value !== 'function') read.problem('random', value, 'a function such as Math.random')
  return value as () => number
}
