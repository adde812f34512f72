/**
 * Replies that a stage has ready (fields and body, as a cache has them): they take a short way, and are over when the system has all of it. Whatever keeps that from
 * being so at once, an answer that has to wait its turn, a client that does not read or has left, TLS, HTTP/2, they end as any other.
 */
import { ReplyFields, type StageHandler } from '@weir/core'
import { certificates, rawConnect } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get } from './messages.ts'
import { startProxy, until } from './observed.ts'

const upstreams = ['http://127.0.0.1:1']

function stored(size: number): StageHandler {
  const body = Buffer.alloc(size, 'b')
  const fields = new ReplyFields(['X-Stored', 'yes', 'Content-Length', String(size)])
  return () => ({ status: 200, fields, body })
}

describe('replies that are at hand', () => {
  it('are over when they are sent, one after the other on one connection', async () => {
    await using proxy = await startProxy({ upstreams, use: [stored(100)] })
    await using client = await rawConnect(proxy.port)
    for (let i = 1; i <= 3; i++) {
      await client.write(get())
      const response = await client.readResponse()
      expect([response.status, response.header('x-stored'), response.body.length]).toEqual([200, 'yes', 100])
      expect(proxy.outcomes).toHaveLength(i)
    }
    expect(proxy.outcomes).toMatchObject(Array(3).fill({ status: 200, reason: 'completed', bytesOut: 100, error: undefined }))
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('wait for the answers to earlier requests of their connection', async () => {
    const { promise: opened, resolve: open } = Promise.withResolvers<void>()
    const slow: StageHandler = ({ url }) => (url === '/slow' ? opened.then(() => ({ status: 200, body: 'slow' })) : undefined)
    await using proxy = await startProxy({ upstreams, use: [slow, stored(3)] })
    await using client = await rawConnect(proxy.port)
    await client.write(get('/slow') + get('/') + get('/'))
    await until('all of them are there', () => proxy.proxy.stats().inflight === 3)
    expect(proxy.outcomes).toEqual([])
    open()
    const bodies = [await client.readResponse(), await client.readResponse(), await client.readResponse()].map((one) => one.text())
    expect(bodies).toEqual(['slow', 'bbb', 'bbb'])
    await proxy.outcome(3)
    expect(proxy.outcomes.map(({ reason }) => reason)).toEqual(['completed', 'completed', 'completed'])
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('that waited for a client which left are told as that', async () => {
    const never: StageHandler = ({ url }) => (url === '/slow' ? new Promise(() => {}) : undefined)
    await using proxy = await startProxy({ upstreams, use: [never, stored(3)] })
    await using client = await rawConnect(proxy.port)
    await client.write(get('/slow') + get('/'))
    await until('both are there', () => proxy.proxy.stats().inflight === 2)
    client.reset()
    await proxy.outcome(2)
    expect(proxy.outcomes.map(({ status, reason }) => [status, reason])).toEqual(Array(2).fill([499, 'ERR_CLIENT_ABORTED']))
  })

  it('too large for the system at once are over when the client has taken them, or has left', async () => {
    const size = 32 << 20
    await using proxy = await startProxy({ upstreams, use: [stored(size)] })
    await using client = await rawConnect(proxy.port)
    await client.write(get())
    const [read] = await Promise.all([client.readResponse(), until('it is on its way', () => proxy.proxy.stats().inflight === 1)])
    expect(read.body).toHaveLength(size)
    expect(await proxy.outcome(1)).toMatchObject({ status: 200, reason: 'completed', bytesOut: size })
    await using other = await rawConnect(proxy.port)
    other.pause()
    await other.write(get())
    await until('it waits for its client', () => proxy.proxy.stats().inflight === 1)
    other.reset()
    expect(await proxy.outcome(2)).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
  })

  it('come over TLS and HTTP/2 as well, and end once', async () => {
    await using proxy = await startProxy({ upstreams, use: [stored(5000)] }, { https: true, http2: true })
    await using h2 = await h2Client(proxy.port, 'https')
    for (let i = 1; i <= 2; i++) {
      const answer = await h2.request({ ':path': '/' })
      expect([answer.status, answer.all('x-stored'), answer.body.length]).toEqual([200, ['yes'], 5000])
      await proxy.outcome(i)
    }
    await using h1 = await rawConnect(proxy.port, { tls: { ca: certificates().ca } })
    await h1.write(get())
    expect((await h1.readResponse()).body).toHaveLength(5000)
    await proxy.outcome(3)
    expect(proxy.outcomes).toMatchObject(Array(3).fill({ status: 200, reason: 'completed' }))
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('leave an upload that they are an answer to for node to read', async () => {
    await using proxy = await startProxy({ upstreams, use: [stored(3)] })
    await using client = await rawConnect(proxy.port)
    await client.write('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc')
    expect((await client.readResponse()).text()).toBe('bbb')
    await client.write(`def${get()}`)
    expect((await client.readResponse()).text()).toBe('bbb')
    await proxy.outcome(2)
    expect(proxy.outcomes).toMatchObject(Array(2).fill({ status: 200, reason: 'completed' }))
  })
})
