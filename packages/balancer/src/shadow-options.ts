/** Options of `shadow()`, what its callback gets, and what they are read into. */
import {
  type AddressCheck,
  createPool,
  type Duration,
  type Exchange,
  type OptionReader,
  type Pool,
  type ProxyError,
  type Size,
  type Transport,
  type Upstream,
  type UpstreamInput,
  undiciTransport,
} from '@weir/core'
import { type RandomOption, readRandom } from './random-option.ts'
import type { ShadowAnswer, ShadowDifference } from './shadow-diff.ts'

export interface ShadowResult {
  readonly method: string
  /** Target of the request as the client sent it. */
  readonly url: string
  readonly upstream: Upstream
  /** Undefined when the primary's exchange failed or was answered by a stage, or when it lasts and `maxConcurrent` copies have been answered since. */
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
  /**
   * Most copies in flight, from the request to the shadow's answer; beyond it requests are not copied. As many more may wait for the end of the primary's answer, to
   * be compared; beyond that the oldest are not compared. Default 100.
   */
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
  /** Which addresses copies may be sent to, as `allowAddress` of a pool; not together with `transport`. Default: all. */
  readonly allowAddress?: AddressCheck
}

const ignoredByDefault = ['date', 'age', 'server', 'x-request-id']
/** They belong to a connection, and the primary's never come this far. */
const hopByHop = ['connection', 'keep-alive', 'transfer-encoding', 'trailer', 'upgrade', 'proxy-connection', 'te']

export interface ShadowSettings {
  /** Undefined only beside a problem. */
  readonly pool: Pool | undefined
  readonly transport: Transport
  readonly ownsTransport: boolean
  readonly wants: (exchange: Exchange) => boolean
  /** In upper case. */
  readonly methods: ReadonlySet<string>
  readonly maxConcurrent: number
  readonly maxBody: number
  readonly timeout: number
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly rewrite: ShadowOptions['rewrite'] | undefined
  readonly onResult: ShadowOptions['onResult'] | undefined
  readonly maxCompare: number
  /** In lower case. */
  readonly ignored: ReadonlySet<string>
  readonly normalise: ShadowOptions['normalise'] | undefined
}

/** Problems go to `read`, which the caller checks. */
export function readShadowOptions(options: ShadowOptions, read: OptionReader): ShadowSettings {
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
    'allowAddress',
    'random',
  ])
  const random = readRandom(read, given.random)
  const { share } = given
  const fraction = typeof share === 'function' ? 1 : read.number('share', share, 1, { min: 0, max: 1 })
  if (given.transport !== undefined && given.allowAddress !== undefined)
    read.problem('allowAddress', '(set)', 'either `allowAddress` or a `transport`, which has such an option of its own')
  const allowAddress = read.optionalFunction('allowAddress', given.allowAddress)
  const transport = given.transport ?? undiciTransport(allowAddress === undefined ? {} : { allowAddress })
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
