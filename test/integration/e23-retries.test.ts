/**
 * E23. Retries choose a different upstream when one is available, respect the budget, honour `Retry-After` in seconds and date form, and
 * return the last real response when exhausted.
 */
import type { HealthPolicy } from '@weir/core'
import { everyRequest, faults, rawRequest, rawUpstream, refusedPort, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { manualClock } from './manual-clock.ts'
import { get, head, ok } from './messages.ts'
import { gate, startProxy, transports, until } from './observed.ts'

/** Pauses between tries are somebody else's subject. */
const now = { base: 0, max: 0 }

describe.each(transports)('E23 over %s', (_name, transport) => {
  describe('a different upstream', () => {
    it('serves the retry whenever there is one, whatever failed', async () => {
      await using dead = await refusedPort()
      await using bad = await testUpstream({ '/reset': faults.reset(), '/hangup': faults.hangUp(), '/503': 503 }, { name: 'bad' })
      await using good = await testUpstream({ '*': 'good' }, { name: 'good' })
      for (const [path, failing] of [
        ['/dead', dead.url],
        ['/reset', bad.url],
        ['/hangup', bad.url],
        ['/503', bad.url],
      ] as const) {
        await using proxy = await startProxy(
          { upstreams: [failing, good.url], retry: { on: ['connect', 'reset', 503], backoff: now, budget: false }, health: [] },
          { transport },
        )
        for (let i = 0; i < 6; i++) {
          const response = await rawRequest(proxy.port, get(path))
          expect(response.status).toBe(200)
          expect(response.header('x-upstream')).toBe('good')
        }
        const tries = proxy.outcomes.map((outcome) => outcome.attempts.map((attempt) => attempt.upstream.id))
        // Round robin: every other request meets the failing one first, and none meets it twice.
        expect(tries.filter((ids) => ids.length === 2)).toHaveLength(3)
        for (const ids of tries) expect(new Set(ids).size).toBe(ids.length)
      }
    })

    it('is another one for every further try', async () => {
      const ports = await Promise.all([refusedPort(), refusedPort(), refusedPort(), refusedPort()])
      await using proxy = await startProxy(
        { upstreams: ports.map((port) => port.url), retry: { attempts: 4, backoff: now }, health: [] },
        { transport },
      )
      expect((await rawRequest(proxy.port, get())).status).toBe(502)
      const ids = (await proxy.outcome()).attempts.map((attempt) => attempt.upstream.id)
      expect(ids.toSorted()).toEqual(ports.map((port) => port.url).toSorted())
      for (const port of ports) await port.close()
    })

    it('stages see what was tried', async () => {
      await using dead = await refusedPort()
      await using good = await testUpstream()
      const tried: string[] = []
      await using proxy = await startProxy(
        {
          upstreams: [dead.url, good.url],
          health: [],
          use: [
            (exchange) => ({
              onAttempt: (_headers, upstream) => void tried.push([...exchange.tried.map((u) => u.id), upstream.id].join(' then ')),
            }),
          ],
        },
        { transport },
      )
      for (let i = 0; i < 2; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(tried.toSorted()).toEqual([dead.url, `${dead.url} then ${good.url}`, good.url].toSorted())
    })

    it('does not exist: then the same one gets the retry', async () => {
      await using upstream = await testUpstream({ '/': [503, 200] })
      await using proxy = await startProxy({ upstreams: [upstream.url], retry: { on: [503], backoff: now } }, { transport })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.count()).toBe(2)
    })

    it('is down: then it gets nothing, and the same one does', async () => {
      await using flaky = await testUpstream({ '/': [503, 200] })
      await using drained = await testUpstream()
      await using proxy = await startProxy({ upstreams: [flaky.url, drained.url], retry: { on: [503], backoff: now } }, { transport })
      await proxy.proxy.pool?.drain(drained.url)
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect([flaky.count(), drained.count()]).toEqual([2, 0])
    })
  })

  describe('the budget', () => {
    it('is a share of the requests: two failing tries each become 1.2', async () => {
      await using upstream = await testUpstream({ '/': 503 })
      await using proxy = await startProxy(
        { upstreams: [upstream.url], retry: { on: [503], backoff: now, budget: { ratio: 0.2, minPerSecond: 0 } }, clock: manualClock() },
        { transport },
      )
      for (let i = 0; i < 50; i++) expect((await rawRequest(proxy.port, get())).status).toBe(503)
      expect(upstream.count()).toBe(60)
    })

    it('has a floor, so that a quiet service can retry at all', async () => {
      const clock = manualClock()
      await using upstream = await testUpstream({ '/': 503 })
      await using proxy = await startProxy(
        { upstreams: [upstream.url], retry: { on: [503], backoff: now, budget: { ratio: 0, minPerSecond: 1 } }, clock },
        { transport },
      )
      for (let i = 0; i < 15; i++) await rawRequest(proxy.port, get())
      // One per second over the window of ten seconds.
      expect(upstream.count()).toBe(15 + 10)
      clock.advance(10_000)
      await rawRequest(proxy.port, get())
      expect(upstream.count()).toBe(15 + 10 + 2)
    })

    it('of nothing allows no retry, and `false` any number', async () => {
      await using upstream = await testUpstream({ '/': 503 })
      for (const [budget, tries] of [
        [{ ratio: 0, minPerSecond: 0 }, 10],
        [false, 30],
      ] as const) {
        const before = upstream.count()
        await using proxy = await startProxy(
          { upstreams: [upstream.url], retry: { attempts: 3, on: [503], backoff: now, budget } },
          { transport },
        )
        for (let i = 0; i < 10; i++) await rawRequest(proxy.port, get())
        expect(upstream.count() - before).toBe(tries)
      }
    })

    it('bounds retries after refused connections as well', async () => {
      await using dead = await refusedPort()
      await using proxy = await startProxy(
        { upstreams: [dead.url], health: [], retry: { backoff: now, budget: { ratio: 0, minPerSecond: 0 } } },
        { transport },
      )
      expect((await rawRequest(proxy.port, get())).status).toBe(502)
      expect((await proxy.outcome()).attempts).toHaveLength(1)
    })
  })

  describe('Retry-After', () => {
    const retry = { on: [503], maxRetryAfter: '3s', backoff: now } as const

    /** The delay for which the proxy waits before its second try, and the way to let it pass. */
    async function waiting(value: string): Promise<{ delay: number; second: () => Promise<number> }> {
      const clock = manualClock()
      const upstream = await testUpstream({ '/': [{ status: 503, headers: { 'Retry-After': value }, body: 'busy' }, 200] })
      const proxy = await startProxy({ upstreams: [upstream.url], retry, clock }, { transport })
      const answer = rawRequest(proxy.port, get())
      await until('the retry waits', () => clock.pending.length > 0 || undefined)
      const [delay = Number.NaN] = clock.pending
      return {
        delay,
        second: async () => {
          clock.advance(delay - 1)
          expect(upstream.count()).toBe(1)
          clock.advance(1)
          const { status } = await answer
          expect(upstream.count()).toBe(2)
          await proxy[Symbol.asyncDispose]()
          await upstream.close()
          return status
        },
      }
    }

    it('in seconds is waited for, to the millisecond', async () => {
      const { delay, second } = await waiting('2')
      expect(delay).toBe(2000)
      expect(await second()).toBe(200)
    })

    it.each([
      ['IMF-fixdate', (date: Date) => date.toUTCString()],
      ['RFC 850', (date: Date) => rfc850(date)],
      ['asctime', (date: Date) => asctime(date)],
    ])('as a date in the form of %s is waited for', async (_form, write) => {
      // Whole seconds: what is meant lies between one and two seconds from now.
      const { delay, second } = await waiting(write(new Date(Date.now() + 2000)))
      expect(delay).toBeGreaterThan(900)
      expect(delay).toBeLessThanOrEqual(2000)
      expect(await second()).toBe(200)
    })

    it.each(['0', new Date(Date.now() - 60_000).toUTCString()])('that has passed (%s) is no wait at all', async (value) => {
      await using upstream = await testUpstream({ '/': [{ status: 503, headers: { 'Retry-After': value } }, 200] })
      await using proxy = await startProxy({ upstreams: [upstream.url], retry, clock: manualClock() }, { transport })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
    })

    it.each(['4', new Date(Date.now() + 3_600_000).toUTCString(), '9999999999', '99999999999999999999'])(
      'longer than `maxRetryAfter` (%s) ends the retries: the response goes to the client',
      async (value) => {
        await using upstream = await testUpstream({
          '/': [{ status: 503, headers: { 'Retry-After': value }, body: 'come back later' }, 200],
        })
        await using proxy = await startProxy({ upstreams: [upstream.url], retry, clock: manualClock() }, { transport })
        const response = await rawRequest(proxy.port, get())
        expect(response.status).toBe(503)
        expect(response.header('retry-after')).toBe(value)
        expect(response.text()).toBe('come back later')
        expect(upstream.count()).toBe(1)
      },
    )

    it.each(['-1', '1.5', 'soon', '', '2 s'])('that is neither (%j) counts as none', async (value) => {
      await using upstream = await testUpstream({ '/': [{ status: 503, headers: { 'Retry-After': value } }, 200] })
      await using proxy = await startProxy({ upstreams: [upstream.url], retry, clock: manualClock() }, { transport })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.count()).toBe(2)
    })

    it('does not outlive the client: a wait that nobody waits for is given up', async () => {
      const clock = manualClock()
      await using upstream = await testUpstream({ '/': [{ status: 503, headers: { 'Retry-After': '2' } }, 200] })
      await using proxy = await startProxy({ upstreams: [upstream.url], retry, clock }, { transport })
      const gone = new AbortController()
      const answer = fetch(`http://127.0.0.1:${proxy.port}/`, { signal: gone.signal }).catch(() => 'gone')
      await until('the retry waits', () => clock.pending.length > 0 || undefined)
      gone.abort()
      expect(await answer).toBe('gone')
      expect(await proxy.outcome()).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
      expect(clock.pending).toEqual([])
      clock.advance(10_000)
      expect(upstream.count()).toBe(1)
    })
  })

  describe('when the tries have run out', () => {
    it('the last real response is returned, whole', async () => {
      await using first = await testUpstream({ '/': { status: 503, body: 'first is busy' } }, { name: 'first' })
      await using second = await testUpstream(
        { '/': { status: 503, headers: { 'X-Why': 'load' }, body: 'second is busy' } },
        { name: 'second' },
      )
      await using proxy = await startProxy({ upstreams: [first.url, second.url], retry: { on: [503], backoff: now } }, { transport })
      const response = await rawRequest(proxy.port, get())
      const outcome = await proxy.outcome()
      const last = outcome.attempts[1]?.upstream.id === first.url ? 'first' : 'second'
      expect(response.status).toBe(503)
      expect(response.header('x-upstream')).toBe(last)
      expect(response.text()).toBe(`${last} is busy`)
      expect(response.header('proxy-status')).toBeUndefined()
      expect(outcome).toMatchObject({ status: 503, reason: 'completed', upstream: { id: last === 'first' ? first.url : second.url } })
      expect([first.count(), second.count()]).toEqual([1, 1])
    })

    it.each([
      ['with a length', 'HTTP/1.1 503 Too Busy\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Real: yes\r\n\r\nsorry'],
      [
        'chunked',
        'HTTP/1.1 503 Too Busy\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Real: yes\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsor\r\n2\r\nry\r\n0\r\n\r\n',
      ],
      ['empty', 'HTTP/1.1 503 Too Busy\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Real: yes\r\n\r\n'],
    ])('that is the kept one when the retry got none, its body %s', async (form, bytes) => {
      await using busy = await rawUpstream(everyRequest(() => bytes))
      await using dead = await refusedPort()
      await using proxy = await startProxy(
        { upstreams: [busy.url, { url: dead.url, backup: true }], retry: { on: ['connect', 503], backoff: now } },
        { transport },
      )
      const response = await rawRequest(proxy.port, get())
      expect([response.status, response.reason]).toEqual([503, 'Too Busy'])
      expect(response.text()).toBe(form === 'empty' ? '' : 'sorry')
      expect(response.all('set-cookie')).toEqual(['a=1', 'b=2'])
      expect(response.header('x-real')).toBe('yes')
      expect(response.complete).toBe(true)
      const outcome = await proxy.outcome()
      expect(outcome.attempts.map((attempt) => attempt.status ?? attempt.error?.code)).toEqual([503, 'ERR_CONNECT_REFUSED'])
      expect(outcome).toMatchObject({ status: 503, upstream: { id: busy.url } })
    })

    it('also when its body comes later than the failure of the retry', async () => {
      const failed = gate()
      await using busy = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nso')
        await failed.opened
        await connection.send('rry')
      })
      await using dead = await refusedPort()
      const watch: HealthPolicy = {
        name: 'watch',
        attach() {},
        onAttempt: ({ error }) => {
          if (error?.code === 'ERR_CONNECT_REFUSED') failed.open()
        },
      }
      await using proxy = await startProxy(
        { upstreams: [busy.url, { url: dead.url, backup: true }], retry: { on: ['connect', 503], backoff: now }, health: [watch] },
        { transport },
      )
      const response = await rawRequest(proxy.port, get())
      expect(response.status).toBe(503)
      expect(response.text()).toBe('sorry')
    })

    it('a kept HEAD response keeps its length', async () => {
      await using busy = await rawUpstream(everyRequest(() => 'HTTP/1.1 503 Busy\r\nContent-Length: 1234\r\n\r\n'))
      await using dead = await refusedPort()
      await using proxy = await startProxy(
        { upstreams: [busy.url, { url: dead.url, backup: true }], retry: { on: ['connect', 503], backoff: now } },
        { transport },
      )
      const response = await rawRequest(proxy.port, head('HEAD', '/'), { until: 'response' })
      expect([response.status, response.header('content-length')]).toEqual([503, '1234'])
    })

    it('a body too large to be kept is no real response any more: the error is', async () => {
      await using busy = await testUpstream({ '/': { status: 503, body: 'x'.repeat(200_000) } })
      await using dead = await refusedPort()
      await using proxy = await startProxy(
        {
          upstreams: [busy.url, { url: dead.url, backup: true }],
          retry: { on: ['connect', 503], backoff: { base: 50, max: 50 } },
          random: () => 1,
        },
        { transport },
      )
      const response = await rawRequest(proxy.port, get())
      expect(response.status).toBe(502)
      expect(response.header('proxy-status')).toContain('ERR_CONNECT_REFUSED')
    })

    it('without any real response, the error is that of the last try', async () => {
      await using hangup = await testUpstream({ '/': faults.hangUp() })
      await using dead = await refusedPort()
      await using proxy = await startProxy(
        { upstreams: [hangup.url, { url: dead.url, backup: true }], retry: { backoff: now } },
        { transport },
      )
      const response = await rawRequest(proxy.port, get())
      expect(response.status).toBe(502)
      expect(response.header('proxy-status')).toContain('ERR_CONNECT_REFUSED')
      expect((await proxy.outcome()).attempts.map((attempt) => attempt.error?.code)).toEqual(['ERR_UPSTREAM_RESET', 'ERR_CONNECT_REFUSED'])
    })

    it('hooks see one response: the one that is sent', async () => {
      await using first = await testUpstream({ '/': 503 })
      await using second = await testUpstream({ '/': 200 })
      const seen: unknown[] = []
      await using proxy = await startProxy(
        {
          upstreams: [first.url, { url: second.url, backup: true }],
          retry: { on: [503], backoff: now },
          use: [() => ({ onResponse: (response) => void seen.push([response.status, response.upstream?.id]) })],
        },
        { transport },
      )
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(seen).toEqual([[200, second.url]])
    })
  })

  describe('a status', () => {
    it('is retried for idempotent methods only', async () => {
      await using upstream = await testUpstream({ '/': 503 })
      await using proxy = await startProxy(
        { upstreams: [upstream.url], retry: { on: [503], backoff: now, idempotencyKey: true } },
        { transport },
      )
      const post = (...lines: string[]): string => `${head('POST', '/', 'Content-Length: 2', ...lines)}hi`
      for (const [request, tries] of [
        [get(), 2],
        [post(), 1],
        [post('Idempotency-Key: 1'), 2],
      ] as const) {
        const before = upstream.count()
        expect((await rawRequest(proxy.port, request)).status).toBe(503)
        expect(upstream.count() - before).toBe(tries)
      }
    })

    it('that is not listed goes to the client as it is', async () => {
      await using upstream = await testUpstream({ '/': 500 })
      await using proxy = await startProxy({ upstreams: [upstream.url], retry: { on: [502, 503, 504], backoff: now } }, { transport })
      expect((await rawRequest(proxy.port, get())).status).toBe(500)
      expect(upstream.count()).toBe(1)
    })

    it('that is retried leaves the connection usable: the refused attempts cost none', async () => {
      await using upstream = await testUpstream({ '/': [503, 503, 503, 200] })
      await using proxy = await startProxy(
        { upstreams: [upstream.url], retry: { attempts: 4, on: [503], backoff: { base: 20, max: 20 } }, random: () => 1 },
        { transport },
      )
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      expect(upstream.accepted).toBe(1)
    })
  })

  it('a PUT is sent again with the same bytes', async () => {
    const bodies: string[] = []
    await using upstream = await rawUpstream(
      everyRequest((request) => {
        bodies.push(request.text())
        return bodies.length === 1 ? 'HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n' : ok('done')
      }),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: { on: [503], backoff: now } }, { transport })
    const body = 'y'.repeat(60_000)
    expect((await rawRequest(proxy.port, `${head('PUT', '/', `Content-Length: ${body.length}`)}${body}`)).text()).toBe('done')
    expect(bodies).toEqual([body, body])
  })
})

function rfc850(date: Date): string {
  const [, day, month, year, time] = /^\w+, (\d+) (\w+) (\d+) ([\d:]+) GMT$/.exec(date.toUTCString()) as unknown as string[]
  const weekday = date.toLocaleDateString('en-US', { weekday: 'long', timeZone: 'UTC' })
  return `${weekday}, ${day}-${month}-${year?.slice(2)} ${time} GMT`
}

function asctime(date: Date): string {
  const [, weekday, day, month, year, time] = /^(\w+), (\d+) (\w+) (\d+) ([\d:]+) GMT$/.exec(date.toUTCString()) as unknown as string[]
  return `${weekday} ${month} ${String(Number(day)).padStart(2)} ${time} ${year}`
}
