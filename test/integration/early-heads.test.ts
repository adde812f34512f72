/** The head of a stream reaches the client when it is there, and not with the first byte: an `EventSource` is open from then on. */
import { createServer, type ServerResponse } from 'node:http'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { compress } from '@weir/compress'
import type { StageLike } from '@weir/core'
import { rawConnect } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { head } from './messages.ts'
import { startProxy, transports } from './observed.ts'

/** Sends the head of an event stream, and the rest when told. */
async function silentUpstream() {
  const { promise: answering, resolve } = Promise.withResolvers<ServerResponse>()
  const server = createServer((_req, res) => {
    res.writeHead(200, { 'Content-Type': 'text/event-stream' })
    res.flushHeaders()
    resolve(res)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answering,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((done) => void server.close(done))
    },
  }
}

const stages: readonly (readonly [string, readonly StageLike[]])[] = [
  ['as it is', []],
  ['past a hook', [() => ({ onResponse: ({ headers }) => void headers.set('X-Seen', '1') })]],
  ['compressed', [compress()]],
]

describe.each(transports)('over %s', (_name, transport) => {
  it.each(stages)('HTTP/1.1, %s', async (_what, use) => {
    await using upstream = await silentUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use }, { transport })
    await using client = await rawConnect(proxy.port)
    await client.write(head('GET', '/', 'Accept-Encoding: gzip'))
    expect((await client.readHead()).line).toContain('200')
    expect(client.unread).toHaveLength(0)
    const res = await upstream.answering
    res.end('data: 1\n\n')
    await client.sees('0\r\n\r\n')
    expect((await proxy.outcome()).reason).toBe('completed')
  })

  it('HTTP/2', async () => {
    await using upstream = await silentUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    const session = connect(`http://127.0.0.1:${proxy.port}`)
    const stream = session.request({ ':path': '/' })
    const status = await new Promise((resolve) => stream.once('response', (fields) => resolve(fields[':status'])))
    expect(status).toBe(200)
    ;(await upstream.answering).end('data: 1\n\n')
    let body = ''
    for await (const chunk of stream.setEncoding('utf8')) body += chunk
    expect(body).toBe('data: 1\n\n')
    session.destroy()
  })
})
