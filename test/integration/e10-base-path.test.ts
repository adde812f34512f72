/**
 * E10. A base path or a prefix rule is a promise that nothing outside can be reached. The servers behind decode differently (once, twice,
 * backslashes, path parameters), so every spelling of `..` that any of them might understand is refused, and whatever is let through stays
 * inside for all of them. The judge here is the most credulous server there could be.
 */
import { rawConnect, rawRequest } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports } from './setup.ts'

/** Every way in which `..` is one segment to somebody. */
const dots = [
  '..',
  '%2e%2e',
  '%2E%2E',
  '.%2e',
  '.%2E',
  '%2e.',
  '%2E.',
  '%252e%252e',
  '%252E%252e',
  '.%252e',
  '%25252e%25252e',
  '%25%32%65%25%32%65',
]
const separators = ['/', '\\', '%2f', '%2F', '%5c', '%5C', '%252f', '%252F', '%255c', '%25252f']
const parameters = [';', ';a=b', '%3b', '%3Ba', '%253b', ';/', ';jsessionid=1']
const endings = ['%00', '%2500', '%23', '%3f', '%3Fx']

const climbing: readonly string[] = [
  ...dots.flatMap((dot) => [`/${dot}`, `/${dot}/`, `/${dot}/secret`, `/a/${dot}/${dot}/secret`, `/${dot}?q=1`]),
  ...separators.flatMap((separator) => [
    `/..${separator}secret`,
    `/a${separator}..${separator}..${separator}secret`,
    `/${separator}..${separator}secret`,
  ]),
  ...dots.flatMap((dot) => separators.map((separator) => `/a${separator}${dot}${separator}${dot}${separator}secret`)),
  ...dots.flatMap((dot) => parameters.map((parameter) => `/${dot}${parameter}/${dot}${parameter}/secret`)),
  ...endings.map((ending) => `/..${ending}`),
  '/./../secret',
  '/.;/../secret',
  '/;/../secret',
  '/a;/../../secret',
  '//..//..//secret',
  '/a/..\\secret',
  '/..\\../secret',
  '/...\\..\\secret',
  '/a%2f..%2f..%2fsecret',
]

/** Names that hold dots, and queries, are nobody's climbing. */
const harmless: readonly string[] = [
  '/',
  '/a/b',
  '/...',
  '/....',
  '/..a',
  '/a..',
  '/a..b',
  '/.a',
  '/.',
  '/./a',
  '/%2e/a',
  '/.well-known/x',
  '/a.b.c',
  '/a%2e%2eb',
  '/..%41',
  '/%2e%2ea',
  '/a;b=..c',
  '/a?x=/../../y',
  '/a?x=..',
  '/?..',
  '/a?%2e%2e%2f',
  '//a',
  '/a//b',
  '/%25',
  '/100%25/..%25a',
]

/** Decodes until nothing changes, takes backslashes for slashes, cuts parameters and what follows a NUL: does anybody see a `..`? */
function climbs(target: string): boolean {
  let path = target.split('?', 1)[0] as string
  for (let before = ''; before !== path; ) {
    before = path
    path = path.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  }
  return path.split(/[/\\]/).some((segment) => segment.split(/[;\0#?]/, 1)[0] === '..')
}

describe('E10: The judge of these tests', () => {
  it('tells climbing targets from harmless ones', () => {
    expect(climbing.filter((target) => !climbs(target))).toEqual([])
    expect(harmless.filter(climbs)).toEqual([])
  })
})

const rules: readonly (readonly [
  name: string,
  settings: { base: string; route: { stripPrefix?: string; addPrefix?: string }; from: string; to: string },
])[] = [
  ['a base path', { base: '/base', route: {}, from: '', to: '/base' }],
  ['a base path with a slash at its end', { base: '/base/', route: {}, from: '', to: '/base' }],
  ['a base path of two segments', { base: '/base/v1', route: {}, from: '', to: '/base/v1' }],
  ['addPrefix', { base: '', route: { addPrefix: '/add' }, from: '', to: '/add' }],
  ['stripPrefix', { base: '', route: { stripPrefix: '/strip' }, from: '/strip', to: '' }],
  ['stripPrefix and addPrefix', { base: '', route: { stripPrefix: '/strip', addPrefix: '/add' }, from: '/strip', to: '/add' }],
  ['all three', { base: '/base', route: { stripPrefix: '/strip', addPrefix: '/add' }, from: '/strip', to: '/base/add' }],
]

describe.each(rules)('E10: With %s', (_name, { base, route, from, to }) => {
  it('every spelling of .. is refused with 400 and reaches nobody', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ pool: { upstreams: [`${upstream.url}${base}`] }, ...route }] })
    const passed: string[] = []
    for (const target of climbing) {
      const response = await rawRequest(running.port, `GET ${from}${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      if (response.status !== 400) passed.push(`${response.status} ${from}${target}`)
    }
    expect(passed).toEqual([])
    expect(upstream.connections).toEqual([])
  })

  it('what only looks like it arrives below the prefix, byte for byte', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ pool: { upstreams: [`${upstream.url}${base}`] }, ...route }] })
    await using client = await rawConnect(running.port)
    for (const target of harmless) {
      void client.write(`GET ${from}${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect([target, (await client.readResponse()).status]).toEqual([target, 200])
    }
    expect(upstream.requests.map((request) => request.target)).toEqual(harmless.map((target) => `${to}${target}`))
  })

  it('the error names the target, not the inside', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ pool: { upstreams: [`${upstream.url}${base}`] }, ...route }] })
    const response = await rawRequest(running.port, `GET ${from}/../secret HTTP/1.1\r\nHost: public.test\r\n\r\n`)
    expect(response.header('proxy-status')).toContain('ERR_TARGET')
    expect(response.raw.toString('latin1')).not.toMatch(new RegExp(`/base|/add|${upstream.port}`))
  })

  it('HTTP/2 is refused likewise', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ pool: { upstreams: [`${upstream.url}${base}`] }, ...route }] }, { http2: true })
    await using client = await h2Client(running.port)
    for (const target of ['/../secret', '/%2e%2e/secret', '/..;/secret', '/..\\secret', '/..%2fsecret', '/%252e%252e/secret']) {
      expect([target, (await client.request({ ':path': `${from}${target}` })).status]).toEqual([target, 400])
    }
    expect(upstream.connections).toEqual([])
  })
})

describe('E10: Of targets put together at random', () => {
  const piece = fc.constantFrom(...dots, ...separators, ...parameters, ...endings, '.', '/', '/', '/', 'a', 'b', '%41', '%', '%25', '?')

  it('those that anybody could read as climbing get 400, the others arrive below the base as they are', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [`${upstream.url}/base`] })
    await using client = await rawConnect(running.port)
    const property = fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
      const target = `/${pieces.join('')}`
      const seen = upstream.requests.length
      void client.write(`GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      const { status } = await client.readResponse()
      if (climbs(target)) expect([status, upstream.requests.length]).toEqual([400, seen])
      else expect([status, upstream.requests[seen]?.target]).toEqual([200, `/base${target}`])
    })
    await fc.assert(property, { numRuns: 1000, seed: 10 })
  })
})

describe('E10: A prefix rule', () => {
  it('takes off whole segments only', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ pool: { upstreams: [upstream.url] }, stripPrefix: '/api' }] })
    await using client = await rawConnect(running.port)
    for (const target of ['/api', '/api/', '/api?x=1', '/api/a', '/api//a', '/apix', '/ap', '/API/a', '/%61pi/a', '/api;a/b', '/x/api/a']) {
      void client.write(`GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => request.target)).toEqual([
      '/',
      '/',
      '/?x=1',
      '/a',
      '//a',
      '/apix',
      '/ap',
      '/API/a',
      '/%61pi/a',
      '/api;a/b',
      '/x/api/a',
    ])
  })

  it('does not let what is left of a target choose another host', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({
      routes: [{ match: { path: '/api' }, pool: { upstreams: [upstream.url] }, stripPrefix: true }],
    })
    for (const target of ['/api//evil.test/a', '/api/@evil.test', '/api/http://evil.test/', '/api/\\evil.test']) {
      const response = await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect(response.status).toBe(200)
    }
    expect(upstream.requests.map((request) => request.target)).toEqual([
      '//evil.test/a',
      '/@evil.test',
      '/http://evil.test/',
      '/\\evil.test',
    ])
    expect(upstream.requests.map((request) => request.header('host'))).toEqual(Array(4).fill('public.test'))
  })

  it('holds for what a rewrite returns, too', async () => {
    await using upstream = await okUpstream()
    const rewrite = (url: string) => url.replace('/up', '/..')
    await using running = await startProxy({ routes: [{ pool: { upstreams: [`${upstream.url}/base`] }, rewrite }] })
    const response = await rawRequest(running.port, 'GET /up/secret HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(response.status).toBeGreaterThanOrEqual(400)
    expect(upstream.connections).toEqual([])
  })

  it('holds for what a stage has made of the target, too', async () => {
    await using upstream = await okUpstream()
    const climb = (exchange: { url: string }) => {
      exchange.url = '/../secret'
    }
    await using running = await startProxy({ upstreams: [`${upstream.url}/base`], use: [climb] })
    const response = await rawRequest(running.port, 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(response.status).toBeGreaterThanOrEqual(400)
    expect(upstream.connections).toEqual([])
  })

  it.each(['/../a', '/a/..', '/%2e%2e', 'a', '/a?b', '/a#b', '/a b'])(
    'is refused at createProxy when it climbs itself or is no path: %s',
    async (prefix) => {
      const route = { pool: { upstreams: ['http://127.0.0.1:1'] } }
      await expect(startProxy({ routes: [{ ...route, stripPrefix: prefix }] })).rejects.toMatchObject({ name: 'OptionsError' })
      await expect(startProxy({ routes: [{ ...route, addPrefix: prefix }] })).rejects.toMatchObject({ name: 'OptionsError' })
    },
  )
})

describe.each(transports)('E10 over %s: A base path', (_, transport) => {
  it('goes before the target without changing it', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [`${upstream.url}/base`] }, { transport })
    await using client = await rawConnect(running.port)
    for (const target of ['/', '/a', '//a', '/a?b=c', '/?b']) {
      void client.write(`GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => request.target)).toEqual(['/base/', '/base/a', '/base//a', '/base/a?b=c', '/base/?b'])
  })
})
