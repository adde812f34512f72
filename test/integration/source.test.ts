/**
 * Upstreams that come from a source, seen by clients: who waits for the first list and for how long, and that nothing a source does (a wrong
 * list, a crash, another address for the same name) hurts what runs.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createPool, OptionsError, type UpstreamInput, type UpstreamSource } from '@weir/core'
import { rawConnect, rawRequest, type TestUpstream, testUpstream, wsConnect, wsUpstream } from '@weir/testing'
import { afterEach, describe, expect, it } from 'vitest'
import { load } from './load.ts'
import { manualClock } from './manual-clock.ts'
import { get } from './messages.ts'
import { gate, signal, startProxy, transports, until } from './observed.ts'

interface Feed extends UpstreamSource {
  push(list: readonly UpstreamInput[]): void
  /** The next read fails. */
  fail(error: unknown): void
  readonly opened: number
  readonly returned: number
}

/** A source that gives what is pushed, in order. */
function feed(): Feed {
  const items: (readonly UpstreamInput[] | { readonly error: unknown })[] = []
  const changed = signal()
  let opened = 0
  let returned = 0
  let ended = false
  return {
    [Symbol.asyncIterator]: () => {
      opened++
      return {
        async next() {
          const item = await changed.until(() => (ended ? 'ended' : items.shift()), 'a list', 60_000)
          if (item === 'ended') return { done: true, value: undefined }
          if ('error' in item) throw item.error
          return { done: false, value: item as readonly UpstreamInput[] }
        },
        async return() {
          returned++
          ended = true
          changed.fire()
          return { done: true, value: undefined }
        },
      }
    },
    push: (list) => {
      items.push(list)
      changed.fire()
    },
    fail: (error) => {
      items.push({ error })
      changed.fire()
    },
    get opened() {
      return opened
    },
    get returned() {
      return returned
    },
  }
}

interface Told {
  readonly pool: string
  readonly added: readonly string[]
  readonly removed: readonly string[]
  readonly changed: readonly string[]
  readonly error: unknown
}

let stop = (): void => {}
afterEach(() => stop())

function listen(): Told[] {
  const told: Told[] = []
  const listener = (message: unknown): void => void told.push(message as Told)
  subscribe('weir:pool:source', listener)
  stop = () => void unsubscribe('weir:pool:source', listener)
  return told
}

const named = (name: string): Promise<TestUpstream> => testUpstream({ '*': 'fine' }, { name })
async function ask(port: number, times = 1): Promise<(string | undefined)[]> {
  const names: (string | undefined)[] = []
  for (let i = 0; i < times; i++) names.push((await rawRequest(port, get())).header('x-upstream'))
  return names
}

describe.each(transports)('a source over %s', (_name, transport) => {
  it('may be an async generator: the first requests wait for its first list, and are all served', async () => {
    await using a = await named('a')
    const { opened, open } = gate()
    let ended = false
    const { opened: over, open: finish } = gate()
    async function* source(): AsyncGenerator<UpstreamInput[]> {
      try {
        await opened
        yield [a.url]
        await over
      } finally {
        ended = true
      }
    }
    await using proxy = await startProxy({ upstreams: source() }, { transport })
    const first = Array.from({ length: 3 }, () => rawRequest(proxy.port, get()))
    await until('all wait', () => proxy.proxy.stats().inflight === 3)
    expect(a.accepted).toBe(0)
    open()
    expect((await Promise.all(first)).map((response) => response.header('x-upstream'))).toEqual(['a', 'a', 'a'])
    await proxy.proxy.close()
    finish()
    await until('the generator has ended', () => ended)
  })

  it('its lists add, change and remove servers under traffic, and no request fails', async () => {
    const body = 'x'.repeat(300)
    const upstreams = await Promise.all(['a', 'b', 'c'].map((name) => testUpstream({ '/': body }, { name })))
    const [a, b, c] = upstreams as [TestUpstream, TestUpstream, TestUpstream]
    const told = listen()
    const source = feed()
    source.push([a.url, b.url])
    await using proxy = await startProxy({ upstreams: source }, { transport })
    const traffic = load(proxy.port, body.length, 16)
    const more = async (): Promise<void> => {
      const start = traffic.answered
      await until('traffic', () => traffic.answered >= start + 200, 10_000)
    }
    await more()
    for (let round = 0; round < 3; round++) {
      source.push([{ url: b.url, weight: 3 }, c.url])
      await until('it is applied', () => told.at(-1)?.added.includes(c.url))
      const before = a.count()
      await a.until((upstream) => upstream.sockets === 0)
      await more()
      expect(a.count() - before).toBeLessThanOrEqual(16)
      source.push([a.url, b.url])
      await until('it is applied', () => told.at(-1)?.added.includes(a.url))
      await more()
    }
    await traffic.stop()
    expect(traffic.failures).toEqual([])
    expect(told[1]).toEqual({ pool: 'default', added: [c.url], removed: [a.url], changed: [b.url], error: undefined })
    expect(proxy.proxy.stats().pools[0]?.upstreams.map(({ inflight }) => inflight)).toEqual([0, 0])
    for (const upstream of upstreams) await upstream.close()
  })

  it('the same id at another address is another server, and what runs on the old one ends there', async () => {
    const { opened, open } = gate()
    await using old = await testUpstream(
      {
        '*': async (_req, res) => {
          res.writeHead(200, { 'Content-Length': '10' })
          res.write('begun')
          await opened
          res.end('ended')
        },
      },
      { name: 'old' },
    )
    await using sockets = await wsUpstream()
    await using next = await named('next')
    const told = listen()
    const source = feed()
    source.push([{ id: 'app', url: `http://127.0.0.1:${sockets.port}` }])
    await using proxy = await startProxy({ upstreams: source }, { transport })
    await using peer = await wsConnect(proxy.port)
    source.push([{ id: 'app', url: old.url }])
    await until('the second server is in place', () => told.length === 2)
    const client = await rawConnect(proxy.port)
    void client.write(get())
    await client.sees('begun')
    source.push([{ id: 'app', url: next.url }])
    await until('the third server is in place', () => told.length === 3)
    expect(told[2]).toEqual({ pool: 'default', added: ['app'], removed: ['app'], changed: [], error: undefined })
    expect(await ask(proxy.port, 2)).toEqual(['next', 'next'])
    expect(proxy.proxy.stats().pools[0]?.upstreams).toMatchObject([{ id: 'app', inflight: 0 }])
    open()
    const response = await client.readResponse()
    expect([response.text(), response.complete]).toEqual(['begunended', true])
    await peer.send('still there?')
    expect((await peer.next()).text).toBe('still there?')
    client.destroy()
    // Its connections are not kept for anybody.
    await old.until((upstream) => upstream.sockets === 0)
  })
})

it('a wrong list is published and not used; the last good one serves on', async () => {
  await using a = await named('a')
  const told = listen()
  const source = feed()
  source.push([a.url])
  await using proxy = await startProxy({ upstreams: source })
  expect(await ask(proxy.port)).toEqual(['a'])
  source.push([a.url, 'ftp://b.test'])
  await until('it is told', () => told.length === 2)
  expect(told[1]).toMatchObject({ pool: 'default', added: [], removed: [], changed: [] })
  expect(told[1]?.error).toSatisfy(OptionsError.is)
  expect(told[1]?.error).toMatchObject({ problems: [{ path: 'upstreams[1]' }] })
  expect(await ask(proxy.port, 2)).toEqual(['a', 'a'])
  source.push([])
  await until('the next is taken', () => told.length === 3)
  expect((await rawRequest(proxy.port, get())).status).toBe(503)
})

it('one that throws is opened again after pauses that grow, and the last good list serves meanwhile', async () => {
  await using a = await named('a')
  await using b = await named('b')
  const told = listen()
  const clock = manualClock()
  const source = feed()
  source.push([a.url])
  await using proxy = await startProxy({ upstreams: source, clock })
  expect(await ask(proxy.port)).toEqual(['a'])
  const error = new Error('registry gone')
  for (const [round, pause] of [1000, 2000, 4000].entries()) {
    source.fail(error)
    await until('it is told', () => told.length === round + 2)
    expect(told.at(-1)?.error).toBe(error)
    expect(await ask(proxy.port)).toEqual(['a'])
    expect(clock.pending).toEqual([pause])
    clock.advance(pause - 1)
    expect(source.opened).toBe(round + 1)
    clock.advance(1)
    expect(source.opened).toBe(round + 2)
  }
  source.push([b.url])
  await until('it is taken', () => told.at(-1)?.added.includes(b.url))
  expect(await ask(proxy.port)).toEqual(['b'])
})

describe('the first request', () => {
  it('waits for the first list no longer than 10 s', async () => {
    await using a = await named('a')
    const clock = manualClock()
    const source = feed()
    await using proxy = await startProxy({ upstreams: source, clock })
    const first = rawRequest(proxy.port, get())
    await until('it waits', () => source.opened === 1)
    clock.advance(9999)
    expect(proxy.proxy.stats().inflight).toBe(1)
    clock.advance(1)
    expect((await first).status).toBe(503)
    source.push([a.url])
    await until('the list is there', () => proxy.proxy.pool?.upstreams.length === 1)
    expect(await ask(proxy.port)).toEqual(['a'])
    expect(clock.pending).toEqual([])
  })

  it('is answered 503 at once when the source fails first', async () => {
    const clock = manualClock()
    const source = feed()
    source.fail(new Error('no registry'))
    await using proxy = await startProxy({ upstreams: source, clock })
    const response = await rawRequest(proxy.port, get())
    expect([response.status, response.header('proxy-status')]).toEqual([
      503,
      'weir; error=destination_unavailable; details="ERR_NO_UPSTREAM"',
    ])
  })

  it('of a pool that routes share opens the source, once', async () => {
    await using a = await named('a')
    const source = feed()
    source.push([a.url])
    const pool = createPool({ upstreams: source })
    await using one = await startProxy({ pool })
    await using two = await startProxy({ routes: [{ match: { path: '/' }, pool }, { pool }] })
    expect(source.opened).toBe(0)
    expect(await Promise.all([ask(one.port), ask(two.port), ask(two.port)])).toEqual([['a'], ['a'], ['a']])
    expect(source.opened).toBe(1)
    await one.proxy.close()
    expect(source.returned).toBe(0)
    source.push([])
    await until('the list is read', () => pool.upstreams.length === 0)
    await pool.close()
    expect(source.returned).toBe(1)
  })

  it('need not wait when `start()` was called', async () => {
    await using a = await named('a')
    const source = feed()
    await using proxy = await startProxy({ upstreams: source })
    let started = false
    const starting = proxy.proxy.start().then(() => {
      started = true
    })
    await until('it is opened', () => source.opened === 1)
    expect(started).toBe(false)
    source.push([a.url])
    await starting
    expect(proxy.proxy.health().status).toBe('up')
    expect(await ask(proxy.port)).toEqual(['a'])
  })
})

describe('closing the proxy', () => {
  it('calls return(), and leaves no timer', async () => {
    await using a = await named('a')
    const clock = manualClock()
    const source = feed()
    source.push([a.url])
    await using proxy = await startProxy({ upstreams: source, clock })
    await ask(proxy.port)
    await proxy.proxy.close()
    expect([source.returned, clock.pending]).toEqual([1, []])
  })

  it('in the pause after a failure opens nothing any more', async () => {
    const clock = manualClock()
    const source = feed()
    source.fail(new Error('gone'))
    await using proxy = await startProxy({ upstreams: source, clock })
    await rawRequest(proxy.port, get())
    expect(clock.pending).toEqual([1000])
    await proxy.proxy.close()
    expect(clock.pending).toEqual([])
    clock.advance(60_000)
    expect(source.opened).toBe(1)
  })

  it('while the first list is awaited ends the wait at the deadline', async () => {
    const clock = manualClock()
    const source = feed()
    await using proxy = await startProxy({ upstreams: source, clock })
    const first = rawRequest(proxy.port, get())
    await until('it waits', () => source.opened === 1)
    const closed = proxy.proxy.close({ deadline: 500 })
    clock.advance(500)
    expect((await first).status).toBe(503)
    clock.advance(1000)
    await closed
    expect([source.returned, clock.pending]).toEqual([1, []])
  })
})
