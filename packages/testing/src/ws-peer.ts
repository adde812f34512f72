/**
 * Both ends of a WebSocket, on raw sockets: enough to see what a proxy does to a handshake, to bytes that come early, to a tunnel that
 * breaks. Not a library: no extensions, no automatic pong, and a protocol error throws.
 */
import { createHash, randomBytes } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import { fieldValues, type RawHead, type RawRequest, type RawResponse } from './http1.ts'
import { type RawConnectOptions, rawConnect } from './raw-client.ts'
import { type RawUpstream, type RawUpstreamOptions, rawUpstream } from './raw-upstream.ts'
import { noDeadline } from './watch.ts'
import type { Ending } from './wire.ts'
import { encodeClose, encodeFrame, type Fragments, readMessage, type WsMessage } from './ws-frames.ts'

/** One end of an open WebSocket. Disposing of it closes the connection at once. */
export interface WsPeer extends AsyncDisposable {
  /** The head of the 101, as the client received it; for the upstream's end, the head of the request. */
  readonly head: RawHead
  /** The subprotocol that was agreed on. */
  readonly protocol: string | undefined
  /** A string is sent as text, bytes as binary. Resolves true when the kernel has taken it. */
  send(message: string | Uint8Array): Promise<boolean>
  /** One message in so many frames. */
  sendFragments(parts: readonly string[]): Promise<boolean>
  ping(data?: string): Promise<boolean>
  pong(data?: string): Promise<boolean>
  /** Sends a close frame; the connection stays until the other side has answered and `end` was called. */
  close(code?: number, reason?: string): Promise<boolean>
  /** Bytes as they are, frames or not. */
  write(bytes: string | Uint8Array): Promise<boolean>
  /** The next message, control frames included. Rejects with `WireError` at the deadline or when the connection ends first. */
  next(deadline?: number): Promise<WsMessage>
  /** FIN. */
  end(): void
  /** RST: a crash. */
  reset(): void
  pause(): void
  resume(): void
  readonly ending: Ending
  /** How the other side's connection ended, as soon as it has. */
  readonly closed: Promise<Ending>
}

export interface WsConnectOptions extends RawConnectOptions {
  /** Default `/`. */
  readonly path?: string
  /** Fields besides those of the handshake, flat list. `Host` here replaces the default, `localhost`. */
  readonly headers?: readonly string[]
  /** Offered subprotocols. */
  readonly protocols?: readonly string[]
  /** Bytes sent right behind the handshake, before any answer. */
  readonly early?: Uint8Array
}

/** The server answered something else than 101. */
export class WsRefused extends Error {
  override readonly name: string = 'WsRefused'
  readonly response: RawResponse

  constructor(response: RawResponse) {
    super(`the handshake was answered ${response.line}`)
    this.response = response
  }
}

/**
 * Opens a WebSocket. Whoever opens it ends it: `await using`, `end` or `reset`.
 * @throws WsRefused with the response when it is not a 101
 */
export async function wsConnect(port: number, options: WsConnectOptions = {}): Promise<WsPeer> {
  const { path = '/', headers = [], protocols = [], early } = options
  const connection = await rawConnect(port, options)
  try {
    const key = randomBytes(16).toString('base64')
    const host = fieldValues(headers, 'host').length > 0 ? [] : ['Host', 'localhost']
    const offer = protocols.length > 0 ? ['Sec-WebSocket-Protocol', protocols.join(', ')] : []
    const handshake = ['Connection', 'Upgrade', 'Upgrade', 'websocket', 'Sec-WebSocket-Version', '13', 'Sec-WebSocket-Key', key]
    const head = `GET ${path} HTTP/1.1\r\n${lines([...host, ...headers, ...handshake, ...offer])}\r\n`
    void connection.write(Buffer.concat([Buffer.from(head, 'latin1'), early ?? Buffer.alloc(0)]))
    const response = await connection.readResponse()
    if (response.status !== 101) throw new WsRefused(response)
    if (response.header('sec-websocket-accept') !== accept(key)) throw new Error('the Sec-WebSocket-Accept of the 101 does not fit the key')
    return wsPeer(connection, (bytes) => connection.write(bytes), response, response.header('sec-websocket-protocol'), true)
  } catch (error) {
    connection.destroy()
    throw error
  }
}

export interface WsUpstreamOptions extends RawUpstreamOptions {
  /** Answers this instead of 101. */
  readonly refuse?: number | { readonly status: number; readonly headers?: readonly string[]; readonly body?: string }
  /** Answers nothing: resets, closes in order, or stays silent. */
  readonly fail?: 'reset' | 'hangUp' | 'stall'
  /** Subprotocol of the 101. Default: the first that was offered. */
  readonly protocol?: string
  /** Fields of the 101 besides those of the handshake, flat list. */
  readonly headers?: readonly string[]
  /** Text messages in the same write as the 101. */
  readonly first?: readonly string[]
  /** The conversation. Default: text and binary are sent back, pings and closes answered. */
  readonly script?: (peer: WsPeer) => Promise<void> | void
}

export interface WsUpstream extends RawUpstream {
  /** One per accepted handshake, in order. */
  readonly peers: readonly WsPeer[]
}

/** An upstream that speaks WebSocket: a `rawUpstream` with the handshake done. */
export async function wsUpstream(options: WsUpstreamOptions = {}): Promise<WsUpstream> {
  const { refuse, fail, headers = [], first = [], script = echoMessages, ...rest } = options
  const peers: WsPeer[] = []
  const upstream = await rawUpstream(async (connection) => {
    const request = await connection.readRequest()
    if (fail === 'reset') connection.reset()
    else if (fail === 'hangUp') connection.end()
    if (fail !== undefined) return
    if (refuse !== undefined) {
      const { status, headers: fields = [], body = '' } = typeof refuse === 'number' ? { status: refuse } : refuse
      const framing = ['Content-Length', String(Buffer.byteLength(body))]
      await connection.send(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines([...fields, ...framing])}\r\n`)
      await connection.send(Buffer.from(body))
      return
    }
    const protocol = options.protocol ?? request.header('sec-websocket-protocol')?.split(/ *, */)[0]
    const agreed = protocol === undefined ? [] : ['Sec-WebSocket-Protocol', protocol]
    const head = `HTTP/1.1 101 Switching Protocols\r\n${lines([...handshakeAnswer(request), ...agreed, ...headers])}\r\n`
    await connection.send(Buffer.concat([Buffer.from(head, 'latin1'), ...first.map((text) => encodeFrame('text', text, false))]))
    const peer = wsPeer(connection, (bytes) => connection.send(bytes), request, protocol, false)
    peers.push(peer)
    await script(peer)
  }, rest)
  return Object.assign(upstream, { peers })
}

/** Sends back what comes, answers pings, answers a close and ends. */
async function echoMessages(peer: WsPeer): Promise<void> {
  for (;;) {
    const message = await peer.next(noDeadline)
    if (message.kind === 'text') await peer.send(message.text)
    else if (message.kind === 'binary') await peer.send(message.data)
    else if (message.kind === 'ping') await peer.pong(message.text)
    else if (message.kind === 'close') {
      await peer.close(message.code === 1005 ? undefined : message.code, message.text)
      peer.end()
      return
    }
  }
}

interface Line {
  readBytes(count: number, deadline?: number): Promise<Buffer>
  end(): void
  reset(): void
  destroy(): void
  pause(): void
  resume(): void
  readonly ending: Ending
  readonly closed: Promise<Ending>
}

type Write = (bytes: string | Uint8Array) => Promise<boolean>

function wsPeer(line: Line, write: Write, head: RawHead, protocol: string | undefined, client: boolean): WsPeer {
  const fragments: Fragments = { opcode: undefined, parts: [] }
  return {
    head,
    protocol,
    send: (message) => write(encodeFrame(typeof message === 'string' ? 'text' : 'binary', message, client)),
    sendFragments: (parts) =>
      write(Buffer.concat(parts.map((part, i) => encodeFrame(i === 0 ? 'text' : 'continuation', part, client, i === parts.length - 1)))),
    ping: (data = '') => write(encodeFrame('ping', data, client)),
    pong: (data = '') => write(encodeFrame('pong', data, client)),
    close: (code, reason = '') => write(encodeClose(code, reason, client)),
    write,
    next: (deadline) => readMessage((count) => line.readBytes(count, deadline), !client, fragments),
    end: () => line.end(),
    reset: () => line.reset(),
    pause: () => line.pause(),
    resume: () => line.resume(),
    get ending() {
      return line.ending
    },
    get closed() {
      return line.closed
    },
    [Symbol.asyncDispose]: async () => line.destroy(),
  }
}

function handshakeAnswer(request: RawRequest): string[] {
  return ['Upgrade', 'websocket', 'Connection', 'Upgrade', 'Sec-WebSocket-Accept', accept(request.header('sec-websocket-key') ?? '')]
}

/** RFC 6455 §4.2.2: proof that the server understood the handshake. */
function accept(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}

function lines(flat: readonly string[]): string {
  let text = ''
  for (let i = 0; i < flat.length; i += 2) text += `${flat[i]}: ${flat[i + 1]}\r\n`
  return text
}
