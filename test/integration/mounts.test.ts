/**
 * Wherever a proxy is mounted, it is the same proxy: the same questions are asked of every server and framework that the documentation names, in
 * the way that it names. What is peculiar to one of them comes behind.
 */
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttp2Server, createSecureServer } from 'node:http2'
import { createServer as createHttpsServer } from 'node:https'
import { createProxy, type ReverseProxy } from '@weir/core'
import {
  bytes,
  certificates,
  everyRequest,
  faults,
  patternAt,
  pieces,
  type RawConnectOptions,
  rawConnect,
  rawRequest,
  rawUpstream,
  type TestUpstream,
  testUpstream,
} from '@weir/testing'
import express from 'express'
import { type FastifyInstance, fastify } from 'fastify'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { h2Client } from './h2.ts'
import { get, head, ok, upgradeHead } from './messages.ts'
import { listen, type Observer, observer, until } from './observed.ts'

const { ca, localhost } = certificates()

interface Served {
  readonly port: number
  close(): Promise<void>
}

interface Mount {
  readonly name: string
  readonly tls?: boolean
  /** Asks for the body of a client that waits for its 100 before the proxy has a say. */
  readonly asksAtOnce?: boolean
  serve(proxy: ReverseProxy): Promise<Served>
}

/** The documented way into Fastify. */
function proxyPlugin(proxy: ReverseProxy) {
  return async (scope: FastifyInstance): Promise<void> => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
    for (const path of ['', '/*'])
      scope.all(path, (request, reply) => {
        reply.hijack()
        proxy(request.raw, reply.raw)
      })
  }
}

const onFastify = async (app: FastifyInstance, proxy: ReverseProxy): Promise<Served> => {
  await app.register(proxyPlugin(proxy), { prefix: '/api' })
  app.addHook('preClose', () => proxy.close({ deadline: 0 }))
  app.server.on('upgrade', proxy.upgrade)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { port: (app.server.address() as { port: number }).port, close: async () => void (await app.close()) }
}

const mounts: readonly Mount[] = [
  { name: 'node:http, attach', serve: (proxy) => listen(proxy.attach(createHttpServer())) },
  {
    name: 'node:http, as the listener',
    asksAtOnce: true,
    serve: (proxy) => listen(createHttpServer(proxy).on('upgrade', proxy.upgrade)),
  },
  { name: 'node:https, attach', tls: true, serve: (proxy) => listen(proxy.attach(createHttpsServer(localhost))) },
  {
    name: 'node:https, as the listener',
    tls: true,
    asksAtOnce: true,
    serve: (proxy) => listen(createHttpsServer(localhost, proxy).on('upgrade', proxy.upgrade)),
  },
  {
    name: 'node:http2 with allowHTTP1, attach, for HTTP/1.1 clients',
    tls: true,
    serve: (proxy) => listen(proxy.attach(createSecureServer({ ...localhost, allowHTTP1: true }))),
  },
  {
    name: 'Express 5',
    asksAtOnce: true,
    serve: (proxy) => {
      const app = express()
      app.disable('x-powered-by')
      app.get('/own', (_req, res) => void res.json({ own: true }))
      app.use(proxy)
      app.use((_req, res) => void res.status(404).type('text').send('not mine either'))
      return listen(createHttpServer(app).on('upgrade', proxy.upgrade))
    },
  },
  { name: 'Fastify 5', asksAtOnce: true, serve: (proxy) => onFastify(fastify(), proxy) },
  {
    name: 'Fastify 5 over TLS',
    tls: true,
    asksAtOnce: true,
    serve: (proxy) => onFastify(fastify({ https: { ...localhost } }) as unknown as FastifyInstance, proxy),
  },
]

describe.each(mounts)('mounted on $name', (mount) => {
  const client: RawConnectOptions = mount.tls ? { tls: { ca } } : {}
  let upstream: TestUpstream
  let proxy: ReverseProxy
  let served: Served
  let seen: Observer
  let tunnels: WebSocketServer
  let socketsUrl: string
  let closeSockets: () => Promise<void>

  beforeAll(async () => {
    upstream = await testUpstream({
      '/hello': { headers: ['X-UPPER-lower', 'a', 'Set-Cookie', 'a=1', 'set-cookie', 'b=2', 'Content-Length', '5'], body: 'hello' },
      '/big': bytes(2_000_000),
      '/pieces': pieces(['one ', 'two ', 'three']),
      '/broken': faults.truncated('length'),
      '/reset': faults.reset(),
      '/mute': faults.stall(),
      '/upload': async (req, res) => {
        let size = 0
        for await (const chunk of req) size += (chunk as Buffer).length
        res.end(`${req.method} ${size}`)
      },
      '*': (req, res) => void res.end(`${req.method} ${req.url}`),
    })
    const server = createHttpServer()
    tunnels = new WebSocketServer({ server })
    tunnels.on('connection', (socket, req) => socket.on('message', (data) => socket.send(`${req.url} ${data}`)))
    const listening = await listen(server)
    socketsUrl = `http://127.0.0.1:${listening.port}`
    closeSockets = listening.close
    seen = observer()
    proxy = createProxy({
      use: [seen.stage],
      retry: false,
      routes: [
        { match: { path: '/api/ws' }, stripPrefix: '/api', pool: { upstreams: [socketsUrl] } },
        { match: { path: '/api' }, stripPrefix: true, pool: { upstreams: [upstream.url] } },
      ],
    })
    served = await mount.serve(proxy)
  })
  afterAll(async () => {
    const closing = proxy.close({ deadline: 0 })
    await served.close()
    await closing
    tunnels.close()
    await closeSockets()
    await upstream.close()
  })

  it('answers, with fields as they are', async () => {
    const response = await rawRequest(served.port, get('/api/hello'), client)
    expect([response.status, response.text()]).toEqual([200, 'hello'])
    expect(response.headers.slice(0, 6)).toEqual(['X-UPPER-lower', 'a', 'Set-Cookie', 'a=1', 'set-cookie', 'b=2'])
    // Nothing of the framework's.
    expect(response.header('x-powered-by')).toBeUndefined()
  })

  it('takes the prefix off, and nothing else', async () => {
    for (const path of ['/x', '/a%2fb//c;d?e=%20&f', '/', '?q', ''])
      expect((await rawRequest(served.port, get(`/api${path}`), client)).text()).toBe(`GET ${path.startsWith('/') ? path : `/${path}`}`)
  })

  it('streams bodies down, whole', async () => {
    const response = await rawRequest(served.port, get('/api/big'), client)
    expect(response.body).toHaveLength(2_000_000)
    expect(response.body.subarray(1_999_000)).toEqual(patternAt(1_999_000, 1000))
    const chunked = await rawRequest(served.port, get('/api/pieces'), client)
    expect([chunked.text(), chunked.framing, chunked.complete]).toEqual(['one two three', 'chunked', true])
  })

  it.each(['POST', 'PUT', 'PATCH', 'DELETE'])('streams bodies up, whole: %s, larger than any parser would take', async (method) => {
    const size = 3_000_000
    await using connection = await rawConnect(served.port, client)
    for (const type of ['Content-Type: application/json', 'Content-Type: text/plain', 'X-No-Type: 1']) {
      void connection.write(head(method, '/api/upload', `Content-Length: ${size}`, type))
      void connection.write(Buffer.alloc(size, '{'))
      expect((await connection.readResponse()).text()).toBe(`${method} ${size}`)
    }
    void connection.write(`${head(method, '/api/upload', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n`)
    expect((await connection.readResponse()).text()).toBe(`${method} 5`)
  })

  it('HEAD and OPTIONS', async () => {
    const response = await rawRequest(served.port, head('HEAD', '/api/hello'), client)
    expect([response.status, response.header('content-length')]).toEqual([200, '5'])
    expect((await rawRequest(served.port, head('OPTIONS', '/api/x'), client)).text()).toBe('OPTIONS /x')
  })

  it('keeps connections, and keeps them in step', async () => {
    await using connection = await rawConnect(served.port, client)
    for (const path of ['/api/1', '/api/2', '/api/3']) {
      void connection.write(get(path))
      expect((await connection.readResponse()).text()).toBe(`GET ${path.slice(4)}`)
    }
    void connection.write(get('/api/1') + get('/api/2'))
    expect((await connection.readResponse()).text()).toBe('GET /1')
    expect((await connection.readResponse()).text()).toBe('GET /2')
  })

  it('failures look like failures', async () => {
    const refused = await rawRequest(served.port, get('/api/reset'), client)
    expect([refused.status, refused.header('proxy-status')]).toEqual([
      502,
      'weir; error=connection_terminated; details="ERR_UPSTREAM_RESET"',
    ])
    const broken = await rawRequest(served.port, get('/api/broken'), { ...client, until: 'close' })
    expect([broken.status, broken.complete]).toEqual([200, false])
  })

  it('a client that leaves frees the upstream', async () => {
    await using connection = await rawConnect(served.port, client)
    void connection.write(get('/api/mute'))
    await until('it is at work', () => upstream.active === 1)
    connection.reset()
    await upstream.until((now) => now.active === 0)
    await until('it is told', () => seen.outcomes.some((outcome) => outcome.reason === 'ERR_CLIENT_ABORTED'))
  })

  it('what no route takes is the embedder’s, or 404', async () => {
    const response = await rawRequest(served.port, get('/elsewhere'), client)
    expect(response.status).toBe(404)
    if (mount.name.startsWith('Express')) expect(response.text()).toBe('not mine either')
    else if (mount.name.startsWith('Fastify')) expect(JSON.parse(response.text())).toMatchObject({ statusCode: 404 })
    else expect(response.header('proxy-status')).toContain('ERR_NO_ROUTE')
  })

  it('WebSockets', async () => {
    const url = `${mount.tls ? 'wss' : 'ws'}://localhost:${served.port}/api/ws/chat`
    const socket = new WebSocket(url, {
      ca,
      lookup: (_name: string, _options: unknown, done: (...args: unknown[]) => void) => done(null, [{ address: '127.0.0.1', family: 4 }]),
    } as never)
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    for (const text of ['hello', 'grüße', 'x'.repeat(200_000)]) {
      const answer = new Promise((resolve) => socket.once('message', (data) => resolve(String(data))))
      socket.send(text)
      expect(await answer).toBe(`/ws/chat ${text}`)
    }
    socket.close()
    await until('the tunnel is gone', () => proxy.stats().tunnels === 0)
    const refused = await rawRequest(served.port, upgradeHead('/api/hello'), client)
    expect([refused.status, refused.text()]).toEqual([200, 'hello'])
  })

  it('Expect: 100-continue: once, and in front of the answer', async () => {
    await using connection = await rawConnect(served.port, client)
    void connection.write(head('POST', '/api/upload', 'Content-Length: 5', 'Expect: 100-continue'))
    expect((await connection.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void connection.write('hello')
    const response = await connection.readResponse()
    expect([response.interims, response.text()]).toEqual([[], 'POST 5'])
    // Refused by the proxy: then nobody asks for the body, where the proxy has a say.
    if (mount.asksAtOnce) return
    await using other = await rawConnect(served.port, client)
    void other.write(head('POST', '/elsewhere', 'Content-Length: 5', 'Expect: 100-continue'))
    const refused = await other.readResponse()
    expect([refused.status, refused.interims]).toEqual([404, []])
  })

  it('leaves nothing behind', async () => {
    await until('nothing is in flight', () => proxy.stats().inflight === 0)
    expect(proxy.stats().pools.flatMap((pool) => pool.upstreams.map((each) => each.inflight))).toEqual([0, 0])
  })
})

describe.each([
  ['cleartext, by prior knowledge', 'http', () => createHttp2Server()],
  ['TLS, by ALPN', 'https', () => createSecureServer({ ...localhost, allowHTTP1: true })],
  ['TLS, HTTP/2 alone', 'https', () => createSecureServer(localhost)],
] as const)('mounted on node:http2 (%s), for HTTP/2 clients', (_how, scheme, make) => {
  it.each(['attach', 'listener'])('by %s: requests, uploads, failures, many at once', async (how) => {
    await using upstream = await testUpstream({
      '/big': bytes(1_000_000),
      '/broken': faults.truncated('length'),
      '/reset': faults.reset(),
      '/upload': async (req, res) => {
        let size = 0
        for await (const chunk of req) size += (chunk as Buffer).length
        res.end(`${req.method} ${size}`)
      },
      '*': (req, res) => void res.end(`${req.method} ${req.url} ${req.headers.host}`),
    })
    const proxy = createProxy({ upstreams: [upstream.url], retry: false })
    const server = make()
    if (how === 'attach') proxy.attach(server)
    else server.on('request', proxy)
    const listening = await listen(server)
    await using client = await h2Client(listening.port, scheme)
    const host = `${scheme === 'https' ? 'localhost' : '127.0.0.1'}:${listening.port}`
    expect(String((await client.request({ ':path': '/x?y' })).body)).toBe(`GET /x?y ${host}`)
    expect((await client.request({ ':path': '/big' })).body).toHaveLength(1_000_000)
    expect(String((await client.request({ ':path': '/upload', ':method': 'POST' }, Buffer.alloc(1_000_000))).body)).toBe('POST 1000000')
    expect((await client.request({ ':path': '/reset' })).status).toBe(502)
    expect((await client.request({ ':path': '/broken' })).reset).toBe(2)
    const many = await Promise.all(Array.from({ length: 100 }, (_, i) => client.request({ ':path': `/${i}` })))
    expect(many.map((response) => String(response.body))).toEqual(Array.from({ length: 100 }, (_, i) => `GET /${i} ${host}`))
    expect(client.session.destroyed).toBe(false)
    await proxy.close()
    await listening.close()
  })
})

describe('mounted on both protocols of one port', () => {
  it('the same upstream connections serve both', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('fine')))
    await using proxy = createProxy({ upstreams: [upstream.url] })
    await using server = await listen(proxy.attach(createSecureServer({ ...localhost, allowHTTP1: true })))
    await using client = await h2Client(server.port, 'https')
    expect(client.session.alpnProtocol).toBe('h2')
    expect((await client.request()).status).toBe(200)
    const response = await rawRequest(server.port, get(), { tls: { ca, alpn: ['http/1.1'] } })
    expect(response.status).toBe(200)
    expect(upstream.connections).toHaveLength(1)
  })
})

describe('mounted in Express', () => {
  it('at a prefix: Express takes it off, and the rest is forwarded as it stands', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('fine')))
    await using proxy = createProxy({ upstreams: [upstream.url] })
    const app = express()
    app.use('/api', proxy)
    await using server = await listen(createHttpServer(app))
    for (const [path, expected] of [
      ['/api/x', '/x'],
      ['/api/a%2Fb?c=%20', '/a%2Fb?c=%20'],
      ['/api', '/'],
      ['/api/', '/'],
      ['/api?q=1', '/?q=1'],
    ]) {
      expect((await rawRequest(server.port, get(path))).status).toBe(200)
      expect(upstream.requests.at(-1)?.target).toBe(expected)
    }
  })

  it('with next: what no route takes goes on, its body unread; failures do not', async () => {
    await using upstream = await testUpstream({ '*': faults.reset() })
    await using proxy = createProxy({ routes: [{ match: { path: '/api' }, pool: { upstreams: [upstream.url] } }], retry: false })
    const app = express()
    const errors: unknown[] = []
    app.use(proxy)
    app.use(express.json())
    app.post('/own', (req, res) => void res.json({ own: req.body }))
    app.use((error: unknown, _req: unknown, res: { end(text: string): void }, _next: unknown) => {
      errors.push(error)
      res.end('error handler')
    })
    await using server = await listen(createHttpServer(app))
    const own = await rawRequest(server.port, `${head('POST', '/own', 'Content-Type: application/json', 'Content-Length: 7')}{"a":1}`)
    expect(JSON.parse(own.text())).toEqual({ own: { a: 1 } })
    const failed = await rawRequest(server.port, get('/api/x'))
    expect([failed.status, failed.header('proxy-status')]).toEqual([502, 'weir; error=connection_terminated; details="ERR_UPSTREAM_RESET"'])
    expect(errors).toEqual([])
    expect(proxy.stats().inflight).toBe(0)
  })

  it('without next: what no route takes is 404', async () => {
    await using proxy = createProxy({ routes: [{ match: { path: '/api' }, pool: { upstreams: [] } }] })
    await using server = await listen(createHttpServer((req, res) => proxy(req, res)))
    const response = await rawRequest(server.port, get('/own'))
    expect([response.status, response.header('proxy-status')]).toEqual([404, 'weir; error=destination_not_found; details="ERR_NO_ROUTE"'])
  })

  it('two proxies in a row: the first that has a route takes it', async () => {
    await using a = await testUpstream({ '*': 'a' })
    await using b = await testUpstream({ '*': 'b' })
    await using one = createProxy({ routes: [{ match: { path: '/a' }, pool: { upstreams: [a.url] } }] })
    await using two = createProxy({ routes: [{ match: { path: '/b' }, pool: { upstreams: [b.url] } }] })
    const app = express()
    app.use(one, two)
    await using server = await listen(createHttpServer(app))
    expect((await rawRequest(server.port, get('/a'))).text()).toBe('a')
    expect((await rawRequest(server.port, get('/b'))).text()).toBe('b')
    expect((await rawRequest(server.port, get('/c'))).status).toBe(404)
  })

  it('middleware in front has its say, and what it set on the response stays', async () => {
    const headers = ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Content-Type', 'text/special', 'Set-Cookie', 'a=3']
    await using upstream = await testUpstream({ '*': { headers, body: 'fine' } })
    await using proxy = createProxy({ upstreams: [upstream.url] })
    const app = express()
    app.use((req, res, next) => {
      res.set({ 'X-Front': 'yes', 'Content-Type': 'text/front' })
      if (req.headers.authorization === undefined) res.status(401).send('who?')
      else next()
    })
    app.use(proxy)
    await using server = await listen(createHttpServer(app))
    expect((await rawRequest(server.port, get())).status).toBe(401)
    expect(upstream.count()).toBe(0)
    const response = await rawRequest(server.port, get('/', 'Authorization: me'))
    expect(response.text()).toBe('fine')
    expect(response.header('x-front')).toBe('yes')
    // What the upstream says itself is said once.
    expect(response.all('set-cookie')).toEqual(['a=1', 'b=2', 'a=3'])
    expect(response.all('content-type')).toEqual(['text/special'])
  })
})

describe('mounted in Fastify', () => {
  it('its own routes keep their parsers, its hooks run first, and it closes', async () => {
    await using upstream = await testUpstream({ '*': 'proxied' })
    const proxy = createProxy({ routes: [{ match: { path: '/api' }, stripPrefix: true, pool: { upstreams: [upstream.url] } }] })
    const app = fastify()
    app.addHook('onRequest', async (request, reply) => {
      if (request.headers['x-stop'] !== undefined) await reply.code(403).send('stopped')
    })
    app.post('/own', (request) => ({ own: request.body }))
    const served = await onFastify(app, proxy)
    const own = await rawRequest(served.port, `${head('POST', '/own', 'Content-Type: application/json', 'Content-Length: 7')}{"a":1}`)
    expect(JSON.parse(own.text())).toEqual({ own: { a: 1 } })
    expect((await rawRequest(served.port, get('/api/x'))).text()).toBe('proxied')
    expect((await rawRequest(served.port, get('/api/x', 'X-Stop: 1'))).status).toBe(403)
    expect(upstream.count()).toBe(1)
    await served.close()
    await upstream.until((now) => now.sockets === 0)
  })

  it('with a server factory: the proxy is asked first, Fastify gets the rest', async () => {
    await using upstream = await testUpstream({ '*': 'proxied' })
    await using proxy = createProxy({ routes: [{ match: { path: '/api' }, pool: { upstreams: [upstream.url] } }] })
    const app = fastify({
      serverFactory: (handler) => {
        const server = createHttpServer((req, res) => proxy(req, res, () => handler(req, res)))
        return server.on('upgrade', proxy.upgrade)
      },
    })
    app.get('/own', () => ({ own: true }))
    await app.ready()
    await using server = await listen(app.server)
    expect((await rawRequest(server.port, get('/api/x'))).text()).toBe('proxied')
    expect(JSON.parse((await rawRequest(server.port, get('/own'))).text())).toEqual({ own: true })
    expect((await rawRequest(server.port, get('/neither'))).status).toBe(404)
    await app.close()
  })
})
