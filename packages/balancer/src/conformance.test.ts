import { roundRobin } from '@weir/core'
import { type BalancerTraits, balancerConformance } from '@weir/testing'
import { test } from 'vitest'
import { ipHash } from './ip-hash.ts'
import { leastConnections } from './least-connections.ts'
import { powerOfTwo } from './power-of-two.ts'
import { random } from './random.ts'

/** Five standard deviations of independent draws. The suite is seeded, so this is decided once. */
const drawn = (expected: number): number => 5 * Math.sqrt(expected)

/** A client's upstream is drawn too, and besides, shares are made of 65,536 cells. */
const hashed = (expected: number, picks: number): number => drawn(expected) + 5 * Math.sqrt(expected * (picks / 65_536))

const strategies: readonly [string, Parameters<typeof balancerConformance>[1], BalancerTraits][] = [
  // Less than a turn from the share at any point of the rotation, so less than two between any two points.
  ['roundRobin', roundRobin, { deviation: () => 2, load: 'ignored' }],
  // With nothing in flight all is ties: members of a class take turns, classes take turns by weight.
  ['leastConnections', leastConnections, { deviation: () => 2, load: 'least' }],
  ['random', random, { deviation: drawn, load: 'ignored' }],
  ['powerOfTwo', powerOfTwo, { deviation: drawn, load: 'compared' }],
  ['ipHash', ipHash, { deviation: hashed, load: 'ignored' }],
]

for (const [name, factory, traits] of strategies)
  for (const { name: title, run } of balancerConformance(name, factory, traits)) test(title, run)
