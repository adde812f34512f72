/**
 * A trace of requests as caches see them: a few resources are asked for all the time and most hardly ever (Zipf's law with exponent 0.9: Breslau, Cao, Fan,
 * Phillips and Shenker, 1999, found 0.64 to 0.83 in front of proxies and more behind them). The same in every run.
 */

/** Resources; of a size that its number decides. */
export const resources = 100_000

/** From 512 bytes to 32 KiB, most of them small. */
export function sizeOf(id: number): number {
  const hash = Math.imul(id ^ 0x5bd1e995, 0x9e3779b1) >>> 0
  return Math.floor(512 * 2 ** ((hash / 2 ** 32) ** 2 * 6))
}

export function zipfTrace(count: number, exponent = 0.9): Uint32Array {
  const cumulative = new Float64Array(resources)
  let sum = 0
  for (let rank = 0; rank < resources; rank++) {
    sum += 1 / (rank + 1) ** exponent
    cumulative[rank] = sum
  }
  let state = 42
  const random = (): number => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const trace = new Uint32Array(count)
  for (let i = 0; i < count; i++) {
    const wanted = random() * sum
    let low = 0
    let high = resources - 1
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((cumulative[middle] as number) < wanted) low = middle + 1
      else high = middle
    }
    // The rank says nothing about the size.
    trace[i] = Math.imul(low, 0x9e3779b1) >>> 0
  }
  return trace
}
