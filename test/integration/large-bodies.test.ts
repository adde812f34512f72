/**
 * Large bodies go past the parser, and the memory they are read into is used again: see read-memory.ts in core. What must never come of it is a byte
 * that belongs to another response, so here everybody asks for bodies that differ in every byte, at once: quick clients, slow ones, ones that leave, HTTP/2,
 * and routes whose hooks hold, transform or keep what they see. Every body that arrives must have its own hash.
 */
import { createCipheriv, createHash, type Hash } from 'node:crypto'
import { once } from 'node:events'
import { Agent, createServer, get as httpGet, type IncomingMessage, type Server } from 'node:http'
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2'
import type { AddressInfo, ListenOptions, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { createProxy, type ProxyOptions, type StageHandler } from '@weir/core'
import { everyRequest, rawConnect, rawUpstream, seededRandom } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { get } from './messages.ts'
import { startProxy, transports } from './observed.ts'

const mebibyte = 1_048_576

/** The key stream of a cipher: no two seeds share a run of bytes, and making it costs next to nothing. */
function bodyOf(seed: number, size: number): Buffer {
  const key = Buffer.alloc(16)
  key.writeUInt32BE(seed)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

function hashOf(bytes: Buffer): string {
  return createHash('sha1').update(bytes).digest('hex')
}

/** `/<route>/<seed>/<size>`, answered in pieces as the seed has it. */
function upstreamServer(): Server {
  return createServer((req, res) => {
    const [, , seed = 0, size = 0] = (req.url as string).split('/').map(Number)
    const body = bodyOf(seed, size)
    res.writeHead(200, { 'Content-Length': size })
    // In one write with the head, behind it, or in odd pieces. That a client has left is no failure here.
    if (seed % 3 === 1) res.flushHeaders()
    if (seed % 3 < 2) res.end(body)
    else pipeline(pieces(body, seed), res).catch(() => {})
  })
}

function* pieces(body: Buffer, seed: number): Generator<Buffer> {
  const random = seededRandom(seed)
  for (let at = 0; at < body.length; ) {
    const piece = body.subarray(at, at + 1 + Math.floor(random() * 300_000))
    at += piece.length
    yield piece
  }
}

async function listening(
  server: Server,
  at: ListenOptions = { port: 0, host: '127.0.0.1' },
): Promise<AsyncDisposable & { readonly port: number }> {
  await new Promise<void>((resolve) => server.listen(at, resolve))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A stage per route: what may happen to a body on its way. `kept` gets the hash of what taps held on to until the end. */
function hooksFor(kept: Map<string, string>): StageHandler {
  return ({ url }) => {
    switch (url.split('/')[1]) {
      case 'transform':
        return { onResponse: (response) => response.transform(new PassThrough()) }
      case 'tap': {
        const chunks: Uint8Array[] = []
        return {
          onResponse: (response) =>
            response.tap({
              onChunk: (chunk) => void chunks.push(chunk),
              onEnd: (complete) => {
                if (complete) kept.set(url, hashOf(Buffer.concat(chunks)))
              },
            }),
        }
      }
      case 'hold':
        return { onResponse: () => sleep(20) }
      case 'chunked':
        return { onResponse: (response) => response.headers.delete('content-length') }
      default:
        return undefined
    }
  }
}

type Ending = 'whole' | 'left'

/** Reads to the end, or for a while; the hash of what came, and how it ended. */
async function drink(
  body: AsyncIterable<Buffer>,
  size: number,
  manner: string,
  leave: () => void,
): Promise<{ hash: string; ending: Ending }> {
  const hash: Hash = createHash('sha1')
  let bytes = 0
  let naps = 0
  try {
    for await (const chunk of body) {
      hash.update(chunk)
      bytes += chunk.length
      if (manner === 'slow' && bytes > (naps + 1) * 400_000 && naps++ < 8) await sleep(10)
      if (manner === 'leaves' && bytes > size / 3) {
        leave()
        return { hash: '', ending: 'left' }
      }
    }
  } catch (error) {
    if (manner !== 'leaves') throw error
  }
  return { hash: hash.digest('hex'), ending: bytes === size ? 'whole' : 'left' }
}

describe.each(transports)('large bodies over %s', (name, transport) => {
  it('32 clients at once: every body that arrives is its own, whatever is done to it on the way', async () => {
    const path = join(tmpdir(), `weir-${process.pid}-${name}.sock`)
    const [tcp, unix] = [upstreamServer(), upstreamServer()]
    await using over = await listening(tcp)
    await using _local = await listening(unix, { path })
    const kept = new Map<string, string>()
    const options: ProxyOptions = { upstreams: [`http://127.0.0.1:${over.port}`, `unix:${path}`], use: [hooksFor(kept)] }
    await using http1 = await startProxy(options, { transport })
    await using http2 = await startProxy(options, { transport, http2: true })
    const agent = new Agent({ keepAlive: true })
    const session: ClientHttp2Session = connectHttp2(`http://127.0.0.1:${http2.port}`)
    session.on('error', () => {})

    const viaHttp1 = async (url: string, size: number, manner: string): Promise<{ hash: string; ending: Ending }> => {
      const req = httpGet({ port: http1.port, path: url, agent })
      const [res] = (await once(req, 'response')) as [IncomingMessage]
      return drink(res, size, manner, () => (size % 2 === 0 ? (res.socket as Socket).resetAndDestroy() : res.destroy()))
    }
    const viaHttp2 = (url: string, size: number, manner: string): Promise<{ hash: string; ending: Ending }> => {
      const stream = session.request({ ':path': url })
      stream.on('error', () => {})
      return drink(stream, size, manner, () => stream.close(constants.NGHTTP2_CANCEL))
    }

    const random = seededRandom(7)
    const routes = ['plain', 'plain', 'plain', 'transform', 'tap', 'hold', 'chunked']
    const manners = ['quick', 'quick', 'slow', 'leaves']
    const edges = [0, 1, 65_536, mebibyte - 1, mebibyte, mebibyte + 1, 50 * mebibyte]
    let seed = 0
    const wrong: string[] = []
    let whole = 0
    const client = async (): Promise<void> => {
      for (let turn = 0; turn < 3; turn++) {
        const own = ++seed
        const size = edges[own - 1] ?? Math.floor(mebibyte * (0.9 + random() ** 3 * 6))
        const route = routes[Math.floor(random() * routes.length)] as string
        const manner = manners[Math.floor(random() * manners.length)] as string
        const url = `/${route}/${own}/${size}`
        const { hash, ending } = await (random() < 0.4 ? viaHttp2 : viaHttp1)(url, size, manner)
        if (ending === 'left') {
          if (manner !== 'leaves') wrong.push(`${url} (${manner}): cut short`)
          continue
        }
        whole++
        const expected = hashOf(bodyOf(own, size))
        if (hash !== expected) wrong.push(`${url} (${manner})`)
        if (route === 'tap' && kept.get(url) !== expected) wrong.push(`${url}: what the tap kept`)
      }
    }
    await Promise.all(Array.from({ length: 32 }, client))
    agent.destroy()
    session.destroy()
    expect(wrong).toEqual([])
    expect(whole).toBeGreaterThan(60)
  }, 20_000)

  it('what comes behind the announced length is nobody’s, and the next body on that route is right', async () => {
    const size = 2 * mebibyte
    const body = bodyOf(1, size)
    const next = bodyOf(2, size)
    let answered = 0
    await using upstream = await rawUpstream(
      everyRequest(() => {
        const head = Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
        // The first answer has a whole other one glued to its end.
        return answered++ === 0 ? Buffer.concat([head, body, head, bodyOf(3, size)]) : Buffer.concat([head, next])
      }),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url], health: [] }, { transport })
    await using client = await rawConnect(proxy.port)
    await client.write(get('/first'))
    expect(hashOf((await client.readResponse()).body)).toBe(hashOf(body))
    await client.write(get('/second'))
    expect(hashOf((await client.readResponse()).body)).toBe(hashOf(next))
  })
})

/** A large body through a client connection that is no socket, or that somebody listens in on. */
async function behindPlainUpstream(use: (options: ProxyOptions) => Promise<Buffer>): Promise<boolean> {
  await using upstream = await listening(upstreamServer())
  const size = 4 * mebibyte
  return (await use({ upstreams: [`http://127.0.0.1:${upstream.port}`] })).equals(bodyOf(1, size))
}

const large = `/plain/1/${4 * mebibyte}`

describe('a large body keeps its bytes', () => {
  it('through `proxy.inject`', async () => {
    const same = await behindPlainUpstream(async (options) => {
      await using proxy = createProxy(options)
      return (await proxy.inject({ url: large })).body
    })
    expect(same).toBe(true)
  })

  it('to a client whose connection is a stream of another sort', async () => {
    const same = await behindPlainUpstream(async (options) => {
      await using proxy = createProxy(options)
      const server = createServer(proxy)
      const [toServer, toClient] = [new PassThrough(), new PassThrough({ highWaterMark: 16 * mebibyte })]
      server.emit('connection', Duplex.from({ readable: toServer, writable: toClient }))
      toServer.write(get(large, 'Connection: close'))
      // A peer that reads late: until then all of it waits in the stream.
      await once(toClient, 'finish')
      const bytes: Buffer = toClient.read()
      return bytes.subarray(bytes.indexOf('\r\n\r\n') + 4)
    })
    expect(same).toBe(true)
  })

  it('in the hands of a middleware that keeps what is written', async () => {
    const same = await behindPlainUpstream(async (options) => {
      await using proxy = createProxy(options)
      const kept: Buffer[] = []
      await using server = await listening(
        createServer((req, res) => {
          const [write, end] = [res.write.bind(res), res.end.bind(res)]
          res.write = (chunk: Buffer, ...rest: unknown[]) => {
            kept.push(chunk)
            return write(chunk, ...(rest as []))
          }
          res.end = (chunk?: unknown, ...rest: unknown[]) => {
            if (chunk !== undefined) kept.push(Buffer.from(chunk as string, 'latin1'))
            return end(chunk, ...(rest as []))
          }
          proxy(req, res)
        }),
      )
      const response = await fetch(`http://127.0.0.1:${server.port}${large}`)
      await response.arrayBuffer()
      return Buffer.concat(kept)
    })
    expect(same).toBe(true)
  })
})
