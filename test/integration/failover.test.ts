/**
 * What a client of a load balancer is promised: a server that dies is not its problem. And what the operator is promised in return: no retry
 * that makes things worse (guards), no server set aside by mistake (failure memory).
 */
import { failureMemory, type HealthControl, type HealthPolicy, type ProxyOptions, type RetryOptions, type Upstream } from '@weir/core'
import { blackHolePort, everyRequest, faults, rawConnect, rawRequest, rawUpstream, refusedPort, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { load } from './load.ts'
import { manualClock } from './manual-clock.ts'
import { get, head, ok } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'

const now = { base: 0, max: 0 }

describe.each(transports)('failover over %s', (_name, transport) => {
  it('one of three servers is killed under load and comes back: not one GET fails', async () => {
    const body = 'x'.repeat(1000)
    const upstreams = await Promise.all(['a', 'b', 'c'].map((name) => testUpstream({ '/': body }, { name })))
    const [victim] = upstreams as [(typeof upstreams)[0]]
    const requests = (upstream: typeof victim): number => upstream.requests.length
    await using proxy = await startProxy(
      { upstreams: upstreams.map((upstream) => upstream.url), health: [failureMemory({ penalty: 200 })] },
      { transport },
    )
    const running = load(proxy.port, body.length, 64)
    for (let round = 0; round < 2; round++) {
      const start = running.answered
      await until('load on all three', () => running.answered > start + 500, 10_000)
      await victim.kill()
      const killed = running.answered
      // Long enough for several penalties to pass and the dead server to be tried again.
      await new Promise((resolve) => setTimeout(resolve, 500))
      await until('load on two', () => running.answered > killed + 500, 10_000)
      const before = requests(victim)
      await victim.restart()
      await until('the restarted server works again', () => requests(victim) > before + 50, 10_000)
    }
    await running.stop()
    expect(running.failures).toEqual([])
    expect(proxy.outcomes.filter((outcome) => outcome.reason !== 'completed').map((outcome) => outcome.reason)).toEqual([])
    // The test would prove nothing if nobody had met the dead server.
    expect(proxy.outcomes.some((outcome) => outcome.attempts.length > 1)).toBe(true)
    expect(proxy.proxy.stats().pools[0]?.upstreams.map((upstream) => upstream.inflight)).toEqual([0, 0, 0])
    for (const upstream of upstreams) await upstream.close()
  })

  describe('guards', () => {
    /** A failing upstream, and behind it a good one that only a retry reaches. */
    async function retried(answer: Parameters<typeof testUpstream>[0], request: string, options: Partial<ProxyOptions>): Promise<number[]> {
      await using bad = await testUpstream(answer)
      await using good = await testUpstream({ '*': 'good' })
      await using proxy = await startProxy({ upstreams: [bad.url, { url: good.url, backup: true }], health: [], ...options }, { transport })
      const { status } = await rawRequest(proxy.port, request)
      return [status, bad.count(), good.count()]
    }
    const bodied = (method: string, size: number): string => `${head(method, '/', `Content-Length: ${size}`)}${'x'.repeat(size)}`

    it('idempotency: what may have been processed is not sent again', async () => {
      expect(await retried({ '*': faults.reset() }, get(), {})).toEqual([200, 1, 1])
      expect(await retried({ '*': faults.reset() }, bodied('PUT', 10), {})).toEqual([200, 1, 1])
      expect(await retried({ '*': faults.reset() }, bodied('POST', 10), {})).toEqual([502, 1, 0])
      expect(await retried({ '*': faults.reset() }, bodied('PATCH', 10), {})).toEqual([502, 1, 0])
    })

    it('idempotency: what was never sent is sent again, whatever its method', async () => {
      await using dead = await refusedPort()
      await using good = await testUpstream({ '*': 'good' })
      await using proxy = await startProxy({ upstreams: [dead.url, { url: good.url, backup: true }], health: [] }, { transport })
      for (const method of ['POST', 'PATCH', 'PUT']) expect((await rawRequest(proxy.port, bodied(method, 10))).status).toBe(200)
    })

    it('replay buffer: whole, up to its cap', async () => {
      const retry: RetryOptions = { replayBuffer: 1000 }
      const whole = async (size: number): Promise<number[]> =>
        retried({ '*': (req, _res, wire) => void req.on('end', () => wire.reset()).resume() }, bodied('PUT', size), { retry })
      expect(await whole(1000)).toEqual([200, 1, 1])
      expect(await whole(1001)).toEqual([502, 1, 0])
    })

    it('replay buffer: an overflow ends retries, not the request', async () => {
      await using upstream = await testUpstream()
      await using proxy = await startProxy({ upstreams: [upstream.url], retry: { replayBuffer: 0 } }, { transport })
      const response = await rawRequest(proxy.port, bodied('PUT', 200_000))
      expect(response.status).toBe(200)
      expect((JSON.parse(response.text()) as { body: string }).body).toHaveLength(200_000)
    })

    it('replay buffer: a retry in the middle of an upload goes on where the client is', async () => {
      // The first upstream dies while half the body is still at the client.
      const bodies: string[] = []
      await using good = await rawUpstream(
        everyRequest((request) => {
          bodies.push(request.text())
          return ok('good')
        }),
      )
      let dead = false
      await using bad = await rawUpstream(async (connection) => {
        await connection.sees('first half')
        connection.reset()
        dead = true
      })
      await using proxy = await startProxy({ upstreams: [bad.url, { url: good.url, backup: true }], health: [] }, { transport })
      await using client = await rawConnect(proxy.port)
      await client.write(`${head('PUT', '/', 'Content-Length: 22')}first half,`)
      await until('the first upstream is gone', () => dead)
      await good.connection(1)
      await client.write('second half')
      expect((await client.readResponse()).status).toBe(200)
      expect(bodies).toEqual(['first half,second half'])
    })

    it('per-try timeout: a slow server costs its share, not the whole limit', async () => {
      const retry: RetryOptions = { perTryTimeout: 150, on: ['timeout'] }
      const timeouts = { head: '30s' } as const
      expect(await retried({ '*': faults.stall() }, get(), { retry, timeouts })).toEqual([200, 1, 1])
      // Sent and perhaps at work: not for POST.
      expect(await retried({ '*': faults.stall() }, bodied('POST', 10), { retry, timeouts })).toEqual([504, 1, 0])
      // Not listed, not retried; but the limit holds.
      expect(await retried({ '*': faults.stall() }, get(), { retry: { perTryTimeout: 150 }, timeouts })).toEqual([504, 1, 0])
    })

    it('per-try timeout: never longer than `timeouts.head`', async () => {
      expect(await retried({ '*': faults.stall() }, get(), { retry: { perTryTimeout: '30s' }, timeouts: { head: 150 } })).toEqual([
        504, 1, 0,
      ])
    })

    it('budget: a pool that is gone gets its share of retries and no more', async () => {
      const ports = await Promise.all([testUpstream({ '*': faults.reset() }), testUpstream({ '*': faults.reset() })])
      const clock = manualClock()
      await using proxy = await startProxy(
        {
          upstreams: ports.map((port) => port.url),
          health: [],
          clock,
          retry: { attempts: 5, backoff: now, budget: { ratio: 0.1, minPerSecond: 0 } },
        },
        { transport },
      )
      for (let i = 0; i < 100; i++) expect((await rawRequest(proxy.port, get())).status).toBe(502)
      expect(proxy.outcomes.reduce((sum, outcome) => sum + outcome.attempts.length, 0)).toBe(110)
      for (const port of ports) await port.close()
    })

    it('status: only those that are listed, only for what may be sent twice', async () => {
      const retry: RetryOptions = { on: [503], backoff: now }
      expect(await retried({ '*': 503 }, get(), { retry })).toEqual([200, 1, 1])
      expect(await retried({ '*': 500 }, get(), { retry })).toEqual([500, 1, 0])
      expect(await retried({ '*': 503 }, bodied('POST', 10), { retry })).toEqual([503, 1, 0])
      expect(await retried({ '*': 503 }, bodied('PUT', 100_000), { retry })).toEqual([503, 1, 0])
      expect(await retried({ '*': 503 }, get(), {})).toEqual([503, 1, 0])
    })

    it('total deadline: ends a wait for the next try', async () => {
      await using dead = await refusedPort()
      const clock = manualClock()
      await using proxy = await startProxy(
        {
          upstreams: [dead.url],
          health: [],
          clock,
          random: () => 1,
          timeouts: { total: 1000 },
          retry: { attempts: 10, backoff: { base: 800, max: 800 } },
        },
        { transport },
      )
      const answer = rawRequest(proxy.port, get())
      // The deadline and the back-off.
      await until('the second try waits', () => clock.pending.length === 2 || undefined)
      expect(clock.pending).toEqual([800, 1000])
      clock.advance(800)
      await until('the third try waits', () => clock.pending.length === 2 || undefined)
      clock.advance(200)
      const response = await answer
      expect(response.status).toBe(504)
      expect(response.header('proxy-status')).toContain('ERR_DEADLINE')
      expect((await proxy.outcome()).attempts).toHaveLength(2)
      expect(clock.pending).toEqual([])
    })

    it('back-off: full jitter below a doubled base, up to a limit; none towards another server', async () => {
      await using dead = await refusedPort()
      const clock = manualClock()
      await using proxy = await startProxy(
        {
          upstreams: [dead.url],
          health: [],
          clock,
          random: () => 0.5,
          retry: { attempts: 6, backoff: { base: 100, max: 500 }, budget: false },
        },
        { transport },
      )
      const answer = rawRequest(proxy.port, get())
      const waits: number[] = []
      for (let i = 0; i < 5; i++) {
        await until('a try waits', () => clock.pending.length === 1 || undefined)
        waits.push(clock.pending[0] as number)
        clock.advance(clock.pending[0] as number)
      }
      expect((await answer).status).toBe(502)
      expect(waits).toEqual([50, 100, 200, 250, 250])

      await using others = await startProxy(
        {
          upstreams: [dead.url, { url: 'http://127.0.0.1:1', backup: true }],
          health: [],
          clock,
          retry: { backoff: { base: 100, max: 500 } },
        },
        { transport },
      )
      expect((await rawRequest(others.port, get())).status).toBe(502)
    })

    it('attempts: counts the first one', async () => {
      await using dead = await refusedPort()
      for (const attempts of [1, 2, 5]) {
        await using proxy = await startProxy(
          { upstreams: [dead.url], health: [], retry: { attempts, backoff: now, budget: false } },
          { transport },
        )
        await rawRequest(proxy.port, get())
        expect((await proxy.outcome()).attempts).toHaveLength(attempts)
      }
    })

    it('client gone: nobody waits, nothing is retried', async () => {
      await using hole = await blackHolePort()
      await using good = await testUpstream()
      await using proxy = await startProxy(
        { upstreams: [hole.url, { url: good.url, backup: true }], timeouts: { connect: 300 } },
        { transport },
      )
      await using client = await rawConnect(proxy.port)
      await client.write(get())
      await until('it is being sent', () => proxy.proxy.stats().inflight === 1)
      client.reset()
      expect(await proxy.outcome()).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
      expect((await proxy.outcome()).attempts).toHaveLength(1)
      expect(good.count()).toBe(0)
    })
  })

  it('backup: used when nobody in front is up, and by a retry at once', async () => {
    await using main = await testUpstream({ '*': 'main' }, { name: 'main' })
    await using backup = await testUpstream({ '*': 'backup' }, { name: 'backup' })
    await using proxy = await startProxy(
      { upstreams: [main.url, { url: backup.url, backup: true }], health: [failureMemory({ failures: 1, penalty: '1h' })] },
      { transport },
    )
    const ask = async (): Promise<string | undefined> => (await rawRequest(proxy.port, get())).header('x-upstream')
    for (let i = 0; i < 5; i++) expect(await ask()).toBe('main')
    await main.kill()
    expect(await ask()).toBe('backup')
    expect((await proxy.outcome(6)).attempts).toHaveLength(2)
    // The memory has set the first tier aside: the backup is asked directly now.
    expect(await ask()).toBe('backup')
    expect((await proxy.outcome(7)).attempts).toHaveLength(1)
  })

  describe('failure memory', () => {
    const clock = manualClock()
    const memory = (): ReturnType<typeof failureMemory> => failureMemory({ failures: 3, penalty: '10s' })

    it('sets aside after as many failures in a row, and no request goes there any more', async () => {
      await using bad = await testUpstream({ '*': faults.reset() })
      await using good = await testUpstream({ '*': 'good' })
      await using proxy = await startProxy({ upstreams: [bad.url, good.url], health: [memory()], clock }, { transport })
      for (let i = 0; i < 20; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(bad.count()).toBe(3)
      expect(proxy.proxy.pool?.get(bad.url)?.state).toBe('down')
    })

    it('a success in between clears the record', async () => {
      await using flaky = await testUpstream({ '*': [faults.reset(), faults.reset(), 'fine', faults.reset(), faults.reset(), 'fine'] })
      await using good = await testUpstream({ '*': 'good' })
      await using proxy = await startProxy({ upstreams: [flaky.url, good.url], health: [memory()], clock }, { transport })
      for (let i = 0; i < 14; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(flaky.count()).toBeGreaterThanOrEqual(6)
      expect(proxy.proxy.pool?.get(flaky.url)?.state).toBe('up')
    })

    it('never sets aside the last one', async () => {
      await using bad = await testUpstream({ '*': faults.reset() })
      await using worse = await testUpstream({ '*': faults.reset() })
      await using proxy = await startProxy({ upstreams: [bad.url, worse.url], health: [memory()], clock, retry: false }, { transport })
      for (let i = 0; i < 20; i++) expect((await rawRequest(proxy.port, get())).status).toBe(502)
      const states = proxy.proxy.pool?.upstreams.map((upstream) => upstream.state)
      expect(states?.toSorted()).toEqual(['down', 'up'])
      // And a pool of one stays in service, whatever it does.
      await using alone = await startProxy({ upstreams: [bad.url], health: [memory()], clock, retry: false }, { transport })
      for (let i = 0; i < 5; i++) await rawRequest(alone.port, get())
      expect(alone.proxy.pool?.upstreams[0]?.state).toBe('up')
    })

    it('comes back on probation: one more failure sets it aside again, one success acquits it', async () => {
      await using flaky = await testUpstream({ '*': faults.reset() })
      await using good = await testUpstream({ '*': 'good' })
      await using proxy = await startProxy({ upstreams: [flaky.url, good.url], health: [memory()], clock }, { transport })
      const state = (): string | undefined => proxy.proxy.pool?.get(flaky.url)?.state
      const ask = async (times: number): Promise<void> => {
        for (let i = 0; i < times; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
      }
      await ask(10)
      expect([state(), flaky.count()]).toEqual(['down', 3])
      clock.advance(9_999)
      expect(state()).toBe('down')
      clock.advance(1)
      expect(state()).toBe('up')
      await ask(4)
      // A single failure was enough.
      expect([state(), flaky.count()]).toEqual(['down', 4])
      clock.advance(10_000)
      // No connection is kept: a reset of a kept one would not count.
      flaky.route('*', { headers: { Connection: 'close' }, body: 'fine again' })
      await ask(4)
      expect(state()).toBe('up')
      flaky.route('*', faults.reset())
      const before = flaky.count()
      await ask(10)
      // Acquitted: it takes three again.
      expect([state(), flaky.count() - before]).toEqual(['down', 3])
    })

    it('counts only what the upstream did: clients that leave, and statuses, do not', async () => {
      await using upstream = await testUpstream({ '/500': 500, '/mute': faults.stall() })
      await using other = await testUpstream({ '/500': 500, '/mute': faults.stall() })
      await using proxy = await startProxy(
        { upstreams: [upstream.url, other.url], health: [failureMemory({ failures: 1 })], clock },
        { transport },
      )
      for (let i = 0; i < 4; i++) expect((await rawRequest(proxy.port, get('/500'))).status).toBe(500)
      for (let i = 0; i < 4; i++) {
        await using client = await rawConnect(proxy.port)
        void client.write(get('/mute'))
        await until('it has arrived', () => upstream.active + other.active === 1)
        client.reset()
        await proxy.outcome(5 + i)
        await until('it is gone', () => upstream.active + other.active === 0)
      }
      expect(proxy.outcomes.map((outcome) => outcome.reason).slice(4)).toEqual(Array(4).fill('ERR_CLIENT_ABORTED'))
      expect(proxy.proxy.pool?.upstreams.map((member) => member.state)).toEqual(['up', 'up'])
    })

    it('counts a body that breaks off, though the head was fine', async () => {
      await using bad = await testUpstream({ '*': faults.truncated('length') })
      await using good = await testUpstream({ '*': 'good' })
      await using proxy = await startProxy(
        { upstreams: [bad.url, good.url], health: [failureMemory({ failures: 1 })], clock },
        { transport },
      )
      for (let i = 0; i < 2; i++) await rawRequest(proxy.port, get())
      expect(proxy.proxy.pool?.get(bad.url)?.state).toBe('down')
    })

    it('a retry without any other choice may go to one that is set aside on suspicion, never to one that is known to be down', async () => {
      for (const soft of [true, false]) {
        await using suspect = await testUpstream({ '*': 'well again' }, { name: 'suspect' })
        await using dead = await refusedPort()
        let control: HealthControl | undefined
        const verdict: HealthPolicy = {
          name: 'verdict',
          attach: (pool) => {
            control = pool
          },
        }
        await using proxy = await startProxy({ upstreams: [suspect.url, dead.url], health: [verdict] }, { transport })
        control?.setDown(control.upstreams[0] as Upstream, verdict, 'a guess, or a fact', { soft })
        const response = await rawRequest(proxy.port, get())
        expect([response.status, suspect.count()]).toEqual(soft ? [200, 1] : [502, 0])
      }
    })
  })
})
