/**
 * E35. Upstream certificates are verified by default, with SNI from the upstream host, and failures give 502 with a code.
 *
 * What is verified, and against which name, must not be the client's to choose: libraries take both from the request's Host when they are
 * left alone.
 */
import { createServer } from 'node:https'
import { failureMemory, httpProxyTransport, type Transport, type UpstreamTlsOptions, undiciTransport } from '@weir/core'
import {
  type Certificate,
  certificateAuthority,
  certificates,
  everyRequest,
  type RawUpstream,
  rawRequest,
  rawUpstream,
  testUpstream,
  type UpstreamScript,
} from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, ok, switching, upgradeHead } from './messages.ts'
import { listen, startProxy, until } from './observed.ts'
import { selfSigned } from './self-signed.ts'

const { ca, localhost, wrongName, expired } = certificates()
const stranger = certificateAuthority('Somebody else')

const withTls: readonly (readonly [string, (tls: UpstreamTlsOptions) => Transport])[] = [
  ['undici', (tls) => undiciTransport({ tls })],
  ['http-proxy', (tls) => httpProxyTransport({ tls })],
]

/** Answers every request; a connection is an exchange of its own. */
function secure(certificate: Certificate, body = 'secret'): Promise<RawUpstream> {
  return rawUpstream(
    everyRequest(() => ok(body)),
    { tls: certificate },
  )
}

describe.each(withTls)('E35 over %s', (_name, make) => {
  const retry = false

  it('a certificate of a trusted authority for the right name is accepted', async () => {
    await using upstream = await secure(localhost)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ ca }) })
    const response = await rawRequest(proxy.port, get())
    expect([response.status, response.text()]).toEqual([200, 'secret'])
    expect((await proxy.outcome()).attempts[0]?.connectMs).toBeGreaterThan(0)
  })

  it.each([
    ['an unknown authority, by default', localhost, {}],
    ['an authority that is not ours', stranger.issue(['localhost', '127.0.0.1']), { ca }],
    ['nobody but itself', selfSigned, {}],
    ['nobody but itself, with a list of authorities', selfSigned, { ca }],
    ['a trusted authority, but for another name', wrongName, { ca }],
    ['a trusted authority, but until yesterday', expired, { ca }],
  ] as const)('one of %s is not: 502, a code, and not a byte of the request', async (_case, certificate, tls) => {
    await using upstream = await secure(certificate)
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport: () => make(tls) })
    const response = await rawRequest(proxy.port, `${head('POST', '/', 'Content-Length: 8', 'Authorization: Bearer hidden')}password`)
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toBe('weir; error=tls_certificate_error; details="ERR_TLS_CERTIFICATE"')
    const sent = response.raw.toString('latin1')
    expect(sent).not.toContain(String(upstream.port))
    expect(sent).not.toMatch(/secret|self.signed|altname|wrong\.test/i)
    await until('the upstream is free', () => upstream.open === 0)
    expect(upstream.requests).toEqual([])
    const outcome = await proxy.outcome()
    expect(outcome).toMatchObject({ reason: 'ERR_TLS_CERTIFICATE', error: { source: 'upstream', phase: 'connect' } })
  })

  it('trusts exactly what `ca` lists, also several', async () => {
    await using ours = await secure(localhost)
    await using theirs = await secure(stranger.issue(['localhost']))
    await using self = await secure(selfSigned)
    for (const [trusted, expected] of [
      [
        [ca, stranger.ca],
        [200, 200, 502],
      ],
      [[stranger.ca], [502, 200, 502]],
      [[selfSigned.cert], [502, 502, 200]],
    ] as const) {
      const statuses: number[] = []
      for (const upstream of [ours, theirs, self]) {
        await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport: () => make({ ca: trusted }) })
        statuses.push((await rawRequest(proxy.port, get())).status)
      }
      expect(statuses).toEqual(expected)
    }
  })

  describe('the name', () => {
    it('that is asked for and checked is the upstream’s, never the client’s Host', async () => {
      await using upstream = await secure(localhost)
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ ca }) })
      for (const host of ['wrong.test', 'evil.example:443', 'localhost', '127.0.0.1'])
        expect((await rawRequest(proxy.port, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).status).toBe(200)
      // An absolute-form target names a host as well.
      expect((await rawRequest(proxy.port, 'GET http://wrong.test/ HTTP/1.1\r\nHost: wrong.test\r\n\r\n')).status).toBe(200)
      for (const connection of upstream.connections) expect(connection.servername).toBe('localhost')
      // And the connection is the same, whatever the Host: names of requests are none of connections.
      expect(upstream.connections).toHaveLength(1)
      expect(upstream.requests[0]?.header('host')).toBe('wrong.test')
    })

    it('cannot be moved by the client: a certificate for its Host does not help', async () => {
      await using upstream = await secure(wrongName)
      await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport: () => make({ ca }) })
      for (const lines of [[], ['X-Forwarded-Host: wrong.test'], ['Forwarded: host=wrong.test']]) {
        const response = await rawRequest(proxy.port, `${['GET / HTTP/1.1', 'Host: wrong.test', ...lines].join('\r\n')}\r\n\r\n`)
        expect(response.status).toBe(502)
      }
      for (const connection of upstream.connections) expect(connection.servername).toBe('localhost')
      expect(upstream.requests).toEqual([])
    })

    it('cannot be moved by an HTTP/2 client’s :authority either', async () => {
      await using upstream = await secure(wrongName)
      await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport: () => make({ ca }), http2: true })
      await using client = await h2Client(proxy.port)
      expect((await client.request({ ':authority': 'wrong.test' })).status).toBe(502)
      expect(upstream.connections[0]?.servername).toBe('localhost')
    })

    it('nor by the Host that the proxy sends', async () => {
      await using upstream = await secure(localhost)
      await using proxy = await startProxy(
        { upstreams: [upstream.url], hostHeader: { fixed: 'wrong.test' } },
        { transport: () => make({ ca }) },
      )
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.connections[0]?.servername).toBe('localhost')
      expect(upstream.requests[0]?.header('host')).toBe('wrong.test')
    })

    it('is moved by `tls.servername`, for SNI and verification together', async () => {
      await using upstream = await secure(wrongName)
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ ca, servername: 'wrong.test' }) })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.connections[0]?.servername).toBe('wrong.test')
      await using right = await secure(localhost)
      await using strict = await startProxy({ upstreams: [right.url], retry }, { transport: () => make({ ca, servername: 'wrong.test' }) })
      expect((await rawRequest(strict.port, get())).status).toBe(502)
    })

    it('of an address: no SNI (RFC 6066 §3), and the certificate must hold that address', async () => {
      await using upstream = await secure(localhost)
      await using proxy = await startProxy({ upstreams: [`https://127.0.0.1:${upstream.port}`] }, { transport: () => make({ ca }) })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.connections[0]?.servername).toBe(false)
      await using named = await secure(stranger.issue(['localhost']))
      await using strict = await startProxy(
        { upstreams: [`https://127.0.0.1:${named.port}`], retry },
        { transport: () => make({ ca: stranger.ca }) },
      )
      const response = await rawRequest(strict.port, get())
      expect([response.status, response.header('proxy-status')]).toEqual([
        502,
        'weir; error=tls_certificate_error; details="ERR_TLS_CERTIFICATE"',
      ])
    })
  })

  it('`insecure: true` accepts anything', async () => {
    for (const certificate of [localhost, wrongName, expired, selfSigned]) {
      await using upstream = await secure(certificate)
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ insecure: true }) })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
    }
  })

  it('one insecure pool does not loosen another', async () => {
    await using upstream = await secure(selfSigned)
    await using loose = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ insecure: true }) })
    await using strict = await startProxy({ upstreams: [upstream.url], retry }, { transport: () => make({}) })
    for (let i = 0; i < 2; i++) {
      expect((await rawRequest(loose.port, get())).status).toBe(200)
      expect((await rawRequest(strict.port, get())).status).toBe(502)
    }
  })

  it('a failed handshake is 502 ERR_TLS', async () => {
    await using deaf = await rawUpstream(async (connection) => {
      await connection.readBytes(1)
      connection.end()
    })
    await using rude = await rawUpstream(async (connection) => {
      await connection.readBytes(1)
      connection.reset()
    })
    await using talking = await rawUpstream(async (connection) => {
      await connection.readBytes(1)
      await connection.send('HTTP/1.1 400 The plain HTTP request was sent to HTTPS port\r\nContent-Length: 0\r\n\r\n')
    })
    for (const upstream of [deaf, rude, talking]) {
      await using proxy = await startProxy({ upstreams: [`https://localhost:${upstream.port}`], retry }, { transport: () => make({ ca }) })
      const response = await rawRequest(proxy.port, get())
      expect([response.status, response.header('proxy-status')]).toEqual([502, 'weir; error=tls_protocol_error; details="ERR_TLS"'])
    }
  })

  it('a client certificate is shown where one is asked for', async () => {
    const own = stranger.issue(['proxy.internal'])
    const server = createServer({ ...localhost, ca: stranger.ca, requestCert: true, rejectUnauthorized: true }, (req, res) => {
      const { subject } = (req.socket as import('node:tls').TLSSocket).getPeerCertificate()
      res.end(`hello ${subject.CN}`)
    })
    server.on('tlsClientError', () => {})
    await using upstream = await listen(server)
    const url = `https://localhost:${upstream.port}`
    await using proxy = await startProxy({ upstreams: [url] }, { transport: () => make({ ca, ...own }) })
    expect((await rawRequest(proxy.port, get())).text()).toBe('hello proxy.internal')
    await using bare = await startProxy({ upstreams: [url], retry }, { transport: () => make({ ca }) })
    const response = await rawRequest(bare.port, get())
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toMatch(/details="ERR_(TLS|UPSTREAM_RESET)"/)
  })

  it('an upstream that would rather speak HTTP/2 is spoken to in HTTP/1.1', async () => {
    await using upstream = await rawUpstream(
      everyRequest((request) => ok(request.version)),
      { tls: { ...localhost, alpn: ['h2', 'http/1.1'] } },
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ ca }) })
    expect((await rawRequest(proxy.port, get())).text()).toBe('1.1')
  })

  it('a bad certificate is a failure of that upstream: another one serves, whatever the method', async () => {
    await using bad = await secure(expired)
    await using good = await testUpstream({ '*': 'good' }, { tls: true })
    await using proxy = await startProxy(
      { upstreams: [bad.url, good.url], health: [failureMemory({ failures: 1 })] },
      { transport: () => make({ ca }) },
    )
    for (let i = 0; i < 4; i++) {
      const response = await rawRequest(proxy.port, `${head('POST', '/', 'Content-Length: 2')}hi`)
      expect([response.status, response.text()]).toEqual([200, 'good'])
    }
    expect(proxy.proxy.pool?.get(bad.url)?.state).toBe('down')
    expect(bad.requests).toEqual([])
  })

  it('kept connections were verified when they were made, and new ones are verified again', async () => {
    await using upstream = await testUpstream({ '*': 'first' }, { tls: true })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport: () => make({ ca }) })
    for (let i = 0; i < 3; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
    expect(upstream.accepted).toBe(1)
    // Somebody else takes the address over; a resumed session must not vouch for it.
    const { port } = upstream
    await upstream.close()
    const server = createServer(stranger.issue(['localhost']), (_req, res) => res.end('impostor'))
    server.listen(port, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const response = await rawRequest(proxy.port, get())
    expect([response.status, response.header('proxy-status')]).toEqual([
      502,
      'weir; error=tls_certificate_error; details="ERR_TLS_CERTIFICATE"',
    ])
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  it('tunnels follow the same rules', async () => {
    const script: UpstreamScript = async (connection) => {
      await connection.readRequest()
      await connection.send(switching())
    }
    await using good = await rawUpstream(script, { tls: localhost })
    await using bad = await rawUpstream(script, { tls: wrongName })
    await using accepted = await startProxy({ upstreams: [good.url] }, { transport: () => make({ ca }) })
    const host = upgradeHead().replace('Host: localhost', 'Host: wrong.test')
    expect((await rawRequest(accepted.port, host)).status).toBe(101)
    expect(good.connections[0]?.servername).toBe('localhost')
    await using refused = await startProxy({ upstreams: [bad.url], retry }, { transport: () => make({ ca }) })
    const response = await rawRequest(refused.port, host)
    expect([response.status, response.header('proxy-status')]).toEqual([
      502,
      'weir; error=tls_certificate_error; details="ERR_TLS_CERTIFICATE"',
    ])
    expect(bad.connections[0]?.servername).toBe('localhost')
    expect(bad.requests).toEqual([])
  })

  it('`OPTIONS *` and requests with trailers, which may travel otherwise, do as well', async () => {
    await using good = await secure(localhost)
    await using bad = await secure(wrongName)
    await using accepted = await startProxy({ upstreams: [good.url] }, { transport: () => make({ ca }) })
    await using refused = await startProxy({ upstreams: [bad.url], retry }, { transport: () => make({ ca }) })
    const trailers = `${head('POST', '/', 'Transfer-Encoding: chunked', 'Trailer: X-Sum')}2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n`
    for (const request of ['OPTIONS * HTTP/1.1\r\nHost: wrong.test\r\n\r\n', trailers.replace('localhost', 'wrong.test')]) {
      expect((await rawRequest(accepted.port, request)).status).toBe(200)
      expect((await rawRequest(refused.port, request)).status).toBe(502)
    }
    expect(new Set([...good.connections, ...bad.connections].map((connection) => connection.servername))).toEqual(new Set(['localhost']))
    expect(bad.requests).toEqual([])
  })
})

describe('E35 the `tls` option of a pool', () => {
  it('is that of its transport', async () => {
    await using upstream = await secure(localhost)
    await using proxy = await startProxy({ upstreams: [upstream.url], tls: { ca } })
    expect((await rawRequest(proxy.port, get())).status).toBe(200)
    await using strict = await startProxy({ upstreams: [upstream.url], retry: false })
    expect((await rawRequest(strict.port, get())).status).toBe(502)
  })

  it('warns of `insecure: true`, once per process', async () => {
    const warnings: string[] = []
    const listener = (warning: Error & { code?: string }): void => void warnings.push(warning.code ?? '')
    process.on('warning', listener)
    // A copy of its own, so that warnings of other tests do not count.
    const fresh = (await import(
      '../../packages/core/src/transport/tls.ts?fresh' as string
    )) as typeof import('../../packages/core/src/transport/tls.ts')
    const { OptionReader } = await import('@weir/core')
    for (let i = 0; i < 3; i++) fresh.readTlsOptions({ insecure: true }, new OptionReader('test'))
    fresh.readTlsOptions({ insecure: false }, new OptionReader('test'))
    await new Promise((resolve) => setImmediate(resolve))
    process.off('warning', listener)
    expect(warnings).toEqual(['WEIR_INSECURE_TLS'])
  })
})
