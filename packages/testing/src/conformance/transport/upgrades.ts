/**
 * Upgrades. Until the upstream says 101 an upgrade is a request like any other; then two connections become one. The client's side is
 * not touched before `open`, so that a refusal, an error or a retry can still be answered in HTTP.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { UpgradeRequest, Upstream } from '@weir/core'
import { certificates } from '../../certificates.ts'
import { refusedPort } from '../../ports.ts'
import { type RawConnection, rawConnect } from '../../raw-client.ts'
import type { RawUpstream, UpstreamScript } from '../../raw-upstream.ts'
import { noDeadline } from '../../watch.ts'
import { repeated } from './body-source.ts'
import { UpgradeRecorder } from './recorder.ts'
import {
  type ConformanceCase,
  type DeclaredDeviations,
  eventually,
  ok,
  type Rig,
  steady,
  type TransportFactory,
  testCase,
  timeouts,
  turns,
} from './rig.ts'

const switching = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x=\r\n\r\n'
const answer = ['Upgrade', 'websocket', 'Connection', 'Upgrade', 'X-Mine', '\xe4']
const answered = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Mine: \xe4\r\n\r\n'

/** Says 101, with `first` right behind it, and then sends back what it gets until the other side ends. */
const echo =
  (first = ''): UpstreamScript =>
  async (connection) => {
    await connection.readRequest()
    await connection.send(switching + first)
    for (;;) await connection.send(await connection.readBytes(1, noDeadline))
  }

export function upgradeCases(make: TransportFactory, declared: DeclaredDeviations): ConformanceCase[] {
  if (declared.upgrade === false) {
    return [testCase('there is no upgrade, as declared', make, async (rig) => assert.equal(rig.transport.upgrade, undefined))]
  }
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
      await eventually('everything after all', () => far.received.length > total)
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

    testCase('the timeouts of the call end with the 101: a silent tunnel stays', make, async (rig) => {
      const upstream = await rig.upstream(echo())
      const { recorder, far } = await upgrade(rig, upstream, { timeouts: { connect: 300, head: 300, idle: 300 } })
      ;(await recorder.switched()).open(answer)
      // Longer than each of them; time itself is what is tested.
      await new Promise((resolve) => setTimeout(resolve, 900))
      void far.write('still here')
      await far.sees('still here')
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

interface Upgrading {
  readonly recorder: UpgradeRecorder
  /** The client's end of its connection. */
  readonly far: RawConnection
  /** The proxy's end, which the transport is given. */
  readonly near: Socket
}

async function upgrade(rig: Rig, to: RawUpstream | Upstream, request: Partial<UpgradeRequest> = {}): Promise<Upgrading> {
  const { far, near } = await clientConnection(rig)
  const recorder = rig.watch(new UpgradeRecorder())
  rig.transport.upgrade?.(
    {
      method: 'GET',
      path: '/',
      headers: ['Host', 'upstream.test', 'Sec-WebSocket-Version', '13', 'Sec-WebSocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='],
      protocol: 'websocket',
      client: near,
      timeouts,
      ...request,
    },
    'id' in to ? to : rig.at(to.url),
    recorder,
  )
  if (recorder.state === 'new') recorder.objections.push('upgrade returned without onStart')
  return { recorder, far, near }
}

/** A connection as an HTTP server hands it to `upgrade`: half-open allowed, nothing read. */
async function clientConnection(rig: Rig): Promise<{ far: RawConnection; near: Socket }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const far = await rawConnect((server.address() as AddressInfo).port)
  const [near] = await accepted
  near.on('error', () => {})
  rig.defer(() => {
    far.destroy()
    near.destroy()
    server.close()
  })
  return { far, near }
}
