/**
 * The client's connection as http-proxy-3 sees it. Its `ws()` wants the socket at once, sets options and listeners on it and ends it when
 * the upstream cannot be reached; but until a tunnel is opened that connection is not the transport's to touch: another upstream may be
 * tried, and an answer may have to be written. So it gets this view. Closed, the view remembers listeners and ignores the rest; opened, it
 * passes everything on.
 */
import type { Duplex } from 'node:stream'

type Listener = (...args: unknown[]) => void
type Method = (...args: unknown[]) => unknown

/** One object for each tunnel, and functions only when they are asked for: it lives as long as the tunnel. */
export class ClientSide implements ProxyHandler<Duplex> {
  /** To be given to `ws()`. */
  readonly view: Duplex
  readonly #client: Duplex
  #listeners: [event: string, listener: Listener][] | undefined = undefined
  #head: Buffer | undefined = undefined
  #opened = false
  /** http-proxy-3 marks sockets with an `id` that it counts them by: on the view, not on the client's socket. */
  #id: unknown = 0
  /** Whatever else it sets. */
  #own: Map<PropertyKey, unknown> | undefined = undefined
  /** Of the client, bound to it, and always the same function: stream code compares listeners. */
  #bound: Map<PropertyKey, Method> | undefined = undefined

  constructor(client: Duplex) {
    this.#client = client
    this.view = new Proxy(client, this)
  }

  get(_: Duplex, key: PropertyKey): unknown {
    if (key === 'id') return this.#id
    if (this.#own?.has(key) === true) return this.#own.get(key)
    if (!this.#opened) return key === 'on' ? this.#listen : this.#ignore
    if (key === 'write') return this.#write
    // Only begins the end: a socket destroyed with unread bytes in it is reset, and the client would lose what is on its way.
    if (key === 'destroySoon') return this.#end
    const value: unknown = Reflect.get(this.#client, key, this.#client)
    return typeof value === 'function' ? this.#bind(key, value as Method) : value
  }

  set(_: Duplex, key: PropertyKey, value: unknown): boolean {
    if (key === 'id') this.#id = value
    else {
      this.#own ??= new Map()
      this.#own.set(key, value)
    }
    return true
  }

  /** From here on the view is the client's connection. @param head what is written in place of the head that http-proxy-3 builds */
  open(head: Buffer): void {
    this.#opened = true
    this.#head = head
    for (const [event, listener] of this.#listeners ?? []) this.#client.on(event, listener)
    this.#listeners = undefined
  }

  /** The attempt is over and there was no tunnel: what http-proxy-3 would do at the client's end, its counting included, without that end. */
  abandon(): void {
    const listeners = this.#listeners ?? []
    this.#listeners = undefined
    for (const [event, listener] of listeners) if (event === 'close') listener()
  }

  get #listen(): Method {
    return (event, listener) => {
      this.#listeners ??= []
      this.#listeners.push([event as string, listener as Listener])
      return this.view
    }
  }

  get #ignore(): Method {
    return () => this.view
  }

  get #end(): Method {
    return () => this.#client.end()
  }

  get #write(): Method {
    return (...args) => {
      const head = this.#head
      if (head === undefined) return (this.#client.write as Method).apply(this.#client, args)
      // The first write is the 101. http-proxy-3 builds it from an object, which groups names, and writes it as UTF-8, which changes octets.
      this.#head = undefined
      return this.#client.write(head)
    }
  }

  #bind(key: PropertyKey, method: Method): Method {
    this.#bound ??= new Map()
    let bound = this.#bound.get(key)
    if (bound === undefined) {
      bound = method.bind(this.#client)
      this.#bound.set(key, bound)
    }
    return bound
  }
}
