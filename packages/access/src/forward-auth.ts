/**
 * Somebody else decides: every request is first shown, without its body, to a service of yours, and goes on if that says 2xx (as with NGINX
 * `auth_request` and Traefik `ForwardAuth`). So logins and rights live in one place. The price is a question per request; a cache pays part
 * of it back, and makes rights outlive their withdrawal by its `ttl`.
 *
 * Whatever is not a clear yes is a no. A service that is down keeps everybody out, unless you say otherwise.
 */
import { createHash } from 'node:crypto'
import type { Exchange, Hooks, MaybePromise, Reply } from '@weir/core'
import { LRUCache } from 'lru-cache'
import { type AuthAnswer, AuthService } from './auth-request.ts'
import { type ForwardAuthOptions, readForwardAuth } from './forward-auth-options.ts'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'
import { SharedLookups } from './shared-lookup.ts'
import { fieldKey, StampedFields, stripFields } from './upstream-fields.ts'
import { WorkQueue } from './work-queue.ts'

export interface ForwardAuthStats extends GateStats {
  /** Questions that were sent. */
  readonly asked: number
  /** Answered from the cache. */
  readonly remembered: number
  /** Questions without a usable answer, those for which there was no room included. */
  readonly failed: number
  /** Questions that run or wait now. */
  readonly pending: number
}

type Decision =
  | { readonly kind: 'allow'; readonly hooks: Hooks | undefined; readonly subject: string; readonly keep: boolean }
  | { readonly kind: 'deny'; readonly reply: Reply; readonly keep: boolean }
  | { readonly kind: 'failed'; readonly status: 502 | 503; readonly reason: string; readonly keep: false }

const badAnswer = refusal(502)
const noAnswer = refusal(503, { 'Retry-After': '1' })

/** @throws OptionsError */
export function forwardAuth(options: ForwardAuthOptions): AccessStage<ForwardAuthStats> {
  const settings = readForwardAuth(options)
  const { clock, cache, requestHeaders } = settings
  const gate = new Gate(settings.name, settings.dryRun)
  const service = new AuthService(settings.url, settings.timeout, clock, settings.concurrency, settings.tls)
  const queue = new WorkQueue(settings.concurrency, settings.maxWaiting)
  const lookups = new SharedLookups<Decision>()
  const kept =
    cache === undefined ? undefined : new LRUCache<string, { readonly decision: Decision; readonly until: number }>({ max: cache.max })
  const ours = new Set(settings.responseHeaders.map(fieldKey))
  let asked = 0
  let remembered = 0
  let failed = 0

  const look = async (exchange: Exchange, key: string): Promise<Decision> => {
    const question = questionOf(exchange, requestHeaders)
    const work = lookups.join(key, exchange.signal, (signal) =>
      queue.run(async () => {
        if (signal.aborted) throw signal.reason
        asked++
        const decision = decide(await service.ask(question, signal))
        if (decision.keep && cache !== undefined) kept?.set(key, { decision, until: clock.now() + cache.ttl })
        return decision
      }),
    )
    if (work === undefined) return { kind: 'failed', status: 503, reason: 'busy', keep: false }
    try {
      return await work
    } catch {
      return { kind: 'failed', status: 503, reason: 'no answer', keep: false }
    }
  }

  const decide = ({ status, headers }: AuthAnswer): Decision => {
    const keep = !headers.has('set-cookie') && !/(?:^|,)\s*no-store\s*(?:,|$)/i.test(headers.get('cache-control') ?? '')
    if (status >= 200 && status < 300) {
      const fields = settings.responseHeaders.flatMap((name) => {
        const value = headers.get(name)
        return value === undefined ? [] : [name, value]
      })
      const subject = settings.subjectHeader === undefined ? '' : (headers.get(settings.subjectHeader) ?? '')
      return { kind: 'allow', hooks: fields.length === 0 ? undefined : new StampedFields(fields), subject, keep }
    }
    const redirect = settings.redirects && (status === 302 || status === 303 || status === 307) && headers.has('location')
    if (status !== 401 && status !== 403 && !redirect) return { kind: 'failed', status: 502, reason: `answer ${status}`, keep: false }
    const relayed: Record<string, readonly string[]> = {}
    for (const name of settings.relayHeaders) if (headers.has(name)) relayed[name] = headers.getAll(name)
    return { kind: 'deny', reply: refusal(status, relayed, redirect ? '' : undefined), keep: keep && !redirect }
  }

  const finish = (exchange: Exchange, decision: Decision): Reply | Hooks | undefined => {
    switch (decision.kind) {
      case 'allow':
        gate.allowed++
        exchange.locals.auth = { scheme: 'forward', subject: decision.subject }
        return decision.hooks
      case 'deny':
        return gate.refuse(exchange, decision.reply, `answer ${decision.reply.status}`)
      case 'failed': {
        failed++
        return gate.refuse(exchange, decision.status === 502 ? badAnswer : noAnswer, decision.reason, gate.dryRun || settings.failsOpen)
      }
    }
  }

  return {
    name: gate.stage,
    handle(exchange): MaybePromise<Reply | Hooks | undefined> {
      stripFields(exchange, ours)
      const key = keyOf(exchange, settings.keyFields, settings.vary)
      const known = kept?.get(key)
      if (known !== undefined && known.until > clock.now()) {
        remembered++
        return finish(exchange, known.decision)
      }
      // Whoever has left gets nothing more, and counts neither for the service nor against it.
      return look(exchange, key).then((decision) => (exchange.signal.aborted ? noAnswer : finish(exchange, decision)))
    },
    close: () => service.close(),
    stats: () => ({ ...gate.stats(), asked, remembered, failed, pending: queue.running + queue.waiting }),
  }
}

/** A digest: what it is made of may be long, and secret. */
function keyOf(exchange: Exchange, fields: readonly string[], vary: ReadonlySet<string>): string {
  const { headers } = exchange
  const parts: unknown[] = fields.map((name) => headers.getAll(name))
  if (vary.has('method')) parts.push(exchange.method)
  if (vary.has('url')) parts.push(headers.get('host'), exchange.url, exchange.scheme)
  if (vary.has('client')) parts.push(exchange.clientIp)
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64')
}

function questionOf(exchange: Exchange, names: readonly string[]): Record<string, string | string[]> {
  const { headers } = exchange
  const question: Record<string, string | string[]> = {}
  for (const name of names) {
    const values = headers.getAll(name)
    const [first] = values
    if (first === undefined) continue
    question[name] = values.length === 1 ? first : name.toLowerCase() === 'cookie' ? values.join('; ') : values
  }
  // Last: a client cannot say these through `requestHeaders`.
  question['X-Forwarded-Method'] = exchange.method
  question['X-Forwarded-Proto'] = exchange.scheme
  question['X-Forwarded-Host'] = headers.get('host') ?? ''
  question['X-Forwarded-Uri'] = exchange.url
  question['X-Forwarded-For'] = exchange.clientIp
  return question
}
