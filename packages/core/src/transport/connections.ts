/**
 * Connections to upstreams on node's own `Agent`, one per upstream. Everything that identifies a connection (address, TLS name, trusted
 * CAs) is fixed here when the upstream is first met, so nothing that a client sends can choose it: left alone, node takes the TLS server
 * name from the request's `Host`. The rest is what a proxy needs to know of a connection and node does not tell: whether it is really open
 * (a byte given to a connecting socket has not been sent), how long that took, and whether it has carried a response before.
 */
import { type Agent, type ClientRequest, Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { isIP, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Upstream } from '../upstream.ts'
import { type AddressCheck, checkedLookup, refusedAddress } from './address-check.ts'
import { type ConnectPhases, timeConnecting } from './connect-phases.ts'
import { whenAged } from './connection-age.ts'
import { type readTlsOptions, serverNameOf } from './tls.ts'

export interface ConnectionSettings {
  readonly tls: ReturnType<typeof readTlsOptions>
  /** Idle milliseconds after which a kept connection is closed; 0 keeps none. */
  readonly keepAliveTimeout: number
  /** Requests after which a connection is closed; 0 for no limit. */
  readonly maxRequests: number
  /** Milliseconds after which a connection is closed, or not used again; 0 for no limit. */
  readonly maxAge: number
  /** Most connections per upstream; further requests wait for one. */
  readonly maxConnections: number
  /** Largest response head in bytes. */
  readonly maxHeaderSize: number
  readonly localAddress: string | undefined
  readonly allowAddress: AddressCheck | undefined
}

/** Where an upstream listens, in node's words. */
export interface Target {
  readonly protocol: 'http:' | 'https:'
  readonly hostname: string
  readonly port: number
  readonly socketPath: string | undefined
}

function targetOf(upstream: Upstream): Target {
  const { protocol, hostname, port, pathname } = upstream.url
  if (protocol === 'unix:') return { protocol: 'http:', hostname: 'localhost', port: 80, socketPath: decodeURIComponent(pathname) }
  const secure = protocol === 'https:'
  return {
    protocol: secure ? 'https:' : 'http:',
    // A URL keeps the brackets of an IPv6 address; the resolver wants it bare.
    hostname: hostname.startsWith('[') ? hostname.slice(1, -1) : hostname,
    port: port === '' ? (secure ? 443 : 80) : Number(port),
    socketPath: undefined,
  }
}

/** What is known of one connection. */
export interface ConnectionState {
  /** Undefined until the connection is open. */
  phases: ConnectPhases | undefined
  /** It has carried a whole response. */
  served: boolean
  requests: number
  /** Older than any may be. */
  aged: boolean
  /** Whoever waits for it to open. */
  onOpen: (() => void) | undefined
}

const states = new WeakMap<Duplex, ConnectionState>()

export function stateOf(socket: Duplex): ConnectionState | undefined {
  return states.get(socket)
}

/** The connections to one upstream. */
export interface Line {
  readonly agent: Agent
  readonly target: Target
  /**
   * Runs `make`, and tells which connection it opened, if any: node hands that to the request a tick later, too late for an abort in this one.
   */
  watch<T>(make: () => T): { readonly made: T; readonly fresh: Duplex | undefined }
  /** Closes what is idle now: one of them was found dead. */
  dropIdle(): void
  /** Closes what is idle now, and the rest as it becomes idle. */
  retire(): void
}

export class Connections {
  readonly #settings: ConnectionSettings
  readonly #lines = new Map<Upstream, Line>()
  #closed = false

  constructor(settings: ConnectionSettings) {
    this.#settings = settings
  }

  to(upstream: Upstream): Line {
    let line = this.#lines.get(upstream)
    if (line === undefined) {
      line = openLine(upstream, this.#settings)
      if (this.#closed) line.retire()
      else this.#lines.set(upstream, line)
    }
    return line
  }

  forget(upstream: Upstream): void {
    this.#lines.get(upstream)?.retire()
    this.#lines.delete(upstream)
  }

  close(): void {
    this.#closed = true
    for (const line of this.#lines.values()) line.retire()
    this.#lines.clear()
  }
}

function openLine(upstream: Upstream, settings: ConnectionSettings): Line {
  const target = targetOf(upstream)
  const servername = serverNameOf(upstream, settings.tls.servername)
  const secure = target.protocol === 'https:'
  const keepAlive = settings.keepAliveTimeout > 0
  const common = {
    keepAlive,
    maxSockets: settings.maxConnections,
    maxFreeSockets: settings.maxConnections,
    scheduling: 'lifo' as const,
    // The agent's own timeout closes idle connections only; on a busy one node merely emits an event that nobody listens to.
    ...(keepAlive ? { timeout: settings.keepAliveTimeout } : {}),
    ...(settings.localAddress === undefined ? {} : { localAddress: settings.localAddress }),
    ...(settings.allowAddress === undefined ? {} : { lookup: checkedLookup(settings.allowAddress) }),
  }
  const agent: Agent = secure
    ? new HttpsAgent({
        ...common,
        ...settings.tls.connect,
        // RFC 6066 §3: no address as a server name. The certificate is then checked against the address.
        servername: isIP(servername) === 0 ? servername : '',
      })
    : new HttpAgent(common)

  let fresh: Duplex | undefined
  let retired = false
  const idle = new Set<Duplex>()

  const connect = agent.createConnection.bind(agent)
  agent.createConnection = (options, callback) => {
    const startedAt = performance.now()
    const state: ConnectionState = { phases: undefined, served: false, requests: 0, aged: false, onOpen: undefined }
    const refused = refusedAddress(upstream, settings.allowAddress)
    // Node takes a socket that fails later, but no error thrown here.
    const socket: Duplex = refused === undefined ? (connect(options, callback) as Duplex) : new Socket()
    if (refused !== undefined) process.nextTick(() => socket.destroy(refused))
    states.set(socket, state)
    const phases = timeConnecting(socket, startedAt)
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      state.phases = phases()
      state.onOpen?.()
      state.onOpen = undefined
      if (keepAlive)
        whenAged(socket, settings.maxAge, () => {
          state.aged = true
          if (idle.has(socket)) socket.destroy()
        })
    })
    fresh = socket
    return socket
  }

  // All connections of this agent are alike; the default name is built anew for every request, over TLS from all of its settings.
  agent.getName = () => 'upstream'

  // A byte that arrives while nobody has asked for anything would be taken for the start of the next response (response queue poisoning).
  // Node guards against it only since 22.23 and 24.18.
  const unasked = function (this: Duplex): void {
    this.destroy()
  }
  const forgetIdle = function (this: Duplex): void {
    idle.delete(this)
  }
  const keep = agent.keepSocketAlive.bind(agent) as unknown as (socket: Duplex) => boolean
  const reuse = agent.reuseSocket.bind(agent)
  const pool = agent as unknown as { keepSocketAlive(socket: Duplex): boolean; reuseSocket(socket: Duplex, request: ClientRequest): void }
  pool.keepSocketAlive = (socket) => {
    const state = states.get(socket) as ConnectionState
    state.requests++
    if (retired || state.aged || state.requests === settings.maxRequests || !keep(socket)) return false
    idle.add(socket)
    socket.on('data', unasked)
    socket.on('close', forgetIdle)
    return true
  }
  pool.reuseSocket = (socket, request) => {
    idle.delete(socket)
    socket.off('data', unasked)
    socket.off('close', forgetIdle)
    reuse(socket as Socket, request)
  }

  const dropIdle = (): void => {
    for (const socket of [...idle]) socket.destroy()
  }

  return {
    agent,
    target,
    watch: (make) => {
      fresh = undefined
      const made = make()
      const result = { made, fresh }
      fresh = undefined
      return result
    },
    dropIdle,
    retire: () => {
      retired = true
      dropIdle()
    },
  }
}
