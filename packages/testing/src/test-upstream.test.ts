import { Agent, request } from 'node:http'
import { describe, expect, it } from 'vitest'
import { bytes, type Echo, events, patternAt, pieces } from './answers.ts'
import { certificates } from './certificates.ts'
import { faults } from './faults.ts'
import { rawConnect, rawRequest } from './raw-client.ts'
import { testUpstream } from './test-upstream.ts'

const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`

describe('testUpstream', () => {
  it('routes by method and literal path; the most specific key wins', async () => {
    await using upstream = await testUpstream({
      'GET /': 200,
      '/': 'any method',
      '/files/*': 'files',
      'GET /files/*': 'got files',
      '/files/deep/*': 'deep',
      '*': 418,
    })
    const text = async (method: string, path: string): Promise<string> =>
      (await rawRequest(upstream.port, `${method} ${path} HTTP/1.1\r\nHost: a\r\n\r\n`)).text()
    expect(await text('GET', '/')).toBe('200')
    expect(await text('DELETE', '/')).toBe('any method')
    expect(await text('GET', '/files/x?y')).toBe('got files')
    expect(await text('PUT', '/files/x')).toBe('files')
    expect(await text('GET', '/files/deep/x')).toBe('deep')
    expect(await text('GET', '//')).toBe('418')
    expect(upstream.count()).toBe(6)
    expect(upstream.count('/')).toBe(2)
    expect(upstream.count('GET /')).toBe(1)
    expect(upstream.count('/files/x')).toBe(2)
  })

  it('answers 404 to what no route fits, and lets a route change', async () => {
    await using upstream = await testUpstream({ '/a': [503, 503, 'well again'] })
    expect((await rawRequest(upstream.port, get('/b'))).status).toBe(404)
    const statuses = []
    for (let i = 0; i < 4; i++) statuses.push((await rawRequest(upstream.port, get('/a'))).status)
    expect(statuses).toEqual([503, 503, 200, 200])
    upstream.route('/b', { status: 201, headers: { 'Set-Cookie': ['a=1', 'b=2'], 'X-One': 'x' }, body: 'b' })
    const response = await rawRequest(upstream.port, get('/b'))
    expect(response.status).toBe(201)
    expect(response.fields).toEqual(expect.arrayContaining(['Set-Cookie: a=1', 'Set-Cookie: b=2', 'X-One: x']))
  })

  it('echoes the request with its raw fields, body and trailers, and says who it is', async () => {
    await using upstream = await testUpstream(undefined, { name: 'one' })
    const response = await rawRequest(
      upstream.port,
      'POST /x?y=1 HTTP/1.1\r\nHOST: a\r\nX-a: 1\r\nx-A: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: v\r\n\r\n',
    )
    expect(response.header('x-upstream')).toBe('one')
    expect(JSON.parse(response.text()) as Echo).toEqual({
      method: 'POST',
      url: '/x?y=1',
      rawHeaders: ['HOST', 'a', 'X-a', '1', 'x-A', '2', 'Transfer-Encoding', 'chunked'],
      body: 'hi',
      rawTrailers: ['T', 'v'],
    })
  })

  it('sends bytes of any size in a known pattern', async () => {
    await using upstream = await testUpstream({ '/sized': bytes(200_001), '/chunked': bytes(65_536, { chunked: true }) })
    const sized = await rawRequest(upstream.port, get('/sized'))
    expect(sized.header('content-length')).toBe('200001')
    expect(sized.body.every((byte, i) => byte === i % 251)).toBe(true)
    expect(sized.body.subarray(65536, 65546)).toEqual(patternAt(65536, 10))
    const chunked = await rawRequest(upstream.port, get('/chunked'))
    expect(chunked).toMatchObject({ framing: 'chunked', complete: true })
    expect(chunked.body.length).toBe(65536)
  })

  it('sends pieces and event streams', async () => {
    await using upstream = await testUpstream({ '/pieces': pieces(['a', 'b', 'c'], { everyMs: 1 }), '/events': events(['one', 'two']) })
    expect((await rawRequest(upstream.port, get('/pieces'))).raw.toString()).toMatch(/\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n$/)
    await using stream = await rawConnect(upstream.port)
    void stream.write(get('/events'))
    await stream.sees('data: one\n\n')
    await stream.sees('data: two\n\n')
    expect(upstream.active).toBe(1)
    stream.destroy()
    await upstream.until((u) => u.active === 0 && u.sockets === 0)
  })

  it('reports a handler that throws as a 500 that says so', async () => {
    await using upstream = await testUpstream(() => {
      throw new Error('oops')
    })
    const response = await rawRequest(upstream.port, get('/'))
    expect(response.status).toBe(500)
    expect(response.text()).toContain('oops')
  })

  it.each([false, true])('is killed with a reset and comes back on its own port (TLS: %s)', async (tls) => {
    const client = tls ? { tls: { ca: certificates().ca } } : {}
    await using upstream = await testUpstream({ '*': 'here' }, { tls })
    const { port } = upstream
    await using kept = await rawConnect(port, client)
    void kept.write(get('/'))
    await kept.readResponse()
    await upstream.kill()
    expect(await kept.closed).toBe('reset')
    await expect(rawConnect(port, client)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await upstream.restart()
    expect((await rawRequest(port, get('/'), client)).text()).toBe('here')
    expect(upstream.accepted).toBe(2)
  })

  it('stops listening while its connections go on', async () => {
    await using upstream = await testUpstream({ '*': 'here' })
    await using kept = await rawConnect(upstream.port)
    await upstream.until((u) => u.sockets === 1)
    await upstream.stopListening()
    await expect(rawConnect(upstream.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    void kept.write(get('/'))
    expect((await kept.readResponse()).text()).toBe('here')
  })

  it('serves a Unix socket to an ordinary client, on one kept connection', async () => {
    await using upstream = await testUpstream({ '*': 'unix' }, { unix: true })
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (let i = 0; i < 2; i++) {
      const status = await new Promise((resolve, reject) => {
        const { socketPath = '' } = upstream
        request({ socketPath, path: '/', agent }, (res) => res.resume().once('end', () => resolve(res.statusCode)))
          .on('error', reject)
          .end()
      })
      expect(status).toBe(200)
    }
    expect(upstream).toMatchObject({ accepted: 1, sockets: 1 })
    agent.destroy()
    await upstream.until((u) => u.sockets === 0)
  })

  it('says what it waited for in vain', async () => {
    await using upstream = await testUpstream()
    await expect(upstream.until((u) => u.accepted === 1, 20)).rejects.toThrow('u.accepted === 1')
  })
})

describe('faults', () => {
  const faulty = { deadline: 200 }

  it('stalls before the head, for a time or for ever', async () => {
    await using upstream = await testUpstream({ '/late': faults.stall(1, 'late'), '/never': faults.stall() })
    expect((await rawRequest(upstream.port, get('/late'))).text()).toBe('late')
    await expect(rawRequest(upstream.port, get('/never'), faulty)).rejects.toMatchObject({ reason: 'deadline', ending: 'open' })
  })

  it('stalls in the body', async () => {
    await using upstream = await testUpstream(faults.stallBody(5, 50))
    const error = await rawRequest(upstream.port, get('/'), faulty).catch((e: unknown) => e)
    expect(error).toMatchObject({ reason: 'deadline', ending: 'open' })
    expect((error as { received: Buffer }).received.toString('latin1')).toMatch(/Content-Length: 50\r\n\r\n[\s\S]{5}$/)
  })

  it('hangs up and resets before the head', async () => {
    await using upstream = await testUpstream({ '/fin': faults.hangUp(), '/rst': faults.reset() })
    await expect(rawRequest(upstream.port, get('/fin'))).rejects.toMatchObject({ reason: 'ended', ending: 'fin' })
    await expect(rawRequest(upstream.port, get('/rst'))).rejects.toMatchObject({ reason: 'ended', ending: 'reset' })
  })

  it('resets behind the head and at a byte of the body', async () => {
    await using upstream = await testUpstream({ '/head': faults.resetAfterHead(), '/body': faults.resetAt(100_000) })
    expect(await rawRequest(upstream.port, get('/head'))).toMatchObject({ status: 200, complete: false, ending: 'reset' })
    const cut = await rawRequest(upstream.port, get('/body'))
    expect(cut).toMatchObject({ complete: false, ending: 'reset' })
    expect(cut.body.length).toBe(100_000)
  })

  it.each(['length', 'chunked'] as const)('truncates a body framed by %s', async (framing) => {
    await using upstream = await testUpstream(faults.truncated(framing, 7))
    const cut = await rawRequest(upstream.port, get('/'))
    expect(cut).toMatchObject({ framing, complete: false, ending: 'fin' })
    expect(cut.body.length).toBe(7)
  })

  it.each(['badStatusLine', 'badHeader', 'badChunk'] as const)('speaks bad HTTP: %s', async (fault) => {
    await using upstream = await testUpstream(faults[fault]())
    await expect(rawRequest(upstream.port, get('/'))).rejects.toMatchObject({ reason: 'malformed' })
  })

  it('sends garbage', async () => {
    await using upstream = await testUpstream(faults.garbage(64))
    await using connection = await rawConnect(upstream.port)
    void connection.write(get('/'))
    expect((await connection.readBytes(64)).toString('latin1')).not.toMatch(/^HTTP/)
  })

  it('sends heads that are legal and too large', async () => {
    await using upstream = await testUpstream({
      '/many': faults.manyHeaders(1500),
      '/huge': faults.hugeHeader(100_000),
      '/raw': faults.raw('x\r\n\r\n'),
    })
    const many = await rawRequest(upstream.port, get('/many'))
    expect(many.fields.length).toBe(1500)
    expect(many.fields.at(-1)).toBe('X-Last: 1')
    expect((await rawRequest(upstream.port, get('/huge'))).header('x-huge')?.length).toBe(100_000)
    await using connection = await rawConnect(upstream.port)
    void connection.write(get('/raw'))
    expect((await connection.readThrough('\r\n\r\n')).toString()).toBe('x\r\n\r\n')
  })

  it('keeps no timer of a stalled answer when the upstream closes', async () => {
    const upstream = await testUpstream(faults.stall(60_000))
    const connection = await rawConnect(upstream.port)
    void connection.write(get('/'))
    await upstream.until((u) => u.active === 1)
    const before = timers()
    await upstream.close()
    connection.destroy()
    await upstream.until((u) => u.active === 0 && u.sockets === 0)
    expect(timers()).toBeLessThan(before)
  })
})

const timers = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
