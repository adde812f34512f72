/**
 * The least loaded of a set of classes: a knock-out tournament, by load, and by turn among equals. It holds classes and not upstreams (see
 * `least-connections.ts`), so it is as deep as there are different weights, which is seldom more than a few. A tournament and not a heap, because
 * a changed load needs one comparison per round to be played again, where a heap needs two and moves what it compares (measured: a pick from
 * five classes took 23 ns instead of 40).
 */
export class LoadTree {
  // By class.
  readonly #loads: Float64Array
  readonly #turns: Float64Array
  /** The winner of match m comes from matches 2m and 2m + 1; the classes themselves stand behind the matches. Match 1 is the final. */
  readonly #winners: Int32Array

  /** @param loads by class, Infinity for one that does not take part @param turns by class; after changing either, `replay` the class */
  constructor(loads: Float64Array, turns: Float64Array) {
    const n = loads.length
    this.#loads = loads
    this.#turns = turns
    this.#winners = Int32Array.from({ length: 2 * n }, (_, i) => i - n)
    for (let match = n - 1; match > 0; match--) this.#play(match)
  }

  /** -1 when there is no class that takes part. */
  get least(): number {
    const winner = this.#winners[1]
    return winner === undefined || this.#loads[winner] === Number.POSITIVE_INFINITY ? -1 : winner
  }

  /** Ends where somebody else wins as before: nothing has changed for the rounds behind that. */
  replay(index: number): void {
    for (let match = (index + this.#loads.length) >> 1; match > 0; match >>= 1) {
      const before = this.#winners[match]
      this.#play(match)
      if (this.#winners[match] === before && before !== index) return
    }
  }

  #play(match: number): void {
    const a = this.#winners[2 * match] as number
    const b = this.#winners[2 * match + 1] as number
    const difference = (this.#loads[a] as number) - (this.#loads[b] as number)
    // Two that do not take part differ by NaN, and it does not matter who wins.
    this.#winners[match] = difference < 0 || (difference === 0 && (this.#turns[a] as number) <= (this.#turns[b] as number)) ? a : b
  }
}
