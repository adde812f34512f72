/**
 * Chance that can be repeated. Everything in Weir that draws takes `random` as an option, so that a choice which went wrong once goes wrong
 * again under the debugger, and so that statistical tests are decided once and for all instead of failing every thousandth run.
 */

/**
 * A stand-in for `Math.random`: 53 random bits from 0 up to, not including, 1, the same ones for the same seed on every machine and release
 * of this package's major version. Not for secrets.
 *
 * The generator is sfc32 (Doty-Humphrey, PractRand): 128 bits of state, period above 2^32 for every seed, passes PractRand.
 *
 * @param seed any finite number; the integer part modulo 2^53 counts
 */
export function seededRandom(seed: number): () => number {
  const whole = Math.trunc(seed)
  let a = whole >>> 0
  let b = Math.floor(whole / 0x1_0000_0000) >>> 0
  let c = 0x9e37_79b9
  let counter = 1

  const next = (): number => {
    const out = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + out
    return out >>> 0
  }

  // Seeds that differ in one bit give unrelated streams only after the state has been stirred.
  for (let i = 0; i < 16; i++) next()

  return () => ((next() >>> 5) * 0x400_0000 + (next() >>> 6)) / 0x20_0000_0000_0000
}
