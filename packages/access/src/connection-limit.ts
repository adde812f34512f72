/**
 * How many connections one client may hold open, decided when a connection comes in: before TLS, before a byte of a request. It is what holds up
 * against clients that open connections and say nothing, or a byte a minute: such a connection never becomes a request, so no stage ever sees it,
 * and all that it costs is a socket. How long it may go on is the server's own business (`headersTimeout`, `requestTimeout`, `keepAliveTimeout`),
 * and so is how many there may be in all (`maxConnections`); node has nothing that looks at who they belong to.
 *
 * The client here is the peer of the socket. Behind another load balancer all connections have its address: exempt it, and limit there.
 */
import type { Server, Socket } from 'node:net'
import { OptionReader } from '@weir/core'
import { type AccessConnection, connections } from './events.ts'
import { hostMask, readAddress } from './ip-address.ts'
import { type AddressRanges, readRangeSet } from './ip-rules.ts'
import type { RangeTable } from './range-table.ts'

export interface ConnectionLimitOptions {
  /**
   * Connections of one client that may be open at once, 1 to 1,000,000. Default 100: a browser opens six per host with HTTP/1.1 and one with HTTP/2,
   * and an office or a mobile carrier is many browsers behind one address.
   */
  readonly perClient?: number
  /** Bits of an IPv4 address that make a client, 8 to 32. Default 32. */
  readonly ipv4Prefix?: number
  /** Bits of an IPv6 address that make a client, 16 to 128. Default 64: whoever has one address of a network has them all. */
  readonly ipv6Prefix?: number
  /** Clients without a limit, by address: a load balancer in front, a monitor. Default none. */
  readonly exempt?: AddressRanges
  /** Counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events. Default `'connectionLimit'`. */
  readonly name?: string
}

export interface ConnectionLimitStats {
  /** Connections that are open now and count. */
  readonly open: number
  /** Clients that hold them. */
  readonly clients: number
  /** Connections let in and counted. */
  readonly allowed: number
  /** Connections reset. */
  readonly refused: number
  /** Connections that would have been reset, but for `dryRun`. */
  readonly dry: number
}

export interface ConnectionLimit {
  readonly name: string
  /**
   * Watches what `server` accepts from now on: `net`, `tls`, `http`, `https` or `http2`. Several servers share the counts. Connections that are open already
   * do not count. Returns what ends it: from then on nothing is refused, and what is open counts until it closes.
   * @throws OptionsError for what is no server, or is watched already
   */
  attach(server: Pick<Server, 'prependListener' | 'off'>): () => void
  stats(): ConnectionLimitStats
}

const keys = ['perClient', 'ipv4Prefix', 'ipv6Prefix', 'exempt', 'dryRun', 'name']

/**
 * A connection over the limit is reset (RST), which leaves nothing behind on this side: no `TIME_WAIT`, no answer that the client would have to read.
 * @throws OptionsError
 */
export function connectionLimit(options?: ConnectionLimitOptions): ConnectionLimit {
  const read = new OptionReader('connectionLimit')
  const given = read.object<ConnectionLimitOptions>(options, keys)
  const perClient = read.number('perClient', given.perClient, 100, { min: 1, max: 1_000_000, integer: true })
  const ipv4Prefix = read.number('ipv4Prefix', given.ipv4Prefix, 32, { min: 8, max: 32, integer: true })
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 16, max: 128, integer: true })
  const exempt: RangeTable | undefined = given.exempt === undefined ? undefined : readRangeSet(read, 'exempt', given.exempt)
  const dryRun = read.boolean('dryRun', given.dryRun, false)
  const name = read.name('name', given.name, 'connectionLimit')
  read.check()

  // A client is here only while it has a connection, so the table is never larger than the number of sockets.
  const held = new Map<number | string, number>()
  const watched = new WeakSet<object>()
  let open = 0
  let allowed = 0
  let refused = 0
  let dry = 0

  const tell = (address: string, count: number, verdict: 'refused' | 'dry'): void => {
    if (connections.hasSubscribers) connections.publish({ name, address, open: count, verdict } satisfies AccessConnection)
  }
  const accept = (socket: Socket): void => {
    // A Unix socket has no address, nor has one that the client has closed again.
    const address = socket.remoteAddress
    if (address === undefined) return
    const client = clientOf(address, ipv4Prefix, ipv6Prefix)
    if (client === undefined || (exempt !== undefined && exempt.find(address) >= 0)) return
    const count = held.get(client) ?? 0
    if (count >= perClient) {
      if (!dryRun) {
        refused++
        drop(socket)
        tell(address, count, 'refused')
        return
      }
      dry++
      tell(address, count, 'dry')
    } else allowed++
    held.set(client, count + 1)
    open++
    socket.once('close', () => {
      open--
      const left = (held.get(client) as number) - 1
      if (left === 0) held.delete(client)
      else held.set(client, left)
    })
  }

  return {
    name,
    attach(server) {
      const check = new OptionReader(`${name}.attach`)
      if (typeof server?.prependListener !== 'function') check.problem('server', server, 'a server of net, tls, http, https or http2')
      else if (watched.has(server))
        check.problem('server', 'a server that is watched already', 'each server once, or its connections count twice')
      check.check()
      watched.add(server)
      // Before the server's own listener, which begins to read; with TLS it is the bare socket, before the handshake.
      server.prependListener('connection', accept)
      return () => {
        server.off('connection', accept)
        watched.delete(server)
      }
    },
    stats: () => ({ open, clients: held.size, allowed, refused, dry }),
  }
}

const words = new Uint32Array(4)

/** The network that counts as one client, as something to look up by. Undefined for what is no address. */
function clientOf(address: string, ipv4Prefix: number, ipv6Prefix: number): number | string | undefined {
  const family = readAddress(address, words)
  if (family === 0) return undefined
  if (family === 4) return ((words[0] as number) & ~hostMask(ipv4Prefix, 0)) >>> 0
  let text = ''
  for (let at = 0; at * 32 < ipv6Prefix; at++) text += `${(((words[at] as number) & ~hostMask(ipv6Prefix, at)) >>> 0).toString(16)}:`
  return text
}

/** What was handed to the server by `emit('connection', ...)` may be a layer on top of TCP, such as a `TLSSocket`, which cannot be reset. */
function drop(socket: Socket): void {
  socket.on('error', ignore)
  try {
    socket.resetAndDestroy()
  } catch {
    socket.destroy()
  }
}

/** What the layers above find out about a connection that is gone is nobody's concern. */
function ignore(): void {}
