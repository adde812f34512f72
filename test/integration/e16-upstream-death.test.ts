/**
 * E16. A truncated answer must look truncated. Before the first byte there is still time for a 502; after it the only honest thing left is to
 * break the client's connection, in a way that no framing takes for an end: no last chunk, and a reset where the end of the connection
 * would otherwise be the end of the body.
 */
import { PassThrough } from 'node:stream'
import type { Stage } from '@weir/core'
import { certificates, type RawUpstream, rawConnect, rawRequest, rawUpstream, type UpstreamConnection } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { gate, outcomeLog, startProxy, transports, until } from './setup.ts'

const get = 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n'
const post = 'POST / HTTP/1.1\r\nHost: public.test\r\nContent-Length: 2\r\n\r\nhi'

const deaths: readonly (readonly [how: string, die: (connection: UpstreamConnection) => void])[] = [
  ['by closing', (connection) => connection.end()],
  ['by a reset', (connection) => connection.reset()],
]

/** Reads a request, says this much, and dies when told to. */
function dyingUpstream(said: string, die: (connection: UpstreamConnection) => void, when?: Promise<void>): Promise<RawUpstream> {
  return rawUpstream(async (connection) => {
    await connection.readRequest()
    if (said !== '') await connection.send(said)
    await when
    die(connection)
  })
}

describe.each(transports)('E16 over %s: An upstream that dies before its response head is complete', (_, transport) => {
  describe.each(deaths)('%s', (_how, die) => {
    it.each([
      ['without a byte', ''],
      ['within the status line', 'HTTP/1.1 20'],
      ['behind the status line', 'HTTP/1.1 200 OK\r\n'],
      ['within the fields', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A'],
      ['behind the last field', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n'],
      ['behind a 103', 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'],
    ])('yields 502, and the client keeps its connection: %s', async (_where, said) => {
      await using upstream = await dyingUpstream(said, die)
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage], retry: false, health: [] }, { transport })
      await using client = await rawConnect(running.port)
      for (const request of [get, post]) {
        void client.write(request)
        const response = await client.readResponse()
        expect([response.status, response.complete]).toEqual([502, true])
        expect(response.header('proxy-status')).toMatch(/error=(?:connection_terminated|http_protocol_error)/)
        expect(response.raw.toString('latin1')).not.toContain(String(upstream.port))
      }
      expect(client.ending).toBe('open')
      expect((await log.outcome(2)).status).toBe(502)
      expect(log.outcomes.map(({ reason }) => reason)).toEqual(['ERR_UPSTREAM_RESET', 'ERR_UPSTREAM_RESET'])
    })

    it('yields 502 over HTTP/2, and the session goes on', async () => {
      await using upstream = await dyingUpstream('', die)
      await using running = await startProxy({ upstreams: [upstream.url], retry: false, health: [] }, { transport, http2: true })
      await using client = await h2Client(running.port)
      for (let i = 0; i < 2; i++) {
        const response = await client.request()
        expect([response.status, response.reset]).toEqual([502, 0])
      }
      expect(client.session.destroyed).toBe(false)
    })

    it('yields 502 for HEAD, and to an HTTP/1.0 client', async () => {
      await using upstream = await dyingUpstream('', die)
      await using running = await startProxy({ upstreams: [upstream.url], retry: false, health: [] }, { transport })
      expect((await rawRequest(running.port, 'HEAD / HTTP/1.1\r\nHost: public.test\r\n\r\n')).status).toBe(502)
      expect((await rawRequest(running.port, 'GET / HTTP/1.0\r\n\r\n', { until: 'close' })).status).toBe(502)
    })
  })
})

/** Heads, and the part of the body that came before the death; `end` is what the framing would have made of the rest. */
const framings: readonly (readonly [framing: string, said: string])[] = [
  ['Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part'],
  ['chunked, between chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfirst part\r\n'],
  ['chunked, within a chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nfirst part'],
  ['chunked, within the last chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfirst part\r\n0\r\n'],
]

describe.each(transports)('E16 over %s: An upstream that dies within its body', (_, transport) => {
  describe.each(deaths)('%s', (_how, die) => {
    it.each(framings)("breaks the client's connection without a clean end: %s", async (framing, said) => {
      const { opened, open } = gate()
      await using upstream = await dyingUpstream(said, die, opened)
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
      await using client = await rawConnect(running.port)
      void client.write(get)
      await client.sees('first part')
      open()
      const response = await client.readResponse()
      expect([response.status, response.text(), response.complete]).toEqual([200, 'first part', false])
      expect(await client.closed).toBe('reset')
      expect(client.received.toString('latin1').endsWith('0\r\n\r\n')).toBe(false)
      expect(response.framing).toBe(framing === 'Content-Length' ? 'length' : 'chunked')
      const outcome = await log.outcome(1)
      expect([outcome.status, outcome.reason, outcome.error?.source]).toEqual([200, 'ERR_UPSTREAM_BODY', 'upstream'])
      expect(outcome.attempts.map(({ error }) => error?.code)).toEqual(['ERR_UPSTREAM_BODY'])
    })

    it.each(framings)("resets an HTTP/1.0 client's connection, whose end would be the body's: %s", async (_framing, said) => {
      const { opened, open } = gate()
      await using upstream = await dyingUpstream(said, die, opened)
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(running.port)
      void client.write('GET / HTTP/1.0\r\nHost: public.test\r\n\r\n')
      await client.sees('first part')
      open()
      expect(await client.closed).toBe('reset')
    })

    it.each(framings)("breaks a TLS client's connection without a clean end: %s", async (_framing, said) => {
      const { opened, open } = gate()
      await using upstream = await dyingUpstream(said, die, opened)
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, https: true })
      await using client = await rawConnect(running.port, { tls: { ca: certificates().ca } })
      void client.write(get)
      await client.sees('first part')
      open()
      const response = await client.readResponse()
      expect([response.status, response.text(), response.complete]).toEqual([200, 'first part', false])
      expect(client.ending).not.toBe('open')
      expect(client.received.toString('latin1').endsWith('0\r\n\r\n')).toBe(false)
    })

    it.each(framings)("resets an HTTP/2 client's stream and no other: %s", async (_framing, said) => {
      const { opened, open } = gate()
      await using upstream = await rawUpstream(async (connection) => {
        const { target } = await connection.readRequest()
        await connection.send(target === '/good' ? 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n' : said)
        await opened
        if (target === '/good') await connection.send('good')
        else die(connection)
      })
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
      await using client = await h2Client(running.port)
      const [bad, good] = [client.open({ ':path': '/bad' }), client.open({ ':path': '/good' })]
      bad.stream.end()
      good.stream.end()
      await Promise.all([bad, good].map(({ stream }) => new Promise((resolve) => stream.once('response', resolve))))
      open()
      const [broken, whole] = [await bad.answer, await good.answer]
      expect(broken.status).toBe(200)
      // RFC 9113 §8.1: an incomplete message ends with an error, never with END_STREAM.
      expect(broken.reset).not.toBe(0)
      expect([whole.status, whole.body.toString(), whole.reset]).toEqual([200, 'good', 0])
      expect(client.session.destroyed).toBe(false)
    })

    it('does so behind a body that a stage transforms or taps', async () => {
      const { opened, open } = gate()
      await using upstream = await dyingUpstream('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part', die, opened)
      const ends: boolean[] = []
      const stage: Stage = {
        name: 'through',
        handle: () => ({
          onResponse: (response) => {
            response.transform(new PassThrough())
            response.tap({ onEnd: (complete) => void ends.push(complete) })
          },
        }),
      }
      await using running = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
      await using client = await rawConnect(running.port)
      void client.write(get)
      await client.sees('first part')
      open()
      expect(await client.closed).toBe('reset')
      expect(client.received.toString('latin1')).not.toContain('\r\n0\r\n')
      expect(ends).toEqual([false])
    })

    it('with its whole head and body in one packet is no different', async () => {
      await using upstream = await dyingUpstream('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part', die)
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
      await using client = await rawConnect(running.port)
      void client.write(get)
      expect(await client.closed).toBe('reset')
      // A reset may overtake what was sent before it; what did arrive is not a whole answer.
      expect(client.received.toString('latin1')).toMatch(/^(?:HTTP\/1\.1 200 OK\r\n.*)?$/s)
      expect((await log.outcome(1)).reason).toBe('ERR_UPSTREAM_BODY')
    })

    it('while an asynchronous hook holds the response yields 502 or a reset, never a short 200', async () => {
      const [death, hook] = [gate(), gate()]
      await using upstream = await dyingUpstream('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part', die, death.opened)
      const log = outcomeLog()
      let held = false
      const stage = () => ({
        onResponse: () => {
          held = true
          return hook.opened
        },
      })
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage, stage] }, { transport })
      await using client = await rawConnect(running.port)
      void client.write(get)
      await until('the hook to hold', () => held)
      death.open()
      // Whether the death is seen now or when reading goes on is the transport's matter.
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
      hook.open()
      const outcome = await log.outcome(1)
      expect(outcome.error?.source).toBe('upstream')
      if (outcome.status === 502) expect((await client.readResponse()).status).toBe(502)
      else expect([outcome.status, await client.closed]).toEqual([200, 'reset'])
    })
  })

  it('that ends with the connection is whole when it closes', async () => {
    for (const head of ['HTTP/1.1 200 OK\r\n\r\n', 'HTTP/1.0 200 OK\r\n\r\n', 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n']) {
      await using upstream = await dyingUpstream(`${head}first part`, (connection) => connection.end())
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(running.port, get)
      expect([response.text(), response.framing, response.complete]).toEqual(['first part', 'chunked', true])
      const old = await rawRequest(running.port, 'GET / HTTP/1.0\r\n\r\n', { until: 'close' })
      expect([old.text(), old.framing, old.ending]).toEqual(['first part', 'close', 'fin'])
    }
  })

  it('that ends with the connection is broken when that is reset', async () => {
    for (const head of ['HTTP/1.1 200 OK\r\n\r\n', 'HTTP/1.0 200 OK\r\n\r\n']) {
      const { opened, open } = gate()
      await using upstream = await dyingUpstream(`${head}first part`, (connection) => connection.reset(), opened)
      const log = outcomeLog()
      await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
      await using client = await rawConnect(running.port)
      await using old = await rawConnect(running.port)
      void client.write(get)
      void old.write('GET / HTTP/1.0\r\n\r\n')
      await Promise.all([client.sees('first part'), old.sees('first part')])
      open()
      expect([await client.closed, await old.closed]).toEqual(['reset', 'reset'])
      expect(client.received.toString('latin1')).not.toContain('\r\n0\r\n')
      await log.outcome(2)
      expect(log.outcomes.map(({ reason }) => reason)).toEqual(['ERR_UPSTREAM_BODY', 'ERR_UPSTREAM_BODY'])
    }
  })

  it('that is malformed is broken likewise', async () => {
    const { opened, open } = gate()
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfirst part\r\n')
      await opened
      await connection.send('nonsense\r\n')
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(get)
    await client.sees('first part')
    open()
    expect(await client.closed).toBe('reset')
    await until('the upstream to be let go', () => upstream.open === 0)
  })

  it('while the client still uploads breaks the connection, too', async () => {
    const { opened, open } = gate()
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readHead()
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst part')
      await opened
      connection.reset()
    })
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write('POST / HTTP/1.1\r\nHost: public.test\r\nContent-Length: 1000\r\n\r\nhi')
    await client.sees('first part')
    open()
    expect(await client.closed).toBe('reset')
    expect((await log.outcome(1)).error?.source).toBe('upstream')
  })

  it('of a pipelined request leaves the answer before it whole', async () => {
    const { opened, open } = gate()
    await using upstream = await rawUpstream(async (connection) => {
      const { target } = await connection.readRequest()
      if (target === '/second') {
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf')
        connection.reset()
        return
      }
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst')
      await opened
      await connection.send(' half')
    })
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(`${get}${get.replace(' / ', ' /second ')}`)
    await client.sees('first')
    await until('the second has broken', () => running.proxy.stats().pools[0]?.upstreams[0]?.inflight === 1)
    open()
    const first = await client.readResponse()
    expect([first.status, first.text(), first.complete]).toEqual([200, 'first half', true])
    await client.closed
    await until('both have ended', () => running.proxy.stats().inflight === 0)
    expect(log.outcomes.map(({ reason }) => reason).sort()).toEqual(['ERR_UPSTREAM_BODY', 'completed'])
  })
})
