/**
 * Mistakes of stages, as JavaScript lets one make them: what is no reply, bodies and streams that break at every moment, hooks that reject. Each costs its own exchange
 * an answer of 500 or a connection that is broken off, and never the process, nor a place that is not given back.
 */
import { createReadStream } from 'node:fs'
import { PassThrough, Readable } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import type { Reply, RequestTap, StageLike } from '@weir/core'
import { everyRequest, faults, rawRequest, rawUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, until } from './setup.ts'

const missing = (): Reply => ({ status: 200, body: createReadStream('/does/not/exist') })
const wrong = (value: unknown): StageLike => (() => value) as StageLike
const rejecting = (): never => {
  throw new Error('mine')
}
// As one writes them where nobody checks types.
const resolves = (async () => {}) as () => void
const rejects = (async () => rejecting()) as () => void
const slowly: StageLike = () => ({
  onResponse: async () => {
    await pause(20)
  },
})
const dead = (): Readable => {
  const stream = new Readable({ read() {} })
  stream.destroy()
  return stream
}
const transformed = (make: () => PassThrough): StageLike => ({
  name: 'transforms',
  handle: () => ({ onResponse: (response) => response.transform(make()) }),
})
const broken = (): PassThrough => {
  const stream = new PassThrough()
  setTimeout(() => stream.destroy(new Error('mine')), 5)
  return stream
}

/** The status that is to come, or that the connection is broken off. */
const cases: readonly (readonly [name: string, use: readonly StageLike[], expected: number | 'broken', method?: string])[] = [
  ['a boolean for a reply', [wrong(true)], 500],
  ['a number, later', [wrong(Promise.resolve(3))], 500],
  ['a body that is an object', [wrong({ status: 200, body: { a: 1 } })], 500],
  ['a body that is null', [wrong({ status: 200, body: null })], 500],
  ['a web stream', [wrong({ status: 200, body: new ReadableStream() })], 500],
  ['a header that is a number', [wrong({ status: 200, headers: { 'X-A': 1 } })], 500],
  ['a header that is undefined', [wrong({ status: 200, headers: { 'X-A': undefined } })], 500],
  ['a status that is none', [wrong({ status: 99 })], 500],
  ['a file that is not there', [missing], 'broken'],
  ['a file that is not there, for HEAD', [missing], 200, 'HEAD'],
  ['a file that is not there, behind a hook that takes its time', [slowly, missing], 500],
  ['a file that is not there, later', [async () => missing()], 'broken'],
  ['a body that was closed', [() => ({ status: 200, body: dead() })], 500],
  [
    'a body that closes without a word',
    [
      () => {
        const body = new Readable({ read() {} })
        setTimeout(() => body.destroy(), 10)
        return { status: 200, body }
      },
    ],
    'broken',
  ],
  ['a transform that breaks while a hook takes its time', [slowly, transformed(broken)], 'broken'],
  [
    'a transform that was closed',
    [
      transformed(() => {
        const stream = new PassThrough()
        stream.destroy()
        return stream
      }),
    ],
    'broken',
  ],
  [
    'a replacement with a body that is none',
    [() => ({ onResponse: async (response) => response.replace(await Promise.resolve({ status: 200, body: {} } as unknown as Reply)) })],
    500,
  ],
  [
    'an error hook with a body that is none',
    [
      () => ({ onError: () => ({ status: 200, body: {} }) as unknown as Reply }),
      () => {
        throw new Error('mine')
      },
    ],
    500,
  ],
]

describe('costs its exchange, and nothing else:', () => {
  it.each(cases)('%s', async (_name, use, expected, method = 'GET') => {
    await using upstream = await okUpstream('a long enough body')
    await using running = await startProxy({ upstreams: [upstream.url], use: use as readonly StageLike[] })
    const asked = rawRequest(running.port, `${method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    if (expected === 'broken')
      await asked.then(
        ({ complete }) => expect(complete).toBe(false),
        () => {},
      )
    else expect((await asked).status).toBe(expected)
    await until('its end', () => running.proxy.stats().inflight === 0)
  })

  it.each<[name: string, use: StageLike, expected: number | 'broken']>([
    ['an onAttempt that is asynchronous', () => ({ onAttempt: resolves }), 500],
    ['an onAttempt that rejects', () => ({ onAttempt: rejects }), 500],
    ['a tap that rejects at a chunk', () => ({ onResponse: (response) => response.tap({ onChunk: rejects }) }), 'broken'],
    ['a tap that rejects at the end', () => ({ onResponse: (response) => response.tap({ onEnd: rejects }) }), 'broken'],
    ['a tap of the request that rejects at a chunk', (exchange) => exchange.tapRequest({ onChunk: rejects }), 500],
    ['a tap of the request that rejects at its flow', (exchange) => exchange.tapRequest({ onFlow: rejects }), 500],
    ['a tap of the request that rejects at the end', (exchange) => exchange.tapRequest({ onEnd: rejects }), 500],
    [
      'a tap that rejects at the end of a body that was read before',
      async (exchange) => {
        exchange.tapRequest({ onEnd: rejects })
        await exchange.readBody(1000)
      },
      500,
    ],
  ])('%s', async (_name, use, expected) => {
    const unhandled: unknown[] = []
    const listener = (cause: unknown): void => void unhandled.push(cause)
    process.on('unhandledRejection', listener)
    onTestFinished(() => void process.off('unhandledRejection', listener))
    // Slow enough for what is rejected meanwhile to be heard of.
    await using upstream = await testUpstream({ '*': faults.stall(30, 'a long enough body') })
    await using running = await startProxy({ upstreams: [upstream.url], use: [use] })
    const asked = rawRequest(running.port, 'POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody')
    if (expected === 'broken')
      await asked.then(
        ({ status }) => expect(status).toBe(200),
        () => {},
      )
    else expect((await asked).status).toBe(expected)
    await until('its end', () => running.proxy.stats().inflight === 0)
    await pause(20)
    expect(unhandled).toEqual([])
  })

  it.each(['onChunk', 'onEnd', 'onFlow'] as const)(
    'a tap of a request that throws in %s: the others hear of the end, once',
    async (where) => {
      await using upstream = await okUpstream()
      const ends: string[] = []
      const tap = (name: string): RequestTap => ({ onEnd: (complete) => void ends.push(`${name} ${complete}`) })
      const use: StageLike = (exchange) => {
        exchange.tapRequest(tap('first'))
        exchange.tapRequest({ [where]: () => rejecting() })
        exchange.tapRequest(tap('last'))
      }
      for (const whole of [false, true]) {
        ends.length = 0
        const reads: StageLike = async (exchange) => {
          if (whole) await exchange.readBody(1000)
        }
        await using running = await startProxy({ upstreams: [upstream.url], use: [use, reads] })
        const asked = rawRequest(running.port, 'POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody')
        expect((await asked).status).toBe(500)
        await until('its end', () => running.proxy.stats().inflight === 0)
        expect(ends.toSorted()).toEqual([`first ${where === 'onEnd'}`, `last ${where === 'onEnd'}`])
      }
    },
  )

  it('a finish hook that rejects', async () => {
    const warned: string[] = []
    const listener = (warning: Error): void => void warned.push(warning.message)
    process.on('warning', listener)
    onTestFinished(() => void process.off('warning', listener))
    await using upstream = await okUpstream()
    const onFinish = (async () => {
      throw new Error('of mine')
    }) as () => void
    await using running = await startProxy({ upstreams: [upstream.url], use: [() => ({ onFinish })] })
    expect((await rawRequest(running.port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')).status).toBe(200)
    await until('the warning', () => warned.some((message) => message.includes('of mine')))
  })
})

it('trailers that name twice what HTTP/2 has once: the first counts', async () => {
  const head = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: ETag\r\n\r\n'
  await using upstream = await rawUpstream(everyRequest(() => `${head}2\r\nok\r\n0\r\nETag: "a"\r\nETag: "b"\r\nX-A: 1\r\nX-A: 2\r\n\r\n`))
  await using running = await startProxy({ upstreams: [upstream.url] }, { http2: true })
  await using client = await h2Client(running.port)
  const response = await client.request()
  expect([response.body.toString(), response.trailers]).toEqual(['ok', ['etag', '"a"', 'x-a', '1', 'x-a', '2']])
})
