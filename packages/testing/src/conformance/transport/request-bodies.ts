/**
 * Request bodies are framed once, and by that framing their bytes arrive unchanged, whatever the method. A second request on the same
 * connection must be understood as that: where framing goes wrong, the rest of a body becomes a request of its own.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { bodySource, repeated } from './body-source.ts'
import {
  asSent,
  type ConformanceCase,
  type DeclaredDeviations,
  endToEnd,
  eventually,
  ok,
  okay,
  steady,
  type TransportFactory,
  testCase,
} from './rig.ts'

// Bytes that would be a request of their own, if the framing let them.
const chunks = ['GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n', '0\r\n\r\n', 'end \xff\x00\r\n']
const whole = chunks.join('')

export function requestBodyCases(make: TransportFactory, declared: DeclaredDeviations): ConformanceCase[] {
  const framed = ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'GET', 'PROPFIND'].flatMap((method) =>
    (['length', 'chunked'] as const).flatMap((framing) =>
      [true, false].map((sync) =>
        testCase(`a ${method} body is framed once by ${framing}, ${sync ? 'given at once' : 'chunk by chunk'}`, make, async (rig) => {
          const upstream = await rig.upstream(ok)
          const length = framing === 'length' ? { length: whole.length } : {}
          const lengthField = framing === 'length' ? ['Content-Length', String(whole.length)] : []
          const headers = ['Host', 'a', 'X-Before', '1', ...lengthField, 'X-After', '2']
          await rig.send(upstream, { method, path: '/first', headers, body: bodySource(chunks, { ...length, sync }) }).ended()
          const second = await rig.send(upstream, { path: '/second' }).ended()
          const [seen, next] = upstream.requests
          // Reading it at all proves the framing: the upstream's parser refuses two framing fields.
          assert.equal(seen?.framing, framing)
          assert.equal(seen.body.toString('latin1'), whole)
          assert.deepEqual(endToEnd(seen.headers), asSent(['Host', 'a', 'X-Before', '1', 'X-After', '2'], declared))
          assert.equal(next?.target, '/second')
          assert.equal(next.framing, 'none')
          assert.equal(upstream.requests.length, 2)
          assert.equal(second.call.reused, true)
        }),
      ),
    ),
  )
  return [
    ...framed,

    testCase('an empty body is no body: with a length of 0, and chunked', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      for (const method of ['POST', 'DELETE', 'GET']) {
        await rig.send(upstream, { method, headers: ['Host', 'a', 'Content-Length', '0'], body: bodySource([], { length: 0 }) }).ended()
        const length = upstream.requests.at(-1)?.header('content-length')
        // RFC 9110 §8.6: a length of 0 says something about a POST and nothing about a GET.
        if (method === 'POST') assert.equal(length, '0')
        else assert.ok(length === '0' || length === undefined)
        await rig.send(upstream, { method, body: bodySource([]) }).ended()
        assert.equal(upstream.requests.at(-1)?.body.length, 0)
        assert.equal(upstream.requests.at(-1)?.complete, true)
      }
      assert.equal(upstream.connections.length, 1)
    }),

    testCase('a request without a body is framed as one', make, async (rig) => {
      const upstream = await rig.upstream(okay)
      for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS', 'POST', 'PUT']) {
        await rig.send(upstream, { method }).ended()
        const seen = upstream.requests.at(-1)
        assert.equal(seen?.method, method)
        assert.equal(seen.header('transfer-encoding'), undefined)
        // RFC 9110 §8.6: a length of 0 belongs to methods that usually have content, and to no others.
        assert.equal(seen.header('content-length') ?? '0', '0')
        if (!method.startsWith('P')) assert.equal(seen.header('content-length'), undefined)
      }
    }),

    ...(['length', 'chunked'] as const).map((framing) =>
      testCase(`20 MiB arrive as they were sent, by ${framing}`, make, async (rig) => {
        const total = 20 * 1024 * 1024 + 1
        const block = Buffer.from(Uint8Array.from({ length: 65_537 }, (_, i) => i % 251))
        const upstream = await rig.upstream(ok)
        const length = framing === 'length' ? { length: total } : {}
        const headers = ['Host', 'a', ...(framing === 'length' ? ['Content-Length', String(total)] : [])]
        await rig.send(upstream, { method: 'PUT', headers, body: bodySource(repeated(total, block), length) }).ended()
        const expected = createHash('sha256')
        for (const chunk of repeated(total, block)) expected.update(chunk)
        const actual = createHash('sha256').update(upstream.requests[0]?.body ?? '')
        assert.equal(actual.digest('hex'), expected.digest('hex'))
      }),
    ),

    testCase('an upstream that does not read pauses the body', make, async (rig) => {
      const total = 200 * 1024 * 1024
      const upstream = await rig.upstream(async (connection) => {
        await connection.readHead()
        connection.pause()
        await connection.stall()
      })
      const body = bodySource(repeated(total), { length: total })
      const recorder = rig.send(upstream, { method: 'PUT', headers: ['Host', 'a', 'Content-Length', String(total)], body })
      await eventually('the body starts', () => body.produced > 0)
      const taken = await steady(() => body.produced)
      assert.ok(taken < total / 2, `${taken} bytes were taken from the client while the upstream read nothing`)
      recorder.abort()
      assert.equal(body.closed, true)
    }),

    testCase('an upstream that reads slowly gets all of it', make, async (rig) => {
      const total = 8 * 1024 * 1024
      const upstream = await rig.upstream(async (connection) => {
        await connection.readHead()
        for (let read = 0; read < total; read += 1024 * 1024) {
          connection.pause()
          await new Promise((resolve) => setImmediate(resolve))
          connection.resume()
          await connection.readBytes(1024 * 1024)
        }
        await connection.send(ok)
      })
      const body = bodySource(repeated(total), { length: total })
      await rig.send(upstream, { method: 'PUT', headers: ['Host', 'a', 'Content-Length', String(total)], body }).ended()
      assert.equal(body.produced, total)
    }),

    ...(['length', 'chunked'] as const).map((framing) =>
      testCase(`a body that breaks off (${framing}) looks broken to the upstream`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readHead()
          await connection.sees('part')
          await connection.stall()
        })
        const length = framing === 'length' ? { length: 100 } : {}
        const headers = ['Host', 'a', ...(framing === 'length' ? ['Content-Length', '100'] : [])]
        const body = bodySource(['part', ''], { ...length, fail: new Error('the client left') })
        rig.send(upstream, { method: 'POST', headers, body })
        const connection = await upstream.connection(1)
        await connection.closed
        assert.ok(!connection.received.toString('latin1').endsWith('\r\n0\r\n\r\n'), 'the body was finished as if it were whole')
        assert.equal((await rig.send(await rig.upstream(ok)).ended()).body.toString(), 'ok')
      }),
    ),

    testCase('trailers of a request are sent', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const body = bodySource(['x'], { trailers: ['X-Sum', '1', 'x-sum', '\xfc'] })
      await rig.send(upstream, { method: 'POST', headers: ['Host', 'a', 'Trailer', 'X-Sum'], body }).ended()
      const [seen] = upstream.requests
      assert.equal(seen?.text(), 'x')
      assert.deepEqual(seen.trailers, declared.requestTrailers === false ? [] : ['X-Sum', '1', 'x-sum', '\xfc'])
    }),
  ]
}
