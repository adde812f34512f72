/**
 * Session persistence without a table: which upstream a session belongs to stands, signed, in a cookie, so that any number of proxies with one
 * secret agree without talking to each other, and a proxy that restarts forgets nothing. Whatever is not a valid value of ours is ignored and
 * replaced; it can select nothing.
 *
 * Three modes, one kind of value. `insert`: a cookie of our own. `prefix`: in front of the value of a cookie that the application sets anyway, for
 * those who may not add one. `rewrite`: in place of that value.
 */
import type { Exchange, ProxyResponse, Stage } from '@weir/core'
import { cookieLine } from './cookie-attributes.ts'
import { cookieValues, editCookies } from './cookie-pairs.ts'
import { Pin } from './pin.ts'
import { makePrivate } from './private-response.ts'
import { editSetCookies } from './set-cookie.ts'
import { type RejectReason, type Session, valueLength } from './signed-value.ts'
import { type StickyStage, stageOrder } from './stage-options.ts'
import { readStickyOptions, type StickySessionOptions, type StickySettings } from './sticky-options.ts'

/** Between our value and the application's; not a character of ours. */
const separator = '~'

/** @throws OptionsError */
export function stickySession(options: StickySessionOptions): StickyStage {
  const settings = readStickyOptions(options)
  const handle: Stage['handle'] = (exchange) => {
    const session = settings.skips(exchange) ? undefined : takeSession(settings, exchange)
    hideFromUpstream(settings, exchange)
    return session === undefined ? undefined : new CookiePin(settings, exchange, session === 'none' ? undefined : session).ask()
  }
  return { name: settings.name, order: stageOrder, handle, stats: () => settings.journal.stats() }
}

/** The first valid value that the request carries: several cookies of one name may come from several paths or domains. */
function takeSession(settings: StickySettings, exchange: Exchange): Session | 'none' | undefined {
  const pool = exchange.route?.pool
  if (pool === undefined) return undefined
  const { values, cookie, journal, mode } = settings
  const now = settings.now()
  let rejected: RejectReason | undefined
  for (const carried of cookieValues(exchange.headers, cookie.name)) {
    const [value, bound] = mode === 'prefix' ? splitPrefix(carried) : ([carried, ''] as const)
    // The application's cookie from before we were here.
    if (value === undefined) continue
    const opened = values.open(pool, value, now, bound)
    if (opened.kind === 'valid') return opened.session
    rejected ??= opened.reason
  }
  if (rejected !== undefined) journal.tell('rejected', exchange, undefined, undefined, rejected)
  return 'none'
}

/** By shape alone: when our part is forged or has run out, the application's value is still the application's. */
function splitPrefix(carried: string): readonly [value: string | undefined, rest: string] {
  return carried[valueLength] === separator ? [carried.slice(0, valueLength), carried.slice(valueLength + 1)] : [undefined, carried]
}

function hideFromUpstream({ mode, cookie, forward }: StickySettings, exchange: Exchange): void {
  if (mode === 'prefix') editCookies(exchange.headers, cookie.name, (carried) => splitPrefix(carried)[1])
  // In `rewrite` mode the application is left its cookie: without one it would begin a session with every request.
  else if (mode === 'insert' && !forward) editCookies(exchange.headers, cookie.name, () => undefined)
}

class CookiePin extends Pin {
  readonly #settings: StickySettings
  readonly #session: Session | undefined

  constructor(settings: StickySettings, exchange: Exchange, session: Session | undefined) {
    // The id of a server that has left is not known any more; it is only known that there was one.
    super(settings, exchange, session === undefined ? undefined : (session.upstream ?? ''))
    this.#settings = settings
    this.#session = session
  }

  override onResponse(response: ProxyResponse): void {
    const { upstream, headers } = response
    const pool = this.exchange.route?.pool
    if (upstream === undefined || pool === undefined) return
    const fate = this.settle(upstream)
    if (fate === undefined) return
    const { values, cookie, mode, cachePrivate, journal, now: clock } = this.#settings
    const now = clock()
    // A session that moves begins anew; one that is only stamped again keeps its beginning, and so its end.
    const created = fate === 'pinned' ? (this.#session?.created ?? now) : now
    if (mode === 'insert') {
      if (fate === 'pinned' && this.#session?.stale !== true) return
      const value = values.seal(pool, upstream.id, created, now)
      headers.append('Set-Cookie', cookieLine(cookie, value, this.exchange.scheme === 'https', values.left(created, now)))
    } else {
      const changed = editSetCookies(headers, cookie.name, now, (own) =>
        mode === 'prefix'
          ? `${values.seal(pool, upstream.id, created, now, own)}${separator}${own}`
          : values.seal(pool, upstream.id, created, now),
      )
      if (!changed) return
    }
    journal.counts.issued++
    // A 101 is never stored.
    if (cachePrivate && response.status !== 101) makePrivate(headers)
  }
}
