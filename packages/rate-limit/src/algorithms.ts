/** The algorithms by name. A store looks them up here, so that all stores decide alike. */
import { fixedWindow } from './fixed-window.ts'
import { gcra } from './gcra.ts'
import { leakyBucket } from './leaky-bucket.ts'
import type { Algorithm, AlgorithmName } from './limit.ts'
import { slidingWindow } from './sliding-window.ts'
import { tokenBucket } from './token-bucket.ts'

export const algorithms: Readonly<Record<AlgorithmName, Algorithm>> = {
  gcra,
  'token-bucket': tokenBucket,
  'fixed-window': fixedWindow,
  'sliding-window': slidingWindow,
  'leaky-bucket': leakyBucket,
}
