/**
 * E9. A target means what the upstream says it means. `%2F` is not `/`, `//` is not `/`, and a signature over the URL fails for a single
 * byte: without a rule to rewrite, what came in goes out.
 */
import type { ProxyOptions, StageHandler } from '@weir/core'
import { rawConnect, rawRequest } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, outcomeLog, startProxy, transports } from './setup.ts'

const printable = Array.from({ length: 0x7f - 0x21 }, (_, i) => String.fromCharCode(0x21 + i)).filter((char) => char !== '#')

const targets: readonly string[] = [
  '/',
  '//',
  '///',
  '//a//b//',
  '//evil.test/a',
  '/a/',
  '/a/./b/../c/..',
  '/..',
  '/../../a',
  '/a/%2e%2e/b/%2E%2E/c',
  '/%2e/%2E',
  '/a%2Fb%2fc',
  '/a%5Cb%5cc',
  '/a\\b\\..\\c',
  '/%41%42%7E~%7e',
  '/%e2%82%ac%E2%82%AC',
  '/%00%0d%0a%20%7f%ff',
  '/%zz%%%',
  '/a;b=c;d/e;f',
  '/a;/..;/b',
  '/"quoted"/\'single\'/`back`',
  '/<script>',
  '/{a}|[b]^c',
  '/a:b@c',
  '/a+b&c=d,e!f$g*h(i)',
  '/http://evil.test/?u=https://evil.test/',
  '/?',
  '/??',
  '/a?',
  '/a?b?c',
  '/a?b=c&&d==e&',
  '/a?q=%20+"\'<>`{}|\\^',
  '/a?x=/../&y=//&z=%2e%2e%2f',
  '/a?%zz',
  '/.well-known/x',
  '/*',
  `/${printable.join('')}`,
  `/?${printable.join('')}`,
  `/${'long/'.repeat(1500)}`,
]

describe.each(transports)('E9 over %s: Path and query', (_, transport) => {
  it.each(targets)('arrive byte for byte: %s', async (target) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
    expect(response.status).toBe(200)
    expect(upstream.requests.map((request) => request.target)).toEqual([target])
  })

  it('arrive byte for byte over HTTP/2', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    for (const target of targets) expect((await client.request({ ':path': target })).status).toBe(200)
    expect(upstream.requests.map((request) => request.target)).toEqual(targets)
  })

  it('arrive byte for byte behind an absolute-form authority', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (const target of targets) {
      void client.write(`GET http://public.test${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => request.target)).toEqual(targets)
  })

  it('arrive byte for byte through a route, stages and header rules', async () => {
    await using upstream = await okUpstream()
    const look = () => ({ onAttempt: () => {} })
    const routes = [
      {
        match: { host: 'public.test', path: '/' },
        pool: { upstreams: [upstream.url] },
        use: [look],
        headers: { request: { set: { 'X-A': '1' } } },
      },
    ]
    await using running = await startProxy({ routes }, { transport })
    await using client = await rawConnect(running.port)
    for (const target of targets) {
      void client.write(`GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => request.target)).toEqual(targets)
  })

  it('are shown to stages byte for byte', async () => {
    await using upstream = await okUpstream()
    const shown: string[] = []
    const look = (exchange: { url: string }) => void shown.push(exchange.url)
    await using running = await startProxy({ upstreams: [upstream.url], use: [look] }, { transport })
    await using client = await rawConnect(running.port)
    for (const target of targets) {
      void client.write(`GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      await client.readResponse()
    }
    expect(shown).toEqual(targets)
  })

  it('with a base path keep their bytes behind it', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [`${upstream.url}/base`] }, { transport })
    const harmless = ['/', '//', '//a//b', '/a%2Fb', '/a;b=c', '/"q"', '/%zz', '/?', '/a?x=/../', '/./a', '/...', '/..a', '/a..']
    await using client = await rawConnect(running.port)
    for (const target of harmless) {
      void client.write(`GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => request.target)).toEqual(harmless.map((target) => `/base${target}`))
  })

  it('that hold raw octets above 0x7F arrive with the same octets, or are refused with 400', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (const target of ['/caf\xe9', '/caf\xc3\xa9', '/?q=\xff\xfe']) {
      const seen = upstream.requests.length
      const response = await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      if (response.status === 400) expect(upstream.requests.length).toBe(seen)
      else expect([response.status, upstream.requests[seen]?.target]).toEqual([200, target])
    }
  })
})

describe('E9: A target', () => {
  it.each(['/a#b', '/#', '/a?b#c'])('with a fragment is no request target and is refused with 400: %s', async (target) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    expect((await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)).status).toBe(400)
    expect(upstream.connections).toEqual([])
  })

  it.each(['/a b', '/a\tb', '/a\x00b', '/a\x7fb', '/a\x01b', '/a\rb'])(
    'with a control octet or a blank is refused with 400: %j',
    async (target) => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] })
      expect((await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)).status).toBe(400)
      expect(upstream.connections).toEqual([])
    },
  )
})

describe('E9: A target of a stage’s own', () => {
  const aim =
    (target: unknown): StageHandler =>
    (exchange) => {
      exchange.url = target as string
    }
  const request = 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n'
  const bad: readonly unknown[] = [
    '',
    'a',
    '*',
    'host',
    'http://b.test/',
    '/a b',
    '/a\r\nX-Injected: 1',
    '/a\x00',
    '/a#b',
    undefined,
    7,
    null,
  ]

  it.each(bad)('that is none is the stage’s mistake, and is not sent: %j', async (target) => {
    await using upstream = await okUpstream()
    const ways: readonly Partial<ProxyOptions>[] = [
      { upstreams: [upstream.url], use: [aim(target)] },
      { routes: [{ pool: { upstreams: [upstream.url] }, rewrite: () => target as string }] },
    ]
    for (const options of ways) {
      const log = outcomeLog()
      await using running = await startProxy({ ...options, use: [log.stage, ...(options.use ?? [])] })
      expect((await rawRequest(running.port, request)).status).toBe(500)
      const { error, reason } = await log.outcome(1)
      expect(reason).toBe('ERR_STAGE')
      expect(error?.message).toContain('a target starts with a slash')
      expect(running.proxy.stats().inflight).toBe(0)
    }
    expect(upstream.requests).toEqual([])
  })

  it('is sent as it says', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], use: [aim('//b%2F?x=/../')] })
    expect((await rawRequest(running.port, request)).status).toBe(200)
    expect(upstream.requests.map((seen) => seen.target)).toEqual(['//b%2F?x=/../'])
  })
})
