/**
 * Where a response goes that has no client: that of a fork, and one whose client has left while others still want it (`Exchange.outlive`). It takes
 * everything and keeps nothing, and ends as node's responses do, with `close`.
 */
import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'

/** The part of node's `ServerResponse` that core uses. */
export class NoClient extends EventEmitter {
  shouldKeepAlive: boolean = true
  statusMessage: string = ''
  writableFinished: boolean = false
  readonly writableLength: number = 0
  readonly socket: null = null
  #closed = false

  /** As the exchange holds it. */
  static response(): ServerResponse {
    return new NoClient() as unknown as ServerResponse
  }

  static is(res: unknown): res is NoClient {
    return res instanceof NoClient
  }

  writeHead(): this {
    return this
  }

  write(): boolean {
    return true
  }

  end(): this {
    this.writableFinished = true
    this.#close()
    return this
  }

  /** Broken off. */
  destroy(): this {
    this.#close()
    return this
  }

  addTrailers(): void {}

  flushHeaders(): void {}

  writeContinue(): void {}

  getHeaderNames(): string[] {
    return []
  }

  removeHeader(): void {}

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    process.nextTick(() => this.emit('close'))
  }
}
