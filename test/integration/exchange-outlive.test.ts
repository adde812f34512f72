/** An exchange that others still want outlives its client: `exchange.outlive`, `response.readAhead`. And requests of the proxy's own: `exchange.fork`. */
import type { Server, ServerResponse } from 'node:http'
import type { Outcome, ProxyResponse, Stage } from '@weir/core'
import { rawConnect, rawRequest, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { head } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'
import { incoming } from './sockets.ts'

/** Collects a response's body by a tap; wants it for as long as `wanted` says. */
function collector(wanted: () => boolean, ahead = 0) {
  const seen = { chunks: [] as Uint8Array[], bytes: 0, ended: undefined as boolean | undefined, asked: false }
  const stage: Stage = {
    name: 'collector',
    handle: (exchange) => {
      exchange.outlive(() => {
        seen.asked = true
        return wanted()
      })
      return {
        onResponse: (response: ProxyResponse) => {
          response.readAhead(ahead)
          response.tap({
            onChunk: (chunk) => {
              seen.chunks.push(chunk)
              seen.bytes += chunk.length
            },
            onEnd: (complete) => {
              seen.ended = complete
            },
          })
        },
      }
    },
  }
  return { seen, stage }
}

describe.each(transports)('over %s', (_name, transport) => {
  it('goes on without a client that leaves before the head', async () => {
    let answer: ServerResponse | undefined
    await using upstream = await testUpstream({
      '/': (_req, res) => {
        answer = res
      },
    })
    const { seen, stage } = collector(() => true)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await upstream.until((it) => it.requests.length === 1)
    client.reset()
    await until('the client has left', () => seen.asked)
    answer?.end('whole')
    const outcome = await proxy.outcome()
    expect({ status: outcome.status, reason: outcome.reason, tries: outcome.attempts.length }).toEqual({
      status: 499,
      reason: 'ERR_CLIENT_ABORTED',
      tries: 1,
    })
    expect(outcome.attempts[0]?.error).toBeUndefined()
    expect(seen).toMatchObject({ ended: true })
    expect(Buffer.concat(seen.chunks).toString()).toBe('whole')
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('goes on without a client that asked for another protocol, on a server that hands such sockets over', async () => {
    let answer: ServerResponse | undefined
    await using upstream = await testUpstream({
      '/': (_req, res) => {
        answer = res
      },
    })
    const { seen, stage } = collector(() => true)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport, mount: 'listener' })
    ;(proxy.server as Server).on('upgrade', proxy.proxy.upgrade)
    const sockets = incoming(proxy)
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/', 'Connection: Upgrade', 'Upgrade: h2c'))
    await upstream.until((it) => it.requests.length === 1)
    client.end()
    await until('the client has left', () => seen.asked)
    await until('its socket is given back', () => sockets[0]?.closed)
    answer?.end('whole')
    expect(await proxy.outcome()).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
    expect(Buffer.concat(seen.chunks).toString()).toBe('whole')
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('goes on without a client that leaves in the middle, and without one that had stopped reading', async () => {
    const piece = Buffer.alloc(1 << 16, 'x')
    let answer: ServerResponse | undefined
    await using upstream = await testUpstream({
      '/': (_req, res) => {
        answer = res
        res.write('first')
      },
    })
    const { seen, stage } = collector(() => true)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await client.sees('first')
    client.pause()
    // Far more than the buffers between hold: the upstream is paused on behalf of the client when that leaves.
    for (let i = 0; i < 400; i++) answer?.write(piece)
    answer?.end()
    await until('the upstream is paused', () => seen.bytes > piece.length)
    expect(seen.ended).toBeUndefined()
    client.reset()
    await until('all of it', () => seen.ended, 10_000)
    expect(seen.bytes).toBe(5 + 400 * piece.length)
    expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
  })

  it('ends with its client when nobody wants it', async () => {
    await using upstream = await testUpstream({ '/': (_req, res) => void res.write('first') })
    const { seen, stage } = collector(() => false)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await client.sees('first')
    client.reset()
    await proxy.outcome()
    expect(seen.ended).toBe(false)
    await upstream.until((it) => it.active === 0)
  })

  it('looks broken to those who wait when the upstream breaks off after the client has left', async () => {
    let answer: ServerResponse | undefined
    await using upstream = await testUpstream({
      '/': (_req, res) => {
        answer = res
        res.write('first')
      },
    })
    const { seen, stage } = collector(() => true)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await client.sees('first')
    client.reset()
    await until('the client has left', () => seen.asked)
    answer?.destroy()
    await proxy.outcome()
    expect(seen.ended).toBe(false)
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('is ended by close', async () => {
    await using upstream = await testUpstream({ '/': (_req, res) => void res.write('first') })
    const { seen, stage } = collector(() => true)
    const proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await client.sees('first')
    client.reset()
    await until('the client has left', () => seen.asked)
    await proxy.proxy.close({ deadline: 50 })
    expect(seen.ended).toBe(false)
    await proxy[Symbol.asyncDispose]()
  })

  it('reads ahead of a client that does not read', async () => {
    const piece = Buffer.alloc(1 << 16, 'x')
    const total = 200 * piece.length
    await using upstream = await testUpstream({
      '/': (_req, res) => {
        for (let i = 0; i < 200; i++) res.write(piece)
        res.end()
      },
    })
    const { seen, stage } = collector(() => false, 2 * total)
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await client.sees('200 OK')
    client.pause()
    await until('all of it', () => seen.ended, 10_000)
    expect(seen.bytes).toBe(total)
    client.resume()
    expect((await client.readResponse({ deadline: 10_000 })).body.length).toBe(total)
  })

  it('forks: past the stages behind, to an upstream, with its own fields and method, and no client', async () => {
    await using upstream = await testUpstream({ '/a': 'for the client', '/b': 'for the fork' })
    const passed: string[] = []
    const forked = Promise.withResolvers<Outcome>()
    let body = ''
    const stage: Stage = {
      name: 'forker',
      handle: (exchange) => {
        passed.push(`forker ${exchange.url}`)
        exchange.fork(
          stage,
          { method: 'GET', url: '/b', edit: (headers) => void headers.set('X-Fork', '1') },
          {
            onResponse: (response, fork) => {
              expect(fork.parent).toBe(exchange)
              response.tap({
                onChunk: (chunk) => {
                  body += Buffer.from(chunk).toString()
                },
              })
            },
            onFinish: (outcome) => forked.resolve(outcome),
          },
        )
      },
    }
    const inner: Stage = {
      name: 'inner',
      handle: (exchange) => {
        passed.push(`inner ${exchange.url} ${exchange.parent !== undefined}`)
      },
    }
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage, inner] }, { transport })
    const response = await rawRequest(proxy.port, `${head('POST', '/a', 'X-Own: 2', 'Content-Length: 3', 'Connection: close')}abc`)
    expect(response.body.toString()).toBe('for the client')
    expect(await forked.promise).toMatchObject({ status: 200, reason: 'completed' })
    expect(body).toBe('for the fork')
    expect(passed).toEqual(['forker /a', 'inner /b true', 'inner /a false'])
    const seen = upstream.requests.find(({ path }) => path === '/b')?.req
    expect(seen?.method).toBe('GET')
    expect(seen?.headers).toMatchObject({ 'x-fork': '1', 'x-own': '2' })
    expect(seen?.headers['content-length']).toBeUndefined()
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('tells of a fork that fails, and leaves its parent alone', async () => {
    await using upstream = await testUpstream({ '/a': 'for the client', '/b': (_req, res) => void res.destroy() })
    const forked = Promise.withResolvers<Outcome>()
    const stage: Stage = {
      name: 'forker',
      handle: (exchange) => void exchange.fork(stage, { url: '/b' }, { onFinish: (outcome) => forked.resolve(outcome) }),
    }
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: false, use: [stage] }, { transport })
    const response = await rawRequest(proxy.port, head('GET', '/a', 'Connection: close'))
    expect(response.body.toString()).toBe('for the client')
    expect(await forked.promise).toMatchObject({ status: 502, reason: 'ERR_UPSTREAM_RESET' })
  })

  it('reads a body whole, and forwards it', async () => {
    await using upstream = await testUpstream({
      '/': (req, res) => {
        const chunks: Buffer[] = []
        req.on('data', (chunk: Buffer) => chunks.push(chunk))
        req.on('end', () => res.end(Buffer.concat(chunks)))
      },
    })
    const seen: (string | undefined)[] = []
    const stage: Stage = {
      name: 'reader',
      handle: async (exchange) => {
        const bytes = await exchange.readBody(5)
        seen.push(bytes === undefined ? undefined : Buffer.from(bytes).toString())
      },
    }
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const send = async (body: string, ...fields: string[]) =>
      (await rawRequest(proxy.port, head('POST', '/', 'Connection: close', ...fields) + body)).body.toString()
    expect(await send('abcde', 'Content-Length: 5')).toBe('abcde')
    expect(await send('abcdef', 'Content-Length: 6')).toBe('abcdef')
    expect(await send('3\r\nabc\r\n0\r\n\r\n', 'Transfer-Encoding: chunked')).toBe('abc')
    expect(await send('')).toBe('')
    expect(seen).toEqual(['abcde', undefined, undefined, ''])
  })
})

it('goes on without an HTTP/2 client, and reads its body whole', async () => {
  let answer: ServerResponse | undefined
  await using upstream = await testUpstream({
    '/': (_req, res) => {
      answer = res
      res.write('first')
    },
    'POST /': (req, res) => void req.pipe(res),
  })
  const { seen, stage } = collector(() => true)
  const reader: Stage = { name: 'reader', handle: async (exchange) => void (await exchange.readBody(100)) }
  await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage, reader] }, { http2: true })
  await using client = await h2Client(proxy.port)
  const { stream } = client.open({ ':path': '/' })
  stream.end()
  await new Promise((resolve) => stream.once('data', resolve))
  stream.close(8)
  await until('the stream has gone', () => stream.closed)
  answer?.end(' last')
  await until('all of it', () => seen.ended)
  expect(Buffer.concat(seen.chunks).toString()).toBe('first last')
  expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
  const posted = await client.request({ ':method': 'POST', ':path': '/', 'content-length': '4' }, 'abcd')
  expect(posted.body.toString()).toBe('abcd')
})
