/**
 * The floor: the least that a proxy on node:http and undici can do. One undici `Client` per connection, taken from a free list (last in,
 * first out), because `Pool` scans its clients. Hop-by-hop fields are dropped, everything else passes as it came. There is no pool, no
 * balancer, no forwarding field, no retry, no check of anything, and an upstream's failure just cuts the client off: what a real proxy adds
 * is measured against this. Several upstreams are taken in turn.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Client, type Dispatcher } from 'undici'
import { serve, upstreams } from './serve.ts'

/** Node documents `toString('latin1')`, which ends in this. */
type Latin1 = Buffer & { latin1Slice(): string }

const hopByHop = new Set(['connection', 'keep-alive', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'proxy-connection', 'expect'])
const lists = upstreams.map((origin) => ({ origin, free: [] as Client[] }))
type List = (typeof lists)[number]
let turn = 0

class Handler implements Dispatcher.DispatchHandler {
  readonly list: List
  readonly client: Client
  readonly res: ServerResponse
  controller: Dispatcher.DispatchController | undefined
  remaining: number = -1
  last: Latin1 | undefined

  constructor(list: List, client: Client, res: ServerResponse) {
    this.list = list
    this.client = client
    this.res = res
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return
    const raw = controller.rawHeaders as Latin1[]
    const headers: string[] = []
    for (let i = 0; i < raw.length; i += 2) {
      const name = (raw[i] as Latin1).latin1Slice()
      const lower = name.toLowerCase()
      if (hopByHop.has(lower)) continue
      const value = (raw[i + 1] as Latin1).latin1Slice()
      if (lower === 'content-length') this.remaining = Number(value)
      headers.push(name, value)
    }
    this.res.writeHead(status, headers)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.remaining -= chunk.length
    // The last chunk waits for the end, which follows in the same tick, so that a short response leaves in one write.
    if (this.remaining === 0) this.last = chunk as Latin1
    else if (!this.res.write(chunk)) {
      controller.pause()
      this.res.once('drain', () => controller.resume())
    }
  }

  onResponseEnd(): void {
    this.list.free.push(this.client)
    if (this.last === undefined) this.res.end()
    // One latin1 string goes out with the head in a single buffer, which is cheaper than gathering two.
    else if (this.last.length <= 8192) this.res.end(this.last.latin1Slice(), 'latin1')
    else this.res.end(this.last)
  }

  onResponseError(): void {
    this.list.free.push(this.client)
    this.res.destroy()
  }

  /** The client has gone. */
  abort(): void {
    this.controller?.abort(new Error('client gone'))
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
    const list = lists[turn] as List
    turn = turn + 1 === lists.length ? 0 : turn + 1
    const client = list.free.pop() ?? new Client(list.origin, { pipelining: 1 })
    const handler = new Handler(list, client, res)
    res.on('close', () => {
      if (!res.writableFinished) handler.abort()
    })
    client.dispatch({ method: req.method as Dispatcher.HttpMethod, path: req.url as string, headers, body: hasBody ? req : null }, handler)
  }),
)
