/**
 * The floor: the least that a proxy on node:http and undici can do. One undici `Client` per connection, taken from a free list (last in,
 * first out), because `Pool` scans its clients. Hop-by-hop fields are dropped, everything else passes as it came. There is no pool, no
 * balancer, no forwarding field, no retry, no check of anything, and an upstream's failure just cuts the client off: what a real proxy adds
 * is measured against this.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Client, type Dispatcher } from 'undici'
import { serve, upstream } from './serve.ts'

const hopByHop = new Set(['connection', 'keep-alive', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'proxy-connection', 'expect'])
const free: Client[] = []

class Handler implements Dispatcher.DispatchHandler {
  readonly #client: Client
  readonly #res: ServerResponse
  #controller: Dispatcher.DispatchController | undefined
  #remaining = -1
  #last: Buffer | undefined

  constructor(client: Client, res: ServerResponse) {
    this.#client = client
    this.#res = res
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return
    const raw = controller.rawHeaders as Buffer[]
    const headers: string[] = []
    for (let i = 0; i < raw.length; i += 2) {
      const name = (raw[i] as Buffer).latin1Slice()
      const lower = name.toLowerCase()
      if (hopByHop.has(lower)) continue
      const value = (raw[i + 1] as Buffer).latin1Slice()
      if (lower === 'content-length') this.#remaining = Number(value)
      headers.push(name, value)
    }
    this.#res.writeHead(status, headers)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#remaining -= chunk.length
    // The last chunk waits for the end, which follows in the same tick, so that a short response leaves in one write.
    if (this.#remaining === 0) this.#last = chunk
    else if (!this.#res.write(chunk)) {
      controller.pause()
      this.#res.once('drain', () => controller.resume())
    }
  }

  onResponseEnd(): void {
    free.push(this.#client)
    if (this.#last === undefined) this.#res.end()
    // One latin1 string goes out with the head in a single buffer, which is cheaper than gathering two.
    else if (this.#last.length <= 8192) this.#res.end(this.#last.latin1Slice(), 'latin1')
    else this.#res.end(this.#last)
  }

  onResponseError(): void {
    free.push(this.#client)
    this.#res.destroy()
  }

  /** The client has gone. */
  abort(): void {
    this.#controller?.abort(new Error('client gone'))
  }
}

serve(
  createServer((req: IncomingMessage, res: ServerResponse) => {
    const raw = req.rawHeaders
    const headers: string[] = []
    let hasBody = false
    for (let i = 0; i < raw.length; i += 2) {
      const lower = (raw[i] as string).toLowerCase()
      if (lower === 'content-length' || lower === 'transfer-encoding') hasBody = true
      if (!hopByHop.has(lower)) headers.push(raw[i] as string, raw[i + 1] as string)
    }
    const client = free.pop() ?? new Client(upstream, { pipelining: 1 })
    const handler = new Handler(client, res)
    res.on('close', () => {
      if (!res.writableFinished) handler.abort()
    })
    client.dispatch(
      { method: req.method as Dispatcher.HttpMethod, path: req.url as string, headers, body: hasBody ? req : null },
      handler,
    )
  }),
)
