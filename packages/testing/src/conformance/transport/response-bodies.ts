/** Response bodies: what ends them, what has none, and that one which broke off is never taken for whole. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { everyRequest } from '../../raw-upstream.ts'
import type { UpstreamConnection } from '../../upstream-connection.ts'
import { type ConformanceCase, ok, type TransportFactory, testCase } from './rig.ts'

const head = (framing: string): string => `HTTP/1.1 200 OK\r\n${framing}\r\n\r\n`

export function responseBodyCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('a chunked body arrives without its coding, with its trailers', make, async (rig) => {
      const upstream = await rig.upstream(
        `${head('Transfer-Encoding: chunked')}3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\nX-Sum: 1\r\nx-sum: \xfc\r\n\r\n`,
      )
      const recorder = await rig.send(upstream).ended()
      assert.equal(recorder.body.toString('latin1'), 'abc\r\n')
      assert.deepEqual(recorder.trailers, ['X-Sum', '1', 'x-sum', '\xfc'])
    }),

    testCase('a body may end with the connection', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\n\r\nall ')
        await connection.send('of it')
        connection.end()
      })
      assert.equal((await rig.send(upstream).ended()).body.toString(), 'all of it')
      const next = await rig.send(upstream).ended()
      assert.equal(next.call.reused, false)
    }),

    testCase('HTTP/1.0 responses are understood', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nold')
        connection.end()
      })
      const recorder = await rig.send(upstream).ended()
      assert.deepEqual(recorder.head?.headers, ['X-Old', '1'])
      assert.equal(recorder.body.toString(), 'old')
    }),

    ...(['length', 'chunked', 'close'] as const).map((framing) =>
      testCase(`20 MiB arrive as they were sent, ended by ${framing}`, make, async (rig) => {
        const block = Buffer.from(Uint8Array.from({ length: 65_536 }, (_, i) => i % 251))
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          const fields = { length: `Content-Length: ${320 * 65_536}`, chunked: 'Transfer-Encoding: chunked', close: 'X-None: 1' }
          await connection.send(head(fields[framing]))
          for (let i = 0; i < 320; i++)
            await connection.send(framing === 'chunked' ? Buffer.concat([Buffer.from('10000\r\n'), block, Buffer.from('\r\n')]) : block)
          if (framing === 'chunked') await connection.send('0\r\n\r\n')
          if (framing === 'close') connection.end()
        })
        const recorder = await rig.send(upstream).ended()
        const expected = createHash('sha256')
        for (let i = 0; i < 320; i++) expected.update(block)
        assert.equal(createHash('sha256').update(recorder.body).digest('hex'), expected.digest('hex'))
      }),
    ),

    ...(
      [
        ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n'],
        ['HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
        ['GET', 'HTTP/1.1 204 No Content\r\n\r\n'],
        ['GET', 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'],
        ['HEAD', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n'],
        ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
        ['POST', 'HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n'],
      ] as const
    ).map(([method, bytes]) =>
      testCase(`${method} answered ${JSON.stringify(bytes)} has no body and leaves the connection usable`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send(bytes)
          await connection.readRequest()
          await connection.send(ok)
        })
        const first = await rig.send(upstream, { method }).ended()
        assert.equal(first.bytes, 0)
        const fields = bytes.split('\r\n').slice(1, -2)
        assert.deepEqual(
          first.head?.headers,
          fields.flatMap((line) => line.split(': ')),
        )
        const second = await rig.send(upstream).ended()
        assert.equal(second.body.toString(), 'ok')
        assert.equal(second.call.reused, true)
        assert.equal(upstream.connections.length, 1)
      }),
    ),

    testCase('304 with Content-Length has no body', make, async (rig) => {
      const upstream = await rig.upstream(
        everyRequest(({ target }) => (target === '/next' ? ok : 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 1000\r\n\r\n')),
      )
      const first = await rig.send(upstream).ended()
      assert.equal(first.bytes, 0)
      assert.deepEqual(first.head?.headers, ['ETag', '"x"', 'Content-Length', '1000'])
      // Keeping the connection is allowed, and so is mistrusting an upstream that may send the content after all.
      assert.equal((await rig.send(upstream, { path: '/next' }).ended()).body.toString(), 'ok')
    }),

    testCase('HEAD answered without any framing field ends with its head', make, async (rig) => {
      const upstream = await rig.upstream('HTTP/1.1 404 Not Found\r\nX-A: b\r\n\r\n')
      const first = await rig.send(upstream, { method: 'HEAD' }).ended()
      assert.equal(first.head?.status, 404)
      // The connection may be kept or not.
      await rig.send(upstream, { method: 'HEAD' }).ended()
    }),

    ...(['fin', 'reset'] as const).flatMap((ending) =>
      (
        [
          ['a body with Content-Length', `${head('Content-Length: 20')}half of it`],
          ['a chunked body, inside a chunk', `${head('Transfer-Encoding: chunked')}14\r\nhalf of it`],
          ['a chunked body, between chunks', `${head('Transfer-Encoding: chunked')}a\r\nhalf of it\r\n`],
          ['a chunked body, in its trailers', `${head('Transfer-Encoding: chunked')}a\r\nhalf of it\r\n0\r\nX-Sum: 1\r\n`],
          ...(ending === 'reset' ? ([['a body that ends with the connection', `${head('X-None: 1')}half of it`]] as const) : []),
        ] as const
      ).map(([what, bytes]) =>
        testCase(`${what} that breaks off by ${ending}: ERR_UPSTREAM_BODY after the head`, make, async (rig) => {
          let cut = (): void => {}
          const upstream = await rig.upstream(async (connection) => {
            await connection.readRequest()
            await connection.send(bytes)
            cut = () => end(connection, ending)
            await connection.stall()
          })
          const recorder = rig.send(upstream)
          // Only when all of it is there, so that the reset cannot overtake it.
          await recorder.received(10)
          cut()
          const error = await recorder.failed()
          assert.equal(error.code, 'ERR_UPSTREAM_BODY')
          assert.equal(recorder.head?.status, 200)
          assert.equal(recorder.body.toString(), 'half of it')
          assert.equal(error.upstream?.id, upstream.url)
        }),
      ),
    ),
  ]
}

function end(connection: UpstreamConnection, ending: 'fin' | 'reset'): void {
  if (ending === 'fin') connection.end()
  else connection.reset()
}
