/** HTTP/2 uploads that are answered while they are paused: the exchange ends, though nobody ever reads what is left in the stream. */
import { createServer } from 'node:http'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { startProxy, transports, until } from './observed.ts'

describe.each(transports)('over %s', (_name, transport) => {
  it.each([
    ['the upstream refuses it without reading it', 413, {}],
    ['the deadline passes', 504, { timeouts: { total: 300 } }],
  ])('when %s', async (_what, status, options) => {
    const upstream = createServer((_req, res) => {
      // Nothing is read, so that everything up to the client fills up and waits.
      setTimeout(() => {
        res.statusCode = 413
        res.end('too large')
      }, 500)
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    await using proxy = await startProxy(
      { upstreams: [`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`], ...options },
      { transport, http2: true },
    )
    const statuses = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const session = connect(`http://127.0.0.1:${proxy.port}`)
        session.on('error', () => {})
        const stream = session.request({ ':method': 'PUT', ':path': '/' })
        stream.on('error', () => {})
        stream.write(Buffer.alloc(8_000_000))
        stream.resume()
        const answer = await new Promise<number>((resolve) => stream.once('response', (fields) => resolve(Number(fields[':status']))))
        session.destroy()
        return answer
      }),
    )
    expect(statuses).toEqual([status, status, status, status, status])
    await until('all have ended', () => proxy.proxy.stats().inflight === 0)
    expect(proxy.outcomes).toHaveLength(5)
    upstream.closeAllConnections()
    upstream.close()
  })

  it.each([
    ['the deadline passes', { timeouts: { total: 300 } }, 'ERR_DEADLINE'],
    ['the proxy closes', {}, 'ERR_DRAINING'],
  ] as const)('when its client reads nothing of the answer and sends no end, until %s', async (_what, options, reason) => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readHead()
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n${'x'.repeat(10_000)}`)
      await connection.stall()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], ...options }, { transport, http2: true })
    const session = connect(`http://127.0.0.1:${proxy.port}`, { settings: { initialWindowSize: 10 } })
    session.on('error', () => {})
    const stream = session.request({ ':method': 'POST', ':path': '/' })
    const ended = new Promise<number | undefined>((resolve) => stream.once('close', () => resolve(stream.rstCode)))
    stream.on('error', () => {})
    stream.write('the beginning')
    await new Promise((resolve) => stream.once('response', resolve))
    await until('all of the answer waits for its client', () => proxy.proxy.stats().pools[0]?.upstreams[0]?.inflight === 0)
    expect(proxy.proxy.stats().inflight).toBe(1)
    if (reason === 'ERR_DRAINING') await proxy.proxy.close({ deadline: 100 })
    expect((await proxy.outcome()).reason).toBe(reason)
    // INTERNAL_ERROR: what it has got is not all.
    stream.resume()
    expect(await ended).toBe(2)
    expect(proxy.proxy.stats().inflight).toBe(0)
    session.destroy()
  })
})
