/** Who differs from the others. Pure: figures of one interval in, outliers out, the worst first, since there may not be room for all of them. */

export interface Sample<T> {
  readonly of: T
  readonly value: number
}

export interface Outlier<T> extends Sample<T> {
  /** What it should have kept to. */
  readonly threshold: number
}

/** Values of at least `threshold`. */
export function above<T>(samples: readonly Sample<T>[], threshold: number): Outlier<T>[] {
  return samples
    .filter(({ value }) => value >= threshold)
    .map((sample) => ({ ...sample, threshold }))
    .toSorted((a, b) => b.value - a.value)
}

/** Rates below mean - `deviations` x standard deviation, and by at least `margin`: among very even ones the deviation alone finds trifles. */
export function farBelowMean<T>(samples: readonly Sample<T>[], deviations: number, margin: number): Outlier<T>[] {
  const mean = samples.reduce((sum, { value }) => sum + value, 0) / samples.length
  const variance = samples.reduce((sum, { value }) => sum + (value - mean) ** 2, 0) / samples.length
  const threshold = mean - Math.max(deviations * Math.sqrt(variance), margin)
  return samples
    .filter(({ value }) => value < threshold)
    .map((sample) => ({ ...sample, threshold }))
    .toSorted((a, b) => a.value - b.value)
}

/** Times above `factor` x the median of all, and above `floor`. The median, since one slow server must not move what it is measured by. */
export function farAboveMedian<T>(samples: readonly Sample<T>[], factor: number, floor: number): Outlier<T>[] {
  const sorted = samples.map(({ value }) => value).toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
  const threshold = Math.max(median * factor, floor)
  return samples
    .filter(({ value }) => value > threshold)
    .map((sample) => ({ ...sample, threshold }))
    .toSorted((a, b) => b.value - a.value)
}
