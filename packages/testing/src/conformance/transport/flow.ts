/** Time and back-pressure: what a silent upstream costs, and that a slow reader is neither flooded nor cut off. */
import assert from 'node:assert/strict'
import { bodySource, repeated } from './body-source.ts'
import type { Recorder } from './recorder.ts'
import { type ConformanceCase, eventually, ok, steady, type TransportFactory, testCase, turns } from './rig.ts'

export function flowCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('no head in time: ERR_HEAD_TIMEOUT, and the connection ends', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      const recorder = rig.send(upstream, { timeouts: { head: 100 } })
      assert.equal((await recorder.failed()).code, 'ERR_HEAD_TIMEOUT')
      assert.equal(recorder.call.sent, true)
      await (await upstream.connection(1)).closed
    }),

    testCase('an interim response is not yet the head: ERR_HEAD_TIMEOUT', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n')
        await connection.stall()
      })
      const recorder = rig.send(upstream, { timeouts: { head: 200 } })
      assert.equal((await recorder.failed()).code, 'ERR_HEAD_TIMEOUT')
      assert.equal(recorder.interims.length, 1)
    }),

    testCase('silence in the body: ERR_BODY_TIMEOUT, after what did come, and the connection ends', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
        await connection.stall()
      })
      const recorder = rig.send(upstream, { timeouts: { idle: 100 } })
      assert.equal((await recorder.failed()).code, 'ERR_BODY_TIMEOUT')
      assert.equal(recorder.body.toString(), 'half')
      await (await upstream.connection(1)).closed
    }),

    testCase('a timeout of 0 is none', make, async (rig) => {
      let finish = (): void => {}
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        finish = () => void connection.send(ok)
        await connection.stall()
      })
      const recorder = rig.send(upstream, { timeouts: { connect: 0, head: 0, idle: 0 } })
      await upstream.request(1)
      await turns(20)
      finish()
      await recorder.ended()
    }),

    testCase('timeouts belong to the call: the next on the same connection has its own', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(ok)
        await connection.readRequest()
        await connection.stall()
      })
      await rig.send(upstream, { timeouts: { head: 60_000 } }).ended()
      const second = rig.send(upstream, { timeouts: { head: 100 } })
      assert.equal((await second.failed()).code, 'ERR_HEAD_TIMEOUT')
      assert.equal(second.call.reused, true)
    }),

    testCase('a paused reader is not an idle upstream', make, async (rig) => {
      const size = 4 * 1024 * 1024
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
        await connection.send(Buffer.alloc(size))
        await connection.stall()
      })
      const recorder = rig.send(upstream, { timeouts: { idle: 200 } }, { onHead: (self) => self.pause(), keep: false })
      await recorder.headed()
      // Longer than the timeout and than the coarse timers that clients use; time itself is what is tested.
      await new Promise((resolve) => setTimeout(resolve, 2500))
      assert.equal(recorder.state, 'head')
      recorder.resume()
      assert.equal((await recorder.ended()).bytes, size)
    }),

    ...(
      [
        ['Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789'],
        ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\nX-T: 1\r\n\r\n'],
      ] as const
    ).flatMap(([what, bytes]) => [
      testCase(`paused at the head, nothing of a body that came with it is delivered before resume (${what})`, make, async (rig) => {
        const upstream = await rig.upstream(bytes)
        const recorder = rig.send(upstream, {}, { onHead: (self) => self.pause() })
        await recorder.headed()
        await turns(20)
        assert.equal(recorder.bytes, 0)
        assert.equal(recorder.state, 'head')
        recorder.resume()
        assert.equal((await recorder.ended()).body.toString(), '0123456789')
      }),

      testCase(`paused at each chunk, the rest waits for resume (${what})`, make, async (rig) => {
        const upstream = await rig.upstream(bytes)
        const recorder = rig.send(upstream, {}, { onData: (self) => self.pause() })
        await recorder.received(1)
        await turns(20)
        // That no data comes while paused is checked by the recorder. One resume may be one chunk.
        while (!recorder.over) {
          const had = recorder.bytes
          recorder.resume()
          await eventually('more data or the end', () => recorder.bytes > had || recorder.over)
        }
        assert.equal((await recorder.ended()).body.toString(), '0123456789')
      }),
    ]),

    testCase('a paused reader holds the upstream back, and gets everything afterwards', make, async (rig) => {
      const total = 100 * 1024 * 1024
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`)
        for (const chunk of repeated(total)) if (!(await connection.send(chunk))) return
        await connection.stall()
      })
      let first = true
      const pauseOnce = (self: Recorder): void => {
        if (first) self.pause()
        first = false
      }
      const recorder = rig.send(upstream, {}, { keep: false, onData: pauseOnce })
      await recorder.received(1)
      const connection = await upstream.connection(1)
      const accepted = await steady(() => connection.sent)
      // What the kernel's own buffers hold depends on the machine; that it is nowhere near the whole does not.
      assert.ok(accepted < total / 2, `the upstream could push ${accepted} bytes at a paused reader`)
      recorder.resume()
      await eventually('all of it', () => recorder.over, 15_000)
      assert.equal((await recorder.ended()).bytes, total)
    }),

    testCase(
      'an early response is delivered whole while the upload runs, and the connection does not carry the next call',
      make,
      async (rig) => {
        const total = 100 * 1024 * 1024
        const upstream = await rig.upstream(async (connection) => {
          const head = await connection.readHead()
          if (head.line.startsWith('GET')) await connection.send(ok)
          else await connection.send('HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmuch')
          await connection.stall()
        })
        const body = bodySource(repeated(total), { length: total })
        const headers = ['Host', 'a', 'Content-Length', String(total)]
        const recorder = await rig.send(upstream, { method: 'PUT', headers, body }).ended()
        assert.equal(recorder.head?.status, 413)
        assert.equal(recorder.body.toString(), 'much')
        const next = await rig.send(upstream).ended()
        assert.equal(next.call.reused, false)
        await eventually('the upload ends', () => body.closed || body.finished)
      },
    ),

    testCase('a response that is complete before the upload leaves nothing of it for the next call', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        for (;;) {
          const head = await connection.readHead()
          await connection.send(ok)
          if (head.line.startsWith('POST')) await connection.readBytes(300_000).catch(() => {})
        }
      })
      const body = bodySource(repeated(300_000, Buffer.alloc(10_000, 'GET /smuggled HTTP/1.1\r\n\r\n')), { length: 300_000 })
      const first = rig.send(upstream, { method: 'POST', headers: ['Host', 'a', 'Content-Length', '300000'], body })
      assert.equal((await first.ended()).body.toString(), 'ok')
      assert.equal((await rig.send(upstream, { path: '/next' }).ended()).body.toString(), 'ok')
    }),
  ]
}
