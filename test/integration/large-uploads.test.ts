/**
 * What an upload has sent is set free at once: see reclaim.ts in core. What must never come of it is a byte that is missing, or another one, in what
 * the upstream gets or in what somebody else sees of the body. So uploads that differ in every byte go out at once to upstreams that are quick, slow, or
 * fail, past stages and middlewares that keep what they see; every hash must be right.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createProxy, type ProxyOptions, type Transport, type UpstreamCall } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { startProxy, transports } from './observed.ts'

function bodyOf(seed: number, size: number): Buffer {
  const key = Buffer.alloc(16)
  key.writeUInt32BE(seed)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

const hashOf = (chunks: readonly Uint8Array[]): string => {
  const hash = createHash('sha1')
  for (const chunk of chunks) hash.update(chunk)
  return hash.digest('hex')
}

/** Answers with the hash of what it got; `/slow` reads haltingly. */
async function hashingUpstream(): Promise<AsyncDisposable & { readonly url: string }> {
  const answer = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const hash = createHash('sha1')
    let chunks = 0
    for await (const chunk of req) {
      hash.update(chunk)
      if (req.url === '/slow' && ++chunks % 8 === 0) await sleep(1)
    }
    res.end(hash.digest('hex'))
  }
  const server = createServer((req, res) => void answer(req, res))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function upload(port: number, path: string, body: Buffer, chunked = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const req = request(
      { port, host: '127.0.0.1', path, method: 'PUT', headers: chunked ? {} : { 'Content-Length': body.length } },
      (res) => {
        let text = ''
        res.setEncoding('latin1').on('data', (part: string) => {
          text += part
        })
        res.on('end', () => resolve(text))
      },
    )
    req.on('error', reject)
    for (let at = 0; at < body.length; at += 500_000) req.write(body.subarray(at, at + 500_000))
    req.end()
  })
}

for (const [name, transport] of transports)
  describe(`uploads through ${name}`, () => {
    it('every upstream gets its own bytes, and so does whoever else looks', async () => {
      await using upstream = await hashingUpstream()
      const kept = new Map<string, Uint8Array[]>()
      const options: ProxyOptions = {
        upstreams: [upstream.url],
        transport: transport(),
        use: [
          (exchange) => {
            if (!exchange.url.startsWith('/tapped')) return
            const chunks: Uint8Array[] = []
            kept.set(exchange.url, chunks)
            exchange.tapRequest({ onChunk: (chunk) => void chunks.push(chunk) })
          },
        ],
      }
      await using proxy = createProxy(options)
      const server = createServer((req: IncomingMessage, res) => {
        if (req.url?.startsWith('/watched')) {
          const chunks: Uint8Array[] = []
          kept.set(req.url, chunks)
          req.on('data', (chunk: Buffer) => void chunks.push(chunk))
          // A middleware that looks on, as loggers do; the proxy comes behind it in the same tick.
          req.pause()
        }
        proxy(req, res)
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const { port } = server.address() as AddressInfo
      const paths = ['/quick', '/slow', '/tapped/1', '/watched/1', '/quick', '/tapped/2', '/watched/2', '/slow']
      const bodies = paths.map((_, index) => bodyOf(index + 1, 3_000_000 + index * 777_777))
      try {
        const answers = await Promise.all(paths.map((path, index) => upload(port, path, bodies[index] as Buffer, index % 2 === 1)))
        for (const [index, path] of paths.entries()) {
          const wanted = hashOf([bodies[index] as Buffer])
          expect(answers[index], path).toBe(wanted)
          const chunks = kept.get(path)
          if (chunks !== undefined) expect(hashOf(chunks), `what was kept of ${path}`).toBe(wanted)
        }
        expect(kept.size).toBe(4)
      } finally {
        server.closeAllConnections()
        server.close()
      }
    })
  })

it('a transport is told which chunks it may give back, and what it gives back is free at once', async () => {
  const call: UpstreamCall = { abort() {}, pause() {}, resume() {}, reused: false, connectMs: 1, sent: true }
  const seen: { readonly size: number; readonly left: number; readonly offered: boolean }[] = []
  const freeing: Transport = {
    name: 'freeing',
    send({ body }, _upstream, sink) {
      sink.onStart(call)
      body
        ?.open({
          onChunk: (chunk, reclaim) => {
            const size = chunk.length
            reclaim?.(chunk)
            seen.push({ size, left: chunk.length, offered: reclaim !== undefined })
            return true
          },
          onEnd: () => {
            sink.onHead(204, '', [])
            sink.onEnd(undefined)
          },
          onError: () => {},
        })
        .resume()
    },
  }
  await using proxy = await startProxy({ upstreams: ['http://a.test'], transport: freeing })
  await upload(proxy.port, '/', bodyOf(1, 5_000_000))
  expect(seen.reduce((sum, { size }) => sum + size, 0)).toBe(5_000_000)
  // The first 64 KiB are kept for a retry; from there on large chunks are offered.
  const offered = seen.filter((chunk) => chunk.offered)
  expect(offered.length).toBeGreaterThan(20)
  for (const { left } of offered) expect(left).toBe(0)
  let before = 0
  for (const { size, left, offered: free } of seen) {
    if (before + size <= 65_536) expect(free).toBe(false)
    if (!free) expect(left).toBe(size)
    before += size
  }
})
