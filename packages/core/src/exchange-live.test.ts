/**
 * Same shape. An exchange is read on every step of the hot path, so all of them must have the same own properties in the same order, whatever
 * became of them: a field that is added late, or deleted, makes every access to every exchange slower. Here exchanges live as differently as
 * they can, and are compared when they have ended.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { duplexPair } from 'node:stream'
import { fakeTransport, virtualClock } from '@weir/testing'
import { expect, it } from 'vitest'
import type { Exchange, Outcome } from './exchange.ts'
import { createProxy } from './proxy.ts'
import type { ProxyOptions } from './proxy-options.ts'
import type { Transport, UpstreamCall } from './transport/transport.ts'

const call: UpstreamCall = { abort() {}, pause() {}, resume() {}, reused: false, connectMs: 1, sent: true }
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

/** Ordinary requests by `respond`; an upgrade to `/tunnel` becomes one, any other is answered 403. */
function transport(respond: Parameters<typeof fakeTransport>[0] = {}): Transport {
  return Object.assign(fakeTransport(respond), {
    upgrade: ((request, _, sink) => {
      sink.onStart(call)
      if (request.path !== '/tunnel') {
        sink.onHead(403, '', ['Content-Length', '0'])
        sink.onEnd(undefined)
        return
      }
      const [socket, far] = duplexPair()
      far.pipe(far)
      sink.onUpgrade(['Connection', 'Upgrade', 'Upgrade', 'websocket'], {
        socket,
        open() {
          const { client } = request
          client.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
          client.pipe(socket).pipe(client)
          client.on('close', () => socket.destroy())
        },
      })
    }) satisfies NonNullable<Transport['upgrade']>,
  })
}

async function everyLife(seen: [life: string, exchange: Exchange][]): Promise<void> {
  let life = ''
  const listener = (message: unknown): void => {
    const { exchange, outcome } = message as { exchange: Exchange; outcome: Outcome }
    seen.push([`${life}: ${outcome.status} ${outcome.reason}`, exchange])
  }
  subscribe('weir:exchange:finish', listener)
  const upstreams = ['http://a.test', 'http://b.test']
  const inject = async (
    name: string,
    options: Partial<ProxyOptions>,
    request: Parameters<ReturnType<typeof createProxy>['inject']>[0] = {},
  ): Promise<void> => {
    life = name
    const proxy = createProxy({ upstreams, transport: transport(), ...options })
    await proxy.inject(request).catch(() => {})
    await proxy.close()
  }
  try {
    await inject('plain', {})
    await inject('with a body', {}, { method: 'POST', body: 'x'.repeat(100), headers: { Expect: '100-continue' } })
    await inject('seen by a stage', {
      use: [
        ({ locals, signal }) => ({
          onResponse: (response) => void (signal.aborted || response.headers.set('X', String(Object.keys(locals)))),
        }),
      ],
    })
    await inject('answered by a stage', {
      use: [
        async (exchange) => {
          exchange.url = '/x'
          exchange.affinity = 'a'
          exchange.hashKey = 'k'
          return { status: 204 }
        },
      ],
    })
    await inject('broken by a stage', { use: [() => Promise.reject(new Error('oops'))] })
    await inject('transformed', { use: [() => ({ onResponse: (response) => response.tap({}) })], transport: transport({ body: 'abc' }) })
    await inject('refused', {}, { headers: { Host: ['a', 'b'] } })
    await inject('routed nowhere', { routes: [{ match: { path: '/x' }, pool: { upstreams } }], upstreams: [] })
    await inject('without an upstream', { upstreams: [] })
    let tries = 0
    await inject('retried after an error', { transport: transport(() => (tries++ === 0 ? { error: 'ERR_CONNECT_REFUSED' } : {})) })
    await inject('retried after a status', {
      retry: { on: [503], backoff: { base: 0 } },
      transport: transport(() => ({ status: 503, body: 'no' })),
    })
    await inject('failed', { transport: transport({ error: 'ERR_DNS' }) })
    await inject('cut in the body', { transport: transport({ status: 200, body: ['x'], error: 'ERR_UPSTREAM_BODY' }) })

    life = 'too late'
    const clock = virtualClock()
    const slow = createProxy({
      upstreams,
      clock,
      timeouts: { total: 1000 },
      transport: transport(() => new Promise(() => {})),
      maxConcurrent: 1,
    })
    const answers = [1, 2, 3].map(() => slow.inject({}))
    await turn()
    await clock.advance(1000)
    await Promise.all(answers)
    await slow.close()

    const proxy = createProxy({ upstreams, transport: transport(() => new Promise(() => {})) })
    const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    /** Sends a head and leaves: at once when the proxy has it, or when the answer begins with `status`. */
    const ask = async (name: string, head: string, status?: number): Promise<void> => {
      life = name
      const before = seen.length
      const socket = connect(port, '127.0.0.1')
      socket.write(`${head}\r\nHost: a\r\nConnection: Upgrade\r\n\r\n`)
      if (status === undefined) while (proxy.stats().inflight === 0) await turn()
      else expect(String(await once(socket, 'data'))).toContain(` ${status} `)
      socket.destroy()
      while (seen.length === before) await turn()
    }
    await ask('left by its client', 'GET / HTTP/1.1')
    await ask('an upgrade refused', 'GET / HTTP/1.1\r\nUpgrade: websocket', 403)
    await ask('a tunnel', 'GET /tunnel HTTP/1.1\r\nUpgrade: websocket', 101)
    await proxy.close()
    server.close()
  } finally {
    unsubscribe('weir:exchange:finish', listener)
  }
}

it('every exchange has the same properties in the same order, whatever its life', async () => {
  const seen: [life: string, exchange: Exchange][] = []
  await everyLife(seen)
  expect(seen.map(([life]) => life)).toEqual([
    'plain: 200 completed',
    'with a body: 200 completed',
    'seen by a stage: 200 completed',
    'answered by a stage: 204 completed',
    'broken by a stage: 500 ERR_STAGE',
    'transformed: 200 completed',
    'refused: 400 ERR_HOST',
    'routed nowhere: 503 ERR_NO_UPSTREAM',
    'without an upstream: 503 ERR_NO_UPSTREAM',
    'retried after an error: 200 completed',
    'retried after a status: 503 completed',
    'failed: 502 ERR_DNS',
    'cut in the body: 200 ERR_UPSTREAM_BODY',
    'too late: 504 ERR_DEADLINE',
    'too late: 504 ERR_DEADLINE',
    'too late: 504 ERR_DEADLINE',
    'left by its client: 499 ERR_CLIENT_ABORTED',
    'an upgrade refused: 403 completed',
    'a tunnel: 101 completed',
  ])
  const shape = (exchange: Exchange): string[] => [
    ...Object.getOwnPropertyNames(exchange),
    ...Object.getOwnPropertySymbols(exchange).map(String),
  ]
  const expected = shape((seen[0] as [string, Exchange])[1])
  expect(expected.slice(0, 5)).toEqual(['kind', 'req', 'method', 'url', 'headers'])
  for (const [life, exchange] of seen) expect(shape(exchange), life).toEqual(expected)
  expect(new Set(seen.map(([, exchange]) => exchange)).size).toBe(seen.length)
})

it('locals and signal are made when they are asked for, and stay the same', async () => {
  let exchange: Exchange | undefined
  const keep = (given: Exchange): void => {
    exchange = given
  }
  const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(), use: [keep] })
  await proxy.inject({})
  await proxy.close()
  const { locals, signal } = exchange as Exchange
  expect((exchange as Exchange).locals).toBe(locals)
  expect((exchange as Exchange).signal).toBe(signal)
  // Asked for only when all was over: it says so.
  expect(signal.aborted).toBe(true)
})
