/** Uploads that trickle, on real sockets: the slow client is told 408 and loses its connection, the slow upstream's client is not blamed. */
import { createServer } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2 } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { minBodyRate } from '@weir/access'
import { createProxy } from '@weir/core'
import { faults, rawConnect, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { head } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe.each(transports)('over %s', (_name, transport) => {
  it('a client that trickles gets a 408 and no connection, and its upstream no blame', async () => {
    await using upstream = await testUpstream()
    const stage = minBodyRate({ rate: 1000, grace: 200 })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('PUT', '/', 'Content-Length: 100000'))
    const trickle = setInterval(() => void client.write('x'), 20)
    try {
      const response = await client.readResponse()
      expect(response.status).toBe(408)
      expect(response.all('connection')).toEqual(['close'])
      expect(response.all('proxy-status').join()).toContain('ERR_BODY_TOO_SLOW')
    } finally {
      clearInterval(trickle)
    }
    const outcome = await proxy.outcome()
    expect(outcome.reason).toBe('ERR_BODY_TOO_SLOW')
    expect(outcome.attempts.map(({ error }) => error?.source)).toEqual(['client'])
    expect(stage.stats()).toMatchObject({ refused: 1, watched: 0 })
    client.destroy()
    await upstream.until(({ active }) => active === 0)
  })

  it('a client whose upstream takes its time is not blamed', async () => {
    let taken = 0
    // Nothing is read for several times the grace.
    const upstream = createServer((req, res) => {
      setTimeout(() => {
        req.on('data', (chunk: Buffer) => {
          taken += chunk.length
        })
        req.on('end', () => res.end('taken'))
      }, 1500)
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
    const stage = minBodyRate({ rate: 1000, grace: 200 })
    await using proxy = await startProxy({ upstreams: [url], use: [stage] }, { transport })
    const body = 'x'.repeat(16 * 1024 * 1024)
    const client = await rawConnect(proxy.port)
    void client.write(`${head('PUT', '/', `Content-Length: ${body.length}`)}${body}`)
    expect((await client.readResponse()).status).toBe(200)
    expect(taken).toBe(body.length)
    expect(stage.stats()).toMatchObject({ allowed: 1, refused: 0, watched: 0 })
    client.destroy()
    upstream.close()
    upstream.closeAllConnections()
  }, 20_000)

  it('a response that has begun is broken off', async () => {
    await using upstream = await testUpstream({ '*': faults.stallBody(5, 10) })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [minBodyRate({ rate: 1000, grace: 200 })] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(`${head('PUT', '/', 'Content-Length: 100')}x`)
    const outcome = await proxy.outcome()
    expect(outcome.reason).toBe('ERR_BODY_TOO_SLOW')
    await client.closed
  })
})

it('an HTTP/2 client that trickles is told 408, and its other streams go on', async () => {
  await using upstream = await testUpstream()
  await using proxy = createProxy({ upstreams: [upstream.url], use: [minBodyRate({ rate: 1000, grace: 200 })] })
  const server = createHttp2()
  proxy.attach(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  try {
    const statusOf = (stream: ReturnType<typeof session.request>): Promise<number> =>
      new Promise((resolve, reject) => {
        stream.once('response', (fields) => resolve(Number(fields[':status'])))
        stream.once('error', reject)
        stream.resume()
      })
    const slow = session.request({ ':method': 'PUT', ':path': '/' })
    slow.write('x')
    expect(await statusOf(slow)).toBe(408)
    const other = session.request({ ':path': '/' })
    other.end()
    expect(await statusOf(other)).toBe(200)
  } finally {
    session.destroy()
    server.close()
  }
})

it('many slow uploads end, and a client that keeps its pace is served all the while', async () => {
  await using upstream = await testUpstream()
  const stage = minBodyRate({ rate: 1000, grace: 500 })
  await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] })
  const slow = await Promise.all(Array.from({ length: 500 }, () => rawConnect(proxy.port)))
  for (const client of slow) await client.write(`${head('PUT', '/', 'Content-Length: 100000')}x`)
  const good = await rawConnect(proxy.port)
  await good.write(head('PUT', '/', 'Content-Length: 4000'))
  for (let sent = 0; sent < 4000; sent += 400) {
    await good.write('y'.repeat(400))
    await pause(200)
  }
  expect((await good.readResponse()).status).toBe(200)
  await until('all slow uploads ended', () => stage.stats().refused === 500)
  expect(stage.stats()).toEqual({ allowed: 1, refused: 500, dry: 0, watched: 0 })
  for (const client of slow) client.destroy()
}, 20_000)
