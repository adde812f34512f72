/**
 * What stands between a connection and undici's parser, for three reasons.
 *
 * Interim heads: see interim.ts.
 *
 * Large bodies: undici copies every byte of a response into its WebAssembly parser, which for a body of known length only counts them; that
 * copy is a fifth of the cost of proxying a large download. So when a head announces a large `Content-Length`, the parser is shown a length of
 * one, the body goes straight to the call, and only its last byte goes through the parser, which thereby ends the message in its usual way:
 * end, truncation, keep-alive and everything else about the connection stay undici's.
 *
 * Small responses: node's readable stream would buffer each chunk, tell of it a tick later, and be asked half a dozen times per request whether
 * there is something. A chunk that nothing stands in front of is given to the parser in the tick in which it was read, and while nothing is there
 * the question ends here.
 */
import type { Socket } from 'node:net'
import { InterimFilter, mayBeInterim } from './interim.ts'
import { copyOf, giveSlab, scratch, takeSlab } from './read-memory.ts'

export interface DirectSink {
  /** Bytes of the body, in order, without a detour. @param reclaim see `ResponseSink.onData` */
  onDirect(chunk: Buffer, reclaim?: (chunk: Buffer) => void): void
}

/** From this many bytes on. Below it the detour costs less than finding out. */
const large = 1_048_576
/** A first chunk that is shorter, and does not stop right behind its head, holds a whole small response. */
const worthLooking = 16_384

const lengthField = /\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n/gi
const codingField = /\r\ntransfer-encoding[ \t]*:/i

export class WireFilter {
  /** Nothing is delivered while true: the client is slow. */
  paused: boolean = false
  /** `Content-Length` as the upstream wrote it, while the parser was shown another. */
  length: string | undefined = undefined
  /** Made when something arrives that may be a 1xx. */
  #interim: InterimFilter | undefined
  #sink: DirectSink | undefined
  #mayHaveBody = false
  #inspected = true
  /** Bytes that still go past the parser. */
  #direct = 0
  /** Body bytes that came in one chunk with the head. */
  #rest: Buffer | undefined
  #socket: Socket | undefined
  /** What was read is given to us and not to the socket: see `onread`. */
  #reads = false
  /** Read, and about to be asked for. */
  #arrived: Buffer | undefined
  #memory: Buffer = scratch

  /** Puts itself between `socket` and whoever calls its `read`. */
  attach(socket: Socket): void {
    this.#socket = socket
    const read = socket.read
    const next = (): Buffer | null => {
      const arrived = this.#arrived
      if (arrived !== undefined) {
        this.#arrived = undefined
        return arrived
      }
      // Nothing waits in the socket. It reads on by itself; to ask it would only cost.
      return this.#reads && socket.readableLength === 0 ? null : read.call(socket)
    }
    // Node itself calls `read(0)` to start reading and drops what that returns: it must not take anything.
    socket.read = (size?: number) => (size === 0 ? read.call(socket, 0) : this.#read(next))
  }

  /**
   * For `net.connect`: what is read goes past the socket's buffer where it goes past the parser, since there every chunk would fill it, which stops
   * the reading and starts it again. The rest is pushed into the socket as node would have done.
   */
  get onread(): { buffer(): Buffer; callback(bytes: number, buffer: Uint8Array): boolean } {
    this.#reads = true
    return {
      buffer: () => {
        this.#memory = this.#direct > 0 ? takeSlab() : scratch
        return this.#memory
      },
      callback: (bytes, buffer) => this.#onRead(bytes, buffer),
    }
  }

  #onRead(bytes: number, buffer: Uint8Array): boolean {
    const socket = this.#socket as Socket
    if (this.paused || this.#rest !== undefined || socket.readableLength > 0) return socket.push(copyOf(buffer, bytes))
    if (this.#direct === 0) {
      this.#arrived = copyOf(buffer, bytes)
      socket.emit('readable')
      const left = this.#arrived
      // The parser waits, or there is none yet.
      this.#arrived = undefined
      return left === undefined || socket.push(left)
    }
    const length = Math.min(bytes, this.#direct)
    this.#direct -= length
    if (this.#memory === scratch) this.#sink?.onDirect(copyOf(buffer, length))
    else this.#sink?.onDirect(this.#memory.subarray(0, length), giveSlab)
    return length === bytes ? !this.paused : socket.push(copyOf(buffer.subarray(length), bytes - length))
  }

  /** A request goes out: the next bytes are a response head. @param mayHaveBody false for HEAD */
  expect(sink: DirectSink, mayHaveBody: boolean): void {
    this.#interim = undefined
    this.#sink = sink
    this.#mayHaveBody = mayHaveBody
    this.#inspected = false
    this.#direct = 0
    this.#rest = undefined
    this.length = undefined
    this.paused = false
  }

  /** The call is over. */
  release(): void {
    this.#sink = undefined
    this.#rest = undefined
  }

  /** True while body bytes go past the parser: then the parser cannot be paused, but the filter can. */
  get direct(): boolean {
    return this.#direct > 0
  }

  #read(next: () => Buffer | null): Buffer | null {
    if (this.#direct > 0) return this.#pass(next)
    const chunk = next()
    if (chunk === null || this.#inspected) return chunk
    let bytes: Buffer | null = chunk
    if (this.#interim !== undefined || mayBeInterim(chunk)) {
      this.#interim ??= new InterimFilter()
      bytes = this.#interim.filter(chunk)
      if (this.#interim.awaiting || bytes === null) return bytes
    }
    this.#inspected = true
    return this.#mayHaveBody ? this.#inspect(bytes) : bytes
  }

  #pass(next: () => Buffer | null): Buffer | null {
    while (this.#direct > 0) {
      if (this.paused) return null
      const chunk = this.#rest ?? next()
      this.#rest = undefined
      if (chunk === null) return null
      const own = chunk.length <= this.#direct ? chunk : chunk.subarray(0, this.#direct)
      this.#direct -= own.length
      this.#sink?.onDirect(own)
      if (own !== chunk) return chunk.subarray(own.length)
    }
    return next()
  }

  /** The start of a final head; gives back what the parser is to see. */
  #inspect(bytes: Buffer): Buffer {
    if (bytes.length < worthLooking && !endsWithBlankLine(bytes)) return bytes
    // 200 or 206, and nothing in front of it.
    if (bytes[8] !== 0x20 || bytes[9] !== 0x32 || bytes[10] !== 0x30 || (bytes[11] !== 0x30 && bytes[11] !== 0x36)) return bytes
    const end = bytes.indexOf('\r\n\r\n')
    if (end < 0) return bytes
    const head = bytes.toString('latin1', 0, end + 4)
    const [field, another] = head.matchAll(lengthField)
    // Anything but one plain length is the parser's to judge.
    if (field === undefined || another !== undefined || codingField.test(head)) return bytes
    const digits = field[1] as string
    const total = Number(digits)
    if (total < large) return bytes
    const at = field.index + field[0].indexOf(digits)
    this.length = digits
    this.#direct = total - 1
    this.#rest = end + 4 < bytes.length ? bytes.subarray(end + 4) : undefined
    return Buffer.from(`${head.slice(0, at)}1${head.slice(at + digits.length)}`, 'latin1')
  }
}

function endsWithBlankLine(bytes: Buffer): boolean {
  const { length } = bytes
  return bytes[length - 1] === 0x0a && bytes[length - 2] === 0x0d && bytes[length - 3] === 0x0a && bytes[length - 4] === 0x0d
}
