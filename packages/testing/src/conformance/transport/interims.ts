/** 1xx responses: relayed, except the 100 that nobody asked for and the 101 that would turn the connection into something else. */
import assert from 'node:assert/strict'
import { type ConformanceCase, ok, type TransportFactory, testCase } from './rig.ts'

export function interimCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('103 and 102 are delivered in order, before the head', make, async (rig) => {
      const upstream = await rig.upstream(
        `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-L: \xe4\r\n\r\n${ok}`,
      )
      const recorder = await rig.send(upstream).ended()
      assert.deepEqual(recorder.interims, [
        { status: 103, headers: ['Link', '</a>', 'link', '</b>'] },
        { status: 102, headers: [] },
        { status: 103, headers: ['X-L', '\xe4'] },
      ])
      assert.equal(recorder.body.toString(), 'ok')
      assert.equal((await rig.send(upstream).ended()).call.reused, true)
    }),

    testCase('a 103 is delivered when it comes, not with the head', make, async (rig) => {
      let finish = (): void => {}
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n')
        finish = () => void connection.send(ok)
        await connection.stall()
      })
      const recorder = rig.send(upstream)
      await recorder.interim(1)
      assert.equal(recorder.head, undefined)
      finish()
      await recorder.ended()
    }),

    ...['HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\nHTTP/1.1 100\x20\r\n\r\n'].flatMap((hundred) =>
      [false, true].map((split) =>
        testCase(`an unasked 100 is ignored: ${JSON.stringify(hundred)}${split ? ', byte by byte' : ''}`, make, async (rig) => {
          const upstream = await rig.upstream(async (connection) => {
            await connection.readRequest()
            if (split) for (const byte of hundred + ok) await connection.send(byte)
            else await connection.send(hundred + ok)
            await connection.readRequest()
            await connection.send(ok)
          })
          const recorder = await rig.send(upstream).ended()
          assert.deepEqual(recorder.interims, [])
          assert.equal(recorder.body.toString(), 'ok')
          assert.equal((await rig.send(upstream).ended()).body.toString(), 'ok')
        }),
      ),
    ),

    testCase('an unasked 101 is an error, ERR_UPGRADE_RESPONSE, and ends the connection', make, async (rig) => {
      const upstream = await rig.upstream('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes')
      const recorder = rig.send(upstream)
      assert.equal((await recorder.failed()).code, 'ERR_UPGRADE_RESPONSE')
      assert.equal(recorder.head, undefined)
      await (await upstream.connection(1)).closed
    }),
  ]
}
