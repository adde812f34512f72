/** The order of a sink's callbacks, and calls that must be harmless. That nothing is said twice or out of turn is checked in every case. */
import assert from 'node:assert/strict'
import { type ConformanceCase, ok, type TransportFactory, testCase, turns } from './rig.ts'

export function contractCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('onStart comes first, inside send, and send returns nothing', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      let inside = false
      const recorder = rig.send(
        upstream,
        {},
        {
          onStart: () => {
            inside = true
          },
        },
      )
      assert.equal(inside, true)
      assert.equal(recorder.state, 'started')
      await recorder.ended()
    }),

    testCase('head, data, end: each in its place, the end once', make, async (rig) => {
      const upstream = await rig.upstream('HTTP/1.1 201 Made Here\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello')
      const recorder = await rig.send(upstream).ended()
      assert.deepEqual(recorder.head, { status: 201, reason: 'Made Here', headers: ['X-A', 'b', 'Content-Length', '5'] })
      assert.equal(recorder.body.toString(), 'hello')
      assert.equal(recorder.trailers, undefined)
      await turns(5)
    }),

    testCase('every method of a call is safe after the end, any number of times', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const first = await rig.send(upstream).ended()
      for (let i = 0; i < 3; i++) {
        first.call.pause()
        first.call.resume()
        first.call.abort()
      }
      const second = rig.send(upstream)
      first.call.pause()
      first.call.abort()
      assert.equal((await second.ended()).body.toString(), 'ok')
    }),

    testCase('pause and resume before the head do no harm', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const recorder = rig.send(
        upstream,
        {},
        {
          onStart: ({ call }) => {
            call.pause()
            call.resume()
          },
        },
      )
      recorder.call.pause()
      recorder.call.resume()
      assert.equal((await recorder.ended()).body.toString(), 'ok')
    }),

    ...(
      [
        ['a line break in a value', { headers: ['Host', 'a', 'X-Evil', 'a\r\nX-Injected: 1'] }],
        ['a line break in a name', { headers: ['Host', 'a', 'X-Evil\r\nX-Injected', '1'] }],
        ['NUL in a value', { headers: ['Host', 'a', 'X-Evil', 'a\0b'] }],
        ['a space in the target', { path: '/a HTTP/1.1\r\nX-Injected: 1' }],
        ['a line break in the target', { path: '/a\r\n\r\nGET /smuggled' }],
        ['a method that is no token', { method: 'GET /smuggled HTTP/1.1\r\n' }],
      ] as const
    ).map(([what, request]) =>
      testCase(`${what} never reaches the wire: ERR_REQUEST_NOT_SENT, and nothing is thrown`, make, async (rig) => {
        const upstream = await rig.upstream(ok)
        const error = await rig.send(upstream, request).failed()
        assert.equal(error.code, 'ERR_REQUEST_NOT_SENT')
        await rig.send(upstream, { path: '/good' }).ended()
        assert.deepEqual(
          upstream.requests.map((seen) => seen.target),
          ['/good'],
        )
      }),
    ),
  ]
}
