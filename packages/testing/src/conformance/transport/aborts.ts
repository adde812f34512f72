/** A client that leaves: the upstream is told in the same turn, and the sink hears nothing more. That silence is checked in every case. */
import assert from 'node:assert/strict'
import { blackHolePort } from '../../ports.ts'
import { bodySource, repeated } from './body-source.ts'
import type { Recorder } from './recorder.ts'
import { type ConformanceCase, eventually, ok, type TransportFactory, testCase, turns } from './rig.ts'

export function abortCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('abort inside onStart: no request is sent', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const body = bodySource(['x'])
      const twice = (recorder: Recorder): void => {
        recorder.abort()
        recorder.abort()
      }
      rig.send(upstream, { method: 'POST', path: '/aborted', body }, { onStart: twice })
      await rig.send(upstream, { path: '/sent' }).ended()
      await turns(10)
      assert.deepEqual(
        upstream.requests.map((seen) => seen.target),
        ['/sent'],
      )
      assert.equal(body.produced, 0)
    }),

    testCase('abort right after send: silence, and the transport goes on', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const recorder = rig.send(upstream, { path: '/aborted' })
      recorder.abort()
      recorder.abort()
      assert.equal((await rig.send(upstream, { path: '/sent' }).ended()).body.toString(), 'ok')
      assert.deepEqual(
        upstream.requests.map((seen) => seen.target),
        ['/sent'],
      )
    }),

    testCase('abort right after send on a kept connection: the next call gets its own response', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        for (;;) {
          const { target } = await connection.readRequest()
          await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${target.length}\r\n\r\n${target}`)
        }
      })
      await rig.send(upstream, { path: '/warm' }).ended()
      rig.send(upstream, { path: '/aborted' }).abort()
      assert.equal((await rig.send(upstream, { path: '/next' }).ended()).body.toString(), '/next')
    }),

    testCase('abort while connecting', make, async (rig) => {
      const hole = await blackHolePort()
      rig.defer(() => hole.close())
      const recorder = rig.send(rig.at(hole.url), { timeouts: { connect: 300 } })
      await turns(10)
      recorder.abort()
      // The connect timeout of the aborted call must not be heard of.
      const other = rig.send(rig.at(hole.url), { timeouts: { connect: 400 } })
      assert.equal((await other.failed()).code, 'ERR_CONNECT_TIMEOUT')
      assert.equal(recorder.call.sent, false)
    }),

    testCase('abort before the head closes the connection', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      const recorder = rig.send(upstream)
      const connection = await upstream.connection(1)
      await upstream.request(1)
      recorder.abort()
      await connection.closed
      assert.equal(connection.ending === 'fin' || connection.ending === 'reset', true)
    }),

    testCase('abort in the body closes the connection', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
        await connection.stall()
      })
      const recorder = rig.send(upstream)
      await recorder.received(4)
      recorder.abort()
      await (await upstream.connection(1)).closed
    }),

    testCase('abort of a paused call closes the connection', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n')
        for (const chunk of repeated(100_000_000)) if (!(await connection.send(chunk))) return
      })
      const recorder = rig.send(upstream, {}, { onHead: (self) => self.pause() })
      await recorder.headed()
      recorder.abort()
      recorder.resume()
      await (await upstream.connection(1)).closed
    }),

    ...(['onHead', 'onData'] as const).map((where) =>
      testCase(`abort inside ${where}: not one callback more, though all of the response has come`, make, async (rig) => {
        const upstream = await rig.upstream('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nX-T: 1\r\n\r\n')
        const recorder = await rig.send(upstream, {}, { [where]: (self: Recorder) => self.abort() }).settled()
        assert.equal(recorder.bytes, where === 'onHead' ? 0 : 1)
        await turns(10)
        assert.equal((await rig.send(upstream).ended()).body.toString(), 'ab')
      }),
    ),

    testCase('abort during an upload lets go of the body', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readHead()
        await connection.stall()
      })
      const total = 1024 * 1024 * 1024
      const body = bodySource(repeated(total), { length: total })
      const recorder = rig.send(upstream, { method: 'PUT', headers: ['Host', 'a', 'Content-Length', String(total)], body })
      await eventually('the upload runs', () => body.produced > 1024 * 1024)
      recorder.abort()
      assert.equal(body.closed, true)
      const { produced } = body
      await (await upstream.connection(1)).closed
      await turns(5)
      assert.equal(body.produced, produced)
    }),

    testCase('a call that failed lets go of the body', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readHead()
        connection.reset()
      })
      const total = 1024 * 1024 * 1024
      const body = bodySource(repeated(total), { length: total })
      await rig.send(upstream, { method: 'PUT', headers: ['Host', 'a', 'Content-Length', String(total)], body }).failed()
      await eventually('the body is let go', () => body.closed)
    }),

    testCase('abort after the end spoils nothing: the connection is used again', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const first = await rig.send(upstream).ended()
      first.abort()
      assert.equal((await rig.send(upstream).ended()).call.reused, true)
    }),
  ]
}
