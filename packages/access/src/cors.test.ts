/** Who may read answers from another origin. */
import { runStage, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CorsOptions, cors } from './cors.ts'

const app = 'https://app.example.com'

interface Shared {
  readonly origin: string | undefined
  readonly credentials: string | undefined
  readonly vary: string | undefined
}

async function shared(options: CorsOptions, origin: string | undefined, upstream: Record<string, string> = {}): Promise<Shared> {
  const { response } = await runStage(cors(options), {
    request: { headers: origin === undefined ? {} : { Origin: origin } },
    response: { headers: upstream },
  })
  const { headers } = response
  return {
    origin: headers.getAll('access-control-allow-origin').join('|') || undefined,
    credentials: headers.get('access-control-allow-credentials'),
    vary: headers.get('vary'),
  }
}

async function preflight(
  options: CorsOptions,
  headers: Record<string, string>,
): Promise<{ status: number; upstream: number; fields: Record<string, string> }> {
  const run = await runStage(cors(options), {
    request: { method: 'OPTIONS', headers: { Origin: app, 'Access-Control-Request-Method': 'PUT', ...headers } },
  })
  return {
    status: run.response.status,
    upstream: run.upstreamRequests.length,
    fields: Object.fromEntries([...run.response.headers].filter(([name]) => name.startsWith('Access-Control-'))),
  }
}

describe('an answer', () => {
  it('may be read by a listed origin, which is named, and by nobody else', async () => {
    const origins = [app, /https:\/\/[a-z]+\.example\.org/, (origin: string) => origin === 'http://localhost:3000']
    for (const origin of [app, 'https://a.example.org', 'http://localhost:3000'])
      expect(await shared({ origins }, origin)).toEqual({ origin, credentials: undefined, vary: 'Origin' })
    for (const origin of [
      'https://evil.com',
      'https://app.example.com.evil.com',
      'http://app.example.com',
      'https://a.example.org.evil.com',
      'https://evil.com/https://a.example.org',
      'null',
      '',
      undefined,
    ])
      expect(await shared({ origins }, origin), origin).toEqual({ origin: undefined, credentials: undefined, vary: 'Origin' })
  })

  it('says credentials only with the name of the origin', async () => {
    expect(await shared({ origins: app, credentials: true }, app)).toMatchObject({ origin: app, credentials: 'true' })
    expect(await shared({ origins: '*' }, app)).toMatchObject({ origin: '*', credentials: undefined })
    await fc.assert(
      fc.asyncProperty(fc.webUrl({ validSchemes: ['http', 'https'] }), fc.boolean(), async (url, listed) => {
        const { origin } = new URL(url)
        const found = await shared({ origins: listed ? [origin] : [app], credentials: true }, origin)
        expect(found.origin).toBe(listed || origin === app ? origin : undefined)
        expect(found.credentials).toBe(found.origin === undefined ? undefined : 'true')
        expect(found.vary).toBe('Origin')
      }),
      { numRuns: 50 },
    )
  })

  it('does not carry what the upstream thinks of it', async () => {
    const upstream = { 'Access-Control-Allow-Origin': '*', 'access-control-allow-credentials': 'true', Vary: 'Accept' }
    expect(await shared({ origins: app }, 'https://evil.com', upstream)).toEqual({
      origin: undefined,
      credentials: undefined,
      vary: 'Accept, Origin',
    })
    expect(await shared({ origins: app }, app, upstream)).toEqual({ origin: app, credentials: undefined, vary: 'Accept, Origin' })
    expect((await shared({ origins: app }, app, { Vary: 'origin' })).vary).toBe('origin')
  })

  it('shows the fields that it may', async () => {
    const { response } = await runStage(cors({ origins: app, exposeHeaders: ['X-Total', 'Link'] }), {
      request: { headers: { Origin: app } },
    })
    expect(response.headers.get('access-control-expose-headers')).toBe('X-Total, Link')
  })
})

describe('a preflight', () => {
  it('is answered here', async () => {
    const found = await preflight(
      { origins: app, credentials: true, maxAge: '1h' },
      { 'Access-Control-Request-Headers': 'content-type, Authorization' },
    )
    expect(found).toEqual({
      status: 204,
      upstream: 0,
      fields: {
        'Access-Control-Allow-Origin': app,
        'Access-Control-Allow-Methods': 'GET, HEAD, POST, PUT, PATCH, DELETE',
        'Access-Control-Allow-Headers': 'Content-Type, Authorization',
        'Access-Control-Allow-Credentials': 'true',
        'Access-Control-Max-Age': '3600',
      },
    })
  })

  it('of an origin, a method or a field that is not allowed gets no permission', async () => {
    const options: CorsOptions = { origins: app, methods: ['GET', 'PUT'], allowHeaders: ['X-A'] }
    expect(Object.keys((await preflight(options, { 'Access-Control-Request-Headers': 'x-a' })).fields)).toContain(
      'Access-Control-Allow-Origin',
    )
    for (const headers of [
      { Origin: 'https://evil.com' },
      { 'Access-Control-Request-Method': 'DELETE' },
      { 'Access-Control-Request-Headers': 'X-A, X-B' },
    ])
      expect(await preflight(options, headers as unknown as Record<string, string>)).toEqual({ status: 204, upstream: 0, fields: {} })
    expect(
      (await preflight({ origins: app, allowHeaders: 'any' }, { 'Access-Control-Request-Headers': 'x-b' })).fields[
        'Access-Control-Allow-Headers'
      ],
    ).toBe('x-b')
  })

  it('for a private network gets yes only where that is switched on', async () => {
    const ask = { 'Access-Control-Request-Private-Network': 'true' }
    expect((await preflight({ origins: app }, ask)).fields['Access-Control-Allow-Private-Network']).toBeUndefined()
    expect((await preflight({ origins: app, privateNetwork: true }, ask)).fields['Access-Control-Allow-Private-Network']).toBe('true')
    expect((await preflight({ origins: app, privateNetwork: true }, {})).fields['Access-Control-Allow-Private-Network']).toBeUndefined()
  })

  it('varies by all that it depends on; another OPTIONS goes on; all are counted', async () => {
    const stage = cors({ origins: app })
    await using runner = stageRunner(stage)
    const asked = await runner.send({ method: 'OPTIONS', headers: { Origin: app, 'Access-Control-Request-Method': 'PUT' } })
    expect(asked.response.headers.get('vary')).toBe('Origin, Access-Control-Request-Method, Access-Control-Request-Headers')
    expect((await runner.send({ method: 'OPTIONS', headers: { Origin: app } })).upstreamRequests.length).toBe(1)
    await runner.send({ method: 'OPTIONS', headers: { Origin: 'https://evil.com', 'Access-Control-Request-Method': 'PUT' } })
    expect(stage.stats()).toEqual({ preflights: 2, refused: 1, shared: 1 })
  })
})
