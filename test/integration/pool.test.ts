/**
 * A pool while it serves: members that come, go, drain and change weight under traffic; caps and the queue in front of them; affinity; tiers.
 */
import {
  createPool,
  createProxy,
  type Exchange,
  failureMemory,
  type HealthControl,
  type HealthPolicy,
  OptionsError,
  type Pool,
  type Stage,
  type Upstream,
} from '@weir/core'
import { faults, type RawResponse, rawConnect, rawRequest, rawUpstream, refusedPort, type TestUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { load } from './load.ts'
import { manualClock } from './manual-clock.ts'
import { get } from './messages.ts'
import { gate, type ObservedProxy, startProxy, transports, until } from './observed.ts'

/** Votes as the test says. */
function verdicts(): { readonly policy: HealthPolicy; readonly down: (url: string) => void; readonly up: (url: string) => void } {
  let control: HealthControl | undefined
  const find = (id: string): Upstream => control?.upstreams.find((upstream) => upstream.id === id) as Upstream
  const policy: HealthPolicy = {
    name: 'verdicts',
    attach: (pool) => {
      control = pool
    },
  }
  return {
    policy,
    down: (id) => void control?.setDown(find(id), policy, 'the test says so'),
    up: (id) => control?.setUp(find(id), policy, 'the test says so'),
  }
}

/** Who answered, in order. */
async function ask(port: number, times: number, path = '/'): Promise<(string | undefined)[]> {
  const names: (string | undefined)[] = []
  for (let i = 0; i < times; i++) names.push((await rawRequest(port, get(path))).header('x-upstream'))
  return names
}

const count = (names: readonly unknown[], name: string): number => names.filter((each) => each === name).length
const named = (name: string, routes: Parameters<typeof testUpstream>[0] = { '*': 'fine' }): Promise<TestUpstream> =>
  testUpstream(routes, { name })
const poolOf = (running: ObservedProxy): Pool => running.proxy.pool as Pool

/** An upstream whose `/` answers when it is told to, in the order of arrival. */
async function gated(name: string): Promise<{ upstream: TestUpstream; release: (many?: number) => void; order: string[] }> {
  const waiting: (() => void)[] = []
  const order: string[] = []
  const upstream = await named(name, {
    '*': (req, res) => {
      order.push(req.url as string)
      waiting.push(() => res.end('done'))
    },
  })
  return {
    upstream,
    order,
    release: (many = 1) => {
      for (const answer of waiting.splice(0, many)) answer()
    },
  }
}

describe.each(transports)('a pool over %s', (_name, transport) => {
  it('changes under traffic and no request fails: add, weigh, drain, undrain, remove', async () => {
    const body = 'x'.repeat(500)
    const upstreams = await Promise.all(['a', 'b', 'c'].map((name) => named(name, { '/': body })))
    const [a, b, c] = upstreams as [TestUpstream, TestUpstream, TestUpstream]
    await using proxy = await startProxy({ upstreams: [a.url, b.url] }, { transport })
    const pool = poolOf(proxy)
    const traffic = load(proxy.port, body.length, 32)
    const more = async (by = 400): Promise<void> => {
      const start = traffic.answered
      await until('traffic', () => traffic.answered >= start + by, 10_000)
    }
    await more()
    for (let round = 0; round < 3; round++) {
      const before = c.count()
      pool.add(c.url)
      await until('the newcomer works', () => c.count() > before)
      pool.setWeight(b.url, 5)
      await more()
      await pool.drain(a.url)
      const drained = a.count()
      await more()
      expect(a.count()).toBe(drained)
      expect(pool.get(a.url)?.state).toBe('draining')
      pool.undrain(a.url)
      await until('the undrained works again', () => a.count() > drained)
      pool.setWeight(b.url, 1)
      await pool.remove(c.url)
      const removed = c.count()
      // Nothing is left there, not even idle connections.
      await c.until((seen) => seen.sockets === 0)
      await more()
      expect(c.count()).toBe(removed)
      expect(pool.get(c.url)).toBeUndefined()
    }
    await traffic.stop()
    expect(traffic.failures).toEqual([])
    expect(proxy.outcomes.filter((outcome) => outcome.reason !== 'completed')).toEqual([])
    expect(pool.stats().upstreams.map((upstream) => upstream.inflight)).toEqual([0, 0])
    for (const upstream of upstreams) await upstream.close()
  })

  it('shares requests by weight, and by the new weight from the next request on', async () => {
    await using a = await named('a')
    await using b = await named('b')
    await using proxy = await startProxy({ upstreams: [{ url: a.url, weight: 3 }, b.url] }, { transport })
    const pool = poolOf(proxy)
    expect(count(await ask(proxy.port, 40), 'a')).toBe(30)
    pool.setWeight(a.url, 1)
    pool.setWeight(b.url, 4)
    // A change may leave a fraction of a turn over.
    expect(Math.abs(count(await ask(proxy.port, 50), 'b') - 40)).toBeLessThanOrEqual(1)
    pool.setWeight(b.url, 0)
    expect(count(await ask(proxy.port, 10), 'b')).toBe(0)
    pool.setWeight(a.url, 0)
    const nobody = await rawRequest(proxy.port, get())
    expect([nobody.status, nobody.header('proxy-status')]).toEqual([503, 'weir; error=destination_unavailable; details="ERR_NO_UPSTREAM"'])
  })

  it('`remove` waits for what is in flight, `deadline` does not wait for ever', async () => {
    const { upstream, release } = await gated('a')
    await using b = await named('b')
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const pool = poolOf(proxy)
    const first = rawRequest(proxy.port, get('/first'))
    await upstream.until((seen) => seen.active === 1)
    pool.add(b.url)
    let gone = false
    const leaving = pool.remove(upstream.url).then(() => {
      gone = true
    })
    expect(await ask(proxy.port, 3)).toEqual(['b', 'b', 'b'])
    expect(gone).toBe(false)
    release()
    expect((await first).text()).toBe('done')
    await leaving
    await upstream.until((seen) => seen.sockets === 0)
    // Again, with a deadline.
    pool.add(upstream.url)
    await pool.remove(b.url)
    const second = rawRequest(proxy.port, get('/second'))
    await upstream.until((seen) => seen.active === 1)
    await pool.remove(upstream.url, { deadline: 100 })
    const cut = await second
    expect([cut.status, cut.header('proxy-status')]).toEqual([503, 'weir; error=destination_unavailable; details="ERR_DRAINING"'])
    await upstream.until((seen) => seen.sockets === 0)
    await upstream.close()
  })

  it('the deadline of one whose answer was put aside does not end the try of another', async () => {
    await using busy = await rawUpstream(async (connection) => {
      await connection.readRequest()
      // Its body is never whole, so that it is still being read when its time is over.
      await connection.send('HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nbusy')
      await connection.stall()
    })
    const { upstream, release } = await gated('b')
    const upstreams = [busy.url, { url: upstream.url, backup: true }]
    await using proxy = await startProxy({ upstreams, retry: { on: [503] } }, { transport })
    const answer = rawRequest(proxy.port, get('/'))
    await upstream.until((seen) => seen.active === 1)
    await poolOf(proxy).remove(busy.url, { deadline: 50 })
    await until('the other one is free', () => busy.open === 0)
    release()
    expect([(await answer).status, (await answer).text()]).toEqual([200, 'done'])
    expect((await proxy.outcome()).attempts.map(({ status, error }) => [status, error?.code])).toEqual([
      [503, 'ERR_DRAINING'],
      [200, undefined],
    ])
    await upstream.close()
  })

  it('unknown ids are nothing to wait for; a taken id and wrong values are refused and change nothing', async () => {
    await using a = await named('a')
    await using proxy = await startProxy({ upstreams: [a.url] }, { transport })
    const pool = poolOf(proxy)
    await pool.remove('nobody')
    await pool.drain('nobody', { deadline: 10 })
    pool.undrain('nobody')
    for (const wrong of [
      () => pool.add(a.url),
      () => pool.add({ url: 'ftp://x' }),
      () => pool.setWeight(a.url, -1),
      () => pool.setWeight('nobody', 1),
    ])
      expect(wrong).toThrow(OptionsError)
    expect(pool.upstreams.map(({ id, weight }) => [id, weight])).toEqual([[a.url, 1]])
    expect(await ask(proxy.port, 2)).toEqual(['a', 'a'])
  })

  it('that is empty answers 503, until somebody comes', async () => {
    await using a = await named('a')
    await using proxy = await startProxy({ upstreams: [] }, { transport })
    expect((await rawRequest(proxy.port, get())).header('proxy-status')).toContain('ERR_NO_UPSTREAM')
    poolOf(proxy).add(a.url)
    expect(await ask(proxy.port, 1)).toEqual(['a'])
  })

  it('reaches a Unix socket', async () => {
    await using a = await testUpstream({ '*': 'fine' }, { unix: true, name: 'a' })
    await using proxy = await startProxy({ upstreams: [a.url] }, { transport })
    expect(await ask(proxy.port, 3)).toEqual(['a', 'a', 'a'])
    expect(a.accepted).toBe(1)
  })

  describe('caps', () => {
    it('are never exceeded, and everybody is served', async () => {
      const tops = [0, 0]
      const make = (index: number): Promise<TestUpstream> =>
        testUpstream({
          '*': (_req, res, wire) => {
            const upstream = upstreams[index] as TestUpstream
            tops[index] = Math.max(tops[index] as number, upstream.active)
            wire.after(20, () => res.end('fine'))
          },
        })
      const upstreams: TestUpstream[] = []
      for (const index of [0, 1]) upstreams.push(await make(index))
      const [a, b] = upstreams as [TestUpstream, TestUpstream]
      await using proxy = await startProxy({ upstreams: [{ url: a.url, maxConcurrent: 3 }, b.url], maxConcurrent: 5 }, { transport })
      const answers = await Promise.all(Array.from({ length: 200 }, () => rawRequest(proxy.port, get())))
      expect(answers.filter((answer) => answer.status === 200)).toHaveLength(200)
      expect(tops).toEqual([3, 5])
      expect(poolOf(proxy).stats()).toMatchObject({ waiting: 0, upstreams: [{ inflight: 0 }, { inflight: 0 }] })
      for (const upstream of upstreams) await upstream.close()
    })

    it('count until the end of the body, not of the head', async () => {
      const rest = gate()
      await using a = await testUpstream({
        '/slow': async (_req, res) => {
          res.writeHead(200, { 'Content-Length': 4 })
          res.write('ha')
          await rest.opened
          res.end('lf')
        },
        '/': 'fine',
      })
      await using proxy = await startProxy({ upstreams: [a.url], maxConcurrent: 1 }, { transport })
      await using slow = await rawConnect(proxy.port)
      void slow.write(get('/slow'))
      await slow.sees('ha')
      const second = rawRequest(proxy.port, get())
      await until('the second waits', () => poolOf(proxy).stats().waiting === 1)
      expect(a.count('/')).toBe(0)
      rest.open()
      expect((await second).status).toBe(200)
    })
  })

  describe('the queue', () => {
    it('is first in, first out', async () => {
      const { upstream, release, order } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
      const answers: Promise<RawResponse>[] = []
      for (let i = 0; i < 10; i++) {
        answers.push(rawRequest(proxy.port, get(`/${i}`)))
        await until(`${i} has come`, () => proxy.proxy.stats().inflight === i + 1)
      }
      expect(poolOf(proxy).stats().waiting).toBe(9)
      for (let i = 0; i < 10; i++) {
        await upstream.until((seen) => seen.count() === i + 1)
        release()
        await answers[i]
      }
      expect(order).toEqual(Array.from({ length: 10 }, (_, i) => `/${i}`))
      await upstream.close()
    })

    it('lets nobody overtake: whoever comes while others wait goes behind them', async () => {
      const { upstream, release, order } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
      await using client = await rawConnect(proxy.port)
      void client.write(get('/first'))
      await until('it is at work', () => order.length === 1)
      const second = rawRequest(proxy.port, get('/second'))
      await until('the second waits', () => poolOf(proxy).stats().waiting === 1)
      release()
      // The first client asks again the moment it is answered, over a connection that is open already.
      expect((await client.readResponse()).status).toBe(200)
      void client.write(get('/third'))
      await until('the third has come', () => proxy.proxy.stats().inflight === 2)
      await until('the second is at work', () => order.length === 2)
      release()
      await second
      await until('the third is at work', () => order.length === 3)
      release()
      expect(order).toEqual(['/first', '/second', '/third'])
      expect((await client.readResponse()).status).toBe(200)
      await upstream.close()
    })

    it('is bounded in time: 504 ERR_QUEUE_TIMEOUT', async () => {
      const clock = manualClock()
      const { upstream, release, order } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, queue: { timeout: '2s' }, clock }, { transport })
      const first = rawRequest(proxy.port, get('/first'))
      await until('it is at work', () => order.length === 1)
      const second = rawRequest(proxy.port, get('/second'))
      await until('the second waits', () => poolOf(proxy).stats().waiting === 1)
      clock.advance(1500)
      const third = rawRequest(proxy.port, get('/third'))
      await until('the third waits', () => poolOf(proxy).stats().waiting === 2)
      clock.advance(500)
      const late = await second
      expect([late.status, late.header('proxy-status')]).toEqual([504, 'weir; error=connection_limit_reached; details="ERR_QUEUE_TIMEOUT"'])
      // Each has a time of its own.
      expect(poolOf(proxy).stats().waiting).toBe(1)
      release()
      await first
      await until('the third is at work', () => order.length === 2)
      release()
      expect((await third).status).toBe(200)
      const outcome = proxy.outcomes.find((each) => each.attempts[0]?.queuedMs)
      expect(outcome?.attempts[0]?.queuedMs).toBe(500)
      expect(clock.pending).toEqual([])
      await upstream.close()
    })

    it('is bounded in length: 503 ERR_QUEUE_FULL', async () => {
      const { upstream, release, order } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, queue: { limit: 2 } }, { transport })
      const served = [rawRequest(proxy.port, get('/1')), rawRequest(proxy.port, get('/2')), rawRequest(proxy.port, get('/3'))]
      await until('two wait', () => poolOf(proxy).stats().waiting === 2)
      const refused = await rawRequest(proxy.port, get('/4'))
      expect([refused.status, refused.header('proxy-status'), refused.header('retry-after')]).toEqual([
        503,
        'weir; error=connection_limit_reached; details="ERR_QUEUE_FULL"',
        '1',
      ])
      for (let i = 1; i <= 3; i++) {
        await until('one more is at work', () => order.length === i)
        release()
      }
      for (const answer of await Promise.all(served)) expect(answer.status).toBe(200)
      expect(order).not.toContain('/4')
      await upstream.close()
    })

    it.each([false, { limit: 0 }] as const)('can be none: %j', async (queue) => {
      const { upstream, release } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, queue }, { transport })
      const first = rawRequest(proxy.port, get())
      await upstream.until((seen) => seen.active === 1)
      expect((await rawRequest(proxy.port, get())).header('proxy-status')).toContain('ERR_QUEUE_FULL')
      release()
      expect((await first).status).toBe(200)
      await upstream.close()
    })

    it('gives the place of a client that leaves to the next one', async () => {
      const { upstream, release, order } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, queue: { limit: 2 } }, { transport })
      const first = rawRequest(proxy.port, get('/1'))
      await until('it is at work', () => order.length === 1)
      await using leaver = await rawConnect(proxy.port)
      void leaver.write(get('/2'))
      await until('one waits', () => poolOf(proxy).stats().waiting === 1)
      const third = rawRequest(proxy.port, get('/3'))
      await until('two wait', () => poolOf(proxy).stats().waiting === 2)
      leaver.reset()
      await until('its place is free', () => poolOf(proxy).stats().waiting === 1)
      expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
      const fourth = rawRequest(proxy.port, get('/4'))
      await until('two wait again', () => poolOf(proxy).stats().waiting === 2)
      for (let i = 1; i <= 3; i++) {
        await until('one more is at work', () => order.length === i)
        release()
      }
      expect((await Promise.all([first, third, fourth])).map((answer) => answer.status)).toEqual([200, 200, 200])
      expect(order).toEqual(['/1', '/3', '/4'])
      await upstream.close()
    })

    it('gives the slot of a client that leaves at work to the next one', async () => {
      const { upstream, release, order } = await gated('a')
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
      await using leaver = await rawConnect(proxy.port)
      void leaver.write(get('/1'))
      await until('it is at work', () => order.length === 1)
      const second = rawRequest(proxy.port, get('/2'))
      await until('one waits', () => poolOf(proxy).stats().waiting === 1)
      leaver.reset()
      await until('the second is at work', () => order.length === 2)
      release(2)
      expect((await second).status).toBe(200)
      await upstream.close()
    })

    it('moves on when the upstream fails: whoever waits is not left behind, nor the process', async () => {
      // The failure ends in the very tick in which the next one is sent to the same dead upstream.
      await using dead = await refusedPort()
      await using proxy = await startProxy({ upstreams: [dead.url], maxConcurrent: 1, retry: false, health: [] }, { transport })
      const answers = await Promise.all(Array.from({ length: 50 }, () => rawRequest(proxy.port, get())))
      expect(new Set(answers.map((answer) => answer.header('proxy-status')))).toEqual(
        new Set(['weir; error=connection_refused; details="ERR_CONNECT_REFUSED"']),
      )
      expect(poolOf(proxy).stats()).toMatchObject({ waiting: 0, upstreams: [{ inflight: 0 }] })
      await using resetting = await named('a', { '*': faults.reset() })
      await using other = await startProxy({ upstreams: [resetting.url], maxConcurrent: 1, retry: false, health: [] }, { transport })
      const more = await Promise.all(Array.from({ length: 50 }, () => rawRequest(other.port, get())))
      expect(new Set(more.map((answer) => answer.status))).toEqual(new Set([502]))
    })

    it('is woken by a newcomer, an undrained one, one that is up again', async () => {
      const { upstream, release } = await gated('a')
      await using b = await named('b')
      const { policy, down, up } = verdicts()
      await using proxy = await startProxy({ upstreams: [upstream.url, b.url], maxConcurrent: 1, health: [policy] }, { transport })
      const pool = poolOf(proxy)
      await pool.drain(b.url)
      const busy = rawRequest(proxy.port, get())
      await upstream.until((seen) => seen.active === 1)
      const ways: (() => unknown)[] = [
        () => pool.undrain(b.url),
        () => up(b.url),
        () => pool.setWeight(b.url, 1),
        () => pool.add({ url: b.url, id: 'another' }),
      ]
      const prepare: (() => unknown)[] = [() => {}, () => down(b.url), () => pool.setWeight(b.url, 0), () => pool.remove(b.url)]
      for (const [index, wake] of ways.entries()) {
        prepare[index]?.()
        const waiting = rawRequest(proxy.port, get())
        await until('it waits', () => pool.stats().waiting === 1)
        wake()
        expect((await waiting).header('x-upstream')).toBe('b')
      }
      release()
      await busy
      await upstream.close()
    })

    it('lets as many go as there is room for, when there is suddenly room for several', async () => {
      const { upstream: a, release } = await gated('a')
      const { upstream: b, order, release: releaseB } = await gated('b')
      await using proxy = await startProxy({ upstreams: [a.url], maxConcurrent: 1 }, { transport })
      const pool = poolOf(proxy)
      const first = rawRequest(proxy.port, get('/0'))
      await a.until((seen) => seen.active === 1)
      const waiting = [1, 2, 3, 4, 5].map((i) => rawRequest(proxy.port, get(`/${i}`)))
      await until('five wait', () => pool.stats().waiting === 5)
      pool.add({ url: b.url, maxConcurrent: 4 })
      await b.until((seen) => seen.active === 4)
      expect(pool.stats().waiting).toBe(1)
      releaseB(4)
      await until('the fifth is at work', () => order.length === 5)
      releaseB(1)
      release()
      for (const answer of await Promise.all([first, ...waiting])) expect(answer.status).toBe(200)
      await a.close()
      await b.close()
    })

    it('is emptied when nobody is left to wait for: 503 ERR_NO_UPSTREAM', async () => {
      const { upstream, release } = await gated('a')
      const { policy, down } = verdicts()
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, health: [policy] }, { transport })
      const first = rawRequest(proxy.port, get())
      await upstream.until((seen) => seen.active === 1)
      const waiting = [rawRequest(proxy.port, get()), rawRequest(proxy.port, get())]
      await until('two wait', () => poolOf(proxy).stats().waiting === 2)
      down(upstream.url)
      for (const answer of await Promise.all(waiting)) expect(answer.header('proxy-status')).toContain('ERR_NO_UPSTREAM')
      release()
      // What was at work is not disturbed by a verdict.
      expect((await first).status).toBe(200)
      await upstream.close()
    })

    it('is one for all proxies that share the pool', async () => {
      const { upstream, release, order } = await gated('a')
      const own = transport()
      const pool = createPool({ upstreams: [upstream.url], maxConcurrent: 1, transport: own })
      await using one = await startProxy({ pool })
      await using two = await startProxy({ pool })
      const first = rawRequest(one.port, get('/one'))
      await until('it is at work', () => order.length === 1)
      const second = rawRequest(two.port, get('/two'))
      await until('the other waits', () => pool.stats().waiting === 1)
      release()
      await first
      await until('the other is at work', () => order.length === 2)
      release()
      expect((await second).status).toBe(200)
      await pool.close()
      await own.close?.()
      await upstream.close()
    })

    it('keeps its books under clients that come and go', async () => {
      await using a = await named('a', { '*': faults.stall(3) })
      await using b = await named('b', { '*': faults.stall(1) })
      await using proxy = await startProxy(
        { upstreams: [a.url, b.url], maxConcurrent: 4, queue: { limit: 20, timeout: 60 } },
        { transport },
      )
      await Promise.all(
        Array.from({ length: 300 }, async (_, i) => {
          await new Promise((resolve) => setTimeout(resolve, (i * 7) % 60))
          await using client = await rawConnect(proxy.port)
          void client.write(get())
          if (i % 3 === 0) {
            await new Promise((resolve) => setTimeout(resolve, i % 5))
            client.reset()
          } else expect([200, 503, 504]).toContain((await client.readResponse()).status)
        }),
      )
      await until('all are over', () => proxy.proxy.stats().inflight === 0)
      expect(poolOf(proxy).stats()).toMatchObject({ waiting: 0, upstreams: [{ inflight: 0 }, { inflight: 0 }] })
      expect(await ask(proxy.port, 2)).toEqual(expect.arrayContaining(['a', 'b']))
    })
  })

  describe('affinity', () => {
    const stick = (id: string): Stage => ({
      name: 'stick',
      handle: (exchange: Exchange) => {
        exchange.affinity = id
      },
    })

    it('goes where it is wanted, past the balancer', async () => {
      await using a = await named('a')
      await using b = await named('b')
      await using proxy = await startProxy({ upstreams: [a.url, b.url], use: [stick(b.url)] }, { transport })
      expect(new Set(await ask(proxy.port, 6))).toEqual(new Set(['b']))
    })

    it('holds for a drained one and one without weight, but not for one that is down, full, gone or unknown', async () => {
      const { upstream: b, release } = await gated('b')
      await using a = await named('a')
      const { policy, down, up } = verdicts()
      await using proxy = await startProxy(
        { upstreams: [a.url, { url: b.url, maxConcurrent: 1 }], use: [stick(b.url)], health: [policy] },
        { transport },
      )
      const pool = poolOf(proxy)
      const asked = async (): Promise<string | undefined> => {
        const before = b.count()
        const answer = rawRequest(proxy.port, get())
        answer.catch(() => {})
        await Promise.race([answer, b.until((seen) => seen.count() > before)])
        release()
        return (await answer).header('x-upstream')
      }
      expect(await asked()).toBe('b')
      await pool.drain(b.url)
      expect(await asked()).toBe('b')
      pool.undrain(b.url)
      pool.setWeight(b.url, 0)
      expect(await asked()).toBe('b')
      pool.setWeight(b.url, 1)
      down(b.url)
      expect(await asked()).toBe('a')
      up(b.url)
      const busy = rawRequest(proxy.port, get())
      await b.until((seen) => seen.active === 1)
      expect((await rawRequest(proxy.port, get())).header('x-upstream')).toBe('a')
      release()
      expect((await busy).header('x-upstream')).toBe('b')
      await pool.remove(b.url)
      expect(await asked()).toBe('a')
      await b.close()
    })

    it('does not hold a retry: the wanted one has failed', async () => {
      await using dead = await refusedPort()
      await using a = await named('a')
      await using proxy = await startProxy({ upstreams: [dead.url, a.url], use: [stick(dead.url)], health: [] }, { transport })
      expect(await ask(proxy.port, 3)).toEqual(['a', 'a', 'a'])
      expect(proxy.outcomes.map((outcome) => outcome.attempts.length)).toEqual([2, 2, 2])
    })
  })

  describe('tiers', () => {
    it('a lower one is used only while nobody in front of it is up', async () => {
      await using a = await named('a')
      await using b = await named('b')
      await using c = await named('c')
      await using d = await named('d')
      const { policy, down, up } = verdicts()
      await using proxy = await startProxy(
        {
          upstreams: [a.url, b.url, { url: c.url, backup: true }, { url: d.url, priority: 2 }],
          health: [policy],
        },
        { transport },
      )
      const pool = poolOf(proxy)
      const seen = async (): Promise<string[]> => [...new Set(await ask(proxy.port, 6))].map(String).sort()
      expect(await seen()).toEqual(['a', 'b'])
      down(a.url)
      expect(await seen()).toEqual(['b'])
      await pool.drain(b.url)
      expect(await seen()).toEqual(['c'])
      down(c.url)
      expect(await seen()).toEqual(['d'])
      up(c.url)
      expect(await seen()).toEqual(['c'])
      pool.undrain(b.url)
      expect(await seen()).toEqual(['b'])
      up(a.url)
      expect(await seen()).toEqual(['a', 'b'])
      // Without weight, a tier is as good as empty.
      pool.setWeight(a.url, 0)
      pool.setWeight(b.url, 0)
      expect(await seen()).toEqual(['c'])
    })

    it('a full tier is waited for, not passed over', async () => {
      const { upstream, release } = await gated('a')
      await using backup = await named('backup')
      await using proxy = await startProxy(
        {
          upstreams: [
            { url: upstream.url, maxConcurrent: 1 },
            { url: backup.url, backup: true },
          ],
        },
        { transport },
      )
      const first = rawRequest(proxy.port, get('/1'))
      await upstream.until((seen) => seen.active === 1)
      const second = rawRequest(proxy.port, get('/2'))
      await until('it waits', () => poolOf(proxy).stats().waiting === 1)
      release()
      await first
      await upstream.until((seen) => seen.count() === 2)
      release()
      expect((await second).header('x-upstream')).toBe('a')
      expect(backup.count()).toBe(0)
      await upstream.close()
    })
  })

  it('the failure memory of one pool knows nothing of another', async () => {
    await using dead = await refusedPort()
    await using a = await named('a')
    await using one = await startProxy({ upstreams: [dead.url, a.url], health: [failureMemory({ failures: 1 })] }, { transport })
    await using two = await startProxy({ upstreams: [dead.url, a.url], health: [failureMemory({ failures: 1 })] }, { transport })
    await ask(one.port, 4)
    expect(poolOf(one).get(dead.url)?.state).toBe('down')
    expect(poolOf(two).get(dead.url)?.state).toBe('up')
  })
})

it('a pool that is closed answers whoever waits', async () => {
  const { upstream, release } = await gated('a')
  const pool = createPool({ upstreams: [upstream.url], maxConcurrent: 1 })
  await using proxy = await startProxy({ pool })
  const first = rawRequest(proxy.port, get())
  await upstream.until((seen) => seen.active === 1)
  const second = rawRequest(proxy.port, get())
  await until('it waits', () => pool.stats().waiting === 1)
  const closing = pool.close()
  expect((await second).header('proxy-status')).toContain('ERR_DRAINING')
  release()
  expect((await first).status).toBe(200)
  await closing
  await upstream.close()
})

it('stats name everything', async () => {
  await using a = await named('a')
  const proxy = createProxy({ name: 'edge', upstreams: [{ url: a.url, id: 'first', weight: 7 }] })
  expect(proxy.stats()).toEqual({
    inflight: 0,
    tunnels: 0,
    pools: [
      {
        name: 'default',
        waiting: 0,
        failOpen: false,
        failOpenPicks: 0,
        upstreams: [{ id: 'first', state: 'up', weight: 7, inflight: 0, latencyMs: 0 }],
      },
    ],
  })
  await proxy.inject({ url: '/' })
  expect(proxy.stats().pools[0]?.upstreams[0]?.latencyMs).toBeGreaterThan(0)
  await proxy.close()
})
