/** Behind the 101 two connections are one: every byte passes once, in order, no faster than it is read, until either side ends. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { repeated } from './body-source.ts'
import { type ConformanceCase, eventually, ok, steady, type TransportFactory, testCase, turns } from './rig.ts'
import { answer, answered, echo, switching, upgrade } from './upgrading.ts'

export function tunnelCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('bytes right behind the 101 are delivered once, behind the client\u2019s own 101', make, async (rig) => {
      const upstream = await rig.upstream(echo('first \xff bytes'))
      const { recorder, far } = await upgrade(rig, upstream)
      const tunnel = await recorder.switched()
      await turns(5)
      tunnel.open(answer)
      void far.write(' echo')
      await far.sees(' echo')
      assert.equal(far.received.toString('latin1'), `${answered}first \xff bytes echo`)
    }),

    testCase('what the client sent before open arrives behind the request, once', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(switching)
        await connection.stall()
      })
      const { recorder, far } = await upgrade(rig, upstream)
      await far.write('early ')
      const tunnel = await recorder.switched()
      await turns(5)
      const connection = await upstream.connection(1)
      assert.equal(connection.unread.length, 0)
      tunnel.open(answer)
      void far.write('late')
      await connection.sees('late')
      assert.equal(connection.unread.toString('latin1'), 'early late')
    }),

    ...(['fin', 'reset'] as const).flatMap((ending) => [
      testCase(`a client that ends (${ending}) ends the upstream\u2019s side`, make, async (rig) => {
        const upstream = await rig.upstream(echo())
        const { recorder, far } = await upgrade(rig, upstream)
        ;(await recorder.switched()).open(answer)
        await far.sees(answered)
        if (ending === 'fin') far.end()
        else far.reset()
        await (await upstream.connection(1)).closed
      }),

      testCase(`an upstream that ends (${ending}) ends the client\u2019s side, after its last bytes`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send(switching)
          await connection.readBytes(1)
          await connection.send('last words')
          if (ending === 'fin') connection.end()
          // A reset may overtake what was sent before it, so wait until the client has it.
          else await connection.readBytes(1)
          if (ending === 'reset') connection.reset()
        })
        const { recorder, far } = await upgrade(rig, upstream)
        ;(await recorder.switched()).open(answer)
        void far.write('1')
        await far.sees('last words')
        void far.write('2')
        await far.closed
      }),
    ]),

    testCase('megabytes pass both ways at once', make, async (rig) => {
      const total = 8 * 1024 * 1024
      const block = Buffer.from(Uint8Array.from({ length: 65_536 }, (_, i) => i % 251))
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(switching)
        const read = connection.readBytes(total)
        for (let sent = 0; sent < total; sent += block.length) await connection.send(block)
        await read
        await connection.stall()
      })
      const { recorder, far } = await upgrade(rig, upstream)
      ;(await recorder.switched()).open([])
      for (let sent = 0; sent < total; sent += block.length) void far.write(block)
      await far.readThrough('\r\n\r\n')
      const whole = Buffer.concat([...repeated(total, block)])
      assert.ok((await far.readBytes(total)).equals(whole))
      const connection = await upstream.connection(1)
      await eventually('the upstream has all', () => connection.received.length >= total)
      assert.ok(connection.received.subarray(-total).equals(whole))
    }),

    testCase('a client that does not read holds the upstream back', make, async (rig) => {
      const total = 100 * 1024 * 1024
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(switching)
        for (const chunk of repeated(total)) if (!(await connection.send(chunk))) return
      })
      const { recorder, far } = await upgrade(rig, upstream)
      far.pause()
      ;(await recorder.switched()).open(answer)
      const connection = await upstream.connection(1)
      await eventually('the upstream sends', () => connection.sent > 100_000)
      const accepted = await steady(() => connection.sent)
      assert.ok(accepted < total / 2, `${accepted} bytes were taken for a client that reads nothing`)
      far.resume()
      await eventually('the upstream goes on', () => connection.sent > accepted + 1_000_000)
    }),

    testCase('the timeouts of the call end with the 101: a silent tunnel stays', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder, far } = await upgrade(rig, upstream, { timeouts: { connect: 300, head: 300, idle: 300 } })
      ;(await recorder.switched()).open(answer)
      // Longer than each of them; time itself is what is tested.
      await new Promise((resolve) => setTimeout(resolve, 900))
      void far.write('still here')
      await far.sees('still here')
    }),

    testCase('a client that left between the 101 and open: open does not throw, the upstream is freed', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder, near } = await upgrade(rig, upstream)
      const tunnel = await recorder.switched()
      near.destroy()
      await once(near, 'close')
      tunnel.open(answer)
      await (await upstream.connection(1)).closed
    }),

    testCase('an upstream that left between the 101 and open: the client\u2019s side ends', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(switching)
        connection.end()
      })
      const { recorder, far } = await upgrade(rig, upstream)
      const tunnel = await recorder.switched()
      await turns(10)
      tunnel.open(answer)
      await far.closed
    }),

    testCase('a tunnel\u2019s connection is nobody else\u2019s, not even afterwards', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        const request = await connection.readRequest()
        await connection.send(request.header('upgrade') === undefined ? ok : switching)
        await connection.stall()
      })
      const { recorder, far } = await upgrade(rig, upstream)
      ;(await recorder.switched()).open(answer)
      await far.sees(answered)
      far.end()
      await (await upstream.connection(1)).closed
      const next = await rig.send(upstream).ended()
      assert.equal(next.call.reused, false)
    }),

    testCase('close() lets a running tunnel go on', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder, far } = await upgrade(rig, upstream)
      ;(await recorder.switched()).open(answer)
      const closing = rig.transport.close?.()
      await turns(5)
      void far.write('still')
      await far.sees('still')
      far.end()
      await (await upstream.connection(1)).closed
      await closing
    }),
  ]
}
