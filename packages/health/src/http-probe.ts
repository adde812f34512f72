/**
 * The HTTP question: one request, and what its answer must look like. The answer is read to its end, as a client would, or to `maxBody`, so a
 * server that sends a head and then hangs is not well. Redirects are answers, not invitations: following one would check some other server.
 */
import {
  Agent,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type RequestOptions,
  request,
  validateHeaderName,
  validateHeaderValue,
} from 'node:http'
import type { Duplex } from 'node:stream'
import { OptionReader, type Size } from '@weir/core'
import { answerProblem, type HeaderExpectation, readTextExpectation, type TextTest } from './http-answer.ts'
import { MatchTime } from './match-time.ts'
import { httpKeys, withOverrides } from './overrides.ts'
import { connectionError, type OpenProbe, type Probe, ProbeError, type ProbeResult, type ProbeTarget } from './probe.ts'
import { type AddressOptions, addressOf, openSocket, readAddress } from './probe-address.ts'
import { readStatuses, type StatusMatches, type StatusSet } from './status-match.ts'

export interface HttpProbeOptions extends AddressOptions {
  /** Path and query, below the upstream's base path. Default `/`. */
  readonly path?: string
  /** Default `GET`. `HEAD` has no body to look at. */
  readonly method?: 'GET' | 'HEAD' | 'OPTIONS'
  /** Request fields. `User-Agent` is `weir-health` unless given. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  /** The Host field. Default: the upstream's. */
  readonly host?: string
  /** Statuses that pass. Default `'200-399'`. */
  readonly status?: StatusMatches
  /** Response fields that must be there (`true`), be equal (a string) or match (a RegExp; see `body`). */
  readonly expectHeaders?: Readonly<Record<string, HeaderExpectation>>
  /**
   * Text that the body, as UTF-8, must hold, or an expression that it must match, within its first `maxBody` bytes. An expression with repeats
   * inside of repeats, `(a+)+$`, can take for ever on a text that the server made up for it. Matching stops all else in the process, so a probe is given
   * 100 ms for all of it and then fails; rather take a text, or an expression without such repeats.
   */
  readonly body?: string | RegExp
  /** Reading stops here. Default 64 KiB. */
  readonly maxBody?: Size
  /** A passing answer with this field means degraded, such as `x-envoy-degraded`. Default: none. */
  readonly degradedHeader?: string
  /** A passing answer with this field means draining. Default: none. */
  readonly drainHeader?: string
  /** These statuses pass too, and mean draining; `404` is what HAProxy calls `disable-on-404`. Default: none. */
  readonly drainStatus?: StatusMatches
  /**
   * Keeps the connection for the next probe. A fresh one each time, which is the default, tells more: that the server accepts, and that its
   * TLS handshake works. Switch it on where connections are dear.
   */
  readonly keepAlive?: boolean
}

interface Question {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  readonly host: string | undefined
  readonly passes: StatusSet
  readonly drains: StatusSet
  readonly fields: readonly (readonly [string, HeaderExpectation])[]
  readonly body: TextTest | undefined
  readonly maxBody: number
  readonly degradedHeader: string | undefined
  readonly drainHeader: string | undefined
  readonly keepAlive: boolean
}

/** One HTTP/1.1 request. For HTTP/2-only servers use `grpcProbe`, `tlsProbe` or a function of your own. @throws OptionsError */
export function httpProbe(options?: HttpProbeOptions): Probe {
  const own = options ?? {}
  readQuestion('httpProbe', own)
  return { name: 'http', open: (target) => openHttp(target, withOverrides(own, target.overrides, httpKeys)) }
}

/** @throws OptionsError */
function readQuestion(factory: string, options: HttpProbeOptions): Question {
  const read = new OptionReader(factory)
  const given = read.object<HttpProbeOptions>(options, httpKeys)
  readAddress(read, given)
  const question: Question = {
    method: read.oneOf('method', given.method, ['GET', 'HEAD', 'OPTIONS'] as const, 'GET'),
    path: given.path ?? '/',
    headers: read.at('headers').object<Record<string, string>>(given.headers as never, Object.keys(given.headers ?? {})) as never,
    host: given.host,
    passes: readStatuses(read, 'status', given.status, '200-399'),
    drains: given.drainStatus === undefined ? () => false : readStatuses(read, 'drainStatus', given.drainStatus, []),
    fields: Object.entries(given.expectHeaders ?? {}).map(([name, wanted]) => [name.toLowerCase(), wanted]),
    body: readTextExpectation(read, 'body', given.body),
    maxBody: read.size('maxBody', given.maxBody, 65_536, { min: 1, max: 2 ** 30 }),
    degradedHeader: readFieldName(read, 'degradedHeader', given.degradedHeader),
    drainHeader: readFieldName(read, 'drainHeader', given.drainHeader),
    keepAlive: read.boolean('keepAlive', given.keepAlive, false),
  }
  if (typeof question.path !== 'string' || !/^\/[!-"$-~]*$/.test(question.path))
    read.problem('path', question.path, "a path such as '/healthz?full', starting with a slash, percent-encoded, without a fragment")
  if (given.host !== undefined && (typeof given.host !== 'string' || given.host === ''))
    read.problem('host', given.host, "a host name, with a port where it is not the scheme's")
  if (question.body !== undefined && question.method === 'HEAD') read.problem('body', given.body, 'no `body` with HEAD, which has none')
  for (const [name, wanted] of question.fields)
    if (wanted !== true && typeof wanted !== 'string' && !(wanted instanceof RegExp))
      read.problem('expectHeaders', { [name]: wanted }, 'true, a string or a RegExp per field')
  for (const [name, value] of Object.entries(question.headers)) {
    try {
      validateHeaderName(name)
      for (const line of [value].flat()) validateHeaderValue(name, line as string)
    } catch {
      read.at('headers').problem(name, value, 'a field name and value that HTTP allows')
    }
  }
  read.check()
  return question
}

export function readFieldName(read: OptionReader, name: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(value)) return value.toLowerCase()
  read.problem(name, value, "the name of a header field, such as 'x-health'")
  return undefined
}

/** An agent, since it alone keeps connections; it knows one target only. */
class TargetAgent extends Agent {
  readonly #open: () => Duplex

  constructor(keepAlive: boolean, open: () => Duplex) {
    // No `maxSockets`: with a limit node asks the server to keep the connection, whatever `keepAlive` says.
    super({ keepAlive, maxFreeSockets: 1 })
    this.#open = open
  }

  override createConnection(): Duplex {
    return this.#open()
  }
}

function openHttp(target: ProbeTarget, options: HttpProbeOptions): OpenProbe {
  const { upstream } = target
  const question = readQuestion(`httpProbe, upstream ${upstream.id}`, options)
  const address = addressOf(target, options)
  const agent = new TargetAgent(question.keepAlive, () => openSocket(address))
  const unix = upstream.url.protocol === 'unix:'
  const path = (unix ? '' : upstream.url.pathname.replace(/\/+$/, '')) + question.path
  const headers: OutgoingHttpHeaders = {
    Host: question.host ?? upstream.host ?? (unix ? 'localhost' : upstream.url.host),
    'User-Agent': 'weir-health',
  }
  // Node sets them one by one, whatever their case: what is given replaces what was there.
  for (const [name, value] of Object.entries(question.headers)) headers[name] = typeof value === 'string' ? value : [...value]
  const line = { agent, method: question.method, path, headers, setHost: false }
  return {
    // Only a kept connection can have gone stale meanwhile, and that says nothing of the server: ask again on a new one.
    run: async (signal) => {
      try {
        return await ask(line, question, signal)
      } catch (error) {
        if (error !== stale) throw error
        return ask(line, question, signal)
      }
    },
    close: () => agent.destroy(),
  }
}

const stale = new ProbeError('ERR_PROBE_CONNECTION', 'a kept connection had gone')

function ask(line: RequestOptions, question: Question, signal: AbortSignal): Promise<ProbeResult> {
  const { promise, resolve, reject } = Promise.withResolvers<ProbeResult>()
  const req = request(line)
  let answered = false
  const end = (error: unknown, result: ProbeResult = {}): void => {
    signal.removeEventListener('abort', onAbort)
    if (error === undefined) resolve(result)
    else reject(error as Error)
  }
  const onAbort = (): void => {
    req.destroy()
    end(signal.reason)
  }
  req.on('error', (error) => end(req.reusedSocket && !answered ? stale : connectionError(error)))
  req.on('response', (res) => {
    answered = true
    readAnswer(res, question, (error, result) => {
      if (error !== undefined || !res.complete) req.destroy()
      end(error, result)
    })
  })
  // Without a listener node would destroy the connection and call it hung up.
  req.on('upgrade', (_res, socket) => {
    socket.destroy()
    end(new ProbeError('ERR_PROBE_STATUS', 'status 101'))
  })
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  req.end()
  return promise
}

function readAnswer(res: IncomingMessage, question: Question, done: (error: unknown, result?: ProbeResult) => void): void {
  const status = res.statusCode ?? 0
  const drains = question.drains(status)
  const time = new MatchTime()
  const problem = answerProblem(res, drains || question.passes(status), question.fields, time)
  if (problem !== undefined) {
    done(problem)
    return
  }
  const has = (name: string | undefined): boolean => name !== undefined && res.headers[name] !== undefined
  const result: ProbeResult = { degraded: has(question.degradedHeader), draining: drains || has(question.drainHeader) }
  const chunks: Buffer[] = []
  let left = question.maxBody
  const judge = (): void => {
    const met = question.body === undefined || question.body(Buffer.concat(chunks).toString(), time)
    if (met === true) done(undefined, result)
    else done(met === false ? new ProbeError('ERR_PROBE_BODY', `status ${status}, but the body is not what was expected`) : met)
  }
  res.on('data', (chunk: Buffer) => {
    if (left <= 0) return
    if (question.body !== undefined) chunks.push(chunk.subarray(0, left))
    left -= chunk.length
    if (left <= 0) judge()
  })
  res.on('end', judge)
  res.on('error', (error) => done(connectionError(error)))
}
