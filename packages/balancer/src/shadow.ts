/**
 * Shadow traffic: a share of the requests is sent to a second service as well, whose answers are thrown away, or compared with the real ones
 * (which is how a rewrite is shown to do what the original does before anybody depends on it).
 *
 * How to think about it: the primary must not notice. The copy is sent after the primary's request, from a later turn of the event loop, over
 * connections of its own; request bodies are copied as they pass, and when one turns out too large the copy is given up, not the request. There
 * is a cap on copies in flight and a timeout, and a shadow that hangs costs no more than these.
 */
import { channel } from 'node:diagnostics_channel'
import {
  type BodyTap,
  createPool,
  type Duration,
  type Exchange,
  type HeaderList,
  type Hooks,
  OptionReader,
  type Outcome,
  type Pool,
  ProxyError,
  type ProxyResponse,
  roundRobin,
  type Size,
  type Stage,
  type Transport,
  type Upstream,
  type UpstreamInput,
  undiciTransport,
} from '@weir/core'
import { type RandomOption, readRandom } from './random-option.ts'
import { KeptBody, ShadowCall, wholeBody } from './shadow-call.ts'
import { differences, type ShadowAnswer, type ShadowDifference } from './shadow-diff.ts'

export interface ShadowResult {
  readonly method: string
  /** Target of the request as the client sent it. */
  readonly url: string
  readonly upstream: Upstream
  /** Undefined when the primary's exchange failed or was answered by a stage. */
  readonly primary: ShadowAnswer | undefined
  /** What the shadow answered, or why it did not. */
  readonly shadow: ShadowAnswer | ProxyError
  /** Empty when both agree; also when one of them has no answer to compare. */
  readonly differences: readonly ShadowDifference[]
}

export interface ShadowOptions extends RandomOption {
  /** Where copies go, in turn. Not the pool of the primary: these servers get load and say nothing. */
  readonly upstreams: readonly UpstreamInput[]
  /** Share of the requests that are copied, from 0 to 1, or a function that says so for each. Default 1. */
  readonly share?: number | ((exchange: Exchange) => boolean)
  /**
   * Methods that are copied. Default GET, HEAD and OPTIONS: a copied POST acts twice unless the shadow has a database of its own.
   */
  readonly methods?: readonly string[]
  /** Most copies in flight; beyond it requests are not copied. Default 100. */
  readonly maxConcurrent?: number
  /** Largest request body that is copied. It is held in memory until it is whole. Default 64 KiB. */
  readonly maxBody?: Size
  /** From sending a copy to its last byte. Default 10 s. */
  readonly timeout?: Duration
  /** Fields set on every copy. Default `{ 'X-Shadow': '1' }`. */
  readonly headers?: Readonly<Record<string, string>>
  /** Changes the target of the copy. Default: the target as the stages left it. */
  readonly rewrite?: (url: string, exchange: Exchange) => string
  /** Called with every pair of answers. What it throws is reported as a process warning. Default: answers are thrown away. */
  readonly onResult?: (result: ShadowResult) => void
  /** Bytes of each body that are kept and compared. Default 64 KiB. */
  readonly maxCompare?: Size
  /** Fields that may differ, besides those of the connection. Default `date`, `age`, `server`, `x-request-id`. */
  readonly ignoreHeaders?: readonly string[]
  /** Evens out what is known to differ, on both sides, before they are compared. */
  readonly normalise?: (answer: ShadowAnswer) => ShadowAnswer
  /** Default: one of its own, closed with the stage. One that is given here is closed by whoever made it. */
  readonly transport?: Transport
}

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
const ignoredByDefault = ['date', 'age', 'server', 'x-request-id']
/** They belong to a connection, and the primary's never come this far. */
const hopByHop = ['connection', 'keep-alive', 'transfer-encoding', 'trailer', 'upgrade', 'proxy-connection', 'te']

/**
 * A stage that copies requests to a shadow. Put it last in `use`, so that what it copies is what the stages let through. Results are also
 * published on the `node:diagnostics_channel` `weir:shadow`. Upgrades are never copied.
 *
 * @throws OptionsError
 */
export function shadow(options: ShadowOptions): ShadowStage {
  const read = new OptionReader('shadow')
  const settings = readOptions(options, read)
  read.check()
  return new Shadow(settings)
}

type Settings = ReturnType<typeof readOptions>

function readOptions(options: ShadowOptions, read: OptionReader) {
  const given = read.object<ShadowOptions>(options, [
    'upstreams',
    'share',
    'methods',
    'maxConcurrent',
    'maxBody',
    'timeout',
    'headers',
    'rewrite',
    'onResult',
    'maxCompare',
    'ignoreHeaders',
    'normalise',
    'transport',
    'random',
  ])
  const random = readRandom(read, given.random)
  const { share } = given
  const fraction = typeof share === 'function' ? 1 : read.number('share', share, 1, { min: 0, max: 1 })
  const transport = given.transport ?? undiciTransport()
  let pool: Pool | undefined
  if (!Array.isArray(given.upstreams) || given.upstreams.length === 0)
    read.problem('upstreams', given.upstreams, "a list such as ['http://10.0.0.9:3000']")
  else pool = createPool({ name: 'shadow', upstreams: given.upstreams, health: [], transport })
  const strings = (name: 'methods' | 'ignoreHeaders', fallback: readonly string[]): readonly string[] => {
    const list: unknown = given[name] ?? fallback
    if (Array.isArray(list) && list.every((entry) => typeof entry === 'string')) return list
    read.problem(name, list, 'a list of names')
    return fallback
  }
  return {
    pool,
    transport,
    ownsTransport: given.transport === undefined,
    wants: typeof share === 'function' ? share : fraction === 1 ? () => true : () => random() < fraction,
    methods: new Set(strings('methods', ['GET', 'HEAD', 'OPTIONS']).map((method) => method.toUpperCase())),
    maxConcurrent: read.number('maxConcurrent', given.maxConcurrent, 100, { min: 1, integer: true }),
    maxBody: read.size('maxBody', given.maxBody, 65_536),
    timeout: read.duration('timeout', given.timeout, 10_000, { min: 1 }),
    headers: Object.entries(given.headers ?? { 'X-Shadow': '1' }),
    rewrite: read.optionalFunction('rewrite', given.rewrite),
    onResult: read.optionalFunction('onResult', given.onResult),
    maxCompare: read.size('maxCompare', given.maxCompare, 65_536),
    ignored: new Set([...hopByHop, ...strings('ignoreHeaders', ignoredByDefault).map((name) => name.toLowerCase())]),
    normalise: read.optionalFunction('normalise', given.normalise),
  }
}

class Shadow implements ShadowStage {
  readonly name: string = 'shadow'
  readonly settings: Settings
  readonly running = new Set<ShadowCall>()
  readonly #balancer = roundRobin()
  #reserved = 0
  #closed = false
  #sent = 0
  #failed = 0
  #different = 0
  #skipped = 0

  constructor(settings: Settings) {
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

  pick(): Upstream | undefined {
    return this.#balancer.pick(untried)
  }

  onSent(): void {
    this.#sent++
  }

  /** A copy came to nothing. */
  give(): void {
    this.#reserved--
    this.#skipped++
  }

  finish(result: ShadowResult): void {
    this.#reserved--
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

/** One request and its copy: waits for the request to be whole, and at the end for both answers. */
class Copy implements Hooks, BodyTap {
  readonly #stage: Shadow
  readonly #exchange: Exchange
  readonly #body: KeptBody
  readonly #answer: KeptBody
  readonly #url: string
  /** Somebody wants to know of differences. */
  readonly #compares: boolean
  #path = ''
  #fields: string[] | undefined
  #bodyState: 'none' | 'reading' | 'whole' = 'none'
  #given = false
  #upstream: Upstream | undefined
  #sent = false
  #primary: ShadowAnswer | 'pending' | undefined = 'pending'
  #status = 0
  #headers: readonly string[] = []
  #shadow: ShadowAnswer | ProxyError | undefined

  constructor(stage: Shadow, exchange: Exchange) {
    this.#stage = stage
    this.#exchange = exchange
    this.#url = exchange.url
    this.#compares = stage.settings.onResult !== undefined || results.hasSubscribers
    this.#body = new KeptBody(stage.settings.maxBody)
    this.#answer = new KeptBody(stage.settings.maxCompare)
  }

  // BodyTap of the request

  onChunk(chunk: Uint8Array): void {
    this.#bodyState = 'reading'
    this.#body.push(chunk)
    if (this.#body.truncated) this.#giveUp()
  }

  onEnd(complete: boolean): void {
    this.#bodyState = 'whole'
    if (complete) this.#go()
    else this.#giveUp()
  }

  // Hooks

  onAttempt(headers: HeaderList): void {
    if (this.#fields !== undefined) return
    this.#fields = [...headers.raw]
    this.#path = this.#exchange.url
    if (!this.#exchange.hasBody) this.#bodyState = 'whole'
    if (this.#bodyState === 'whole') this.#go()
  }

  onResponse(response: ProxyResponse): void {
    if (response.upstream === undefined) return
    this.#status = response.status
    this.#headers = [...response.headers.raw]
    if (!this.#given && this.#compares) response.tap({ onChunk: (chunk) => this.#answer.push(chunk) })
  }

  onFinish(outcome: Outcome): void {
    const { bytes: body, truncated } = this.#answer
    this.#primary =
      outcome.reason === 'completed' && this.#status !== 0
        ? { status: this.#status, headers: this.#headers, body, truncated, durationMs: outcome.durationMs }
        : undefined
    // Never forwarded, or its body never came to an end: there is nothing to copy.
    if (this.#sent) this.#compare()
    else this.#giveUp()
  }

  #giveUp(): void {
    if (this.#given || this.#sent) return
    this.#given = true
    this.#stage.give()
  }

  #go(): void {
    if (this.#given || this.#sent || this.#fields === undefined) return
    this.#sent = true
    // From a later turn: the primary's bytes are on their way first.
    setImmediate(() => {
      try {
        this.#send(this.#fields as string[])
      } catch (cause) {
        this.#stage.warn('rewrite or headers', cause)
        this.#shadow = new ProxyError('ERR_REQUEST_NOT_SENT', { cause })
        this.#compare()
      }
    })
  }

  #send(fields: string[]): void {
    const stage = this.#stage
    const { settings } = stage
    const exchange = this.#exchange
    const upstream = stage.pick()
    if (upstream === undefined) {
      this.#shadow = new ProxyError('ERR_NO_UPSTREAM')
      this.#compare()
      return
    }
    this.#upstream = upstream
    const bytes = this.#body.bytes
    const headers: string[] = []
    const replaced = new Set(['content-length', ...settings.headers.map(([name]) => name.toLowerCase())])
    for (let i = 0; i < fields.length; i += 2)
      if (!replaced.has((fields[i] as string).toLowerCase())) headers.push(fields[i] as string, fields[i + 1] as string)
    for (const [name, value] of settings.headers) headers.push(name, value)
    if (bytes.length > 0) headers.push('Content-Length', String(bytes.length))
    const { protocol, pathname } = upstream.url
    const base = protocol === 'unix:' ? '' : pathname.replace(/\/+$/, '')
    const path = base + (settings.rewrite?.(this.#path, exchange) ?? this.#path)
    const call = new ShadowCall(settings.maxCompare, settings.timeout, (answer) => {
      stage.running.delete(call)
      this.#shadow = answer
      this.#compare()
    })
    stage.running.add(call)
    stage.onSent()
    const { timeout } = settings
    const body = bytes.length > 0 ? wholeBody(bytes) : undefined
    const request = { method: exchange.method, path, headers, body, timeouts: { connect: timeout, head: timeout, idle: timeout } }
    try {
      settings.transport.send(request, upstream, call)
    } catch (cause) {
      // A transport must not throw. One that does has started nothing.
      call.abort(new ProxyError('ERR_REQUEST_NOT_SENT', { cause }))
    }
  }

  #compare(): void {
    const { settings } = this.#stage
    const shadow = this.#shadow
    let primary = this.#primary
    if (shadow === undefined || primary === 'pending' || this.#given) return
    this.#given = true
    let other = shadow
    let found: readonly ShadowDifference[] = []
    if (this.#compares && primary !== undefined && !ProxyError.is(other)) {
      try {
        if (settings.normalise !== undefined) {
          primary = settings.normalise(primary)
          other = settings.normalise(other)
        }
        found = differences(primary, other, settings.ignored)
      } catch (cause) {
        this.#stage.warn('normalise', cause)
      }
    }
    this.#stage.finish({
      method: this.#exchange.method,
      url: this.#url,
      upstream: this.#upstream as Upstream,
      primary,
      shadow: other,
      differences: found,
    })
  }
}

/** The primary's retries say nothing about the shadow's servers. */
const untried = { tried: [] } as unknown as Exchange
