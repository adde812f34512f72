/** Passwords: right, wrong, of nobody, many at once, and changed. */
import { runStage, stageRunner, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { type BasicAuthOptions, basicAuth } from './basic-auth.ts'
import type { AccessDecision } from './events.ts'
import { heard } from './fixtures/heard.ts'
import { hashPassword, parseHash, verifyPassword } from './password-hash.ts'

const basic = (user: string, password: string): string => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`

let users: Record<string, string>
beforeAll(async () => {
  users = { ada: await hashPassword('lovelace', { cost: 10 }), bob: await hashPassword('bü:ilder', { cost: 10 }) }
})

async function status(authorization: string | readonly string[] | undefined, options: Partial<BasicAuthOptions> = {}): Promise<number> {
  const headers = authorization === undefined ? {} : { Authorization: authorization }
  return (await runStage(basicAuth({ users, ...options }), { request: { headers } })).response.status
}

describe('a password', () => {
  it('that is right lets in, and nothing else does', async () => {
    expect(await status(basic('ada', 'lovelace'))).toBe(200)
    expect(await status(basic('bob', 'bü:ilder'))).toBe(200)
    expect(await status(basic('bob', 'bu\u0308:ilder'))).toBe(200)
    expect(await status(basic('ada', 'lovelace').replace('Basic', 'bASIC'))).toBe(200)
    for (const wrong of [
      undefined,
      basic('ada', 'Lovelace'),
      basic('ada', ''),
      basic('ada', 'bü:ilder'),
      basic('eve', 'lovelace'),
      basic('', ''),
      basic('__proto__', 'x'),
      basic('ada', 'lovelace\0'),
      'Basic',
      'Basic ====',
      `Basic ${Buffer.from('ada').toString('base64')}`,
      `Bearer ${Buffer.from('ada:lovelace').toString('base64')}`,
      [basic('ada', 'lovelace'), basic('ada', 'lovelace')],
      basic('ada', 'x'.repeat(3000)),
    ])
      expect(await status(wrong), String(wrong)).toBe(401)
  })

  it('is asked for with the realm', async () => {
    const { response, upstreamRequests } = await runStage(basicAuth({ users, realm: 'the "inner" room' }))
    expect(response.headers.get('www-authenticate')).toBe('Basic realm="the \\"inner\\" room", charset="UTF-8"')
    expect(response.text()).toBe('401 Unauthorized\n')
    expect(upstreamRequests).toEqual([])
  })

  it('of nobody is checked like that of somebody', async () => {
    const stage = basicAuth({ users })
    await using runner = stageRunner(stage)
    for (const user of ['eve', 'ada']) await runner.send({ headers: { Authorization: basic(user, 'wrong') } })
    expect(stage.stats()).toEqual({ allowed: 0, refused: 2, dry: 0, checked: 2, unavailable: 0 })
  })
})

describe('a check', () => {
  it('takes place off the event loop: it goes round while one is made', async () => {
    const stage = basicAuth({ users: { ada: await hashPassword('lovelace', { cost: 15 }) } })
    await using runner = stageRunner(stage)
    // Far more than what an exchange itself takes.
    const turnsOf = async (authorization: string): Promise<number> => {
      let turns = 0
      let going = true
      const turn = (): void => {
        turns++
        if (going) setImmediate(turn)
      }
      setImmediate(turn)
      await runner.send({ headers: { Authorization: authorization } })
      going = false
      return turns
    }
    const without = await turnsOf('Bearer x')
    expect(stage.stats().checked).toBe(0)
    expect(await turnsOf(basic('ada', 'lovelace'))).toBeGreaterThan(10 * without)
    expect(await turnsOf(basic('eve', 'lovelace'))).toBeGreaterThan(10 * without)
    expect(stage.stats().checked).toBe(2)
  })
})

describe('who it is', () => {
  const request = { headers: { Authorization: '', 'X-User': 'root', x_user: 'root', Connection: 'close, X-User' } }

  it('reaches the upstream in a field that only the proxy sets, and the password does not', async () => {
    request.headers.Authorization = basic('bob', 'bü:ilder')
    const { upstreamRequests } = await runStage(basicAuth({ users, userHeader: 'X-User' }), { request })
    const headers = upstreamRequests[0]?.headers
    expect([headers?.getAll('x-user'), headers?.has('x_user'), headers?.has('authorization')]).toEqual([['bob'], false, false])
    const kept = await runStage(basicAuth({ users, stripCredentials: false }), { request })
    expect(kept.upstreamRequests[0]?.headers.get('authorization')).toBe(request.headers.Authorization)
  })

  it('is in the locals for the stages behind it', async () => {
    let seen: unknown
    const look = (exchange: { locals: { auth?: unknown } }): void => {
      seen = exchange.locals.auth
    }
    await runStage([basicAuth({ users }), look], { request: { headers: { Authorization: basic('ada', 'lovelace') } } })
    expect(seen).toEqual({ scheme: 'basic', subject: 'ada' })
  })

  it('is nobody on a dry run without a password, also when the client says otherwise', async () => {
    const told = heard<AccessDecision>('weir:access:decision')
    const stage = basicAuth({ users, userHeader: 'X-User', dryRun: true })
    await using runner = stageRunner(stage)
    const run = await runner.send({ headers: { 'X-User': 'root', Authorization: basic('ada', 'no') } })
    expect([
      run.response.status,
      run.upstreamRequests[0]?.headers.has('x-user'),
      run.upstreamRequests[0]?.headers.has('authorization'),
    ]).toEqual([200, false, true])
    expect(stage.stats()).toMatchObject({ allowed: 0, refused: 0, dry: 1 })
    expect(told.map(({ verdict, reason }) => [verdict, reason])).toEqual([['dry', 'credentials']])
  })
})

describe('what was right', () => {
  const right = { headers: { Authorization: basic('ada', 'lovelace') } }

  it('is not checked again for a while, and what was wrong is', async () => {
    const clock = virtualClock()
    const stage = basicAuth({ users, remember: '1m', clock })
    await using runner = stageRunner(stage, { proxy: { clock } })
    for (let i = 0; i < 3; i++) expect((await runner.send(right)).response.status).toBe(200)
    expect(stage.stats().checked).toBe(1)
    await clock.advance(60_000)
    await runner.send(right)
    expect(stage.stats().checked).toBe(2)
    for (let i = 0; i < 2; i++) await runner.send({ headers: { Authorization: basic('ada', 'no') } })
    expect(stage.stats().checked).toBe(4)
    const never = basicAuth({ users, remember: 0 })
    await using forgetful = stageRunner(never)
    for (let i = 0; i < 2; i++) await forgetful.send(right)
    expect(never.stats().checked).toBe(2)
  })

  it('is forgotten with the hash', async () => {
    let hash: string | undefined = users.ada
    const stage = basicAuth({ users: () => hash })
    await using runner = stageRunner(stage)
    expect((await runner.send(right)).response.status).toBe(200)
    hash = await hashPassword('other', { cost: 10 })
    expect((await runner.send(right)).response.status).toBe(401)
    hash = undefined
    expect((await runner.send(right)).response.status).toBe(401)
  })

  it('is checked once for many that come together, and beyond what may wait nobody is', async () => {
    const { createProxy } = await import('@weir/core')
    const { fakeTransport } = await import('@weir/testing')
    const stage = basicAuth({ users, concurrency: 1, maxWaiting: 1 })
    await using proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(), use: [stage] })
    const send = (user: string, password: string): Promise<number> =>
      proxy.inject({ headers: { Authorization: basic(user, password) } }).then(({ status }) => status)
    const found = await Promise.all([
      ...Array.from({ length: 10 }, () => send('ada', 'lovelace')),
      send('bob', 'bü:ilder'),
      send('ada', 'third'),
    ])
    expect(found).toEqual([...Array.from({ length: 10 }, () => 200), 200, 503])
    expect(stage.stats()).toMatchObject({ checked: 2, unavailable: 1 })
  })
})

describe('a list of users that is asked for', () => {
  it('and fails, or does not answer in time, is 503', async () => {
    expect(await status(basic('ada', 'lovelace'), { users: () => Promise.reject(new Error('away')) })).toBe(503)
    const clock = virtualClock()
    const sent = status(basic('ada', 'lovelace'), { users: () => new Promise(() => {}), timeout: '2s', clock })
    while (clock.pending === 0) await clock.advance(0)
    await clock.advance(2000)
    expect(await sent).toBe(503)
  })
})

describe('a hash', () => {
  it('fits its password and no other', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ minLength: 1 }), fc.string({ minLength: 1 }), async (password, other) => {
        const hash = parseHash(await hashPassword(password, { cost: 10 }))
        if (hash === undefined) throw new Error('not read')
        expect(await verifyPassword(password, hash)).toBe(true)
        expect(await verifyPassword(other, hash)).toBe(Buffer.from(other.normalize('NFC')).equals(Buffer.from(password.normalize('NFC'))))
      }),
      { numRuns: 20 },
    )
  })

  it('that would take more memory than there is, or is none, is not taken', async () => {
    for (const text of ['', 'plain', '$scrypt$ln=30,r=8,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2g', '$2b$10$abc', undefined])
      expect(parseHash(text)).toBeUndefined()
    await expect(hashPassword('')).rejects.toMatchObject({ code: 'ERR_OPTIONS' })
  })
})
