/**
 * Shadow traffic: a share of the requests is sent to a second service as well, whose answers are thrown away, or compared with the real ones
 * (which is how a rewrite is shown to do what the original does before anybody depends on it).
 *
 * How to think about it: the primary must not notice. The copy is sent after the primary's request, from a later turn of the event loop, over
 * connections of its own; request bodies are copied as they pass, and when one turns out too large the copy is given up, not the request. There
 * is a cap on copies in flight and a timeout, and a shadow that hangs costs no more than these.
 */
import { channel } from 'node:diagnostics_channel'
import { type Exchange, type Hooks, OptionReader, ProxyError, roundRobin, type Stage, type Upstream } from '@weir/core'
import type { ShadowCall } from './shadow-call.ts'
import { Copy, type CopyKeeper } from './shadow-copy.ts'
import { readShadowOptions, type ShadowOptions, type ShadowResult, type ShadowSettings } from './shadow-options.ts'

export interface ShadowStats {
  readonly sent: number
  /** Copies that got no answer. */
  readonly failed: number
  /** Pairs that differ. */
  readonly different: number
  /** Not copied: too many in flight, or a body that is too large or broke off. */
  readonly skipped: number
  readonly inflight: number
}

export interface ShadowStage extends Stage {
  stats(): ShadowStats
}

const results = channel('weir:shadow')
/**
 * A stage that copies requests to a shadow. Put it last in `use`, so that what it copies is what the stages let through. Results are also
 * published on the `node:diagnostics_channel` `weir:shadow`. Upgrades are never copied.
 *
 * @throws OptionsError
 */
export function shadow(options: ShadowOptions): ShadowStage {
  const read = new OptionReader('shadow')
  const settings = readShadowOptions(options, read)
  read.check()
  return new Shadow(settings)
}

class Shadow implements ShadowStage, CopyKeeper {
  readonly name: string = 'shadow'
  readonly settings: ShadowSettings
  readonly running = new Set<ShadowCall>()
  readonly #balancer = roundRobin()
  #reserved = 0
  /** Copies that have their answer, and are compared when the primary's is there. */
  readonly #waiting = new Set<Copy>()
  #closed = false
  #sent = 0
  #failed = 0
  #different = 0
  #skipped = 0

  constructor(settings: ShadowSettings) {
    this.settings = settings
    this.#balancer.update(settings.pool?.upstreams ?? [])
  }

  handle = (exchange: Exchange): Hooks | undefined => {
    const { methods, maxConcurrent } = this.settings
    if (exchange.kind !== 'request' || this.#closed || !methods.has(exchange.method) || !this.#wants(exchange)) return undefined
    if (this.#reserved >= maxConcurrent) {
      this.#skipped++
      return undefined
    }
    this.#reserved++
    const copy = new Copy(this, exchange)
    if (exchange.hasBody) exchange.tapRequest(copy)
    return copy
  }

  /** What is only meant for the shadow must not fail the primary. */
  #wants(exchange: Exchange): boolean {
    try {
      return this.settings.wants(exchange)
    } catch (cause) {
      this.warn('share', cause)
      return false
    }
  }

  warn(option: string, cause: unknown): void {
    process.emitWarning(`${option} of shadow() threw: ${cause instanceof Error ? cause.message : String(cause)}`, { code: 'WEIR_SHADOW' })
  }

  stats(): ShadowStats {
    return {
      sent: this.#sent,
      failed: this.#failed,
      different: this.#different,
      skipped: this.#skipped,
      inflight: this.running.size,
    }
  }

  get compares(): boolean {
    return this.settings.onResult !== undefined || results.hasSubscribers
  }

  pick(): Upstream | undefined {
    return this.#balancer.pick(untried)
  }

  onSent(): void {
    this.#sent++
  }

  onAnswered(): void {
    this.#reserved--
  }

  onWaiting(copy: Copy): void {
    // What is kept of both answers is bounded. Who has waited longest most likely waits for a stream without an end.
    const [oldest] = this.#waiting
    if (this.#waiting.size >= this.settings.maxConcurrent) oldest?.stopWaiting()
    this.#waiting.add(copy)
  }

  onWaited(copy: Copy): void {
    this.#waiting.delete(copy)
  }

  /** A copy came to nothing. */
  give(): void {
    this.#reserved--
    this.#skipped++
  }

  finish(result: ShadowResult): void {
    if (ProxyError.is(result.shadow)) this.#failed++
    else if (result.differences.length > 0) this.#different++
    if (results.hasSubscribers) results.publish(result)
    try {
      this.settings.onResult?.(result)
    } catch (cause) {
      this.warn('onResult', cause)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const call of [...this.running]) call.abort(new ProxyError('ERR_DRAINING'))
    await this.settings.pool?.close()
    if (this.settings.ownsTransport) await this.settings.transport.close?.()
  }
}

/** The primary's retries say nothing about the shadow's servers. */
const untried = { tried: [] } as unknown as Exchange
