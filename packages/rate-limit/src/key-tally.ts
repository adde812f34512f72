/**
 * The counts of one key: for each kind a total, and two windows that a rate is worked out from. Kinds are numbers, whoever counts gives them names.
 */
export class KeyTally {
  readonly key: string
  readonly firstAt: number
  lastAt: number
  inflight = 0
  /** The number of the window that runs. */
  window: number
  /** Three for each kind: in all, in the last window, in this one. */
  readonly counts: number[]

  constructor(key: string, kinds: number, now: number, window: number) {
    this.key = key
    this.firstAt = now
    this.lastAt = now
    this.window = window
    this.counts = new Array<number>(3 * kinds).fill(0)
  }

  /** Brings the windows up to `window`. */
  roll(window: number): void {
    const passed = window - this.window
    if (passed <= 0) return
    const { counts } = this
    for (let i = 0; i < counts.length; i += 3) {
      counts[i + 1] = passed === 1 ? (counts[i + 2] as number) : 0
      counts[i + 2] = 0
    }
    this.window = window
  }

  add(kind: number, amount: number): void {
    const { counts } = this
    counts[3 * kind] = (counts[3 * kind] as number) + amount
    counts[3 * kind + 2] = (counts[3 * kind + 2] as number) + amount
  }

  total(kind: number): number {
    return this.counts[3 * kind] as number
  }

  /** @param fading the share of the last window that the sliding one still covers */
  rate(kind: number, fading: number): number {
    return (this.counts[3 * kind + 1] as number) * fading + (this.counts[3 * kind + 2] as number)
  }
}
