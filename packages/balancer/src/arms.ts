/**
 * Dividing keys among the arms of a split by weight, so that a key stays with its arm for as long as weights allow it.
 *
 * The first arm is the rest: it has whatever no other takes. The others are asked one by one, and each takes a key with the chance that is its
 * weight of what is left. Whether it does hangs on the key and the arm's name alone: growing a canary from 5 to 10 % of two arms makes it take more
 * keys, keeps all that it had, and moves exactly those 5 %. The usual way, to lay the arms side by side on a line from 0 to 100, does that for the
 * outermost arm only, and shifts all others along.
 *
 * Chances are in steps of 2^-32.
 */
import type { OptionReader } from '@weir/core'
import { hashText, mix } from './text-hash.ts'

/** More than anybody splits into; a set of arms fits into one number. */
export const mostArms: number = 30

const all = 0x1_0000_0000

export class Arms {
  readonly names: readonly string[]
  readonly #weights: Float64Array
  readonly #seeds: Int32Array
  /** Of the hashes that come to an arm, it takes those below its mark. */
  readonly #marks: Float64Array

  constructor(names: readonly string[], weights: readonly number[], salt: string) {
    this.names = names
    this.#weights = Float64Array.from(weights)
    this.#seeds = Int32Array.from(names, (name) => hashText(name, hashText(salt, 7)))
    this.#marks = new Float64Array(names.length)
    this.#mark()
  }

  weight(arm: number): number {
    return this.#weights[arm] as number
  }

  /** In the order of `names`. */
  setWeights(weights: readonly number[]): void {
    this.#weights.set(weights)
    this.#mark()
  }

  #mark(): void {
    let left = this.#weights[0] as number
    for (let arm = this.#marks.length - 1; arm > 0; arm--) {
      left += this.#weights[arm] as number
      this.#marks[arm] = left === 0 ? 0 : ((this.#weights[arm] as number) / left) * all
    }
  }

  choose(key: number): number {
    for (let arm = 1; arm < this.#marks.length; arm++)
      if (mix(key ^ (this.#seeds[arm] as number)) >>> 0 < (this.#marks[arm] as number)) return arm
    return 0
  }

  /** Where a key goes when its arms in `tried` (a bit per arm) have nobody: to the others by weight. -1 when there is no other with a weight. */
  spill(key: number, tried: number): number {
    let best = -1
    let earliest = Number.POSITIVE_INFINITY
    for (let arm = 0; arm < this.#weights.length; arm++) {
      if (tried & (1 << arm)) continue
      // Without a weight one never arrives.
      const arrival = -Math.log(((mix(mix(key) ^ (this.#seeds[arm] as number)) >>> 0) + 1) / (all + 1)) / (this.#weights[arm] as number)
      if (arrival >= earliest) continue
      earliest = arrival
      best = arm
    }
    return best
  }
}

/** Weights by name, all of them or some; what is wrong goes to `read`. */
export function readWeights(read: OptionReader, names: readonly string[], given: unknown, before: readonly number[]): number[] {
  const weights = before.slice()
  if (typeof given !== 'object' || given === null) {
    read.problem('', given, 'weights by the names of arms')
    return weights
  }
  for (const [name, weight] of Object.entries(given)) {
    const arm = names.indexOf(name)
    if (arm === -1) read.problem(name, weight, `one of the arms ${names.join(', ')}`)
    else weights[arm] = read.number(name, weight, 0, { min: 0, max: 1e9 })
  }
  if (!weights.some((weight) => weight > 0)) read.problem('', given, 'at least one weight above 0')
  return weights
}
