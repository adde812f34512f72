/**
 * What the health policies say of one upstream, kept per policy, and what it comes to: down when one of them says down, the product of their
 * weight factors, the least of their limits. Most upstreams have nothing said of them, and then have no such object.
 */
import type { DownOptions, HealthPolicy } from './health.ts'

export interface DownVerdict extends DownOptions {
  readonly reason: string
}

interface Verdict {
  down: DownVerdict | undefined
  degraded: string | undefined
  draining: string | undefined
  factor: number
  limit: number
}

export class Verdicts {
  readonly #byPolicy = new Map<HealthPolicy, Verdict>()

  /** What `policy` says; change it in place, then `tidy`. */
  of(policy: HealthPolicy): Verdict {
    let verdict = this.#byPolicy.get(policy)
    if (verdict === undefined) {
      verdict = { down: undefined, degraded: undefined, draining: undefined, factor: 1, limit: Number.POSITIVE_INFINITY }
      this.#byPolicy.set(policy, verdict)
    }
    return verdict
  }

  /** Forgets policies with nothing left to say; true when nobody has. */
  tidy(): boolean {
    for (const [policy, { down, degraded, draining, factor, limit }] of this.#byPolicy)
      if (down === undefined && degraded === undefined && draining === undefined && factor === 1 && limit === Number.POSITIVE_INFINITY)
        this.#byPolicy.delete(policy)
    return this.#byPolicy.size === 0
  }

  get down(): DownVerdict | undefined {
    for (const { down } of this.#byPolicy.values()) if (down !== undefined) return down
    return undefined
  }

  /** Every "down" is a guess from traffic. */
  get soft(): boolean {
    return this.#allDown((down) => down.soft === true)
  }

  /** No "down" is meant for the last upstream. */
  get sparesLast(): boolean {
    return this.#allDown((down) => down.keepLast === true)
  }

  get degraded(): string | undefined {
    for (const { degraded } of this.#byPolicy.values()) if (degraded !== undefined) return degraded
    return undefined
  }

  get draining(): string | undefined {
    for (const { draining } of this.#byPolicy.values()) if (draining !== undefined) return draining
    return undefined
  }

  get factor(): number {
    let product = 1
    for (const { factor } of this.#byPolicy.values()) product *= factor
    return product
  }

  get limit(): number {
    let least = Number.POSITIVE_INFINITY
    for (const { limit } of this.#byPolicy.values()) if (limit < least) least = limit
    return least
  }

  #allDown(test: (down: DownVerdict) => boolean): boolean {
    let any = false
    for (const { down } of this.#byPolicy.values()) {
      if (down === undefined) continue
      if (!test(down)) return false
      any = true
    }
    return any
  }
}
