/**
 * R37: how connections to an upstream are kept. The warmest first, so that what a rise in traffic has opened closes again; none longer than `keepAliveTimeout`
 * idle, than `maxRequests` requests or than `maxAge` in all; never one of another server.
 */
import { httpProxyTransport, type Transport, type UndiciTransportOptions, undiciTransport } from '@weir/core'
import { type RawUpstream, rawConnect, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { get } from './messages.ts'
import { type ObservedProxy, startProxy, until } from './observed.ts'
import { gate } from './setup.ts'

type Settings = Pick<UndiciTransportOptions, 'keepAliveTimeout' | 'maxRequests' | 'maxAge'>
const kinds: readonly (readonly [name: string, make: (settings: Settings) => Transport])[] = [
  ['undici', undiciTransport],
  ['http-proxy', httpProxyTransport],
]

/** Answers each request with the number of its connection, when `hold` lets it. */
function numbered(hold: () => Promise<void> | void = () => {}): Promise<RawUpstream> {
  let connections = 0
  return rawUpstream(async (connection) => {
    const number = String(++connections)
    for (;;) {
      await connection.readRequest()
      await hold()
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${number.length}\r\n\r\n${number}`)
    }
  })
}

/** The numbers of the connections that carried `count` requests, one after the other. */
async function carried(proxy: ObservedProxy, count: number): Promise<string[]> {
  await using client = await rawConnect(proxy.port)
  const numbers: string[] = []
  for (let i = 0; i < count; i++) {
    await client.write(get())
    numbers.push((await client.readResponse()).text())
  }
  return numbers
}

describe.each(kinds)('connections of %s', (_name, make) => {
  it('the one that was given back last is used first', async () => {
    let held = gate()
    await using upstream = await numbered(() => held.opened)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({}) })
    const three = [1, 2, 3].map(() => carried(proxy, 1))
    await until('three are under way', () => upstream.requests.length === 3)
    held.open()
    const [first] = await Promise.all(three)
    held = gate()
    held.open()
    expect(first).toHaveLength(1)
    const after = await carried(proxy, 6)
    expect(new Set(after).size).toBe(1)
    expect(upstream.connections).toHaveLength(3)
  })

  it('are closed when they have been idle for keepAliveTimeout', async () => {
    await using upstream = await numbered()
    // Undici closes a second earlier than it was told at most, so that it is not late.
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ keepAliveTimeout: 100 }) })
    expect(await carried(proxy, 1)).toEqual(['1'])
    await until('it is closed', () => upstream.open === 0)
    expect(await carried(proxy, 1)).toEqual(['2'])
  })

  it('carry maxRequests requests', async () => {
    await using upstream = await numbered()
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ maxRequests: 3 }) })
    expect(await carried(proxy, 8)).toEqual(['1', '1', '1', '2', '2', '2', '3', '3'])
    await until('the others are closed', () => upstream.open === 1)
    // Closed as promised, and not found dead.
    expect(proxy.outcomes.every(({ attempts }) => attempts.length === 1)).toBe(true)
  })

  it('are closed at maxAge when they are idle then', async () => {
    await using upstream = await numbered()
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ maxAge: 200, keepAliveTimeout: '20s' }) })
    const opened = performance.now()
    expect(await carried(proxy, 2)).toEqual(['1', '1'])
    await until('it is closed', () => upstream.open === 0)
    expect(performance.now() - opened).toBeGreaterThan(170)
    expect(await carried(proxy, 2)).toEqual(['2', '2'])
  })

  it('that are in use at maxAge are closed behind their response, which is whole', async () => {
    const held = gate()
    let hold = true
    await using upstream = await numbered(() => (hold ? held.opened : undefined))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ maxAge: 50, keepAliveTimeout: '20s' }) })
    const answer = carried(proxy, 1)
    await upstream.request(1)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(upstream.open).toBe(1)
    hold = false
    held.open()
    expect(await answer).toEqual(['1'])
    await until('it is closed', () => upstream.open === 0)
    expect(proxy.outcomes.map(({ reason }) => reason)).toEqual(['completed'])
  })

  it('have no age with maxAge 0', async () => {
    await using upstream = await numbered()
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport: () => make({ maxAge: 0, keepAliveTimeout: '20s' }) })
    expect(await carried(proxy, 1)).toEqual(['1'])
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await carried(proxy, 2)).toEqual(['1', '1'])
  })

  it('are kept apart by upstream, also where two are the same server under two names', async () => {
    const hosts: (string | undefined)[][] = []
    await using upstream = await rawUpstream(async (connection) => {
      const mine: (string | undefined)[] = []
      hosts.push(mine)
      for (;;) {
        mine.push((await connection.readRequest()).header('host'))
        await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      }
    })
    const upstreams = ['a', 'b'].map((id) => ({ id, url: upstream.url, host: `${id}.test` }))
    await using proxy = await startProxy({ upstreams, hostHeader: 'upstream' }, { transport: () => make({}) })
    await carried(proxy, 8)
    expect(hosts.toSorted(([a = ''], [b = '']) => a.localeCompare(b))).toEqual([Array(4).fill('a.test'), Array(4).fill('b.test')])
  })
})
