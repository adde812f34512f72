/**
 * Upgrades up to the 101. Until the upstream says it, an upgrade is a request like any other; the client's side is not touched, so that a
 * refusal, an error or a retry can still be answered in HTTP.
 */
import assert from 'node:assert/strict'
import { certificates } from '../../certificates.ts'
import { refusedPort } from '../../ports.ts'
import { type ConformanceCase, ok, type TransportFactory, testCase, timeouts, turns } from './rig.ts'
import { answer, answered, echo, switching, upgrade } from './upgrading.ts'

export function upgradeCases(make: TransportFactory): ConformanceCase[] {
  const { ca, localhost } = certificates()
  return [
    testCase('an upgrade asks for the protocol, and nothing reaches the client before open', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder, far } = await upgrade(rig, upstream, {
        path: '//chat%2F?x=1',
        headers: ['hOst', 'a.test', 'X-L', '\xe4', 'x-l', '2'],
      })
      const tunnel = await recorder.switched()
      const [seen] = upstream.requests
      assert.equal(seen?.line, 'GET //chat%2F?x=1 HTTP/1.1')
      assert.deepEqual(seen.all('upgrade'), ['websocket'])
      assert.equal(seen.header('connection')?.toLowerCase(), 'upgrade')
      assert.equal(seen.framing, 'none')
      const rest = seen.headers.filter((_, i, all) => !/^(upgrade|connection)$/i.test(all[i - (i % 2)] as string))
      assert.deepEqual(rest, ['hOst', 'a.test', 'X-L', '\xe4', 'x-l', '2'])
      assert.deepEqual(recorder.upgradeHeaders, ['Upgrade', 'websocket', 'Connection', 'Upgrade', 'Sec-WebSocket-Accept', 'x='])
      assert.equal(far.received.length, 0)
      tunnel.open(answer)
      await far.sees(answered)
      void far.write('hello')
      await far.sees(`${answered}hello`)
    }),

    testCase('a tunnel whose socket is destroyed instead of opened frees the upstream and leaves the client alone', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder, far, near } = await upgrade(rig, upstream)
      ;(await recorder.switched()).socket.destroy()
      await (await upstream.connection(1)).closed
      assert.equal(far.ending, 'open')
      near.write('HTTP/1.1 403 Forbidden\r\n\r\n')
      await far.sees('403')
      assert.equal(far.received.toString('latin1'), 'HTTP/1.1 403 Forbidden\r\n\r\n')
    }),

    ...(
      [
        ['403 with a length', 'HTTP/1.1 403 Forbidden\r\nX-Why: \xe4\r\nContent-Length: 3\r\n\r\nno!', 'no!'],
        ['404 in chunks', 'HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n', 'no!'],
        ['200 without a body', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', ''],
        ['426', 'HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n', ''],
      ] as const
    ).map(([what, bytes, body]) =>
      testCase(`a refused upgrade (${what}) is a response like any other; the client is not touched`, make, async (rig) => {
        const upstream = await rig.upstream(bytes)
        const { recorder, far } = await upgrade(rig, upstream)
        await recorder.ended()
        assert.equal(recorder.head?.status, Number(what.slice(0, 3)))
        assert.deepEqual(
          recorder.head.headers,
          bytes
            .split('\r\n\r\n')[0]
            ?.split('\r\n')
            .slice(1)
            .flatMap((line) => line.split(': ')),
        )
        assert.equal(recorder.body.toString(), body)
        await turns(5)
        assert.equal(far.received.length, 0)
        assert.equal(far.ending, 'open')
      }),
    ),

    testCase('a refused upgrade that breaks off: ERR_UPSTREAM_BODY', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 403 Forbidden\r\nContent-Length: 30\r\n\r\nno!')
        connection.end()
      })
      const { recorder } = await upgrade(rig, upstream)
      assert.equal((await recorder.failed()).code, 'ERR_UPSTREAM_BODY')
      assert.equal(recorder.head?.status, 403)
    }),

    testCase('interim responses come before the 101', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(`HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${switching}`)
        await connection.stall()
      })
      const { recorder } = await upgrade(rig, upstream)
      ;(await recorder.switched()).socket.destroy()
      assert.deepEqual(recorder.interims, [{ status: 103, headers: ['Link', '</a>'] }])
    }),

    testCase('refused connection: ERR_CONNECT_REFUSED, nothing sent', make, async (rig) => {
      const port = await refusedPort()
      rig.defer(() => port.close())
      const { recorder, far } = await upgrade(rig, rig.at(port.url))
      const error = await recorder.failed()
      assert.equal(error.code, 'ERR_CONNECT_REFUSED')
      assert.equal(recorder.call.sent, false)
      assert.equal(far.ending, 'open')
    }),

    ...(['fin', 'reset'] as const).map((ending) =>
      testCase(`an upstream that ends (${ending}) before the 101: ERR_UPSTREAM_RESET, the client untouched`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          if (ending === 'fin') connection.end()
          else connection.reset()
        })
        const { recorder, far } = await upgrade(rig, upstream)
        assert.equal((await recorder.failed()).code, 'ERR_UPSTREAM_RESET')
        assert.equal(recorder.call.sent, true)
        await turns(5)
        assert.equal(far.received.length, 0)
        assert.equal(far.ending, 'open')
      }),
    ),

    testCase('not HTTP: ERR_UPSTREAM_PROTOCOL', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTQ/1.1 101 Switching\r\n\r\n')
        await connection.stall()
      })
      const { recorder } = await upgrade(rig, upstream)
      assert.equal((await recorder.failed()).code, 'ERR_UPSTREAM_PROTOCOL')
      await (await upstream.connection(1)).closed
    }),

    testCase('no answer in time: ERR_HEAD_TIMEOUT, and the connection ends', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      const { recorder } = await upgrade(rig, upstream, { timeouts: { ...timeouts, head: 100 } })
      assert.equal((await recorder.failed()).code, 'ERR_HEAD_TIMEOUT')
      await (await upstream.connection(1)).closed
    }),

    testCase('abort before the 101 frees the upstream', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.stall()
      })
      const { recorder, far } = await upgrade(rig, upstream)
      await upstream.request(1)
      recorder.abort()
      await (await upstream.connection(1)).closed
      assert.equal(far.ending, 'open')
    }),

    testCase('abort right after upgrade: silence', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder } = await upgrade(rig, upstream)
      recorder.abort()
      await rig.send(await rig.upstream(ok)).ended()
      await turns(10)
      assert.equal(upstream.open, 0)
    }),

    testCase(
      'an upgrade over TLS is verified and works',
      make,
      async (rig) => {
        const upstream = await rig.upstream(echo('first '), { tls: localhost })
        const { recorder, far } = await upgrade(rig, upstream)
        ;(await recorder.switched()).open(answer)
        void far.write('hello')
        await far.sees(`${answered}first hello`)
        assert.equal(upstream.connections[0]?.servername, 'localhost')
      },
      { tls: { ca } },
    ),

    testCase('an upgrade to a certificate that nobody trusts: ERR_TLS_CERTIFICATE', make, async (rig) => {
      const upstream = await rig.upstream(echo(), { tls: localhost })
      const { recorder } = await upgrade(rig, upstream)
      assert.equal((await recorder.failed()).code, 'ERR_TLS_CERTIFICATE')
      assert.equal(upstream.requests.length, 0)
    }),

    testCase('an upgrade over a Unix socket works', make, async (rig) => {
      const upstream = await rig.upstream(echo(), { unix: true })
      const { recorder, far } = await upgrade(rig, upstream)
      ;(await recorder.switched()).open(answer)
      void far.write('hello')
      await far.sees('hello')
    }),
  ]
}
