import { existsSync } from 'node:fs'
import { request } from 'node:http'
import { describe, expect, it } from 'vitest'
import { rawConnect, rawRequest } from './raw-client.ts'
import { everyRequest, rawUpstream } from './raw-upstream.ts'

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

describe('rawUpstream', () => {
  it('reads what a client sends, whole and raw, one request after the other', async () => {
    await using upstream = await rawUpstream(ok)
    await using connection = await rawConnect(upstream.port)
    const first = 'POST /a?b HTTP/1.1\r\nHoSt: x\r\nX-L: \xe4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n'
    const second = 'DELETE //%2F HTTP/1.1\r\nHost: x\r\ncontent-length: 4\r\n\r\nbody'
    void connection.write(first + second + get)
    for (let i = 0; i < 3; i++) expect((await connection.readResponse()).text()).toBe('ok')
    const [one, two, three] = upstream.requests
    expect(one).toMatchObject({ method: 'POST', target: '/a?b', framing: 'chunked', trailers: ['T', '1'], complete: true })
    expect(one?.headers).toEqual(['HoSt', 'x', 'X-L', '\xe4', 'Transfer-Encoding', 'chunked'])
    expect(one?.text()).toBe('abc')
    expect(one?.raw.toString('latin1')).toBe(first)
    expect(two).toMatchObject({ method: 'DELETE', target: '//%2F', framing: 'length' })
    expect(two?.raw.toString('latin1')).toBe(second)
    expect(three).toMatchObject({ method: 'GET', framing: 'none' })
    expect(upstream.connections.length).toBe(1)
    expect(upstream.open).toBe(1)
    connection.end()
    expect(await connection.closed).toBe('fin')
    expect(upstream.open).toBe(0)
  })

  it('lets the script talk in any order, knowing how the client ended', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      const head = await connection.readHead()
      expect(head.line).toBe('PUT / HTTP/1.1')
      await connection.send('HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
      expect(await connection.stall()).toBe('reset')
    })
    const connection = await rawConnect(upstream.port)
    void connection.write('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome')
    expect(await connection.readResponse()).toMatchObject({ status: 413 })
    connection.reset()
    expect(await (await upstream.connection(1)).closed).toBe('reset')
  })

  it('waits for the nth connection and the nth request', async () => {
    await using upstream = await rawUpstream(ok)
    const second = upstream.request(2)
    await rawRequest(upstream.port, get)
    await rawRequest(upstream.port, 'GET /two HTTP/1.1\r\nHost: a\r\n\r\n')
    expect((await second).target).toBe('/two')
    expect((await upstream.connection(2)).number).toBe(2)
    await expect(upstream.connection(3, 50)).rejects.toThrow('connection 3 did not come')
  })

  it('stops listening and listens again on the same port, while old connections go on', async () => {
    await using upstream = await rawUpstream(ok)
    const { port } = upstream
    await using old = await rawConnect(port)
    await upstream.connection(1)
    await upstream.stopListening()
    await expect(rawConnect(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    void old.write(get)
    expect((await old.readResponse()).text()).toBe('ok')
    await upstream.listenAgain()
    expect(upstream.port).toBe(port)
    expect((await rawRequest(port, get)).text()).toBe('ok')
  })

  it('closes what is open and leaves nothing behind', async () => {
    const upstream = await rawUpstream(async (connection) => {
      await connection.stall()
    })
    const connection = await rawConnect(upstream.port)
    await upstream.connection(1)
    await upstream.close()
    await upstream.close()
    expect(['fin', 'reset']).toContain(await connection.closed)
    await expect(rawConnect(upstream.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(process.getActiveResourcesInfo().filter((kind) => kind === 'TCPServerWrap')).toEqual([])
  })

  it('throws at close what a script threw', async () => {
    const upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      throw new Error('not what I expected')
    })
    await expect(rawRequest(upstream.port, get)).rejects.toMatchObject({ reason: 'ended' })
    await expect(upstream.close()).rejects.toThrow('not what I expected')
  })

  it('counts a malformed request as a failure, a client that left as none', async () => {
    const strict = await rawUpstream(ok)
    await expect(
      rawRequest(strict.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
    ).rejects.toMatchObject({ reason: 'ended' })
    await expect(strict.close()).rejects.toMatchObject({ reason: 'malformed' })

    const left = await rawUpstream(ok)
    const connection = await rawConnect(left.port)
    void connection.write('GET / HT')
    await (await left.connection(1)).sees('GET / HT')
    connection.reset()
    await (await left.connection(1)).closed
    await left.close()
  })

  it('serves a Unix socket and removes it', async () => {
    const upstream = await rawUpstream(
      everyRequest((seen) => `HTTP/1.1 200 OK\r\nContent-Length: ${seen.target.length}\r\n\r\n${seen.target}`),
      {
        unix: true,
      },
    )
    const { socketPath = '' } = upstream
    expect(upstream.url).toBe(`unix:${socketPath}`)
    const status = await new Promise((resolve, reject) => {
      request({ socketPath, path: '/over/unix' }, (res) => resolve(res.resume().statusCode))
        .on('error', reject)
        .end()
    })
    expect(status).toBe(200)
    expect((await rawRequest(0, get, { socketPath })).text()).toBe('/')
    await upstream.close()
    expect(existsSync(socketPath)).toBe(false)
  })
})
