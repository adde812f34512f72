/**
 * Sessions that the application makes: which upstream sent a session id is where that session lives. The table is filled from responses (a
 * `Set-Cookie`, or a field such as `Mcp-Session-Id`) and looked up from requests; nothing is added to either. A request can make no entry, so a
 * client that invents ids fills no table.
 */
import { type Exchange, type Hooks, type MaybePromise, OptionReader, type ProxyResponse, type Reply } from '@weir/core'
import { readCookieName } from './cookie-attributes.ts'
import { cookieValues } from './cookie-pairs.ts'
import { failed, whenThere } from './guarded-store.ts'
import { Pin } from './pin.ts'
import { isRemoval, setCookieOf } from './set-cookie.ts'
import { type StickyStage, stageOrder } from './stage-options.ts'
import { readTableOptions, refusalOf, type SessionTableOptions, type TableSettings, tableKeys } from './table-options.ts'
import { readParameter, urlParameter } from './url-parameter.ts'

export interface LearnSessionOptions extends SessionTableOptions {
  /** Name of the cookie that holds the session id. This or `header`. */
  readonly cookie?: string
  /** Name of a parameter of the URL that holds the same id; it counts before the cookie or field. Default: none. */
  readonly parameter?: string
  /** Name of the field, in requests and responses, that holds it. */
  readonly header?: string
}

/** How the session id is read. */
interface Reading {
  fromRequest(exchange: Exchange): string | undefined
  /** `''`: the application ends the session. */
  fromResponse(response: ProxyResponse, now: number): string | undefined
}

/** @throws OptionsError */
export function learnSession(options: LearnSessionOptions): StickyStage {
  const read = new OptionReader('learnSession')
  const given = read.object<LearnSessionOptions>(options ?? {}, ['cookie', 'header', 'parameter', ...tableKeys])
  const settings = readTableOptions(read, given, 'learnSession')
  const { cookie, header } = given
  const parameter = readParameter(read, 'parameter', given.parameter)
  if ((cookie === undefined) === (header === undefined)) read.problem('', given, 'either `cookie` or `header`: where the session id stands')
  const reading =
    cookie === undefined
      ? fieldReading(readCookieName(read, 'header', header, 'x'))
      : cookieReading(readCookieName(read, 'cookie', cookie, 'x'))
  read.check()
  return {
    name: settings.name,
    order: stageOrder,
    handle(exchange) {
      if (settings.skips(exchange)) return undefined
      const own = reading.fromRequest(exchange)
      const told = parameter === undefined ? undefined : urlParameter(exchange, parameter)
      const byEntry = (entry: string, otherwise: string | undefined): MaybePromise<Reply | Hooks> =>
        whenThere(settings.store.get(entry), (found) => {
          if (found === failed) return refusalOf(settings, exchange) ?? new LearningPin(settings, exchange, undefined, undefined, reading)
          // A link with an id that nobody knows must not cost a client its session.
          if (found === undefined && otherwise !== undefined) return byEntry(otherwise, undefined)
          return new LearningPin(settings, exchange, found, entry, reading).ask()
        })
      const [first, second] = [told, own]
        .filter((session) => session !== undefined && session !== '')
        .map(settings.keyOf as (session?: string) => string)
      return first === undefined ? new LearningPin(settings, exchange, undefined, undefined, reading) : byEntry(first, second)
    },
    stats: () => settings.journal.stats(),
  }
}

function cookieReading(name: string): Reading {
  return {
    fromRequest: ({ headers }) => cookieValues(headers, name)[0],
    fromResponse({ headers }, now) {
      const set = setCookieOf(headers, name)
      return set === undefined ? undefined : isRemoval(set, now) ? '' : set.value
    },
  }
}

function fieldReading(name: string): Reading {
  return {
    fromRequest: ({ headers }) => headers.get(name),
    fromResponse: ({ headers }) => headers.get(name),
  }
}

class LearningPin extends Pin {
  readonly #settings: TableSettings
  /** The request's session, in the table. */
  readonly #entry: string | undefined
  readonly #reading: Reading

  constructor(settings: TableSettings, exchange: Exchange, wanted: string | undefined, entry: string | undefined, reading: Reading) {
    super(settings, exchange, wanted)
    this.#settings = settings
    this.#entry = entry
    this.#reading = reading
  }

  override onResponse(response: ProxyResponse): void | Promise<void> {
    const { upstream } = response
    if (upstream === undefined) return undefined
    const { keyOf, store, now } = this.#settings
    const session = this.#reading.fromResponse(response, now())
    const old = this.#entry
    if (session === '') return old === undefined ? undefined : (whenThere(store.delete(old), () => undefined) as void | Promise<void>)
    const entry = session === undefined ? old : keyOf(session)
    // Neither told nor known: no session yet.
    if (entry === undefined || (session === undefined && this.wanted === undefined)) return undefined
    const fate = this.settle(upstream)
    if (fate === undefined || (fate === 'pinned' && entry === old)) return undefined
    return this.#write(entry, upstream.id, entry === old ? this.wanted : undefined)
  }

  /** The response waits for it, within the store's deadline: the client's next request may come at once. */
  #write(entry: string, upstreamId: string, replaces: string | undefined): void | Promise<void> {
    const { store, idleMs, absoluteMs, now } = this.#settings
    return whenThere(
      store.set(entry, upstreamId, { idleMs, absolute: now() + absoluteMs, replaces }),
      () => undefined,
    ) as void | Promise<void>
  }
}
