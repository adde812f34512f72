/** Heads pass through byte for byte, both ways. */
import assert from 'node:assert/strict'
import { asSent, type ConformanceCase, type DeclaredDeviations, endToEnd, ok, okay, type TransportFactory, testCase } from './rig.ts'

const targets = [
  '/',
  '//',
  '//a//b/',
  '/a/../b/./c',
  '/%2e%2e/%2E/a%2Fb%5c',
  '/a;b=c/d,e',
  `/quote"and'tick\`<>{}|\\^`,
  '/q?a=1&a=2&&b=%20+%00',
  '/q?a=b?c=/../d',
  '/q?',
  '/utf8/\xc3\xa4\xff',
  '/http://elsewhere.test/',
  `/${'long/'.repeat(800)}`,
]

export function fieldCases(make: TransportFactory, declared: DeclaredDeviations): ConformanceCase[] {
  return [
    testCase('response fields keep case, order, duplicates and every latin1 byte', make, async (rig) => {
      const lines = [
        'sErVeR: x',
        'Set-Cookie: a=1',
        'X-L: \xe4\xf6\xff\x80',
        'set-cookie: b=2',
        'X-Empty:',
        'SET-COOKIE: c=3',
        'x-l: \t two  words',
      ]
      const upstream = await rig.upstream(`HTTP/1.1 200 OK\r\n${lines.join('\r\n')}\r\nContent-Length: 0\r\n\r\n`)
      const { head } = await rig.send(upstream).ended()
      assert.deepEqual(head?.headers, [
        ...['sErVeR', 'x', 'Set-Cookie', 'a=1', 'X-L', '\xe4\xf6\xff\x80', 'set-cookie', 'b=2', 'X-Empty', '', 'SET-COOKIE', 'c=3'],
        ...['x-l', 'two  words', 'Content-Length', '0'],
      ])
    }),

    testCase('whitespace behind a value is no part of it', make, async (rig) => {
      const upstream = await rig.upstream('HTTP/1.1 200 OK\r\nX-A: one \t\r\nX-B: \r\nContent-Length: 0\r\n\r\n')
      const { head } = await rig.send(upstream).ended()
      const value = declared.trailingWhitespace === true ? 'one \t' : 'one'
      assert.deepEqual(head?.headers, ['X-A', value, 'X-B', '', 'Content-Length', '0'])
    }),

    testCase('response fields of the connection are delivered too: removing them is the caller\u2019s part', make, async (rig) => {
      const upstream = await rig.upstream(
        'HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n',
      )
      const { head } = await rig.send(upstream).ended()
      assert.deepEqual(head?.headers, ['Connection', 'X-Hop', 'Keep-Alive', 'timeout=5', 'X-Hop', '1', 'Content-Length', '0'])
    }),

    testCase(
      'request fields keep case, order, duplicates and every latin1 byte; only framing and Connection are added',
      make,
      async (rig) => {
        const upstream = await rig.upstream(okay)
        const headers = [
          ...['hOsT', 'upstream.test:81', 'Cookie', 'a=1', 'X-L', '\xe4\xf6\xff\x80', 'cookie', 'b=2', 'ACCEPT', '*/*', 'x-l', 'two'],
          ...['X-Empty', '', 'accept-encoding', 'gzip', 'User-Agent', 'me', 'Cookie', 'c=3', 'TE', 'trailers', 'content-type', 'a/b'],
        ]
        for (const method of ['GET', 'HEAD', 'POST', 'DELETE', 'OPTIONS']) {
          await rig.send(upstream, { method, headers }).ended()
          const seen = upstream.requests.at(-1)
          assert.equal(seen?.method, method)
          assert.deepEqual(endToEnd(seen?.headers ?? []), asSent(headers, declared))
        }
      },
    ),

    testCase('the Host field is sent as given and does not choose the connection', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      await rig.send(upstream, { headers: ['Host', 'elsewhere.test:1'] }).ended()
      assert.deepEqual(upstream.requests[0]?.all('host'), ['elsewhere.test:1'])
    }),

    testCase('a list of fields is read, not kept or changed', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const headers = Object.freeze(['Host', 'a', 'X-One', '1'])
      await rig.send(upstream, { headers }).ended()
      await rig.send(upstream, { headers }).ended()
      for (const seen of upstream.requests) assert.deepEqual(endToEnd(seen.headers), asSent(headers, declared))
    }),

    ...targets.map((path) =>
      testCase(`the target goes out unchanged: ${JSON.stringify(path.slice(0, 40))}`, make, async (rig) => {
        const upstream = await rig.upstream(ok)
        await rig.send(upstream, { path }).ended()
        assert.equal(upstream.requests[0]?.target, path)
      }),
    ),

    testCase('OPTIONS * keeps its asterisk', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      const recorder = rig.send(upstream, { method: 'OPTIONS', path: '*' })
      if (declared.asteriskTarget === false) {
        assert.equal((await recorder.failed()).code, 'ERR_REQUEST_NOT_SENT')
        return
      }
      await recorder.ended()
      assert.equal(upstream.requests[0]?.line, 'OPTIONS * HTTP/1.1')
    }),

    testCase('any token is a method', make, async (rig) => {
      const upstream = await rig.upstream(ok)
      for (const method of ['PATCH', 'PROPFIND', 'PURGE', 'X-OWN!']) {
        await rig.send(upstream, { method }).ended()
        assert.equal(upstream.requests.at(-1)?.method, method)
      }
    }),
  ]
}
