/**
 * One connection as a test sees it: every byte that came in, in order, and how the other side ended. An HTTP library hides exactly what
 * proxy tests are about (header case, framing, a reset instead of an orderly close), so the kit reads sockets itself.
 *
 * Think of it as a tape: bytes are only ever added at the end, `unread` starts at the reading head, and a wait looks at the tape again
 * whenever it grew or the connection ended. Each wait has a deadline, so a test that would hang fails and shows what had been received.
 */
import type { Socket } from 'node:net'
import { defaultDeadline, Watch } from './watch.ts'

/**
 * How the other side ended: `fin` is an orderly close of its sending side, `reset` a reset or any other socket error (see `Wire.error`),
 * `local` means that this side destroyed the connection first.
 */
export type Ending = 'open' | 'fin' | 'reset' | 'local'

/** A wait that failed, with everything received on that connection until then. */
export class WireError extends Error {
  override readonly name: string = 'WireError'
  readonly reason: 'deadline' | 'ended' | 'malformed'
  readonly ending: Ending
  readonly received: Buffer

  constructor(reason: WireError['reason'], what: string, ending: Ending, received: Buffer) {
    const shown = received.length > 500 ? `...${received.toString('latin1', received.length - 500)}` : received.toString('latin1')
    super(`${what} (${reason}; connection: ${ending}; received ${received.length} bytes: ${JSON.stringify(shown)})`)
    this.reason = reason
    this.ending = ending
    this.received = received
  }
}

export class Wire {
  readonly socket: Socket
  /** The socket error behind an ending of `reset`. */
  error: Error | undefined
  readonly #tcp: Socket
  readonly #deadline: number
  readonly #watch = new Watch()
  #tape = Buffer.allocUnsafe(4096)
  #head = 0
  #length = 0
  #ending: Ending = 'open'
  #closed = false
  #written = 0
  #dead = false

  /** @param tcp the socket below TLS, which is the one that can be reset; default: `socket` itself */
  constructor(socket: Socket, deadline: number = defaultDeadline, tcp: Socket = socket) {
    this.socket = socket
    this.#tcp = tcp
    this.#deadline = deadline
    socket.on('data', (chunk: Buffer) => {
      this.#append(chunk)
      this.changed()
    })
    socket.on('end', () => this.#end('fin'))
    socket.on('error', (error) => this.#fail(error))
    if (tcp !== socket) tcp.on('error', (error) => this.#fail(error))
    socket.on('close', () => {
      this.#closed = true
      this.#end('local')
      this.changed()
    })
  }

  get ending(): Ending {
    return this.#ending
  }

  /** True when nothing of the connection is left on this side. */
  get destroyed(): boolean {
    return this.#closed
  }

  /** Everything received. */
  get received(): Buffer {
    return this.#tape.subarray(0, this.#length)
  }

  /** Received and not consumed by a read. */
  get unread(): Buffer {
    return this.#tape.subarray(this.#head, this.#length)
  }

  /** Where the next read starts, as an index into `received`. */
  get position(): number {
    return this.#head
  }

  /** Bytes that the kernel accepted: what back-pressure is measured with. */
  get written(): number {
    return this.#written
  }

  /** Resolves when the other side has ended, with how. Not while paused: a socket that is not read learns nothing. */
  get closed(): Promise<Ending> {
    return this.waitFor('the other side to close', () => (this.#ending === 'open' ? undefined : this.#ending))
  }

  /** Resolves true when the kernel has taken all of it, false when the connection broke; never rejects, so it need not be awaited. */
  write(bytes: string | Uint8Array): Promise<boolean> {
    const chunk = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes
    if (this.socket.destroyed || this.socket.writableEnded) return Promise.resolve(false)
    return new Promise((resolve) => {
      this.socket.write(chunk, (error) => {
        if (!error) this.#written += chunk.length
        resolve(!error)
      })
    })
  }

  /** Sends FIN; what the other side still sends is read on. */
  end(): void {
    this.socket.end()
  }

  /** Sends RST (a Unix socket has none and is just closed). */
  reset(): void {
    if (this.#dead) return
    this.#dead = true
    this.#end('local')
    // Below TLS only the TCP socket goes; the TLS socket follows by itself. Destroying both in one tick crashes Node 24 (SIGSEGV).
    try {
      this.#tcp.resetAndDestroy()
    } catch {
      this.socket.destroy()
    }
  }

  destroy(): void {
    if (this.#dead) return
    this.#dead = true
    this.#end('local')
    this.socket.destroy()
  }

  /** Stops reading: the kernel's buffers fill and the other side feels it. */
  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  /** Moves the reading head and returns what it passed. */
  take(bytes: number): Buffer {
    const start = this.#head
    this.#head = Math.min(start + bytes, this.#length)
    return this.#tape.subarray(start, this.#head)
  }

  /** Waits until `look` finds something in what is unread. Rejects with `WireError` at the deadline and when the connection ended first. */
  until<T>(what: string, look: (unread: Buffer) => T | undefined, deadline?: number): Promise<T> {
    return this.waitFor(
      what,
      () => {
        const found = look(this.unread)
        if (found === undefined && this.#ending !== 'open') throw this.failure('ended', what)
        return found
      },
      deadline,
    )
  }

  /** Waits until `text` has come and consumes up to its end. */
  async readThrough(text: string, deadline?: number): Promise<Buffer> {
    const end = await this.until(
      `waiting for ${JSON.stringify(text)}`,
      (unread) => {
        const at = unread.indexOf(text, 0, 'latin1')
        return at < 0 ? undefined : at + text.length
      },
      deadline,
    )
    return this.take(end)
  }

  /** Exactly this many bytes. */
  async readBytes(count: number, deadline?: number): Promise<Buffer> {
    await this.until(`waiting for ${count} bytes`, (unread) => (unread.length >= count ? true : undefined), deadline)
    return this.take(count)
  }

  /** Everything up to the end of the connection, however it ends. */
  async readToEnd(deadline?: number): Promise<Buffer> {
    await this.waitFor('reading to the end', () => (this.#ending === 'open' ? undefined : true), deadline)
    return this.take(this.#length)
  }

  /** Waits until `text` has been received, read or not. */
  async sees(text: string, deadline?: number): Promise<void> {
    await this.waitFor(
      `waiting to see ${JSON.stringify(text)}`,
      () => {
        if (this.received.includes(text, 0, 'latin1')) return true
        if (this.#ending !== 'open') throw this.failure('ended', `waiting to see ${JSON.stringify(text)}`)
        return undefined
      },
      deadline,
    )
  }

  /** Waits for any change of this connection until `look` returns something. */
  waitFor<T>(what: string, look: () => T | undefined, deadline: number = this.#deadline): Promise<T> {
    return this.#watch.until(look, deadline, () => this.failure('deadline', `${what}: nothing within ${deadline} ms`))
  }

  failure(reason: WireError['reason'], what: string): WireError {
    return new WireError(reason, what, this.#ending, Buffer.from(this.received))
  }

  #fail(error: Error): void {
    this.error ??= error
    this.#end('reset')
  }

  #end(ending: Ending): void {
    if (this.#ending !== 'open') return
    this.#ending = ending
    this.changed()
  }

  /** Something that a wait may look at has changed. */
  changed(): void {
    this.#watch.changed()
  }

  // Views handed out earlier stay valid: bytes once on the tape are never overwritten, a fuller tape is a new buffer.
  #append(chunk: Buffer): void {
    const need = this.#length + chunk.length
    if (need > this.#tape.length) {
      const larger = Buffer.allocUnsafe(Math.max(need, this.#tape.length * 2))
      this.#tape.copy(larger, 0, 0, this.#length)
      this.#tape = larger
    }
    chunk.copy(this.#tape, this.#length)
    this.#length = need
  }
}
