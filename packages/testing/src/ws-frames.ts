/** WebSocket frames (RFC 6455 §5), as little as tests need: whole messages out, frames in any cut in, nothing forgiven. */
import { randomBytes } from 'node:crypto'

export type WsKind = 'text' | 'binary' | 'ping' | 'pong' | 'close'

export interface WsMessage {
  readonly kind: WsKind
  readonly data: Buffer
  /** The data as UTF-8; of a close, its reason. */
  readonly text: string
  /** Of a close: its code, 1005 when it has none. */
  readonly code: number | undefined
}

const opcodes: Readonly<Record<WsKind, number>> = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 }

/** One frame. What a client sends must be masked, what a server sends must not. */
export function encodeFrame(kind: WsKind | 'continuation', data: string | Uint8Array, masked: boolean, final = true): Buffer {
  const payload = Buffer.from(data as Uint8Array)
  const { length } = payload
  const size = length < 126 ? Buffer.of(length) : length < 65_536 ? Buffer.from([126, length >> 8, length & 0xff]) : Buffer.alloc(9, 127)
  if (length >= 65_536) size.writeBigUInt64BE(BigInt(length), 1)
  const opcode = kind === 'continuation' ? 0 : opcodes[kind]
  const first = Buffer.of((final ? 0x80 : 0) | opcode)
  if (!masked) return Buffer.concat([first, size, payload])
  size[0] = (size[0] as number) | 0x80
  const key = randomBytes(4)
  return Buffer.concat([first, size, key, mask(payload, key)])
}

export function encodeClose(code: number | undefined, reason: string, masked: boolean): Buffer {
  if (code === undefined) return encodeFrame('close', '', masked)
  return encodeFrame('close', Buffer.concat([Buffer.of(code >> 8, code & 0xff), Buffer.from(reason)]), masked)
}

/**
 * Reads one message, put together from its fragments; a control frame between two fragments is a message of its own and comes first.
 * @param read gets exactly that many bytes
 * @param open fragments of a message that a control frame interrupted; kept by the caller between calls
 */
export async function readMessage(read: (count: number) => Promise<Buffer>, fromClient: boolean, open: Fragments): Promise<WsMessage> {
  for (;;) {
    const [first = 0, second = 0] = await read(2)
    if ((first & 0x70) !== 0) throw new Error(`a frame with reserved bits: 0x${first.toString(16)}`)
    const masked = (second & 0x80) !== 0
    if (masked !== fromClient) throw new Error(`a ${fromClient ? 'client' : 'server'}'s frame ${masked ? 'with' : 'without'} a mask`)
    let length = second & 0x7f
    if (length === 126) length = (await read(2)).readUInt16BE()
    else if (length === 127) length = Number((await read(8)).readBigUInt64BE())
    const key = masked ? await read(4) : undefined
    const bytes = await read(length)
    const payload = key === undefined ? Buffer.from(bytes) : mask(bytes, key)
    const final = (first & 0x80) !== 0
    const opcode = first & 0x0f
    if (opcode >= 8) {
      if (!final || length > 125) throw new Error('a control frame in fragments or above 125 bytes')
      return message(opcode, payload)
    }
    if ((opcode === 0) === (open.opcode === undefined)) throw new Error(`a frame out of turn: opcode ${opcode}`)
    open.opcode ??= opcode
    open.parts.push(payload)
    if (!final) continue
    const whole = message(open.opcode, Buffer.concat(open.parts))
    open.opcode = undefined
    open.parts = []
    return whole
  }
}

export interface Fragments {
  opcode: number | undefined
  parts: Buffer[]
}

function message(opcode: number, data: Buffer): WsMessage {
  const kind = (Object.keys(opcodes) as WsKind[]).find((name) => opcodes[name] === opcode)
  if (kind === undefined) throw new Error(`unknown opcode ${opcode}`)
  if (kind !== 'close') return { kind, data, text: data.toString(), code: undefined }
  if (data.length === 1) throw new Error('a close with half a code')
  return { kind, data, text: data.toString('utf8', 2), code: data.length === 0 ? 1005 : data.readUInt16BE() }
}

function mask(bytes: Uint8Array, key: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(bytes.length)
  for (let i = 0; i < bytes.length; i++) out[i] = (bytes[i] as number) ^ (key[i & 3] as number)
  return out
}
