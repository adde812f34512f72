/**
 * E18. "Too large" is said while the sender is still sending. The answer must get through, and afterwards nobody may be out of step: what is
 * left of the upload belongs to no other request, neither on the client's connection nor on the upstream's. Upstreams differ in what they do
 * after such an answer, so each of their ways has its case.
 */
import type { ProxyOptions, Stage } from '@weir/core'
import {
  type RawConnection,
  type RawResponse,
  type RawUpstream,
  rawConnect,
  rawRequest,
  rawUpstream,
  type UpstreamConnection,
} from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type H2Client, type H2Response, h2Client } from './h2.ts'
import { okUpstream, outcomeLog, type RunningProxy, startProxy, transports, until } from './setup.ts'

const size = 50_000_000
const piece = Buffer.alloc(100_000, 'GET /smuggled HTTP/1.1\r\nHost: public.test\r\n\r\n')
const tooLarge = 'HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nX-Rejected: 1\r\n\r\nlarge'
const tooLargeClose = tooLarge.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')

type After = (connection: UpstreamConnection) => void

const resets: After = (connection) => connection.destroy()

/** What an upstream does when it has rejected: each is met in the field. */
const manners: readonly (readonly [manner: string, answer: string, after: After])[] = [
  ['reads the rest and keeps the connection', tooLarge, () => {}],
  ['stops reading and keeps the connection', tooLarge, (connection) => connection.pause()],
  ['closes, and reads the rest', tooLargeClose, (connection) => connection.end()],
  [
    'closes, and stops reading',
    tooLargeClose,
    (connection) => {
      connection.end()
      connection.pause()
    },
  ],
  // The kernel answers what is unread with a reset, right behind the answer: an ordinary node:http server that does not read the body.
  ['closes at once, with bytes unread', tooLargeClose, resets],
]

/** Reads an upload to its end, if it gets there; behind it stands the next request or nothing. */
async function restOfUpload(connection: UpstreamConnection): Promise<void> {
  const chunked = connection.received.includes('ransfer-encoding: chunked')
  // The terminator is near the end when it comes; what the client sends holds none.
  const tail = (): Buffer => connection.unread.subarray(-2000)
  await until(
    'the end of the upload',
    () => connection.ending !== 'open' || (chunked ? tail().includes('\r\n0\r\n\r\n') : connection.unread.length >= size - 1000),
    20_000,
  )
  if (connection.ending !== 'open') return
  const { unread } = connection
  const end = chunked ? unread.length - tail().length + tail().indexOf('\r\n0\r\n\r\n') + 7 : size - 1000
  await connection.readBytes(end)
}

/** Rejects `/upload` when its head and a little more are there; answers everything else with 200. Strict about what follows. */
function rejecting(answer: string, after: After): Promise<RawUpstream> {
  return rawUpstream(
    async (connection) => {
      for (;;) {
        const head = await connection.readHead(2_000_000)
        if (head.line.startsWith('POST /upload ')) {
          await connection.readBytes(1000)
          if (after === resets) connection.pause()
          await connection.send(answer)
          after(connection)
          await restOfUpload(connection)
          if (connection.ending !== 'open') return
          continue
        }
        if (head.line !== 'GET /next HTTP/1.1') throw new Error(`desynchronised: ${head.line}`)
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      }
    },
    { deadline: 10_000 },
  )
}

const framings = ['Content-Length', 'chunked'] as const

/** Uploads as long as the connection takes it; true when all of it went out. */
async function upload(client: RawConnection, framing: (typeof framings)[number]): Promise<boolean> {
  const head = 'POST /upload HTTP/1.1\r\nHost: public.test\r\n'
  const chunk = framing === 'chunked' ? Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]) : piece
  if (!(await client.write(`${head}${framing === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${size}`}\r\n\r\n`)))
    return false
  for (let sent = 0; sent < size; sent += piece.length) if (!(await client.write(chunk))) return false
  return framing === 'chunked' ? client.write('0\r\n\r\n') : true
}

/** Uploads as long as the stream takes it: to its end, or until the server says by RST_STREAM that it has heard enough. */
function uploadHttp2(client: H2Client): Promise<H2Response> {
  const { stream, answer } = client.open({ ':method': 'POST', ':path': '/upload', 'content-length': String(size) })
  const send = (sent: number): void => {
    if (sent >= size) stream.end()
    else if (!stream.destroyed) stream.write(piece, () => send(sent + piece.length))
  }
  send(0)
  // Node's client leaves a stopped stream half open for as long as a write of its own is pending.
  const ended = new Promise((resolve) => stream.once('end', resolve))
  stream.once('aborted', () => void ended.then(() => stream.destroy()))
  return answer
}

/** The client's connection is in step, or closed; a fresh one works. */
async function expectInStep(running: RunningProxy, client: RawConnection, response: RawResponse, uploaded: boolean): Promise<void> {
  if (uploaded && response.header('connection') !== 'close') {
    if (await client.write('GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')) {
      const next = await client.readResponse().catch(() => undefined)
      if (next === undefined) expect(client.ending).not.toBe('open')
      else expect([next.status, next.text()]).toEqual([200, 'ok'])
    }
  } else await until('the connection to be closed', () => client.ending !== 'open', 8000)
  expect(client.unread.length).toBe(0)
  const fresh = await rawRequest(running.port, 'GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
  expect([fresh.status, fresh.text()]).toEqual([200, 'ok'])
}

describe.each(transports)('E18 over %s: An upload that the upstream rejects early', (_, transport) => {
  describe.each(manners)('and then %s', (_manner, answer, after) => {
    it.each(framings)('delivers the answer and leaves nobody out of step: %s', async (framing) => {
      await using upstream = await rejecting(answer, after)
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
      await using client = await rawConnect(running.port, { deadline: 10_000 })
      const sending = upload(client, framing)
      const response = await client.readResponse()
      expect([response.status, response.text(), response.header('x-rejected')]).toEqual([413, 'large', '1'])
      await expectInStep(running, client, response, await sending)
      const [outcome] = log.outcomes
      expect([outcome?.status, outcome?.reason]).toEqual([413, 'completed'])
      expect(outcome?.attempts.map(({ status, error }) => [status, error])).toEqual([[413, undefined]])
    })

    it('delivers it to a client that reads only when it has sent everything', async () => {
      await using upstream = await rejecting(answer, after)
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(running.port, { deadline: 10_000 })
      client.pause()
      const uploaded = await upload(client, 'Content-Length')
      expect(uploaded).toBe(true)
      client.resume()
      const response = await client.readResponse()
      expect([response.status, response.text()]).toEqual([413, 'large'])
      await expectInStep(running, client, response, uploaded)
    })

    it('delivers it over HTTP/2, and the session goes on', async () => {
      await using upstream = await rejecting(answer, after)
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport, http2: true })
      await using client = await h2Client(running.port)
      const response = await uploadHttp2(client)
      expect([response.status, response.body.toString()]).toEqual([413, 'large'])
      // RFC 9113 §8.1: a complete response, and then RST_STREAM with NO_ERROR to stop the rest.
      expect(response.reset).toBe(0)
      const outcome = await log.outcome(1)
      expect([outcome.status, outcome.reason]).toEqual([413, 'completed'])
      const next = await client.request({ ':path': '/next' })
      expect([next.status, next.body.toString(), next.reset]).toEqual([200, 'ok', 0])
      await until('the exchanges to end', () => running.proxy.stats().inflight === 0)
    })
  })

  it('with a long answer delivers all of it', async () => {
    const body = Buffer.alloc(3_000_000, 'why ')
    await using upstream = await rejecting(
      `HTTP/1.1 413 Content Too Large\r\nContent-Length: ${body.length}\r\n\r\n${body.toString()}`,
      () => {},
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port, { deadline: 10_000 })
    const sending = upload(client, 'chunked')
    const response = await client.readResponse()
    expect([response.status, response.complete, response.body.equals(body)]).toEqual([413, true, true])
    await expectInStep(running, client, response, await sending)
  })

  it('before its first byte: the head was enough', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      for (;;) {
        const head = await connection.readHead(10_000)
        if (head.line === 'GET /next HTTP/1.1') await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
        else await connection.send(tooLarge)
      }
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write('POST /upload HTTP/1.1\r\nHost: public.test\r\nContent-Length: 1000\r\n\r\n')
    const response = await client.readResponse()
    expect([response.status, response.text()]).toEqual([413, 'large'])
    // The client may send the body all the same; it is the body.
    void client.write(piece.subarray(0, 1000))
    void client.write('GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
    if (response.header('connection') === 'close') await client.closed
    else expect((await client.readResponse()).status).toBe(200)
    const fresh = await rawRequest(running.port, 'GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(fresh.status).toBe(200)
  })

  it('does not hold another request of the same upstream up', async () => {
    await using upstream = await rejecting(tooLarge, (connection) => connection.pause())
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port, { deadline: 10_000 })
    const sending = upload(client, 'Content-Length')
    const others = Array.from({ length: 10 }, () => rawRequest(running.port, 'GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n'))
    expect((await client.readResponse()).status).toBe(413)
    for (const other of others) expect((await other).status).toBe(200)
    await sending
  })
})

describe('E18: An upload that the proxy itself rejects', () => {
  it.each(framings)('as too large delivers 413 and leaves nobody out of step: %s', async (framing) => {
    await using upstream = await okUpstream()
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], maxBodySize: '1MiB', use: [log.stage] })
    await using client = await rawConnect(running.port, { deadline: 10_000 })
    const sending = upload(client, framing)
    const response = await client.readResponse()
    expect(response.status).toBe(413)
    await expectInStep(running, client, response, await sending)
    expect([log.outcomes[0]?.status, log.outcomes[0]?.reason]).toEqual([413, 'ERR_BODY_TOO_LARGE'])
  })

  it.each(framings)('by a stage delivers its answer and leaves nobody out of step: %s', async (framing) => {
    await using upstream = await okUpstream()
    const guard: Stage = { name: 'guard', handle: ({ url }) => (url === '/upload' ? { status: 401, body: 'who?' } : undefined) }
    await using running = await startProxy({ upstreams: [upstream.url], use: [guard] })
    await using client = await rawConnect(running.port, { deadline: 10_000 })
    const sending = upload(client, framing)
    const response = await client.readResponse()
    expect([response.status, response.text()]).toEqual([401, 'who?'])
    await expectInStep(running, client, response, await sending)
    expect(upstream.requests.map(({ target }) => target).filter((target) => target !== '/next')).toEqual([])
  })

  it.each<[who: string, status: number, options: Partial<ProxyOptions>]>([
    ['a stage', 401, { use: [({ url }) => (url === '/upload' ? { status: 401, body: 'who?' } : undefined)] }],
    ['a stage that waits', 403, { use: [async ({ url }) => (url === '/upload' ? { status: 403 } : undefined)] }],
    ['the limit of the body', 413, { maxBodySize: '1MiB' }],
  ])('over HTTP/2 delivers its answer, and the session goes on: %s', async (_who, status, options) => {
    await using upstream = await okUpstream()
    const log = outcomeLog()
    await using running = await startProxy(
      { upstreams: [upstream.url], ...options, use: [log.stage, ...(options.use ?? [])] },
      { http2: true },
    )
    await using client = await h2Client(running.port)
    const response = await uploadHttp2(client)
    expect([response.status, response.reset]).toEqual([status, 0])
    expect((await log.outcome(1)).status).toBe(status)
    const next = await client.request({ ':path': '/next' })
    expect([next.status, next.body.toString(), next.reset]).toEqual([200, 'ok', 0])
    await until('the exchanges to end', () => running.proxy.stats().inflight === 0)
  })

  it('and that never ends is cut off after a while', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], use: [() => ({ status: 401 })] })
    await using client = await rawConnect(running.port, { deadline: 10_000 })
    void client.write('POST /upload HTTP/1.1\r\nHost: public.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n')
    expect((await client.readResponse()).status).toBe(401)
    await client.closed
  })
})
