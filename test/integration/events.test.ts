/** What the proxy tells on `node:diagnostics_channel` of exchanges, tries and tunnels, and what it warns of: docs/observability.md, line by line. */
import { channel } from 'node:diagnostics_channel'
import { createServer, type Server } from 'node:http'
import type { AttemptOutcome, Exchange, Outcome, ProxyOptions } from '@weir/core'
import { createProxy } from '@weir/core'
import { rawConnect, rawRequest, rawUpstream, refusedPort } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { head, switching, upgradeHead } from './messages.ts'
import { okUpstream, startProxy, transports, until } from './setup.ts'

interface Told {
  readonly name: string
  readonly message: {
    readonly exchange: Exchange
    readonly outcome?: Outcome
    readonly attempt?: AttemptOutcome
    readonly bytesIn?: number
    readonly bytesOut?: number
    readonly durationMs?: number
    readonly reason?: string
  }
}

/** Everything that is told from now on. */
function listening(): Told[] {
  const told: Told[] = []
  for (const name of ['weir:exchange:start', 'weir:attempt:finish', 'weir:exchange:finish', 'weir:tunnel:close']) {
    const listener = (message: unknown): void => void told.push({ name: name.slice(5), message: message as Told['message'] })
    channel(name).subscribe(listener)
    onTestFinished(() => void channel(name).unsubscribe(listener))
  }
  return told
}
const names = (told: readonly Told[]): string[] => told.map(({ name }) => name)

describe.each(transports)('over %s', (_name, transport) => {
  it('a request: its start, each try, its end, of one exchange and in this order', async () => {
    await using upstream = await okUpstream()
    await using dead = await refusedPort()
    const upstreams = [dead.url, { url: upstream.url, backup: true }]
    await using running = await startProxy({ upstreams }, { transport })
    const told = listening()
    expect((await rawRequest(running.port, head('GET', '/a', 'Connection: close'))).status).toBe(200)
    await until('its end', () => told.length === 4)
    expect(names(told)).toEqual(['exchange:start', 'attempt:finish', 'attempt:finish', 'exchange:finish'])
    const [start, first, second, finish] = told.map(({ message }) => message)
    expect(new Set(told.map(({ message }) => message.exchange)).size).toBe(1)
    expect([start?.exchange.method, start?.exchange.url]).toEqual(['GET', '/a'])
    expect([first?.attempt?.number, first?.attempt?.error?.code, first?.attempt?.status]).toEqual([1, 'ERR_CONNECT_REFUSED', undefined])
    expect([second?.attempt?.number, second?.attempt?.error, second?.attempt?.status]).toEqual([2, undefined, 200])
    expect(finish?.outcome).toMatchObject({ status: 200, reason: 'completed', bytesOut: 2 })
    expect(finish?.outcome?.attempts).toEqual([first?.attempt, second?.attempt])
  })

  it('a client that leaves: the try and the exchange have ended', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.stall()
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const told = listening()
    const client = await rawConnect(running.port)
    await client.write(head('GET', '/'))
    await upstream.request(1)
    expect(names(told)).toEqual(['exchange:start'])
    client.reset()
    await until('its end', () => told.length === 3)
    expect(names(told)).toEqual(['exchange:start', 'attempt:finish', 'exchange:finish'])
    expect(told[1]?.message.attempt?.error?.code).toBe('ERR_CLIENT_ABORTED')
    expect(told[2]?.message.outcome).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
  })

  it.each<[how: string, options: Partial<ProxyOptions>, reason: string]>([
    ['its client ends it', {}, 'completed'],
    ['its upstream resets it', {}, 'ERR_TUNNEL_BROKEN'],
    ['its client resets it', {}, 'ERR_CLIENT_ABORTED'],
    ['nobody says anything', { timeouts: { tunnelIdle: 100 } }, 'ERR_TUNNEL_IDLE'],
    ['the proxy closes', {}, 'ERR_DRAINING'],
  ])('a tunnel, when %s: its bytes both ways, and why', async (how, options, reason) => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(switching())
      await connection.readThrough('ping')
      await connection.send('pong!')
      if (how.includes('upstream resets')) connection.reset()
      else if (how.includes('client ends')) {
        await connection.readToEnd()
        connection.end()
      } else await connection.stall()
    })
    await using running = await startProxy({ upstreams: [upstream.url], ...options }, { transport })
    const told = listening()
    await using client = await rawConnect(running.port)
    await client.write(upgradeHead())
    await client.readResponse()
    await client.write('ping')
    if (how.includes('upstream resets')) {
      await client.closed
      client.end()
    } else await client.readBytes(5)
    if (how.includes('client ends')) client.end()
    else if (how.includes('client resets')) client.reset()
    else if (how.includes('closes')) await running.proxy.close({ deadline: 0 })
    await until('its end', () => names(told).includes('exchange:finish'))
    expect(names(told)).toEqual(['exchange:start', 'tunnel:close', 'attempt:finish', 'exchange:finish'])
    const { message } = told[1] as Told
    expect(message).toMatchObject({ bytesIn: 4, bytesOut: 5, reason })
    expect(message.exchange.kind).toBe('upgrade')
    expect(message.durationMs).toBeGreaterThanOrEqual(0)
    expect(told[3]?.message.outcome).toMatchObject({ status: 101, reason, bytesOut: 5 })
  })
})

it('what is refused before any stage is told, too, and what goes to `next` is not', async () => {
  await using upstream = await okUpstream()
  const told = listening()
  await using running = await startProxy({ upstreams: [upstream.url] })
  expect((await rawRequest(running.port, 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n')).status).toBe(400)
  await until('its end', () => told.length === 2)
  expect(names(told)).toEqual(['exchange:start', 'exchange:finish'])
  expect(told[1]?.message.outcome?.reason).toBe('ERR_HOST')
  expect(told[1]?.message.outcome?.attempts).toEqual([])

  const proxy = createProxy({ routes: [{ match: { path: '/api' }, pool: { upstreams: [upstream.url] } }] })
  onTestFinished(() => proxy.close())
  const server = createServer((req, res) => proxy(req, res, () => void res.end('mine')))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const { port } = server.address() as { port: number }
  expect((await rawRequest(port, head('GET', '/', 'Connection: close'), { until: 'close' })).text()).toBe('mine')
  expect(told).toHaveLength(2)
})

describe('settings of an attached server that harm', () => {
  function warnings(): string[] {
    const warned: string[] = []
    const listener = (warning: Error & { code?: string }): void => {
      if (warning.code === 'WEIR_SERVER_TIMEOUTS') warned.push(warning.message)
    }
    process.on('warning', listener)
    onTestFinished(() => void process.off('warning', listener))
    return warned
  }
  async function attached(settings: Partial<Server>): Promise<string[]> {
    const warned = warnings()
    const proxy = createProxy({ upstreams: ['http://127.0.0.1:1'] })
    proxy.attach(Object.assign(createServer(), settings))
    await proxy.close()
    await new Promise((resolve) => setImmediate(resolve))
    return warned
  }

  it.each<[settings: Partial<Server>, named: string]>([
    [{ timeout: 5000 }, 'server.timeout is 5000 ms'],
    [{ headersTimeout: 0 }, 'server.headersTimeout is 0'],
    [{ keepAliveTimeout: 0 }, 'server.keepAliveTimeout is 0'],
  ])('%o: a warning that names it and says what to do', async (settings, named) => {
    const warned = await attached(settings)
    expect(warned).toHaveLength(1)
    expect(warned[0]).toContain(named)
    expect(warned[0]).toMatch(/Set it|Leave it/)
  })

  it('those of node are none', async () => {
    expect(await attached({})).toEqual([])
  })
})
