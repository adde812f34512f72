/**
 * Calls to Redis that can be waited for. A server that is down, slow or overloaded must cost a request a known, short time, and after a few of those
 * nothing at all, and it must not fill the client's memory meanwhile. So four things stand before a call: the client has to be connected (else it
 * would queue), not too many calls may be waiting, the circuit has to be closed, and there is a deadline.
 *
 * The circuit is the plain one: some failures in a row open it, after a pause one call is let through, and its answer closes it or begins the pause
 * anew.
 */
import { channel } from 'node:diagnostics_channel'
import type { RedisArgument, RedisScripts } from './client.ts'
import type { LinkSettings } from './link-options.ts'
import { RedisStoreError } from './redis-error.ts'
import type { Script } from './script.ts'

/** On `weir:redis:circuit`, when the server is left alone and when it is asked again. */
export interface RedisCircuitMessage {
  readonly store: string
  readonly client: string
  readonly state: 'open' | 'closed'
  /** The failure that opened it. */
  readonly error: unknown
}

const circuits = channel('weir:redis:circuit')

export class RedisLink {
  readonly #store: string
  readonly #settings: LinkSettings
  #pending = 0
  #failures = 0
  /** Undefined: closed. */
  #openUntil: number | undefined
  #trying = false

  constructor(store: string, settings: LinkSettings) {
    this.#store = store
    this.#settings = settings
  }

  /**
   * @param scripts the client, or its side that answers with bytes
   * @throws RedisStoreError as a rejection
   */
  async run(
    script: Script,
    keys: readonly string[],
    args: readonly RedisArgument[],
    scripts: RedisScripts = this.#settings.client,
  ): Promise<unknown> {
    this.#admit()
    try {
      const answer = await this.#inTime(this.#call(scripts, script, keys, args))
      this.#passed()
      return answer
    } catch (cause) {
      const error =
        cause instanceof RedisStoreError ? cause : new RedisStoreError('ERR_REDIS_COMMAND', `Redis refused: ${messageOf(cause)}`, cause)
      this.#failed(error)
      throw error
    }
  }

  #admit(): void {
    const { client, maxPending, clock } = this.#settings
    if (this.#openUntil !== undefined && (this.#trying || clock.now() < this.#openUntil))
      throw new RedisStoreError('ERR_REDIS_CIRCUIT_OPEN', 'Redis has failed and is left alone for a moment')
    // These two cost nothing, and are over when they are over: no reason to wait longer than they last.
    if (!client.ready) throw new RedisStoreError('ERR_REDIS_NOT_READY', `the ${client.name} client is not connected`)
    if (this.#pending >= maxPending) throw new RedisStoreError('ERR_REDIS_OVERLOADED', `${maxPending} calls wait for Redis already`)
    this.#trying = this.#openUntil !== undefined
  }

  async #call(scripts: RedisScripts, { sha, source }: Script, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown> {
    this.#pending++
    try {
      return await scripts.evalSha(sha, keys, args)
    } catch (error) {
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error
      return await scripts.eval(source, keys, args)
    } finally {
      // Not at the deadline: until the client gives it up, the call is in its memory.
      this.#pending--
    }
  }

  #inTime(call: Promise<unknown>): Promise<unknown> {
    const { clock, timeout } = this.#settings
    return new Promise((resolve, reject) => {
      const timer = clock.setTimeout(
        () => reject(new RedisStoreError('ERR_REDIS_TIMEOUT', `no answer from Redis within ${timeout} ms`)),
        timeout,
      )
      const settle = (): void => clock.clearTimeout(timer)
      call.then(resolve, reject).finally(settle)
    })
  }

  #passed(): void {
    this.#failures = 0
    this.#trying = false
    if (this.#openUntil === undefined) return
    this.#openUntil = undefined
    this.#tell('closed', undefined)
  }

  #failed(error: RedisStoreError): void {
    const { failures, retryAfter, clock } = this.#settings
    this.#trying = false
    if (++this.#failures < failures) return
    const opens = this.#openUntil === undefined
    this.#openUntil = clock.now() + retryAfter
    if (opens) this.#tell('open', error)
  }

  #tell(state: RedisCircuitMessage['state'], error: unknown): void {
    if (!circuits.hasSubscribers) return
    circuits.publish({ store: this.#store, client: this.#settings.client.name, state, error } satisfies RedisCircuitMessage)
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
