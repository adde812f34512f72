/**
 * The client's connection as http-proxy-3 sees it. Its `ws()` wants the socket at once, sets options and listeners on it and ends it when
 * the upstream cannot be reached; but until a tunnel is opened that connection is not the transport's to touch: another upstream may be
 * tried, and an answer may have to be written. So it gets this view. Closed, the view remembers listeners and ignores the rest; opened, it
 * passes everything on.
 */
import type { Duplex } from 'node:stream'

type Listener = (...args: unknown[]) => void

export class ClientSide {
  /** To be given to `ws()`. */
  readonly view: Duplex
  readonly #client: Duplex
  #listeners: [event: string, listener: Listener][] = []
  #head: Buffer | undefined = undefined
  #opened = false

  constructor(client: Duplex) {
    this.#client = client
    // http-proxy-3 marks sockets with an `id` that it counts them by: on the view, not on the client's socket.
    const own: Record<PropertyKey, unknown> = { id: 0 }
    const bound = new Map<PropertyKey, unknown>()
    const closed: Record<PropertyKey, unknown> = {
      on: (event: string, listener: Listener) => {
        this.#listeners.push([event, listener])
        return this.view
      },
    }
    const ignore = (): Duplex => this.view
    const open: Record<PropertyKey, unknown> = {
      write: (chunk: string | Uint8Array, ...rest: unknown[]) => this.#write(chunk, rest),
      // Only begins the end: a socket destroyed with unread bytes in it is reset, and the client would lose what is on its way.
      destroySoon: () => client.end(),
    }
    this.view = new Proxy(client, {
      get: (_, key) => {
        if (key in own) return own[key]
        if (!this.#opened) return closed[key] ?? ignore
        if (key in open) return open[key]
        const value = Reflect.get(client, key, client)
        if (typeof value !== 'function') return value
        // Bound, and always the same function: stream code compares listeners and calls `write` for every chunk.
        let method = bound.get(key)
        if (method === undefined) {
          method = value.bind(client)
          bound.set(key, method)
        }
        return method
      },
      set: (_, key, value) => {
        own[key] = value
        return true
      },
    })
  }

  /** From here on the view is the client's connection. @param head what is written in place of the head that http-proxy-3 builds */
  open(head: Buffer): void {
    this.#opened = true
    this.#head = head
    for (const [event, listener] of this.#listeners) this.#client.on(event, listener)
    this.#listeners = []
  }

  /** The attempt is over and there was no tunnel: what http-proxy-3 would do at the client's end, its counting included, without that end. */
  abandon(): void {
    const listeners = this.#listeners
    this.#listeners = []
    for (const [event, listener] of listeners) if (event === 'close') listener()
  }

  #write(chunk: string | Uint8Array, rest: unknown[]): boolean {
    const head = this.#head
    if (head === undefined) return (this.#client.write as (...args: unknown[]) => boolean).call(this.#client, chunk, ...rest)
    // The first write is the 101. http-proxy-3 builds it from an object, which groups names, and writes it as UTF-8, which changes octets.
    this.#head = undefined
    return this.#client.write(head)
  }
}
