/** What a strategy says of itself, and how the suite gets one. */
import type { Balancer } from '@weir/core'

export interface BalancerTraits {
  /**
   * How far, at most, the number of picks that an upstream gets may be from its share by weight, when every exchange ends before the next
   * begins. In picks; `expected` is the share, `picks` the length of the run (1,000 or more). Exact rotation: `() => 1`. Independent draws:
   * `(expected) => 5 * Math.sqrt(expected)`, five standard deviations.
   */
  readonly deviation: (expected: number, picks: number) => number
  /**
   * `least`: always the fewest in flight per weight, of those that are pickable. `compared`: never one that has more in flight per weight than
   * all other pickable ones. `ignored`: no promise.
   */
  readonly load: 'least' | 'compared' | 'ignored'
}

export type BalancerFactory = (options: { random: () => number }) => Balancer
