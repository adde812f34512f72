/** A stage that sees request bodies: every byte once, whatever is retried, without slowing or changing anything. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { BodyTap } from '@weir/core'
import { faults, rawConnect, rawRequest, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { head } from './messages.ts'
import { startProxy, transports } from './observed.ts'

function recorder(): BodyTap & { readonly chunks: Buffer[]; readonly ends: boolean[] } {
  const chunks: Buffer[] = []
  const ends: boolean[] = []
  return { chunks, ends, onChunk: (chunk) => void chunks.push(Buffer.from(chunk)), onEnd: (complete) => void ends.push(complete) }
}

describe.each(transports)('request tap over %s', (_name, transport) => {
  it('sees the body whole, once, also when it is sent twice', async () => {
    await using bad = await testUpstream({ '*': (req, _res, wire) => void req.on('end', () => wire.reset()).resume() })
    await using good = await testUpstream()
    const tap = recorder()
    await using proxy = await startProxy(
      { upstreams: [bad.url, { url: good.url, backup: true }], health: [], use: [(exchange) => void exchange.tapRequest(tap)] },
      { transport },
    )
    const body = 'x'.repeat(30_000)
    const { status } = await rawRequest(proxy.port, `${head('PUT', '/', `Content-Length: ${body.length}`)}${body}`)
    expect(status).toBe(200)
    expect(bad.count()).toBe(1)
    expect(Buffer.concat(tap.chunks).toString()).toBe(body)
    expect(tap.ends).toEqual([true])
  })

  it('hears that a body broke off', async () => {
    await using upstream = await testUpstream({ '*': faults.stall(60_000) })
    const tap = recorder()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [(exchange) => void exchange.tapRequest(tap)] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(`${head('PUT', '/', 'Content-Length: 100')}half`)
    await upstream.until(({ active }) => active === 1)
    client.destroy()
    await proxy.outcome()
    expect(Buffer.concat(tap.chunks).toString()).toBe('half')
    expect(tap.ends).toEqual([false])
  })

  it('what it throws ends the exchange with a 500, and the next one works', async () => {
    await using upstream = await testUpstream()
    let wrong = true
    const tap: BodyTap = {
      onChunk: () => {
        if (wrong) throw new Error('broken tap')
      },
    }
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [(exchange) => void exchange.tapRequest(tap)] }, { transport })
    const request = `${head('PUT', '/', 'Content-Length: 4')}body`
    expect((await rawRequest(proxy.port, request)).status).toBe(500)
    expect((await proxy.outcome()).reason).toBe('ERR_STAGE')
    wrong = false
    expect((await rawRequest(proxy.port, request)).status).toBe(200)
  })

  it('sees a body that a middleware in front had read', async () => {
    await using upstream = await testUpstream()
    const tap = recorder()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [(exchange) => void exchange.tapRequest(tap)] }, { transport })
    // The middleware: reads the body to its end, and leaves what it read where body parsers do.
    const [listener] = proxy.server.listeners('request') as [(req: IncomingMessage, res: ServerResponse) => void]
    proxy.server.removeAllListeners('request')
    proxy.server.on('request', (req: IncomingMessage & { rawBody?: Buffer }, res: ServerResponse) => {
      const chunks: Buffer[] = []
      req.on('data', (chunk: Buffer) => chunks.push(chunk))
      req.on('end', () => {
        req.rawBody = Buffer.concat(chunks)
        listener(req, res)
      })
    })
    expect((await rawRequest(proxy.port, `${head('PUT', '/', 'Content-Length: 4')}body`)).status).toBe(200)
    expect(Buffer.concat(tap.chunks).toString()).toBe('body')
    expect(tap.ends).toEqual([true])
  })

  it('is not called for a request without a body', async () => {
    await using upstream = await testUpstream()
    const tap = recorder()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [(exchange) => void exchange.tapRequest(tap)] }, { transport })
    await rawRequest(proxy.port, head('GET', '/'))
    expect([tap.chunks, tap.ends]).toEqual([[], []])
  })
})
