/** The gRPC health probe against @grpc/grpc-js with its health service, and against servers that get it wrong. */
import { createServer, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import type { Upstream } from '@weir/core'
import { certificates, rawUpstream, stubUpstream, testUpstream } from '@weir/testing'
import fc from 'fast-check'
import { HealthImplementation } from 'grpc-health-check'
import { describe, expect, it } from 'vitest'
import { decodeStatus, encodeCheck } from './grpc-message.ts'
import { type GrpcProbeOptions, grpcProbe } from './grpc-probe.ts'

async function outcome(url: string, options?: GrpcProbeOptions): Promise<unknown> {
  const upstream = Object.assign(stubUpstream(), { url: new URL(url) }) as Upstream
  try {
    await grpcProbe(options).open({ upstream, overrides: {}, tls: undefined }).run(AbortSignal.timeout(5000))
    return 'passed'
  } catch (error) {
    return (error as { code?: string }).code
  }
}

async function grpcServer(health: HealthImplementation | undefined, tls = false): Promise<{ url: string } & AsyncDisposable> {
  const server = new Server()
  health?.addToServer(server)
  const { localhost } = certificates()
  const credentials = tls
    ? ServerCredentials.createSsl(null, [{ private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) }])
    : ServerCredentials.createInsecure()
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error === null ? resolve(port) : reject(error)))
  const port = await promise
  return {
    url: tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.forceShutdown()
    },
  }
}

describe('a real gRPC server', () => {
  it('serving, not serving, unknown service', async () => {
    const health = new HealthImplementation({ '': 'SERVING', 'shop.Cart': 'NOT_SERVING' })
    await using server = await grpcServer(health)
    expect(await outcome(server.url)).toBe('passed')
    expect(await outcome(server.url, { service: 'shop.Cart' })).toBe('ERR_PROBE_SERVICE')
    expect(await outcome(server.url, { service: 'nobody' })).toBe('ERR_PROBE_SERVICE')
    health.setStatus('shop.Cart', 'SERVING')
    expect(await outcome(server.url, { service: 'shop.Cart' })).toBe('passed')
    health.setStatus('', 'NOT_SERVING')
    expect(await outcome(server.url)).toBe('ERR_PROBE_SERVICE')
  })

  it('over TLS', async () => {
    await using server = await grpcServer(new HealthImplementation({ '': 'SERVING' }), true)
    expect(await outcome(server.url, { tls: { ca: certificates().ca } })).toBe('passed')
    expect(await outcome(server.url)).toBe('ERR_PROBE_CONNECTION')
  })

  it('without the health service: as the option says', async () => {
    await using server = await grpcServer(undefined)
    expect(await outcome(server.url)).toBe('ERR_PROBE_SERVICE')
    expect(await outcome(server.url, { unimplemented: 'up' })).toBe('passed')
  })
})

describe('servers that are not', () => {
  async function http2Server(answer: (stream: ServerHttp2Stream) => void): Promise<{ url: string } & AsyncDisposable> {
    const server = createServer()
    const sessions = new Set<{ destroy(): void }>()
    server.on('session', (session) => sessions.add(session))
    server.on('stream', answer)
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      async [Symbol.asyncDispose]() {
        for (const session of sessions) session.destroy()
        await new Promise((resolve) => void server.close(resolve))
      },
    }
  }
  const framed = (message: number[]): Buffer => Buffer.from([0, 0, 0, 0, message.length, ...message])
  const cases: [name: string, code: string, answer: (stream: ServerHttp2Stream) => void][] = [
    ['another status', 'ERR_PROBE_STATUS', (stream) => stream.respond({ ':status': 404 }, { endStream: true })],
    ['no grpc-status', 'ERR_PROBE_PROTOCOL', (stream) => stream.respond({ ':status': 200 }, { endStream: true })],
    ['no message', 'ERR_PROBE_PROTOCOL', (stream) => stream.respond({ ':status': 200, 'grpc-status': '0' }, { endStream: true })],
    ['a reset', 'ERR_PROBE_CONNECTION', (stream) => stream.close(2)],
    ['a lost connection', 'ERR_PROBE_CONNECTION', (stream) => stream.session?.destroy()],
    [
      'too much',
      'ERR_PROBE_PROTOCOL',
      (stream) => {
        stream.respond({ ':status': 200, 'grpc-status': '0' })
        stream.end(Buffer.alloc(5000))
      },
    ],
    [
      'SERVING, with other fields around it',
      'passed',
      (stream) => {
        stream.respond({ ':status': 200, 'grpc-status': '0' })
        stream.end(framed([0x12, 1, 0x61, 0x08, 1, 0x1d, 0, 0, 0, 0]))
      },
    ],
  ]
  for (const [name, code, answer] of cases)
    it(`${name}: ${code}`, async () => {
      await using server = await http2Server((stream) => {
        stream.on('error', () => {})
        answer(stream)
      })
      expect(await outcome(server.url)).toBe(code)
    })

  it('HTTP/1.1, with and without TLS', async () => {
    await using plain = await testUpstream({ '*': {} })
    await using secure = await testUpstream({ '*': {} }, { tls: true })
    expect(await outcome(plain.url)).toMatch(/^ERR_PROBE_(CONNECTION|PROTOCOL)$/)
    expect(await outcome(secure.url, { tls: { ca: certificates().ca } })).toMatch(/^ERR_PROBE_(CONNECTION|PROTOCOL)$/)
  })

  it('silence ends with the signal, and the connection with it', async () => {
    await using server = await rawUpstream(() => {})
    const upstream = Object.assign(stubUpstream(), { url: new URL(server.url) }) as Upstream
    const controller = new AbortController()
    const running = grpcProbe().open({ upstream, overrides: {}, tls: undefined }).run(controller.signal)
    const connection = await server.connection(1)
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
    await connection.closed
  })
})

describe('connections', () => {
  const target = (url: string): Parameters<ReturnType<typeof grpcProbe>['open']>[0] => ({
    upstream: Object.assign(stubUpstream(), { url: new URL(url) }) as Upstream,
    overrides: {},
    tls: undefined,
  })
  const ask = (probe: ReturnType<ReturnType<typeof grpcProbe>['open']>): Promise<unknown> => probe.run(AbortSignal.timeout(5000))

  /** Counts what it is asked; `turn` may do something else than answer SERVING. */
  async function countingServer(turn?: (asked: number, stream: ServerHttp2Stream) => boolean) {
    const seen = { sessions: 0, open: 0, asked: 0 }
    const server = createServer()
    server.on('session', (session) => {
      seen.sessions++
      seen.open++
      session.on('close', () => seen.open--)
    })
    server.on('stream', (stream) => {
      stream.on('error', () => {})
      seen.asked++
      if (turn?.(seen.asked, stream) === true) return
      stream.respond({ ':status': 200 }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      stream.end(Buffer.from([0, 0, 0, 0, 2, 8, 1]))
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      seen,
      async [Symbol.asyncDispose]() {
        await new Promise((resolve) => void server.close(resolve))
      },
    }
  }
  const gone = async (seen: { open: number }): Promise<void> => {
    for (let i = 0; i < 200 && seen.open > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10))
    expect(seen.open).toBe(0)
  }

  it('a new one each time, or a kept one; close lets go of it', async () => {
    await using server = await countingServer()
    const fresh = grpcProbe().open(target(server.url))
    for (let i = 0; i < 2; i++) await ask(fresh)
    expect(server.seen.sessions).toBe(2)
    await gone(server.seen)
    const kept = grpcProbe({ keepAlive: true }).open(target(server.url))
    for (let i = 0; i < 3; i++) await ask(kept)
    expect(server.seen).toEqual({ sessions: 3, open: 1, asked: 5 })
    kept.close?.()
    await gone(server.seen)
    // It can be asked again.
    await ask(kept)
    expect(server.seen.sessions).toBe(4)
    kept.close?.()
    await gone(server.seen)
  })

  it('a kept one that has gone stale, or is told to go away, is no failure; a server that has gone is one', async () => {
    {
      await using server = await countingServer((asked, stream) => {
        // The second question finds its connection reset, the third is answered with a GOAWAY.
        if (asked === 2) stream.session?.destroy()
        if (asked === 3) stream.session?.close()
        return asked === 2
      })
      const probe = grpcProbe({ keepAlive: true }).open(target(server.url))
      for (let i = 0; i < 4; i++) await ask(probe)
      expect(server.seen.asked).toBe(5)
      expect(server.seen.sessions).toBe(3)
      probe.close?.()
      await gone(server.seen)
    }
    const port = await (async () => {
      await using server = await countingServer()
      return server.url
    })()
    await expect(ask(grpcProbe({ keepAlive: true }).open(target(port)))).rejects.toMatchObject({ code: 'ERR_PROBE_CONNECTION' })
  })

  it('one that has failed is not kept', async () => {
    await using server = await countingServer((asked, stream) => {
      if (asked > 1) return false
      stream.respond({ ':status': 500 }, { endStream: true })
      return true
    })
    const probe = grpcProbe({ keepAlive: true }).open(target(server.url))
    await expect(ask(probe)).rejects.toMatchObject({ code: 'ERR_PROBE_STATUS' })
    await ask(probe)
    expect(server.seen.sessions).toBe(2)
    probe.close?.()
    await gone(server.seen)
  })
})

describe('messages', () => {
  it('the request has the service in field 1, and nothing for the empty one', () => {
    expect([...encodeCheck('')]).toEqual([0, 0, 0, 0, 0])
    expect([...encodeCheck('ab')]).toEqual([0, 0, 0, 0, 4, 0x0a, 2, 0x61, 0x62])
    const long = encodeCheck('x'.repeat(300))
    expect([...long.subarray(0, 8)]).toEqual([0, 0, 0, 1, 47, 0x0a, 0xac, 0x02])
    expect(long.length).toBe(5 + 303)
  })

  it('an empty message is status 0, a compressed or a second one is none', () => {
    expect(decodeStatus(Buffer.from([0, 0, 0, 0, 0]))).toBe(0)
    expect(decodeStatus(Buffer.from([1, 0, 0, 0, 2, 8, 1]))).toBeUndefined()
    expect(decodeStatus(Buffer.from([0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0]))).toBeUndefined()
  })

  it('any bytes: a number or undefined, in bounded time', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const prefix = Buffer.alloc(5)
        prefix.writeUInt32BE(bytes.length, 1)
        const status = decodeStatus(Buffer.concat([prefix, bytes]))
        expect(status === undefined || Number.isInteger(status)).toBe(true)
      }),
      { numRuns: 500 },
    )
  })
})
