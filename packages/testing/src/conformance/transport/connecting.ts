/** Connections that do not come about, each with its own code. Nothing was sent, so any request may be tried elsewhere. */
import assert from 'node:assert/strict'
import type { ErrorCode } from '@weir/core'
import { certificates } from '../../certificates.ts'
import { blackHolePort, refusedPort } from '../../ports.ts'
import { bodySource } from './body-source.ts'
import type { Recorder } from './recorder.ts'
import { type ConformanceCase, ok, type TransportFactory, testCase } from './rig.ts'

// A label may have 63 characters (RFC 1035 §2.3.4): it cannot resolve, and finding that out needs no network.
const unresolvable = `http://${'a'.repeat(64)}.invalid`

export function connectingCases(make: TransportFactory): ConformanceCase[] {
  const { ca, localhost, wrongName, expired } = certificates()
  return [
    testCase('refused: ERR_CONNECT_REFUSED', make, async (rig) => {
      const port = await refusedPort()
      rig.defer(() => port.close())
      const body = bodySource(['x'])
      await failsUnsent(rig.send(rig.at(port.url), { method: 'POST', body }), 'ERR_CONNECT_REFUSED')
      // Several at once, and again: nothing is left in a state of its own.
      for (const recorder of [1, 2, 3].map(() => rig.send(rig.at(port.url)))) await failsUnsent(recorder, 'ERR_CONNECT_REFUSED')
    }),

    testCase('refused for a while, then back: the next call works', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      await upstream.stopListening()
      await failsUnsent(rig.send(upstream), 'ERR_CONNECT_REFUSED')
      await upstream.listenAgain()
      await rig.send(upstream).ended()
    }),

    testCase('no answer to connecting: ERR_CONNECT_TIMEOUT', make, async (rig) => {
      const hole = await blackHolePort()
      rig.defer(() => hole.close())
      await failsUnsent(rig.send(rig.at(hole.url), { timeouts: { connect: 100 } }), 'ERR_CONNECT_TIMEOUT')
    }),

    testCase('connected, but no TLS handshake: ERR_CONNECT_TIMEOUT, and the connection ends', make, async (rig) => {
      const mute = await rig.upstream(async (connection) => void (await connection.stall()))
      await failsUnsent(rig.send(rig.at(`https://localhost:${mute.port}`), { timeouts: { connect: 200 } }), 'ERR_CONNECT_TIMEOUT')
      await (await mute.connection(1)).closed
    }),

    testCase('a name that does not resolve: ERR_DNS', make, async (rig) => {
      await failsUnsent(rig.send(rig.at(unresolvable)), 'ERR_DNS')
    }),

    testCase('a Unix socket that is not there: ERR_UNREACHABLE', make, async (rig) => {
      const upstream = await rig.upstream(ok, { unix: true })
      await failsUnsent(rig.send(rig.at(`${upstream.url}.none`)), 'ERR_UNREACHABLE')
    }),

    testCase('TLS is verified by default: an unknown authority is ERR_TLS_CERTIFICATE', make, async (rig) => {
      const upstream = await rig.upstream(ok, { tls: localhost })
      await failsUnsent(rig.send(upstream), 'ERR_TLS_CERTIFICATE')
      assert.equal(upstream.requests.length, 0)
    }),

    ...(
      [
        ['for another name', wrongName],
        ['that has expired', expired],
      ] as const
    ).map(([what, certificate]) =>
      testCase(
        `a trusted certificate ${what} is ERR_TLS_CERTIFICATE`,
        make,
        async (rig) => {
          const upstream = await rig.upstream(ok, { tls: certificate })
          await failsUnsent(rig.send(upstream, { headers: ['Host', 'wrong.test'] }), 'ERR_TLS_CERTIFICATE')
          assert.equal(upstream.requests.length, 0)
        },
        { tls: { ca } },
      ),
    ),

    testCase(
      'SNI and the expected name come from the upstream, whatever Host says; the connection is kept over different Hosts',
      make,
      async (rig) => {
        const upstream = await rig.upstream(ok, { tls: localhost })
        for (const host of ['one.test', 'two.test', 'wrong.test:1']) await rig.send(upstream, { headers: ['Host', host] }).ended()
        assert.equal(upstream.connections[0]?.servername, 'localhost')
        assert.equal(upstream.connections.length, 1)
      },
      { tls: { ca } },
    ),

    testCase(
      'an upstream given by address is verified by address, and no SNI is sent',
      make,
      async (rig) => {
        const upstream = await rig.upstream(ok, { tls: localhost })
        await rig.send(rig.at(`https://127.0.0.1:${upstream.port}`)).ended()
        assert.equal(upstream.connections[0]?.servername, false)
      },
      { tls: { ca } },
    ),

    testCase(
      'insecure: true accepts any certificate',
      make,
      async (rig) => {
        const upstream = await rig.upstream(ok, { tls: wrongName })
        assert.equal((await rig.send(upstream).ended()).body.toString(), 'ok')
      },
      { tls: { insecure: true } },
    ),

    testCase(
      'large bodies pass through TLS both ways',
      make,
      async (rig) => {
        const upstream = await rig.upstream(
          async (connection) => {
            const request = await connection.readRequest()
            await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${request.body.length}\r\n\r\n`)
            await connection.send(request.body)
            await connection.stall()
          },
          { tls: localhost },
        )
        const chunk = Buffer.from(Uint8Array.from({ length: 100_000 }, (_, i) => i % 251))
        const recorder = await rig.send(upstream, { method: 'POST', body: bodySource(Array.from({ length: 20 }, () => chunk)) }).ended()
        assert.ok(recorder.body.equals(Buffer.concat(Array.from({ length: 20 }, () => chunk))))
      },
      { tls: { ca } },
    ),

    testCase('a plain-text upstream behind https: is ERR_TLS', make, async (rig) => {
      const plain = await rig.upstream(async (connection) => {
        await connection.readBytes(5)
        await connection.send('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')
        await connection.stall()
      })
      await failsUnsent(rig.send(rig.at(`https://localhost:${plain.port}`)), 'ERR_TLS')
    }),
  ]
}

async function failsUnsent(recorder: Recorder, code: ErrorCode): Promise<void> {
  const error = await recorder.failed()
  assert.equal(error.code, code, error.message)
  assert.equal(error.retry, true)
  assert.equal(recorder.call.sent, false)
  assert.equal(recorder.call.reused, false)
  assert.equal(typeof error.upstream?.id, 'string')
}
