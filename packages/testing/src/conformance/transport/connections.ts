/** Connections: kept, not shared, not trusted once they have ended, and given up on request. */
import assert from 'node:assert/strict'
import { bodySource } from './body-source.ts'
import { type ConformanceCase, ok, okay, type TransportFactory, testCase, turns } from './rig.ts'

export function connectionCases(make: TransportFactory): ConformanceCase[] {
  return [
    testCase('a connection is used again, and the call knows', make, async (rig) => {
      const upstream = await rig.upstream(okay)
      const first = await rig.send(upstream).ended()
      assert.equal(first.call.reused, false)
      assert.equal(first.call.sent, true)
      assert.equal(typeof first.call.connectMs, 'number')
      for (const method of ['GET', 'HEAD', 'DELETE', 'GET']) {
        const next = await rig.send(upstream, { method }).ended()
        assert.equal(next.call.reused, true)
        assert.equal(next.call.connectMs, undefined)
      }
      await rig.send(upstream, { method: 'POST', body: bodySource(['x']) }).ended()
      assert.equal(upstream.connections.length, 1)
    }),

    testCase('Connection: close is respected', make, async (rig) => {
      const upstream = await rig.upstream('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok')
      await rig.send(upstream).ended()
      await (await upstream.connection(1)).closed
      assert.equal((await rig.send(upstream).ended()).call.reused, false)
    }),

    testCase('calls at the same time have connections of their own: nothing waits for another\u2019s response', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        const request = await connection.readRequest()
        if (request.target !== '/slow') await connection.send(ok)
        await connection.stall()
      })
      const slow = rig.send(upstream, { path: '/slow' })
      await upstream.request(1)
      const quick = ['/a', '/b', '/c'].map((path) => rig.send(upstream, { path }))
      for (const recorder of quick) await recorder.ended()
      assert.equal(slow.state, 'started')
      assert.equal(upstream.connections.length, 4)
    }),

    testCase('two upstreams never share a connection', make, async (rig) => {
      const one = await rig.upstream('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1')
      const two = await rig.upstream('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2')
      const bodies = []
      for (const upstream of [one, two, one, two]) bodies.push((await rig.send(upstream).ended()).body.toString())
      assert.deepEqual(bodies, ['1', '2', '1', '2'])
    }),

    testCase('a connection that the upstream closed while idle is not used again', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(ok)
        connection.end()
        await connection.stall()
      })
      await rig.send(upstream).ended()
      await (await upstream.connection(1)).closed
      const second = await rig.send(upstream).ended()
      assert.equal(second.call.reused, false)
      assert.equal(upstream.connections.length, 2)
    }),

    ...(['fin', 'reset'] as const).map((ending) =>
      testCase(`an upstream that closes (${ending}) as the second request arrives: ERR_UPSTREAM_RESET, reused`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send(ok)
          await connection.readRequest()
          if (ending === 'fin') connection.end()
          else connection.reset()
        })
        await rig.send(upstream).ended()
        const stale = rig.send(upstream, { path: '/again' })
        const error = await stale.failed()
        assert.equal(error.code, 'ERR_UPSTREAM_RESET')
        assert.equal(error.retry, 'if-reused')
        assert.equal(error.upstream?.id, upstream.url)
        assert.equal(stale.call.reused, true)
        assert.equal(stale.call.sent, true)
        assert.equal((await rig.send(upstream).ended()).call.reused, false)
        assert.deepEqual(
          upstream.requests.map((seen) => seen.target),
          ['/', '/again', '/'],
        )
      }),
    ),

    ...(['fin', 'reset'] as const).flatMap((ending) =>
      ['', 'HTTP/1.1 2', 'HTTP/1.1 200 OK\r\nX-Half: '].map((sent) =>
        testCase(
          `a new connection that ends by ${ending} after ${JSON.stringify(sent)}: ERR_UPSTREAM_RESET, not reused`,
          make,
          async (rig) => {
            const upstream = await rig.upstream(async (connection) => {
              await connection.readRequest()
              if (sent !== '') await connection.send(sent)
              if (ending === 'fin') connection.end()
              else connection.reset()
            })
            const recorder = rig.send(upstream)
            assert.equal((await recorder.failed()).code, 'ERR_UPSTREAM_RESET')
            assert.equal(recorder.call.reused, false)
            assert.equal(recorder.call.sent, true)
          },
        ),
      ),
    ),

    testCase('a response that nobody asked for is given to nobody', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(`${ok}HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked`)
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nasked')
      })
      assert.equal((await rig.send(upstream).ended()).body.toString(), 'ok')
      const second = await rig.send(upstream).settled()
      // An error or an answer over a new connection: either is right.
      if (second.state === 'ended') assert.notEqual(second.body.toString(), 'unasked')
      else assert.equal(second.head, undefined)
    }),

    testCase('a response that comes before its request is given to nobody', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(ok)
        if (connection.number === 1) await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned')
        await connection.stall()
      })
      await rig.send(upstream).ended()
      await turns(10)
      const second = await rig.send(upstream).settled()
      if (second.state === 'ended') assert.equal(second.body.toString(), 'ok')
      else assert.equal(second.head, undefined)
    }),

    testCase('close() ends idle connections at once and running calls as they end', make, async (rig) => {
      let finish = (): void => {}
      const upstream = await rig.upstream(async (connection) => {
        const request = await connection.readRequest()
        if (request.target === '/running') {
          await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf')
          finish = () => void connection.send('full')
        } else await connection.send(ok)
        await connection.stall()
      })
      const running = rig.send(upstream, { path: '/running' })
      await running.received(4)
      await rig.send(upstream, { path: '/idle' }).ended()
      const closing = rig.transport.close?.()
      assert.equal(await (await upstream.connection(2)).closed, 'fin')
      assert.equal(upstream.connections[0]?.ending, 'open')
      finish()
      assert.equal((await running.ended()).body.toString(), 'halffull')
      await (await upstream.connection(1)).closed
      await closing
      await rig.transport.close?.()
    }),

    testCase('forget() ends the idle connections of that upstream only; running calls go on', make, async (rig) => {
      const { transport } = rig
      if (transport.forget === undefined) return
      let finish = (): void => {}
      const gone = await rig.upstream(async (connection) => {
        const request = await connection.readRequest()
        if (request.target === '/running') {
          await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf')
          finish = () => void connection.send('full')
        } else await connection.send(ok)
        await connection.stall()
      })
      const stays = await rig.upstream(ok)
      const running = rig.send(gone, { path: '/running' })
      await running.received(4)
      await rig.send(gone, { path: '/idle' }).ended()
      await rig.send(stays).ended()
      transport.forget(rig.at(gone.url))
      await (await gone.connection(2)).closed
      finish()
      assert.equal((await running.ended()).body.toString(), 'halffull')
      await (await gone.connection(1)).closed
      assert.equal((await rig.send(stays).ended()).call.reused, true)
    }),

    testCase('a Unix socket is an upstream like any other', make, async (rig) => {
      const upstream = await rig.upstream(ok, { unix: true })
      await rig.send(upstream, { path: '/over//unix', headers: ['Host', 'a.test'] }).ended()
      const second = await rig.send(upstream, { method: 'POST', body: bodySource(['x']) }).ended()
      assert.equal(second.call.reused, true)
      assert.equal(upstream.requests[0]?.target, '/over//unix')
      assert.deepEqual(upstream.requests[0]?.all('host'), ['a.test'])
    }),
  ]
}
