/**
 * Requests with one key go to one upstream: a tenant, an API token, a gRPC metadata field. Hashing (`consistentHash` of `@weir/balancer`) does that
 * without a table, but moves keys when membership changes and cannot say "wherever it began". Here the first request of a key is balanced like
 * any other, and the table remembers where.
 *
 * The table is written when the upstream is chosen and not when it has answered, so that requests of one new key that arrive together find each
 * other. With a store that answers later, those of this process still do; those of two proxies may be served by two, once, and the first
 * write decides for all that follow.
 */
import { type Exchange, type HeaderList, OptionReader, type ProxyResponse, type Upstream } from '@weir/core'
import { failed, isPromise, whenThere } from './guarded-store.ts'
import { Pin } from './pin.ts'
import { type StickyStage, stageOrder } from './stage-options.ts'
import { readTableOptions, refusalOf, type SessionTableOptions, type TableSettings, tableKeys } from './table-options.ts'
import { readParameter, urlParameter } from './url-parameter.ts'

/** A parameter of the path (`;room=7`) or of the query. */
export interface ParameterKey {
  readonly parameter: string
}

export interface KeyAffinityOptions extends SessionTableOptions {
  /**
   * Name of a request field, a parameter of the URL, or a function; undefined or an empty text: no affinity. Clients make entries, so not a value that they may
   * invent at will.
   */
  readonly key: string | ParameterKey | ((exchange: Exchange) => string | undefined)
}

/** @throws OptionsError */
export function keyAffinity(options: KeyAffinityOptions): StickyStage {
  const read = new OptionReader('keyAffinity')
  const given = read.object<KeyAffinityOptions>(options ?? {}, ['key', ...tableKeys])
  const settings = readTableOptions(read, given, 'keyAffinity')
  const keyOf = readKey(read, given.key)
  read.check()
  /** Claims on their way to the store: what this process has chosen and others cannot see yet. */
  const claims = new Map<string, string>()
  return {
    name: settings.name,
    order: stageOrder,
    handle(exchange) {
      if (settings.skips(exchange)) return undefined
      const session = keyOf(exchange)
      if (session === undefined || session === '') return undefined
      const entry = settings.keyOf(session)
      return whenThere(settings.store.get(entry), (found) => {
        if (found === failed) return refusalOf(settings, exchange)
        return new KeyPin(settings, exchange, found ?? claims.get(entry), entry, claims).ask()
      })
    },
    stats: () => settings.journal.stats(),
  }
}

function readKey(read: OptionReader, key: KeyAffinityOptions['key'] | undefined): (exchange: Exchange) => string | undefined {
  if (typeof key === 'function') return key
  if (typeof key === 'string' && /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(key)) return ({ headers }) => headers.get(key)
  if (typeof key === 'object' && key !== null && typeof key.parameter === 'string') {
    const within = read.at('key')
    within.object<ParameterKey>(key, ['parameter'])
    const parameter = readParameter(within, 'parameter', key.parameter) ?? ''
    return (exchange) => urlParameter(exchange, parameter)
  }
  read.problem(
    'key',
    key,
    "the name of a request field, such as 'x-tenant', { parameter: 'room' } for one of the URL, or a function of the exchange",
  )
  return () => undefined
}

class KeyPin extends Pin {
  readonly #settings: TableSettings
  readonly #entry: string
  readonly #claims: Map<string, string>
  /** What the table holds, as far as this exchange knows. */
  #holder: string | undefined
  /** Nothing more to write: somebody else was first, or the store failed and is not waited for twice. */
  #done = false
  #writing: Promise<void> | undefined = undefined

  constructor(settings: TableSettings, exchange: Exchange, wanted: string | undefined, entry: string, claims: Map<string, string>) {
    super(settings, exchange, wanted)
    this.#settings = settings
    this.#entry = entry
    this.#claims = claims
    this.#holder = wanted
  }

  override onAttempt(headers: HeaderList, upstream: Upstream): void {
    super.onAttempt(headers, upstream)
    this.#claim(upstream)
  }

  override onResponse(response: ProxyResponse): void | Promise<void> {
    const { upstream } = response
    if (upstream === undefined) return undefined
    // Of tries that ran side by side the last claimed and another may have won.
    if (this.settle(upstream) !== undefined) this.#claim(upstream)
    // The client's next request must find what this one wrote; the store's deadline bounds the wait.
    return this.#writing
  }

  #claim(upstream: Upstream): void {
    const written = this.#writing === undefined ? this.#write(upstream) : this.#writing.then(() => this.#write(upstream))
    if (!isPromise(written)) return
    const writing = written.then(() => {
      if (this.#writing === writing) this.#writing = undefined
    })
    this.#writing = writing
  }

  #write(upstream: Upstream): void | Promise<void> {
    if (this.#done || this.#holder === upstream.id) return undefined
    const { store, idleMs, absoluteMs, now } = this.#settings
    const winner = store.set(this.#entry, upstream.id, { idleMs, absolute: now() + absoluteMs, replaces: this.#holder })
    if (!isPromise(winner)) {
      this.#won(winner, upstream)
      return undefined
    }
    if (!this.#claims.has(this.#entry)) this.#claims.set(this.#entry, upstream.id)
    return winner.then((id) => {
      this.#claims.delete(this.#entry)
      this.#won(id, upstream)
    })
  }

  #won(winner: string | typeof failed, upstream: Upstream): void {
    this.#done = winner !== upstream.id
    if (winner === failed || winner === upstream.id) {
      this.#holder = upstream.id
      return
    }
    // A retry of this exchange had better go where the session is.
    this.exchange.affinity = winner
  }
}
