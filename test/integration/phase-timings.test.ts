/** What an attempt tells of its phases: waiting, lookup, TCP, TLS, first byte, last byte; each try has its own. */
import { createServer } from 'node:https'
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net'
import { type AttemptOutcome, httpProxyTransport, undiciTransport } from '@weir/core'
import { circuitBreaker } from '@weir/health'
import { certificates, rawConnect, rawUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { startProxy } from './observed.ts'

const { ca } = certificates()
const made = [
  ['undici', () => undiciTransport({ tls: { ca } })],
  ['http-proxy', () => httpProxyTransport({ tls: { ca } })],
] as const

const status = async (port: number): Promise<number> => {
  const response = await fetch(`http://127.0.0.1:${port}/`)
  await response.text()
  return response.status
}

function phasesOf({ connectMs, lookupMs, tcpMs, tlsMs }: AttemptOutcome): Record<string, number | undefined> {
  return { connectMs, lookupMs, tcpMs, tlsMs }
}

describe.each(made)('over %s', (_name, transport) => {
  it('a name is looked up, TLS shakes hands, and the parts add up; a reused connection has none of it', async () => {
    await using upstream = await testUpstream({ '*': 'ok' }, { tls: true })
    const { port } = new URL(upstream.url)
    await using proxy = await startProxy({ upstreams: [`https://localhost:${port}`] }, { transport })
    for (let i = 0; i < 2; i++) expect(await status(proxy.port)).toBe(200)
    const [first, second] = (await Promise.all([proxy.outcome(1), proxy.outcome(2)])).map(({ attempts }) => attempts[0] as AttemptOutcome)
    const { connectMs, lookupMs, tcpMs, tlsMs } = phasesOf(first as AttemptOutcome)
    expect(lookupMs).toBeGreaterThan(0)
    expect(tcpMs).toBeGreaterThan(0)
    expect(tlsMs).toBeGreaterThan(0)
    expect(connectMs).toBeCloseTo((lookupMs as number) + (tcpMs as number) + (tlsMs as number), 6)
    expect(first?.headMs).toBeGreaterThan(connectMs as number)
    expect(first?.durationMs).toBeGreaterThanOrEqual(first?.headMs as number)
    expect(phasesOf(second as AttemptOutcome)).toEqual({ connectMs: undefined, lookupMs: undefined, tcpMs: undefined, tlsMs: undefined })
  })

  it('an address needs no lookup, a plain connection no handshake', async () => {
    await using upstream = await testUpstream({ '*': 'ok' })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await status(proxy.port)
    const phases = phasesOf((await proxy.outcome(1)).attempts[0] as AttemptOutcome)
    expect(phases.tlsMs).toBe(0)
    expect(phases.tcpMs).toBeGreaterThan(0)
    // Node looks up nothing, but some versions tell of an address as if they had.
    expect(phases.lookupMs).toBeLessThan(phases.tcpMs as number)
  })

  it('what stages wait for before it is no part of the first try', async () => {
    await using upstream = await testUpstream({ '*': 'ok' })
    let waited = 0
    const waits = async (): Promise<undefined> => {
      await new Promise((resolve) => setTimeout(resolve, 20))
      waited = performance.now()
    }
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [waits] }, { transport })
    await status(proxy.port)
    expect((await proxy.outcome(1)).attempts[0]?.startedAt).toBeGreaterThanOrEqual(waited)
  })

  it('what the client takes for its body is told apart, and makes no upstream look slow', async () => {
    await using upstream = await testUpstream({ '*': (req, res) => void req.resume().once('end', () => res.end('ok')) })
    await using proxy = await startProxy(
      { upstreams: [upstream.url], health: [circuitBreaker({ latency: { above: '100ms', minRequests: 1 } })] },
      { transport },
    )
    for (let i = 1; i <= 3; i++) {
      await using client = await rawConnect(proxy.port)
      void client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na')
      await new Promise((resolve) => setTimeout(resolve, 150))
      void client.write('b')
      expect((await client.readResponse()).status).toBe(200)
      const { attempts } = await proxy.outcome(i)
      const { headMs, uploadMs } = attempts[0] as AttemptOutcome
      expect(uploadMs).toBeGreaterThan(100)
      expect(headMs).toBeGreaterThanOrEqual(uploadMs)
    }
    await status(proxy.port)
    expect((await proxy.outcome(4)).attempts[0]?.uploadMs).toBe(0)
  })

  it('but not what the connection takes, nor an upstream that reads slowly', async () => {
    const { localhost } = certificates()
    const secure = createServer(localhost, (req, res) => void req.resume().once('end', () => res.end('ok')))
    await new Promise<void>((resolve) => secure.listen(0, '127.0.0.1', resolve))
    // A handshake begins when somebody on the other side takes part.
    const late = createTcpServer((socket) => {
      socket.on('error', () => {})
      setTimeout(() => {
        const on = connect((secure.address() as AddressInfo).port, '127.0.0.1')
        on.on('error', () => {})
        socket.pipe(on).pipe(socket)
      }, 400)
    })
    await new Promise<void>((resolve) => late.listen(0, '127.0.0.1', resolve))
    await using reader = await testUpstream({
      '*': (req, res) => {
        setTimeout(() => req.resume().once('end', () => res.end('ok')), 400)
      },
    })
    const url = `https://localhost:${(late.address() as AddressInfo).port}`
    for (const [server, size] of [
      [url, 1000],
      [reader.url, 24_000_000],
    ] as const) {
      await using proxy = await startProxy({ upstreams: [server] }, { transport })
      const body = 'x'.repeat(size)
      await using client = await rawConnect(proxy.port)
      void client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
      expect((await client.readResponse()).status).toBe(200)
      const { headMs, uploadMs } = (await proxy.outcome()).attempts[0] as AttemptOutcome
      expect(headMs).toBeGreaterThan(390)
      expect((headMs as number) - uploadMs).toBeGreaterThan(200)
    }
    secure.closeAllConnections()
    secure.close()
    late.close()
  })

  it('every try has its own', async () => {
    await using broken = await rawUpstream(async (connection) => {
      await connection.readRequest()
      connection.reset()
    })
    await using good = await testUpstream({ '*': 'ok' })
    await using proxy = await startProxy({ upstreams: [broken.url, { url: good.url, backup: true }] }, { transport })
    await status(proxy.port)
    const { attempts } = await proxy.outcome(1)
    expect(attempts).toHaveLength(2)
    for (const attempt of attempts) expect(attempt.tcpMs).toBeGreaterThan(0)
    expect(attempts[0]?.headMs).toBeUndefined()
    expect(attempts[1]?.headMs).toBeGreaterThan(0)
  })
})
