/**
 * A conformance suite that nobody fails proves nothing. Here each transport has one fault, of the kind that real ones have, and the case
 * that is there for it must notice. That a sound transport passes is shown in test/conformance.
 */
import { httpProxyTransport, ProxyError, type RequestBody, type ResponseSink, type Transport, type UpstreamRequest } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { transportConformance } from './transport.ts'

/** A sink that does what `over` says in place of what the real one would. */
const around = (sink: ResponseSink, over: Partial<ResponseSink>): ResponseSink => ({
  onStart: (call) => sink.onStart(call),
  onInterim: (status, headers) => sink.onInterim(status, headers),
  onHead: (status, reason, headers) => sink.onHead(status, reason, headers),
  onData: (chunk) => sink.onData(chunk),
  onEnd: (trailers) => sink.onEnd(trailers),
  onError: (error) => sink.onError(error),
  ...over,
})

type Send = Transport['send']

const listening =
  (over: (sink: ResponseSink) => Partial<ResponseSink>) =>
  (send: Send): Send =>
  (request, upstream, sink) =>
    send(request, upstream, around(sink, over(sink)))

const asking =
  (change: (request: UpstreamRequest) => Partial<UpstreamRequest>) =>
  (send: Send): Send =>
  (request, upstream, sink) =>
    send({ ...request, ...change(request) }, upstream, sink)

const greedy = (body: RequestBody): RequestBody => ({
  length: body.length,
  hasTrailers: body.hasTrailers,
  open: (reader) => {
    const flow = body.open({
      onChunk: (chunk) => {
        reader.onChunk(chunk)
        return true
      },
      onEnd: (trailers) => reader.onEnd(trailers),
      onError: (error) => reader.onError(error),
    })
    return flow
  },
})

const faulty: readonly (readonly [fault: string, caught: string, change: (send: Send) => Send])[] = [
  [
    'onStart comes late',
    'onStart comes first',
    listening((sink) => {
      let started = Promise.resolve()
      const later = (act: () => void): void => {
        started = started.then(act)
      }
      return {
        onStart: (call) => later(() => sink.onStart(call)),
        onHead: (...head) => later(() => sink.onHead(...head)),
        onData: (chunk) => later(() => sink.onData(chunk)),
        onEnd: (trailers) => later(() => sink.onEnd(trailers)),
      }
    }),
  ],
  [
    'the end is said twice',
    'head, data, end',
    listening((sink) => ({
      onEnd: (trailers) => {
        sink.onEnd(trailers)
        sink.onEnd(trailers)
      },
    })),
  ],
  [
    'an error follows the end',
    'head, data, end',
    listening((sink) => ({
      onEnd: (trailers) => {
        sink.onEnd(trailers)
        setImmediate(() => sink.onError(new ProxyError('ERR_UPSTREAM_BODY')))
      },
    })),
  ],
  [
    'names are lower-cased',
    'response fields keep case',
    listening((sink) => ({
      onHead: (status, reason, headers) =>
        sink.onHead(
          status,
          reason,
          headers.map((part, i) => (i % 2 === 0 ? part.toLowerCase() : part)),
        ),
    })),
  ],
  [
    'bytes are taken for UTF-8',
    'response fields keep case',
    listening((sink) => ({
      onHead: (status, reason, headers) =>
        sink.onHead(
          status,
          reason,
          headers.map((part) => Buffer.from(part, 'latin1').toString()),
        ),
    })),
  ],
  [
    'fields are cut off',
    '999 fields',
    listening((sink) => ({ onHead: (status, reason, headers) => sink.onHead(status, reason, headers.slice(0, 1000)) })),
  ],
  [
    'a large head is cut short',
    'a head of 60000 bytes',
    listening((sink) => ({ onHead: (status, reason, headers) => sink.onHead(status, reason, headers.slice(0, -2)) })),
  ],
  ['trailers get lost', 'a chunked body arrives', listening((sink) => ({ onEnd: () => sink.onEnd(undefined) }))],
  ['early hints get lost', '103 and 102', listening(() => ({ onInterim: () => {} }))],
  [
    'a 100 is passed on',
    'an unasked 100',
    listening((sink) => ({
      onHead: (...head) => {
        sink.onInterim(100, [])
        sink.onHead(...head)
      },
    })),
  ],
  ['a body that broke off ends well', 'breaks off by fin', listening((sink) => ({ onError: () => sink.onEnd(undefined) }))],
  [
    'a refusal looks like a reset',
    'refused: ERR_CONNECT_REFUSED',
    listening((sink) => ({ onError: () => sink.onError(new ProxyError('ERR_UPSTREAM_RESET')) })),
  ],
  [
    'the error does not name the upstream',
    'refused: ERR_CONNECT_REFUSED',
    listening((sink) => ({ onError: ({ code }) => sink.onError(new ProxyError(code)) })),
  ],
  [
    'pause does nothing',
    'nothing of a body that came with it is delivered',
    listening((sink) => ({
      onStart: (call) => sink.onStart(Object.create(call, { pause: { value: () => {} }, abort: { value: () => call.abort() } })),
    })),
  ],
  [
    'abort does nothing',
    'abort inside onData',
    listening((sink) => ({ onStart: (call) => sink.onStart(Object.create(call, { abort: { value: () => {} } })) })),
  ],
  ['a target is normalised', '"/a/../b/./c"', asking(({ path }) => ({ path: path === '*' ? path : new URL(path, 'http://a').pathname }))],
  ['a field is added', 'only framing and Connection are added', asking(({ headers }) => ({ headers: [...headers, 'Via', '1.1 weir'] }))],
  [
    'the body of a DELETE gets lost',
    'a DELETE body is framed once by chunked',
    asking(({ method, body }) => (method === 'DELETE' ? { body: undefined } : { body })),
  ],
  ['the body is read whatever the upstream does', 'an upstream that does not read', asking(({ body }) => ({ body: body && greedy(body) }))],
  [
    'a timeout looks like a reset',
    'no head in time',
    listening((sink) => ({ onError: () => sink.onError(new ProxyError('ERR_UPSTREAM_RESET')) })),
  ],
  [
    'what cannot be written is thrown',
    'a line break in a value',
    (send) => (request, upstream, sink) => {
      if (request.headers.some((part) => part.includes('\n'))) throw new Error('invalid field')
      send(request, upstream, sink)
    },
  ],
  [
    'every call has a new connection',
    'a connection is used again',
    () => {
      const transports: Transport[] = []
      return (request, upstream, sink) => {
        const transport = httpProxyTransport()
        transports.push(transport)
        transport.send(
          request,
          upstream,
          around(sink, {
            onEnd: (trailers) => {
              sink.onEnd(trailers)
              void transport.close?.()
            },
          }),
        )
      }
    },
  ],
]

describe('the transport suite notices when', () => {
  it.each(faulty)('%s', async (_fault, caught, change) => {
    const cases = transportConformance(
      () => {
        const sound = httpProxyTransport()
        const send = change((...call) => sound.send(...call))
        return { name: 'faulty', send, close: () => sound.close?.() }
      },
      { upgrade: false },
    ).filter(({ name }) => name.includes(caught))
    expect(cases.length).toBeGreaterThan(0)
    const outcomes = await Promise.allSettled(cases.map(({ run }) => run()))
    expect(outcomes.map(({ status }) => status)).toContain('rejected')
  })

  it('connections outlive close()', async () => {
    const left: Transport[] = []
    const [first] = transportConformance(() => {
      const transport = httpProxyTransport()
      left.push(transport)
      return { name: 'faulty', send: (...call) => transport.send(...call), close: () => {} }
    })
    await expect(first?.run()).rejects.toThrow('closes with the transport')
    for (const transport of left) await transport.close?.()
  })

  it('a tunnel opens itself', async () => {
    const cases = transportConformance(() => {
      const sound = httpProxyTransport()
      return {
        name: 'faulty',
        send: (...call) => sound.send(...call),
        upgrade: (request, upstream, sink) =>
          sound.upgrade?.(request, upstream, {
            ...around(sink, {}),
            onUpgrade: (headers, tunnel) => {
              tunnel.open(headers)
              sink.onUpgrade(headers, tunnel)
            },
          }),
        close: () => sound.close?.(),
      }
    }).filter(({ name }) => name.includes('destroyed instead of opened'))
    expect(cases).toHaveLength(1)
    await expect(cases[0]?.run()).rejects.toThrow()
  })
})
