/**
 * E34. No state of one request (headers, auth, state object, options) is observable in another, checked with interleaved requests.
 *
 * A thousand requests, each with a secret of its own in every place that has room for one, over kept connections of both protocols, slow and
 * fast, with bodies and without, failing and retried. Whatever comes back must hold its own secret and no other's; what stages see must stay
 * its own from the first call to the last; and the options that the application gave must be at the end what they were at the start.
 */
import { Agent, request as httpRequest } from 'node:http'
import { PassThrough } from 'node:stream'
import { createPool, failureMemory, type HeaderRules, type ProxyOptions, type RouteOptions } from '@weir/core'
import { everyRequest, type RawUpstream, rawConnect, rawUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type H2Client, h2Client } from './h2.ts'
import { get, ok } from './messages.ts'
import { startProxy, transports } from './observed.ts'

declare module '@weir/core' {
  interface ExchangeLocals {
    secret?: string
  }
}

/** Freezes options all the way down: whoever writes to them throws. */
function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value) || Buffer.isBuffer(value)) return value
  const proto = Object.getPrototypeOf(value)
  if (proto !== Object.prototype && proto !== Array.prototype) return value
  for (const each of Object.values(value)) frozen(each)
  return Object.freeze(value)
}

const secretOf = (i: number): string => `secret-${i}-${((i * 2654435761) >>> 0).toString(36)}`

interface Told {
  readonly status: number
  readonly headers: readonly string[]
  readonly body: string
}

/** Says back everything that it was told, after a while that differs from request to request. */
function parrot(): ReturnType<typeof testUpstream> {
  let count = 0
  return testUpstream((req, res, wire) => {
    const number = count++
    const chunks: Buffer[] = []
    req.on('data', (chunk: Buffer) => chunks.push(chunk))
    req.on('end', () => {
      const cookie = req.headers.cookie ?? ''
      const answer = (): void => {
        if (req.url?.includes('fail') === true && req.headers['x-try'] === '1') {
          wire.reset()
          return
        }
        res.writeHead(200, [
          'X-Echo',
          String(req.headers['x-secret']),
          'Set-Cookie',
          `back=${cookie}`,
          'Set-Cookie',
          `auth=${req.headers.authorization}`,
        ])
        res.write(JSON.stringify({ url: req.url, headers: req.rawHeaders }))
        wire.after(number % 3, () => res.end(`|${Buffer.concat(chunks).toString()}`))
      }
      wire.after((number * 7) % 11, answer)
    })
  })
}

describe.each(transports)('E34 over %s', (_name, transport) => {
  it('a thousand interleaved requests, each with secrets of its own', { timeout: 60_000 }, async () => {
    const total = 1000
    await using one = await parrot()
    await using two = await parrot()
    const wrong: string[] = []
    const seen = { handled: 0, responded: 0, finished: 0 }
    const stray = (where: string, text: string, own: string): void => {
      for (const found of text.match(/secret-\d+-[a-z0-9]+/g) ?? []) if (found !== own) wrong.push(`${where}: ${found} in ${own}`)
    }
    const rules: HeaderRules = {
      set: { 'X-Rule': (exchange) => exchange.headers.get('x-secret') },
      add: { 'X-Url': (exchange) => exchange.url.replace(/[^ -~]/g, '') },
    }
    const stages: ProxyOptions['use'] = [
      (exchange) => {
        const own = exchange.headers.get('x-secret') ?? 'none'
        if (exchange.locals.secret !== undefined) wrong.push(`locals of ${own} hold ${exchange.locals.secret}`)
        exchange.locals.secret = own
        exchange.hashKey = own
        seen.handled++
        let tries = 0
        return {
          onAttempt: (headers) => {
            if (headers.get('x-secret') !== own) wrong.push(`attempt of ${own} has ${headers.get('x-secret')}`)
            headers.set('X-Try', String(++tries))
          },
          onResponse: (response, same) => {
            seen.responded++
            if (same !== exchange || same.locals.secret !== own) wrong.push(`response of ${own} came with ${same.locals.secret}`)
            if (response.headers.get('x-echo') !== own) wrong.push(`response of ${own} says ${response.headers.get('x-echo')}`)
            if (own.endsWith('a')) response.transform(new PassThrough())
          },
          onFinish: (outcome, same) => {
            seen.finished++
            if (same !== exchange || same.locals.secret !== own) wrong.push(`end of ${own} came with ${same.locals.secret}`)
            if (outcome.status !== 200) wrong.push(`${own}: ${outcome.reason}`)
          },
        }
      },
      // Some of them take their time, so that later ones overtake.
      async (exchange) => {
        const own = exchange.locals.secret
        if (exchange.url.includes('slow')) await new Promise((resolve) => setTimeout(resolve, 3))
        if (exchange.locals.secret !== own) wrong.push(`locals of ${own} turned into ${exchange.locals.secret}`)
        return undefined
      },
    ]
    const shared = transport()
    const pool = createPool(
      frozen({ upstreams: [{ url: one.url, meta: { zone: 'a' } }, two.url], health: [], maxConcurrent: 40, transport: shared }),
    )
    const routes: RouteOptions[] = [
      { match: { path: '/strip', header: { 'x-secret': true } }, pool, stripPrefix: '/strip', headers: { request: rules } },
      {
        pool,
        headers: { request: rules, response: rules },
        rewrite: (url, exchange) => `${url}${url.includes('?') ? '&' : '?'}r=${exchange.headers.get('x-secret')}`,
      },
    ]
    const options: ProxyOptions = frozen({
      routes,
      retry: { attempts: 3, budget: false, backoff: { base: 1, max: 2 } },
      timeouts: { head: '20s' },
      trustedProxies: ['loopback'],
      use: stages,
    })
    const before = JSON.stringify(options, (_key, value) => (typeof value === 'function' || value === pool ? String(value) : value))
    await using h1 = await startProxy(options)
    await using h2 = await startProxy(options, { http2: true })
    const sessions: H2Client[] = [await h2Client(h2.port), await h2Client(h2.port)]
    const agent = new Agent({ keepAlive: true, maxSockets: 24 })

    const ask = (i: number): Promise<Told> => {
      const own = secretOf(i)
      const method = ['GET', 'PUT', 'GET', 'DELETE'][i % 4] as string
      const path = `${['/fast', '/slow', '/strip/fast', '/fail', '/strip/slow'][i % 5]}/${own}?q=${own}`
      const headers = {
        'x-secret': own,
        authorization: `Bearer ${own}`,
        cookie: `session=${own}`,
        'x-forwarded-for': `203.0.113.${i % 250}`,
        ...(i % 7 === 0 ? { [`x-${own}`]: 'named' } : {}),
      }
      const body = method === 'PUT' ? `body of ${own} `.repeat(1 + (i % 50)) : undefined
      if (i % 3 === 0) {
        const client = sessions[i % 2] as H2Client
        return client
          .request({ ':method': method, ':path': path, ...headers }, body)
          .then((response) => ({ status: response.status, headers: response.rawHeaders, body: String(response.body) }))
      }
      return new Promise((resolve, reject) => {
        const sent = httpRequest(
          {
            port: h1.port,
            host: '127.0.0.1',
            agent,
            method,
            path,
            headers: { ...headers, ...(body === undefined ? {} : { 'Content-Length': body.length }) },
          },
          (res) => {
            let text = ''
            res.setEncoding('utf8')
            res.on('data', (chunk: string) => {
              text += chunk
            })
            res.on('end', () => resolve({ status: res.statusCode as number, headers: res.rawHeaders, body: text }))
            res.on('error', reject)
          },
        )
        sent.on('error', reject)
        sent.end(body)
      })
    }

    await Promise.all(
      Array.from({ length: total }, async (_, i) => {
        const own = secretOf(i)
        const told = await ask(i)
        if (told.status !== 200) wrong.push(`${own}: status ${told.status} ${told.body.slice(0, 80)}`)
        stray('response', told.headers.join('\n') + told.body, own)
        for (const where of [`"X-Rule","${own}"`, `Bearer ${own}`, `session=${own}`, `203.0.113.${i % 250}, 127.0.0.1`])
          if (!told.body.includes(where)) wrong.push(`${own} was not told: ${where}`)
        const wanted = i % 4 === 1 ? `|${`body of ${own} `.repeat(1 + (i % 50))}` : '|'
        if (!told.body.endsWith(wanted)) wrong.push(`${own}: another body`)
      }),
    )
    expect(wrong.slice(0, 10)).toEqual([])
    expect(seen).toEqual({ handled: total, responded: total, finished: total })
    // Retries happened, and took nothing from each other.
    expect([...h1.outcomes, ...h2.outcomes].filter((outcome) => outcome.attempts.length > 1).length).toBeGreaterThan(100)
    // What upstreams saw holds one secret per request as well.
    for (const { rawHeaders, url } of [...one.requests, ...two.requests]) {
      const own = rawHeaders[rawHeaders.findIndex((name) => name.toLowerCase() === 'x-secret') + 1] as string
      stray('upstream', rawHeaders.join('\n') + url, own)
    }
    expect(wrong.slice(0, 10)).toEqual([])
    expect(JSON.stringify(options, (_key, value) => (typeof value === 'function' || value === pool ? String(value) : value))).toBe(before)
    for (const session of sessions) await session[Symbol.asyncDispose]()
    agent.destroy()
    await pool.close()
    await shared.close?.()
  })

  it('options may be frozen, in every form, and are never written to', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    await using proxy = await startProxy(
      frozen({
        upstreams: [{ url: upstream.url, weight: 2, meta: { a: { b: 1 } } }],
        health: [failureMemory(frozen({ failures: 2, penalty: '1s' }))],
        queue: { limit: 5, timeout: '1s' },
        retry: { attempts: 2, on: ['connect', 503], methods: ['GET'], budget: { ratio: 0.1 }, backoff: { base: 1 } },
        timeouts: { connect: 1000 },
        headers: {
          request: { remove: ['x-a'], rename: { 'x-b': 'x-c' }, set: { 'x-d': '1' }, add: { 'x-e': '2' }, setIfMissing: { 'x-f': '3' } },
        },
        forwarding: { forwarded: true },
        trustedProxies: ['loopback', '10.0.0.0/8'],
        hostHeader: { fixed: 'a.example' },
      } as const),
      { transport },
    )
    for (let i = 0; i < 3; i++) {
      await using client = await rawConnect(proxy.port)
      void client.write(get('/', 'X-A: 1', 'X-B: 2'))
      expect((await client.readResponse()).status).toBe(200)
    }
    const [seen] = upstream.requests
    const names = seen?.rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
    expect(names).toEqual(expect.arrayContaining(['x-c', 'x-d', 'x-e', 'x-f']))
    expect(names).not.toContain('x-a')
    // The rules did not pile up from request to request.
    for (const { rawHeaders } of upstream.requests) expect(rawHeaders).toHaveLength(seen?.rawHeaders.length ?? -1)
  })

  it('a reply that is one constant object stays one constant', async () => {
    const reply = frozen({ status: 200, headers: { 'X-Constant': 'yes', 'Set-Cookie': ['a=1'] }, body: 'constant' })
    await using proxy = await startProxy(
      {
        upstreams: [],
        use: [
          (exchange) => ({ onResponse: (response) => void response.headers.append('X-Own', exchange.url).append('Set-Cookie', 'b=2') }),
          () => reply,
        ],
      },
      { transport },
    )
    await using client = await rawConnect(proxy.port)
    for (const path of ['/1', '/2', '/3']) {
      void client.write(get(path))
      const response = await client.readResponse()
      expect([response.all('x-own'), response.all('set-cookie'), response.all('x-constant')]).toEqual([[path], ['a=1', 'b=2'], ['yes']])
    }
  })

  it('authorization of one client is not sent for the next one on the same connections', async () => {
    await using upstream: RawUpstream = await rawUpstream(everyRequest(() => ok('fine')))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    for (const lines of [['Authorization: Bearer a', 'Cookie: a=1'], [], ['Cookie: b=2'], []]) {
      void client.write(get('/', ...lines))
      await client.readResponse()
    }
    expect(upstream.connections).toHaveLength(1)
    expect(upstream.requests.map((request) => [request.header('authorization'), request.header('cookie')])).toEqual([
      ['Bearer a', 'a=1'],
      [undefined, undefined],
      [undefined, 'b=2'],
      [undefined, undefined],
    ])
  })

  it('a body that is broken off does not run into the next request on the upstream’s connection', async () => {
    await using upstream = await rawUpstream(everyRequest((request) => ok(`heard ${request.text()}`)))
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
    for (let i = 0; i < 20; i++) {
      await using leaver = await rawConnect(proxy.port)
      await leaver.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nGET /smuggled-${i} HTTP/1.1\r\nHost: a\r\n\r\n`)
      leaver.reset()
      await proxy.outcome(2 * i + 1)
      await using next = await rawConnect(proxy.port)
      void next.write(`POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nmine`)
      expect((await next.readResponse()).text()).toBe('heard mine')
    }
    // What was broken off is there, but never as a request of its own.
    expect(upstream.requests.filter((request) => request.complete).map((request) => request.target)).toEqual(Array(20).fill('/next'))
    expect(upstream.requests.map((request) => request.target).filter((target) => target.includes('smuggled'))).toEqual([])
  })
})
