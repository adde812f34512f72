/**
 * What the behaviour tests share: a proxy on a real server on 127.0.0.1, both transports by name, a log of how exchanges ended, and a wait
 * for a state of the process under test. Each function gives back something that `await using` closes, so a failing test leaves nothing
 * behind for the next one.
 */
import { createServer, type ServerOptions } from 'node:http'
import { createServer as createHttp2Server, createSecureServer } from 'node:http2'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import {
  type AttachableServer,
  createProxy,
  type Exchange,
  httpProxyTransport,
  type Outcome,
  type ProxyOptions,
  type ReverseProxy,
  type Stage,
  type Transport,
  undiciTransport,
} from '@weir/core'
import { certificates, everyRequest, type RawUpstream, rawUpstream } from '@weir/testing'

/** For `describe.each(transports)('over %s', (_, transport) => ...)`. */
export const transports: readonly (readonly [name: string, make: () => Transport])[] = [
  ['undici', undiciTransport],
  ['http-proxy', httpProxyTransport],
]

export interface Mounting {
  /** HTTP/2: cleartext with prior knowledge, or together with `https` by ALPN, where HTTP/1.1 works too. */
  readonly http2?: boolean
  /** The kit's certificate for localhost. */
  readonly https?: boolean
  /** `attach` (the default), or `listener`: a plain request listener, and nothing else. */
  readonly mount?: 'attach' | 'listener'
  /** Settings of node's HTTP/1.1 server. */
  readonly server?: ServerOptions
  /** Made for this proxy and closed with it; `ProxyOptions.transport` is for one that the test closes. */
  readonly transport?: (() => Transport) | undefined
}

export interface RunningProxy extends AsyncDisposable {
  readonly port: number
  readonly proxy: ReverseProxy
  readonly server: AttachableServer
}

/** A proxy that listens. Closing it cuts what still runs. */
export async function startProxy(options: ProxyOptions, mounting: Mounting = {}): Promise<RunningProxy> {
  const { http2 = false, https = false, mount = 'attach', server: settings = {} } = mounting
  const transport = mounting.transport?.()
  const proxy = createProxy(transport === undefined ? options : { ...options, transport })
  const { localhost } = certificates()
  const server: AttachableServer = http2
    ? https
      ? createSecureServer({ ...localhost, allowHTTP1: true })
      : createHttp2Server()
    : https
      ? createHttpsServer({ ...settings, ...localhost })
      : createServer(settings)
  const connections = new Set<{ destroy(): void }>()
  ;(server as Server).on('connection', (socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  if (mount === 'attach') proxy.attach(server)
  else server.on('request', proxy)
  await new Promise<void>((resolve) => (server as Server).listen(0, '127.0.0.1', resolve))
  return {
    port: ((server as Server).address() as AddressInfo).port,
    proxy,
    server,
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise<void>((resolve) => (server as Server).close(() => resolve()))
      for (const connection of connections) connection.destroy()
      await proxy.close({ deadline: 0 })
      await closed
      await transport?.close?.()
    },
  }
}

/** Answers every request with this body and status 200. */
export function okUpstream(body = 'ok'): Promise<RawUpstream> {
  return rawUpstream(everyRequest(() => `HTTP/1.1 200 OK\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`))
}

export interface OutcomeLog {
  /** Put it first into `use`, so that it is the outermost. */
  readonly stage: Stage
  readonly outcomes: readonly Outcome[]
  readonly exchanges: readonly Exchange[]
  /** The nth outcome (from 1), as soon as it is there. */
  outcome(number: number): Promise<Outcome>
}

/** Remembers how exchanges ended. A request that was refused before routing reaches no stage and is not in it. */
export function outcomeLog(): OutcomeLog {
  const outcomes: Outcome[] = []
  const exchanges: Exchange[] = []
  return {
    stage: {
      name: 'outcome-log',
      handle: (exchange) => {
        exchanges.push(exchange)
        return { onFinish: (outcome) => void outcomes.push(outcome) }
      },
    },
    outcomes,
    exchanges,
    outcome: (number) => until(`outcome ${number}`, () => outcomes[number - 1]),
  }
}

/** Looks once per turn of the event loop until `look` finds something; for states of this process that no event announces. */
export async function until<T>(what: string, look: () => T | undefined | false, deadline = 5000): Promise<T> {
  const end = performance.now() + deadline
  for (;;) {
    const found = look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > end) throw new Error(`${what}: not within ${deadline} ms`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/**
 * The value at which `look` comes to rest: the same `turns` times, `every` so many milliseconds. For what back-pressure stops, which nothing announces; on a
 * machine so slow that this is too early the value is only smaller, so a bound that holds is never missed and one that breaks may be.
 */
export async function atRest(look: () => number, { turns = 10, every = 20, deadline = 10_000 } = {}): Promise<number> {
  const end = performance.now() + deadline
  let value = look()
  for (let same = 0; same < turns; ) {
    if (performance.now() > end) throw new Error(`still moving after ${deadline} ms, at ${value}`)
    await new Promise((resolve) => setTimeout(resolve, every))
    const now = look()
    same = now === value ? same + 1 : 0
    value = now
  }
  return value
}

/** A promise and the function that fulfils it: holds an upstream or a stage until the test has seen what it wants to see. */
export function gate<T = void>(): { readonly opened: Promise<T>; readonly open: (value: T) => void } {
  const { promise, resolve } = Promise.withResolvers<T>()
  return { opened: promise, open: resolve }
}
