import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { certificates, rawUpstream, refusedPort } from '@weir/testing'
import { Client } from 'undici'
import { describe, it } from 'vitest'
import { type ErrorCode, ProxyError } from '../errors.ts'
import type { Upstream } from '../upstream.ts'
import { type CallPhase, toProxyError } from './connect-error.ts'

const plain = { id: 'plain', url: new URL('http://10.0.0.1') } as Upstream
const secure = { id: 'secure', url: new URL('https://10.0.0.1') } as Upstream

const failure = (code: string, more: object = {}): Error => Object.assign(new Error(`failed with ${code}`), { code, ...more })

describe('system codes', () => {
  const rows: [code: string, phase: CallPhase, expected: ErrorCode, upstream?: Upstream, more?: object][] = [
    ['ECONNREFUSED', 'connect', 'ERR_CONNECT_REFUSED'],
    ['ENOENT', 'connect', 'ERR_UNREACHABLE'],
    ['EACCES', 'connect', 'ERR_UNREACHABLE'],
    ['EHOSTUNREACH', 'connect', 'ERR_UNREACHABLE'],
    ['ENETUNREACH', 'connect', 'ERR_UNREACHABLE'],
    ['EADDRNOTAVAIL', 'connect', 'ERR_UNREACHABLE'],
    ['EMFILE', 'connect', 'ERR_UNREACHABLE'],
    ['EHOSTUNREACH', 'head', 'ERR_UNREACHABLE', plain, { syscall: 'connect' }],
    ['ENOTFOUND', 'connect', 'ERR_DNS'],
    ['EAI_AGAIN', 'connect', 'ERR_DNS'],
    ['ETIMEDOUT', 'connect', 'ERR_CONNECT_TIMEOUT'],
    ['UND_ERR_CONNECT_TIMEOUT', 'connect', 'ERR_CONNECT_TIMEOUT'],
    ['UND_ERR_HEADERS_TIMEOUT', 'head', 'ERR_HEAD_TIMEOUT'],
    ['UND_ERR_BODY_TIMEOUT', 'body', 'ERR_BODY_TIMEOUT'],
    ['CERT_HAS_EXPIRED', 'connect', 'ERR_TLS_CERTIFICATE', secure],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'connect', 'ERR_TLS_CERTIFICATE', secure],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'connect', 'ERR_TLS_CERTIFICATE', secure],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'connect', 'ERR_TLS_CERTIFICATE', secure],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'connect', 'ERR_TLS_CERTIFICATE', secure],
    ['HOSTNAME_MISMATCH', 'connect', 'ERR_TLS_CERTIFICATE', secure],
    ['EPROTO', 'connect', 'ERR_TLS', secure],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'connect', 'ERR_TLS', secure],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'head', 'ERR_TLS', secure],
    ['ECONNRESET', 'connect', 'ERR_TLS', secure],
    ['ECONNRESET', 'connect', 'ERR_UPSTREAM_RESET', plain],
    ['ECONNRESET', 'head', 'ERR_UPSTREAM_RESET', secure],
    ['ECONNRESET', 'body', 'ERR_UPSTREAM_BODY'],
    ['EPIPE', 'head', 'ERR_UPSTREAM_RESET'],
    ['EPIPE', 'body', 'ERR_UPSTREAM_BODY'],
    ['UND_ERR_SOCKET', 'head', 'ERR_UPSTREAM_RESET'],
    ['UND_ERR_SOCKET', 'body', 'ERR_UPSTREAM_BODY'],
    ['HPE_INVALID_CONSTANT', 'head', 'ERR_UPSTREAM_PROTOCOL'],
    ['HPE_INVALID_STATUS', 'head', 'ERR_UPSTREAM_STATUS'],
    ['HPE_HEADER_OVERFLOW', 'head', 'ERR_UPSTREAM_HEAD'],
    ['HPE_INVALID_CHUNK_SIZE', 'body', 'ERR_UPSTREAM_BODY'],
    ['UND_ERR_HEADERS_OVERFLOW', 'head', 'ERR_UPSTREAM_HEAD'],
    ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'body', 'ERR_UPSTREAM_BODY'],
    ['UND_ERR_REQ_CONTENT_LENGTH_MISMATCH', 'head', 'ERR_REQUEST_NOT_SENT'],
    ['UND_ERR_INVALID_ARG', 'connect', 'ERR_REQUEST_NOT_SENT'],
  ]
  for (const [code, phase, expected, upstream = plain, more] of rows) {
    it(`${code} at ${phase}${upstream === secure ? ' (TLS)' : ''} is ${expected}`, () => {
      const cause = failure(code, more)
      const error = toProxyError(cause, phase, upstream)
      assert.equal(error.code, expected)
      assert.equal(error.cause, cause)
      assert.equal(error.upstream, upstream)
    })
  }

  it('never calls a retry safe when the request may have been read', () => {
    for (const code of [
      'ETIMEDOUT',
      'EHOSTUNREACH',
      'ENETUNREACH',
      'ENOENT',
      'EPROTO',
      'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC',
      'ERR_SSL_SSL/TLS_ALERT_BAD_RECORD_MAC',
      'ECONNRESET',
      'EUNHEARD',
    ]) {
      for (const phase of ['head', 'body'] as const) {
        assert.notEqual(toProxyError(failure(code, { syscall: 'read' }), phase, secure).retry, true, `${code} at ${phase}`)
      }
    }
  })

  it('takes anything for an error, and a ProxyError as it is', () => {
    const own = new ProxyError('ERR_CONNECT_TIMEOUT')
    assert.equal(toProxyError(own, 'body'), own)
    for (const odd of [undefined, null, 'text', new Error('no code'), { code: 7 }]) {
      assert.equal(toProxyError(odd, 'head').code, 'ERR_UPSTREAM_RESET')
      assert.equal(toProxyError(odd, 'body').code, 'ERR_UPSTREAM_BODY')
    }
  })
})

describe('as node reports them', () => {
  it('several addresses: an AggregateError', async () => {
    await using port = await refusedPort()
    const lookup = (_: string, __: object, done: (error: null, addresses: { address: string; family: number }[]) => void): void =>
      done(
        null,
        ['127.0.0.1', '127.0.0.2'].map((address) => ({ address, family: 4 })),
      )
    const socket = connectTcp({ host: 'two.test', port: port.port, lookup: lookup as never, autoSelectFamily: true })
    const [cause] = await once(socket, 'error', { signal: AbortSignal.timeout(5000) }).catch((error: unknown) => [error])
    const error = toProxyError(cause, 'connect', plain)
    assert.ok(cause instanceof AggregateError)
    assert.equal(error.code, 'ERR_CONNECT_REFUSED')
    assert.match(error.message, /127\.0\.0\.1.*127\.0\.0\.2/)
  })

  it('one address refuses and another is not there: the refusal says more', () => {
    const errors = [failure('EHOSTUNREACH', { syscall: 'connect' }), failure('ECONNREFUSED', { syscall: 'connect' })]
    assert.equal(
      toProxyError(Object.assign(new AggregateError(errors), { code: 'EHOSTUNREACH' }), 'connect', plain).code,
      'ERR_CONNECT_REFUSED',
    )
    assert.equal(
      toProxyError(new AggregateError([failure('ETIMEDOUT'), failure('ENETUNREACH')]), 'connect', plain).code,
      'ERR_CONNECT_TIMEOUT',
    )
  })

  const tlsFailure = async (script: Parameters<typeof rawUpstream>[0], options?: Parameters<typeof rawUpstream>[1]): Promise<unknown> => {
    await using upstream = await rawUpstream(script, options)
    const socket = connectTls({ host: '127.0.0.1', port: upstream.port, servername: 'localhost' })
    return await new Promise((resolve) => socket.on('error', resolve))
  }

  it('TLS to something that is none', async () => {
    const cause = await tlsFailure(async (connection) => void (await connection.send('HTTP/1.1 400 Bad Request\r\n\r\n')))
    assert.equal(toProxyError(cause, 'connect', secure).code, 'ERR_TLS')
  })

  it('TLS that is broken off', async () => {
    const cause = await tlsFailure((connection) => connection.end())
    assert.equal(toProxyError(cause, 'connect').code, 'ERR_TLS')
  })

  it('a certificate of an unknown authority', async () => {
    const cause = await tlsFailure(() => {}, { tls: certificates().localhost })
    assert.equal(toProxyError(cause, 'connect', secure).code, 'ERR_TLS_CERTIFICATE')
  })

  it('a request that node will not write', () => {
    for (const wrong of [{ path: '/a b' }, { headers: ['Host', 'a\nb'] }, { headers: ['a b', 'c'] }, { method: 'a b' }]) {
      assert.throws(
        () => request({ host: '127.0.0.1', ...wrong }),
        (error) => toProxyError(error, 'connect').code === 'ERR_REQUEST_NOT_SENT',
      )
    }
  })
})

describe('as undici reports them', () => {
  const undiciFailure = async (
    response: string,
    phase: CallPhase,
    options: Partial<Client.Options> = {},
    more: object = {},
  ): Promise<ErrorCode> => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(response)
      if (response.endsWith('cut')) connection.end()
    })
    const client = new Client(upstream.url, { allowH2: false, ...options })
    try {
      const { body } = await client.request({ method: 'GET', path: '/', ...more })
      await body.dump()
      throw new Error('it did not fail')
    } catch (error) {
      return toProxyError(error, phase, plain).code
    } finally {
      await client.destroy()
    }
  }

  it('nonsense', async () => assert.equal(await undiciFailure('nonsense\r\n\r\n', 'head'), 'ERR_UPSTREAM_PROTOCOL'))
  it('a status that is none', async () => assert.equal(await undiciFailure('HTTP/1.1 99 X\r\n\r\n', 'head'), 'ERR_UPSTREAM_STATUS'))
  it('half a head', async () => assert.equal(await undiciFailure('HTTP/1.1 200 OK\r\nX: cut', 'head'), 'ERR_UPSTREAM_RESET'))
  it('a late head', async () => assert.equal(await undiciFailure('', 'head', { headersTimeout: 50 }), 'ERR_HEAD_TIMEOUT'))
  it('a large head', async () => {
    assert.equal(
      await undiciFailure(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(5000)}\r\n\r\n`, 'head', { maxHeaderSize: 2000 }),
      'ERR_UPSTREAM_HEAD',
    )
  })
  it('an unasked 101', async () => {
    assert.equal(await undiciFailure('HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n', 'head'), 'ERR_UPGRADE_RESPONSE')
  })
  it('a short body', async () =>
    assert.equal(await undiciFailure('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ncut', 'body'), 'ERR_UPSTREAM_BODY'))
  it('a malformed chunk', async () =>
    assert.equal(await undiciFailure('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 'body'), 'ERR_UPSTREAM_BODY'))
  it('a request that it will not write', async () =>
    assert.equal(await undiciFailure('', 'connect', {}, { path: 'nowhere' }), 'ERR_REQUEST_NOT_SENT'))
})
