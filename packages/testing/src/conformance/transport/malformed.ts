/** Upstreams that do not speak HTTP, or speak it in excess. Nothing of it may be passed on as if it were a response. */
import assert from 'node:assert/strict'
import { type ConformanceCase, ok, type TransportFactory, testCase } from './rig.ts'

const heads = {
  'not HTTP at all': 'SSH-2.0-OpenSSH_9.6\r\n\r\n',
  'bytes that are no text': '\x15\x03\x01\x00\x02\x02\x28\r\n\r\n',
  'another protocol': 'HTTQ/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'a version that does not exist': 'HTTP/4.2 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'a field without a colon': 'HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok',
  'a field without a name': 'HTTP/1.1 200 OK\r\n: value\r\nContent-Length: 2\r\n\r\nok',
  'a space before the colon': 'HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok',
  'a control character in a name': 'HTTP/1.1 200 OK\r\nX-\x01: a\r\nContent-Length: 2\r\n\r\nok',
  'NUL in a value': 'HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok',
  'a bare CR in a value': 'HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok',
  'a length that is no number': 'HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok',
  'a negative length': 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok',
  'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!',
  'a length and a coding': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
}

const statuses = {
  'a status of four digits': 'HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok',
  'a status of two digits': 'HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok',
  'a status that is no number': 'HTTP/1.1 two OK\r\nContent-Length: 2\r\n\r\nok',
  'no status': 'HTTP/1.1\r\nContent-Length: 2\r\n\r\nok',
}

const chunks = {
  'a chunk size that is no number': 'zz\r\nok\r\n0\r\n\r\n',
  'a negative chunk size': '-2\r\nok\r\n0\r\n\r\n',
  'a chunk longer than its size': '2\r\nokay\r\n0\r\n\r\n',
  'a chunk size beyond all numbers': 'fffffffffffffffff\r\nok\r\n0\r\n\r\n',
}

export function malformedCases(make: TransportFactory): ConformanceCase[] {
  return [
    ...Object.entries(heads).map(([what, bytes]) =>
      testCase(`${what}: ERR_UPSTREAM_PROTOCOL, and the connection ends`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send(bytes)
          await connection.stall()
        })
        const recorder = rig.send(upstream)
        assert.equal((await recorder.failed()).code, 'ERR_UPSTREAM_PROTOCOL')
        assert.equal(recorder.head, undefined)
        await (await upstream.connection(1)).closed
      }),
    ),

    ...Object.entries(statuses).map(([what, bytes]) =>
      testCase(`${what}: ERR_UPSTREAM_STATUS or ERR_UPSTREAM_PROTOCOL, and the connection ends`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send(bytes)
          await connection.stall()
        })
        const recorder = rig.send(upstream)
        assert.match((await recorder.failed()).code, /^ERR_UPSTREAM_(?:STATUS|PROTOCOL)$/)
        assert.equal(recorder.head, undefined)
        await (await upstream.connection(1)).closed
      }),
    ),

    ...Object.entries(chunks).map(([what, bytes]) =>
      testCase(`${what}: ERR_UPSTREAM_BODY, since the head has been delivered, and the connection ends`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
          await connection.send(bytes)
          await connection.stall()
        })
        const recorder = rig.send(upstream)
        assert.equal((await recorder.failed()).code, 'ERR_UPSTREAM_BODY')
        assert.equal(recorder.head?.status, 200)
        await (await upstream.connection(1)).closed
      }),
    ),

    ...[500, 999, 1000, 1001, 1500, 3000].map((count) =>
      testCase(`${count} fields are all delivered, or the head is refused with ERR_UPSTREAM_HEAD`, make, async (rig) => {
        const lines = Array.from({ length: count - 2 }, (_, i) => `X-${i}: ${i}`)
        const upstream = await rig.upstream(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${lines.join('\r\n')}\r\nSet-Cookie: last=1\r\n\r\nok`)
        const recorder = await rig.send(upstream).settled()
        if (recorder.state === 'failed') {
          assert.equal(recorder.error?.code, 'ERR_UPSTREAM_HEAD')
          assert.equal(recorder.head, undefined)
          assert.ok(count > 500, 'an ordinary number of fields was refused')
          return
        }
        assert.equal(recorder.head?.headers.length, count * 2)
        assert.deepEqual(recorder.head.headers.slice(-2), ['Set-Cookie', 'last=1'])
      }),
    ),

    ...[8_000, 60_000, 70_000, 1_000_000].map((size) =>
      testCase(`a head of ${size} bytes is delivered whole, or refused with ERR_UPSTREAM_HEAD`, make, async (rig) => {
        const upstream = await rig.upstream(async (connection) => {
          await connection.readRequest()
          await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Huge: ${'h'.repeat(size)}\r\nX-Last: 1\r\n\r\nok`)
          await connection.stall()
        })
        const recorder = await rig.send(upstream).settled()
        if (recorder.state === 'failed') {
          assert.equal(recorder.error?.code, 'ERR_UPSTREAM_HEAD')
          assert.ok(size > 8_000, 'an ordinary head was refused')
          await (await upstream.connection(1)).closed
          return
        }
        assert.deepEqual(recorder.head?.headers.slice(-2), ['X-Last', '1'])
        assert.equal(recorder.head?.headers[3]?.length, size)
      }),
    ),

    testCase('a head without an end is given up: ERR_UPSTREAM_HEAD', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\n')
        const block = Array.from({ length: 100 }, (_, i) => `X-${i}: ${'v'.repeat(500)}\r\n`).join('')
        for (let sent = 0; sent < 50 * 1024 * 1024; sent += block.length) if (!(await connection.send(block))) return
        await connection.stall()
      })
      assert.equal((await rig.send(upstream).failed()).code, 'ERR_UPSTREAM_HEAD')
      await (await upstream.connection(1)).closed
    }),

    testCase('after any of it, the next call has a new connection and works', make, async (rig) => {
      const upstream = await rig.upstream(async (connection) => {
        await connection.readRequest()
        await connection.send(connection.number === 1 ? 'HTTP/1.1 2000 OK\r\n\r\n' : ok)
        await connection.stall()
      })
      await rig.send(upstream).failed()
      assert.equal((await rig.send(upstream).ended()).call.reused, false)
    }),
  ]
}
