import { roundRobin } from '@weir/core'
import { type BalancerTraits, balancerConformance } from '@weir/testing'
import { test } from 'vitest'
import { boundedLoad } from './bounded-load.ts'
import { fallback } from './fallback.ts'
import { hash } from './hash.ts'
import { ipHash } from './ip-hash.ts'
import { ketama } from './ketama.ts'
import { leastConnections } from './least-connections.ts'
import { leastTime } from './least-time.ts'
import { locality } from './locality.ts'
import { maglev } from './maglev.ts'
import { peakEwma } from './peak-ewma.ts'
import { powerOfTwo } from './power-of-two.ts'
import { random } from './random.ts'
import { reportedLoad } from './reported-load.ts'
import { split } from './split.ts'
import { subsets } from './subsets.ts'

/** Five standard deviations of independent draws. The suite is seeded, so this is decided once. */
const drawn = (expected: number): number => 5 * Math.sqrt(expected)

/** A client's upstream is drawn too, and besides, shares are made of 65,536 cells. */
const hashed = (expected: number, picks: number): number => drawn(expected) + 5 * Math.sqrt(expected * (picks / 65_536))

/** A share of weight w is 160 w stretches of exponential length: a relative standard deviation of 1 / √160 for weight 1, less with more. */
const ringed = (expected: number): number => drawn(expected) + (5 * expected) / Math.sqrt(160)

const strategies: readonly [string, Parameters<typeof balancerConformance>[1], BalancerTraits][] = [
  // Less than a turn from the share at any point of the rotation, so less than two between any two points.
  ['roundRobin', roundRobin, { deviation: () => 2, load: 'ignored' }],
  // With nothing in flight all is ties: members of a class take turns, classes take turns by weight.
  ['leastConnections', leastConnections, { deviation: () => 2, load: 'least' }],
  ['random', random, { deviation: drawn, load: 'ignored' }],
  ['powerOfTwo', powerOfTwo, { deviation: drawn, load: 'compared' }],
  ['ipHash', ipHash, { deviation: hashed, load: 'ignored' }],
  ['hash', ({ random }) => hash({ key: 'hashKey', random }), { deviation: hashed, load: 'ignored' }],
  ['ketama', ({ random }) => ketama({ key: 'hashKey', random }), { deviation: ringed, load: 'ignored' }],
  // Of 8,191 cells, to build it quickly: shares are within three of them, so within 2 % from a hundredth of the weight on.
  [
    'maglev',
    ({ random }) => maglev({ key: 'hashKey', random, tableSize: 8_191 }),
    { deviation: (expected, picks) => drawn(expected) + (3 * picks) / 8_191, load: 'ignored' },
  ],
  ['boundedLoad', ({ random }) => boundedLoad({ key: 'hashKey', random }), { deviation: hashed, load: 'ignored' }],
  ['boundedLoad of ketama', ({ random }) => boundedLoad(ketama({ key: 'hashKey', random })), { deviation: ringed, load: 'ignored' }],
  // Everybody takes a millisecond: what is left is a comparison of two, and the least in flight with ties in turn.
  ['peakEwma', peakEwma, { deviation: drawn, load: 'compared' }],
  ['leastTime', leastTime, { deviation: () => 2, load: 'least' }],
  ['leastTime by last byte', ({ random }) => leastTime({ by: 'last-byte', random }), { deviation: () => 2, load: 'least' }],
  // Strategies of strategies promise what those within promise, where all upstreams are in one part.
  [
    'fallback',
    ({ random: draw }) => fallback(hash({ key: 'header:x-user', missing: 'none' }), leastConnections({ random: draw })),
    { deviation: () => 2, load: 'least' },
  ],
  [
    'subsets',
    ({ random: draw }) => subsets({ labels: { x: 'hashKey' }, fallback: 'any', balancer: () => random({ random: draw }) }),
    { deviation: drawn, load: 'ignored' },
  ],
  [
    'split',
    ({ random: draw }) =>
      split({
        key: 'hashKey',
        arms: [
          { weight: 95, match: () => true, name: 'a' },
          { weight: 5, match: () => true, name: 'b' },
        ],
        balancer: () => random({ random: draw }),
      }),
    { deviation: drawn, load: 'ignored' },
  ],
  // In halves: every second stub is here, and the other half is asked when these are tried or full.
  [
    'split in halves',
    ({ random: draw }) =>
      split({
        key: 'hashKey',
        arms: [
          { weight: 1, match: ({ id }) => id.charCodeAt(id.length - 1) % 2 === 0, name: 'even' },
          { weight: 1, match: ({ id }) => id.charCodeAt(id.length - 1) % 2 === 1, name: 'odd' },
        ],
        balancer: () => random({ random: draw }),
      }),
    { deviation: () => Number.POSITIVE_INFINITY, load: 'ignored' },
  ],
  [
    'locality',
    ({ random: draw }) => locality({ zone: 'a', random: draw, balancer: () => random({ random: draw }) }),
    { deviation: drawn, load: 'ignored' },
  ],
  ['reportedLoad', ({ random: draw }) => reportedLoad({ random: draw }), { deviation: drawn, load: 'ignored' }],
]

for (const [name, factory, traits] of strategies)
  for (const { name: title, run } of balancerConformance(name, factory, traits)) test(title, run)
