/**
 * The request to an authorisation service, over node's own client: it is small, has no body, and has to be cut off at once when nobody waits any more.
 * Connections are kept. One that the service closed while it lay idle is no failure, so a request that died on a reused one is sent once more.
 */
import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import { type Clock, HeaderList } from '@weir/core'

/** What the service's certificate is judged by. Default: the system's authorities, and the name in the URL. */
export interface AuthTlsOptions {
  readonly ca?: string | readonly string[]
  readonly cert?: string
  readonly key?: string
  readonly servername?: string
}

export interface AuthAnswer {
  readonly status: number
  readonly headers: HeaderList
}

/** What more an answer has is not read: the connection is dropped instead. */
const longestBody = 65_536

export class AuthService {
  readonly #url: URL
  readonly #timeout: number
  readonly #clock: Clock
  readonly #agent: HttpAgent | HttpsAgent

  constructor(url: URL, timeout: number, clock: Clock, sockets: number, tls: AuthTlsOptions | undefined) {
    this.#url = url
    this.#timeout = timeout
    this.#clock = clock
    const settings = { keepAlive: true, maxSockets: sockets, maxFreeSockets: Math.min(sockets, 64), timeout: 60_000 }
    const { ca, ...rest } = tls ?? {}
    this.#agent =
      url.protocol === 'https:'
        ? new HttpsAgent({ ...settings, ...rest, ...(ca === undefined ? {} : { ca: typeof ca === 'string' ? ca : [...ca] }) })
        : new HttpAgent(settings)
  }

  /** Rejects when there is no answer in time, or `signal` aborts. */
  ask(headers: Readonly<Record<string, string | string[]>>, signal: AbortSignal): Promise<AuthAnswer> {
    return this.#send(headers, signal, true)
  }

  close(): void {
    this.#agent.destroy()
  }

  #send(headers: Readonly<Record<string, string | string[]>>, signal: AbortSignal, again: boolean): Promise<AuthAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<AuthAnswer>()
    const send = this.#url.protocol === 'https:' ? requestHttps : requestHttp
    const request = send(this.#url, { agent: this.#agent, headers, signal })
    const timer = this.#clock.setTimeout(() => request.destroy(new Error(`no answer within ${this.#timeout} ms`)), this.#timeout)
    request.on('response', (response) => {
      this.#clock.clearTimeout(timer)
      drain(response)
      resolve({ status: response.statusCode as number, headers: new HeaderList(response.rawHeaders) })
    })
    request.on('error', (error: NodeJS.ErrnoException) => {
      this.#clock.clearTimeout(timer)
      if (again && request.reusedSocket && error.code === 'ECONNRESET' && !signal.aborted) resolve(this.#send(headers, signal, false))
      else reject(error)
    })
    request.end()
    return promise
  }
}

function drain(response: IncomingMessage): void {
  let left = longestBody
  response.on('error', () => {})
  response.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) response.destroy()
  })
}
