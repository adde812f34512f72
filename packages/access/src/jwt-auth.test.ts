/** Tokens: which are good, who they say somebody is, and where the keys come from. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Exchange, InjectedRequest } from '@weir/core'
import { faults, runStage, type StageRun, stageRunner, testUpstream } from '@weir/testing'
import fc from 'fast-check'
import { exportJWK, type JWTPayload, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { type JwtAuthOptions, jwtAuth } from './jwt-auth.ts'

const pair = (): { publicKey: KeyObject; privateKey: KeyObject } => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const [one, two] = [pair(), pair()]
const pem = one.publicKey.export({ type: 'spki', format: 'pem' }).toString()
const now = (): number => 1_700_000_000_000
const seconds = now() / 1000

const good: JWTPayload = { iss: 'https://id.test', aud: 'api', sub: 'ada', exp: seconds + 60 }
const sign = (
  claims: JWTPayload,
  { key = one.privateKey, alg = 'ES256', ...header }: { key?: KeyObject; alg?: string; kid?: string; typ?: string } = {},
): Promise<string> => new SignJWT(claims).setProtectedHeader({ alg, ...header }).sign(key)

const base: JwtAuthOptions = { algorithms: ['ES256'], keys: { publicKey: pem }, issuer: 'https://id.test', audience: 'api', now }

async function ask(token: string | undefined, options: Partial<JwtAuthOptions> = {}, request: InjectedRequest = {}): Promise<StageRun> {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` }
  return await runStage(jwtAuth({ ...base, ...options }), { request: { ...request, headers: { ...request.headers, ...headers } } })
}
const status = async (...parameters: Parameters<typeof ask>): Promise<number> => (await ask(...parameters)).response.status

describe('a token', () => {
  it('that is good lets in', async () => {
    expect(await status(await sign(good))).toBe(200)
    expect(await status(await sign({ ...good, aud: ['other', 'api'] }))).toBe(200)
    expect(await status(await sign({ ...good, iss: 'x', aud: 'y' }), { issuer: false, audience: false })).toBe(200)
  })

  it('of another key, issuer, audience, or without what it must have does not', async () => {
    const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify(good)).toString('base64url')}.`
    const { exp: _, ...endless } = good
    const wrong = {
      nothing: undefined,
      'an empty one': '',
      nonsense: 'abc',
      'another key': await sign(good, { key: two.privateKey }),
      'no signature': none,
      'another issuer': await sign({ ...good, iss: 'https://evil.test' }),
      'another audience': await sign({ ...good, aud: 'other' }),
      'no end': await sign(endless),
      'no audience': await sign({ iss: 'https://id.test', exp: seconds + 60 }),
      'a very long one': await sign({ ...good, long: 'x'.repeat(6500) }),
    }
    for (const [what, token] of Object.entries(wrong)) expect(await status(token), what).toBe(401)
  })

  it('signed with the public key as if it were a secret does not', async () => {
    const forged = await new SignJWT(good).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(pem))
    expect(await status(forged)).toBe(401)
  })

  it('changed in any character does not', async () => {
    const token = await sign(good)
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 1), fc.constantFrom('A', 'z', '0', '_'), async (at, letter) => {
        const changed = token.slice(0, at) + letter + token.slice(at + 1)
        const same = changed
          .split('.')
          .every((part, i) => Buffer.from(part, 'base64url').equals(Buffer.from(token.split('.')[i] as string, 'base64url')))
        // Only the text that was signed counts; spare bits of the last character of the signature are not part of it.
        if (changed === token || (same && at > token.lastIndexOf('.'))) return
        expect(await status(changed)).toBe(401)
      }),
      { numRuns: 60 },
    )
  })

  it('is good in its time, give or take the skew', async () => {
    const token = await sign({ ...good, nbf: seconds - 60 })
    const at = (ms: number): Promise<number> => status(token, { now: () => now() + ms, skew: '10s' })
    expect([await at(-70_000), await at(-71_000), await at(0), await at(69_000), await at(70_000)]).toEqual([200, 401, 200, 200, 401])
  })

  it('can have to be of a type, or to have claims', async () => {
    expect(await status(await sign(good), { type: 'at+jwt' })).toBe(401)
    expect(await status(await sign(good, { typ: 'at+jwt' }), { type: 'at+jwt' })).toBe(200)
    expect(await status(await sign(good), { requiredClaims: ['exp', 'scope'] })).toBe(401)
    const { exp: _, ...endless } = good
    expect(await status(await sign(endless), { requiredClaims: [] })).toBe(200)
  })

  it('may come in a cookie, but not in two', async () => {
    const token = await sign(good)
    const cookie = (value: string): Promise<number> => status(undefined, { cookie: 't' }, { headers: { Cookie: value } })
    expect([await cookie(`a=1; t=${token}`), await cookie(`t=${token}; t=x`), await cookie(`xt=${token}`)]).toEqual([200, 401, 401])
    expect(await status(undefined, {}, { headers: { Cookie: `t=${token}` } })).toBe(401)
  })

  it('may be missing where it is optional, but not be wrong', async () => {
    expect([await status(undefined, { optional: true }), await status('abc', { optional: true })]).toEqual([200, 401])
    expect(await status(undefined, { optional: true }, { headers: { Authorization: 'Basic abc' } })).toBe(401)
  })

  it('is asked for, and told to be wrong, in the words of RFC 6750', async () => {
    const asked = await ask(undefined, { realm: 'api' })
    const wrong = await ask('abc', { realm: 'api' })
    expect([asked, wrong].map(({ response }) => response.headers.get('www-authenticate'))).toEqual([
      'Bearer realm="api"',
      'Bearer realm="api", error="invalid_token"',
    ])
    expect(wrong.response.text()).toBe('401 Unauthorized\n')
  })

  it('on a dry run is only looked at', async () => {
    const stage = jwtAuth({ ...base, dryRun: true })
    expect((await runStage(stage)).response.status).toBe(200)
    expect(stage.stats()).toEqual({ allowed: 0, refused: 0, dry: 1, unavailable: 0 })
  })
})

describe('claims', () => {
  it('reach the upstream in fields that only the proxy sets', async () => {
    const claimHeaders = { sub: 'X-User', roles: 'X-Roles', plan: 'X-Plan', org: 'X-Org' }
    const token = await sign({ ...good, sub: 'Zoë', roles: ['a', 'b'], org: { id: 7 } })
    const { upstreamRequests } = await ask(
      token,
      { claimHeaders },
      { headers: { 'X-Plan': 'gold', X_User: 'root', Connection: 'close, X-Roles' } },
    )
    const headers = upstreamRequests[0]?.headers
    expect(['x-user', 'x-roles', 'x-plan', 'x-org', 'x_user'].map((name) => headers?.get(name))).toEqual([
      'Zo%C3%AB',
      'a,b',
      undefined,
      '{"id":7}',
      undefined,
    ])
    expect(headers?.has('authorization')).toBe(true)
    const stripped = await ask(token, { stripCredentials: true })
    expect(stripped.upstreamRequests[0]?.headers.has('authorization')).toBe(false)
  })

  it('are there for stages and balancers', async () => {
    let seen: Exchange | undefined
    const look = (exchange: Exchange): void => {
      seen = exchange
    }
    await runStage([jwtAuth({ ...base, hashClaim: 'tenant' }), look], {
      request: { headers: { Authorization: `Bearer ${await sign({ ...good, tenant: 42 })}` } },
    })
    expect([seen?.hashKey, seen?.locals.auth?.scheme, seen?.locals.auth?.subject, seen?.locals.auth?.claims?.tenant]).toEqual([
      '42',
      'jwt',
      'ada',
      42,
    ])
  })
})

describe('a secret', () => {
  it('signs, with algorithms for secrets', async () => {
    const secret = 'x'.repeat(32)
    const token = await new SignJWT(good).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
    const options: Partial<JwtAuthOptions> = { algorithms: ['HS256'], keys: { secret } }
    expect([
      await status(token, options),
      await status(token, { ...options, keys: { secret: 'y'.repeat(32) } }),
      await status(token, { ...options, algorithms: ['HS512'] }),
    ]).toEqual([200, 401, 401])
  })
})

describe('a key set at a URL', () => {
  const setOf = async (...keys: readonly [string, KeyObject][]): Promise<string> =>
    JSON.stringify({
      keys: await Promise.all(keys.map(async ([kid, key]) => ({ ...(await exportJWK(key)), kid, alg: 'ES256', use: 'sig' }))),
    })

  it('in an outage nobody with a token of a key that nobody knows keeps those out whose keys are at hand', async () => {
    await using service = await testUpstream({ '*': await setOf(['1', one.publicKey]) })
    const token = async (kid: string, key: KeyObject): Promise<InjectedRequest> => ({
      headers: { Authorization: `Bearer ${await sign(good, { kid, key })}` },
    })
    const [mine, strange] = [await token('1', one.privateKey), await token('2', two.privateKey)]
    const forged = await token('1', two.privateKey)
    await using runner = stageRunner(jwtAuth({ ...base, keys: { jwks: { url: service.url, cooldown: 200, stale: 0 } } }))
    const send = async (request: InjectedRequest): Promise<number> => (await runner.send(request)).response.status
    expect(await send(mine)).toBe(200)
    service.route('*', faults.reset())
    await new Promise((resolve) => setTimeout(resolve, 220))
    const before = service.count()
    expect(await send(strange)).toBe(503)
    expect(service.count()).toBe(before + 1)
    for (let i = 0; i < 5; i++) expect(await send(mine)).toBe(200)
    expect(await send(forged)).toBe(401)
    expect(await send(strange)).toBe(503)
    // Nor do they ask the service again and again.
    expect(service.count()).toBe(before + 1)
  })

  it('is fetched once, and again for a key that it does not have, after the cooldown', async () => {
    await using service = await testUpstream({ '*': await setOf(['1', one.publicKey]) })
    const token = async (kid: string, key: KeyObject): Promise<InjectedRequest> => ({
      headers: { Authorization: `Bearer ${await sign(good, { kid, key })}` },
    })
    const [first, second] = [await token('1', one.privateKey), await token('2', two.privateKey)]
    for (const [cooldown, expected, fetches] of [
      [0, 200, 2],
      ['1h', 401, 1],
    ] as const) {
      service.route('*', await setOf(['1', one.publicKey]))
      const before = service.count()
      await using runner = stageRunner(jwtAuth({ ...base, keys: { jwks: { url: service.url, cooldown } } }))
      expect((await runner.send(first)).response.status).toBe(200)
      expect((await runner.send(first)).response.status).toBe(200)
      service.route('*', await setOf(['1', one.publicKey], ['2', two.publicKey]))
      expect((await runner.send(second)).response.status).toBe(expected)
      expect(service.count() - before).toBe(fetches)
    }
  })

  it('that has never been there is not asked for by each request', async () => {
    await using service = await testUpstream({ '*': (_req, res) => void res.writeHead(500).end() })
    let time = now()
    const stage = jwtAuth({ ...base, skew: '10m', keys: { jwks: { url: service.url } }, now: () => time })
    await using runner = stageRunner(stage)
    const request = { headers: { Authorization: `Bearer ${await sign(good, { kid: '1' })}` } }
    const send = async (): Promise<number> => (await runner.send(request)).response.status
    for (let i = 0; i < 5; i++) expect(await send()).toBe(503)
    expect(service.count()).toBe(1)
    service.route('*', await setOf(['1', one.publicKey]))
    time += 999
    expect([await send(), service.count()]).toEqual([503, 1])
    time += 1
    expect([await send(), service.count()]).toEqual([200, 2])
  })

  it('that cannot be fetched is 503; one that could goes on for a while', async () => {
    let answers = true
    const body = await setOf(['1', one.publicKey])
    // No keep-alive pool of the fetch may outlive the server.
    const server: Server = createServer((_req, res) => res.writeHead(answers ? 200 : 500, { Connection: 'close' }).end(body)).listen(
      0,
      '127.0.0.1',
    )
    await new Promise((resolve) => server.once('listening', resolve))
    let time = now()
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    const stage = jwtAuth({ ...base, skew: '10m', keys: { jwks: { url, maxAge: 1, cooldown: 0, stale: '1m' } }, now: () => time })
    await using runner = stageRunner(stage)
    const request = { headers: { Authorization: `Bearer ${await sign(good, { kid: '1' })}` } }
    const send = async (): Promise<number> => (await runner.send(request)).response.status
    answers = false
    expect(await send()).toBe(503)
    answers = true
    expect(await send()).toBe(200)
    answers = false
    time += 59_999
    // jose looks at the real time, and takes a set of this very millisecond for a fresh one.
    for (const since = Date.now(); Date.now() <= since + 1; ) await new Promise((resolve) => setImmediate(resolve))
    expect(await send()).toBe(200)
    time += 1
    expect(await send()).toBe(503)
    expect(stage.stats()).toMatchObject({ allowed: 2, refused: 2, unavailable: 2 })
    await new Promise((resolve) => server.close(resolve))
  })
})
