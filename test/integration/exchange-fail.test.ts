/** `exchange.fail`: from wherever a stage calls it, the exchange ends once, with its answer, and nothing that was under way sets it going again. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type Exchange, type Hooks, ProxyError, type StageLike } from '@weir/core'
import { rawConnect, testUpstream, wsConnect, wsUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { head } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'

const failure = (): ProxyError => new ProxyError('ERR_OVERLOADED')

/** Answers late, and counts what it is asked and what has not ended. */
async function slowUpstream(delay: number) {
  const seen = { requests: 0, open: 0 }
  const server = createServer((req, res) => {
    seen.requests++
    seen.open++
    req.resume()
    res.on('close', () => seen.open--)
    setTimeout(() => res.end('late'), delay)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => void server.close(resolve))
    },
  }
}

describe.each(transports)('over %s', (_name, transport) => {
  const cases: readonly (readonly [where: string, requests: number, stage: () => StageLike])[] = [
    ['in handle', 0, () => (exchange) => exchange.fail(failure())],
    [
      'in handle, with hooks',
      0,
      () => (exchange) => {
        exchange.fail(failure())
        return {}
      },
    ],
    [
      'while a stage awaits and an error hook takes its time',
      0,
      () => async (exchange) => {
        setTimeout(() => exchange.fail(failure()), 20)
        await pause(60)
      },
    ],
    [
      'in onAttempt',
      0,
      () => (exchange) => ({
        onAttempt: () => exchange.fail(failure()),
      }),
    ],
    [
      'while the upstream works',
      1,
      () => (exchange) => {
        setTimeout(() => exchange.fail(failure()), 50)
      },
    ],
    ['in onResponse', 1, () => (exchange) => ({ onResponse: () => exchange.fail(failure()) })],
    [
      'in onError, again and again',
      1,
      () =>
        (exchange): Hooks => {
          setTimeout(() => exchange.fail(failure()), 50)
          return { onError: () => exchange.fail(failure()) }
        },
    ],
    [
      'twice',
      1,
      () => (exchange) => {
        for (const ms of [40, 50]) setTimeout(() => exchange.fail(failure()), ms)
      },
    ],
  ]
  it.each(cases)('%s: one answer, one end, and nothing goes on at the upstream', async (_where, requests, stage) => {
    await using upstream = await slowUpstream(200)
    let errors = 0
    const outer: StageLike = () => ({
      onError: async () => {
        errors++
        await pause(100)
        return { status: 418 }
      },
    })
    let further = 0
    const inner: StageLike = () => {
      further++
      return undefined
    }
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [outer, stage(), inner] }, { transport })
    await using client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    expect((await client.readResponse()).status).toBe(418)
    const outcome = await proxy.outcome()
    expect([outcome.status, outcome.reason]).toEqual([418, 'ERR_OVERLOADED'])
    await until('the upstream is left alone', () => upstream.seen.open === 0)
    await pause(50)
    expect(upstream.seen).toEqual({ requests, open: 0 })
    expect(errors).toBe(1)
    expect(further).toBe(requests === 0 && _where !== 'in onAttempt' ? 0 : 1)
    expect(proxy.proxy.stats().inflight).toBe(0)
    expect(proxy.outcomes).toHaveLength(1)
  })

  it('in a queue: the place goes to the next one', async () => {
    await using upstream = await slowUpstream(200)
    const seen: Exchange[] = []
    await using proxy = await startProxy(
      {
        upstreams: [{ url: upstream.url, maxConcurrent: 1 }],
        queue: { limit: 10, timeout: 5000 },
        use: [
          (exchange) => {
            seen.push(exchange)
            return { onError: () => pause(1000).then(() => ({ status: 418 })) }
          },
        ],
      },
      { transport },
    )
    const clients = []
    for (let i = 0; i < 3; i++) {
      const client = await rawConnect(proxy.port)
      clients.push(client)
      await client.write(head('GET', `/${i}`))
      await until('the request', () => seen.length === i + 1)
    }
    seen[1]?.fail(failure())
    expect((await (clients[0] as (typeof clients)[0]).readResponse()).status).toBe(200)
    expect((await (clients[2] as (typeof clients)[0]).readResponse()).status).toBe(200)
    expect((await (clients[1] as (typeof clients)[0]).readResponse()).status).toBe(418)
    expect(upstream.seen.requests).toBe(2)
    for (const client of clients) client.destroy()
  })

  it('on an open tunnel: it ends, and says why', async () => {
    await using upstream = await wsUpstream()
    let exchange: Exchange | undefined
    await using proxy = await startProxy(
      {
        upstreams: [upstream.url],
        use: [
          (given) => {
            exchange = given
          },
        ],
      },
      { transport },
    )
    await using _client = await wsConnect(proxy.port)
    await until('a tunnel', () => proxy.proxy.stats().tunnels === 1)
    exchange?.fail(failure())
    expect((await proxy.outcome()).reason).toBe('ERR_OVERLOADED')
    expect(proxy.proxy.stats()).toMatchObject({ inflight: 0, tunnels: 0 })
  })
})

it('of an exchange that has ended does nothing', async () => {
  await using upstream = await testUpstream()
  let exchange: Exchange | undefined
  await using proxy = await startProxy({
    upstreams: [upstream.url],
    use: [
      (given) => {
        exchange = given
      },
    ],
  })
  await using client = await rawConnect(proxy.port)
  await client.write(head('GET', '/'))
  expect((await client.readResponse()).status).toBe(200)
  expect((await proxy.outcome()).reason).toBe('completed')
  exchange?.fail(failure())
  await client.write(head('GET', '/'))
  expect((await client.readResponse()).status).toBe(200)
})
