/** Rules about requests: what fits, what follows, and what cannot be told. */
import type { Exchange, InjectedRequest } from '@weir/core'
import { OptionReader } from '@weir/core'
import { runStage, stageRunner, stubExchange, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { AccessDecision } from './events.ts'
import type { FilterRule } from './filter-rules.ts'
import { heard } from './fixtures/heard.ts'
import { type RequestFilterOptions, requestFilter } from './request-filter.ts'
import { type Answer, allOf, anyOf, noneOf, type Question, type RequestMatch, readMatch } from './request-match.ts'

/** What a rule that denies and one that allows make of the same request. */
async function fits(match: RequestMatch, request: InjectedRequest, options: Partial<RequestFilterOptions> = {}): Promise<Answer> {
  const denies = await runStage(requestFilter({ ...options, rules: [{ match, action: 'deny' }] }), { request })
  const allows = await runStage(requestFilter({ ...options, rules: [{ match, action: 'allow' }], default: 'deny' }), { request })
  const denied = denies.response.status === 403
  const allowed = allows.response.status === 200
  return denied === allowed ? (denied ? 'yes' : 'no') : denied ? 'unsure' : ('allowed but not denied' as Answer)
}

async function answers(match: RequestMatch, ...requests: readonly InjectedRequest[]): Promise<Answer[]> {
  const found: Answer[] = []
  for (const request of requests) found.push(await fits(match, request))
  return found
}

const urls = (...list: readonly string[]): InjectedRequest[] => list.map((url) => ({ url }))

type Server = (path: string) => string

const decodeOnce = (text: string): string =>
  text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
const cut = (segment: string): string => segment.split(';', 1)[0] as string

/** Every server that takes these steps in this order, each of them or not. */
const servers: Server[] = [0, 1, 2].flatMap((decodes) =>
  [false, true].flatMap((backslash) =>
    [false, true].flatMap((cuts) =>
      (['keep', 'merge first', 'merge last'] as const).flatMap((empty) =>
        [false, true].map((late) => serverOf(decodes, backslash, cuts, empty, late)),
      ),
    ),
  ),
)
// A URL parser, as node's.
servers.push((path) => new URL(path.replace(/^[/\\]+/, '/'), 'http://x').pathname)

/** @param late parts are decoded when the path has been divided, so that an encoded slash is none */
function serverOf(decodes: number, backslash: boolean, cuts: boolean, empty: 'keep' | 'merge first' | 'merge last', late: boolean): Server {
  const decode = (text: string): string => {
    let out = text
    for (let i = 0; i < decodes; i++) out = decodeOnce(out)
    return out
  }
  return (path) => {
    let text = late ? path : decode(path)
    if (backslash) text = text.replaceAll('\\', '/')
    let segments = text.split('/').slice(1)
    if (late) segments = segments.map(decode)
    if (cuts) segments = segments.map(cut)
    if (empty === 'merge first') segments = segments.filter((segment, i) => segment !== '' || i === segments.length - 1)
    const kept: string[] = []
    for (const segment of segments) {
      if (segment === '..') kept.pop()
      else if (segment !== '.') kept.push(segment)
    }
    return `/${(empty === 'merge last' ? kept.filter((segment) => segment !== '') : kept).join('/')}`
  }
}

describe('a match', () => {
  it('of the method', async () => {
    expect(await answers({ method: ['PUT', 'DELETE'] }, { method: 'PUT' }, { method: 'GET' })).toEqual(['yes', 'no'])
  })

  it('of the path, exact, below, or by pattern, and never of the query', async () => {
    expect(await answers({ path: '/admin' }, ...urls('/admin', '/admin?x', '/admin/', '/admins', '/?/admin'))).toEqual([
      'yes',
      'yes',
      'no',
      'no',
      'no',
    ])
    expect(await answers({ path: '/admin/*' }, ...urls('/admin', '/admin/', '/admin/a/b?x', '/administrator'))).toEqual([
      'yes',
      'yes',
      'yes',
      'no',
    ])
    expect(await answers({ path: [/\.php$/, '/cgi-bin/*'] }, ...urls('/a.php', '/a.php?x', '/cgi-bin/x', '/a?x.php'))).toEqual([
      'yes',
      'yes',
      'yes',
      'no',
    ])
    expect(await answers({ path: '/*' }, ...urls('/', '/a'))).toEqual(['yes', 'yes'])
    expect(await answers({ path: '/a%20b' }, ...urls('/a%20b', '/a b'.replace(' ', '%2520')))).toEqual(['yes', 'unsure'])
  })

  it('of a path that reads in two ways is open: denied where that is denied, and not allowed where that is allowed', async () => {
    const spellings = ['/%61dmin', '//admin', '/x/../admin', '/admin;x', '/%2561dmin', '/x/..%2fadmin', '/x/../x/admin/..;/../admin/.']
    for (const url of spellings) {
      const found = await fits({ path: '/admin/*' }, { url })
      expect(found, url).toBe('unsure')
      expect(await fits({ not: { path: '/admin/*' } }, { url }), `not ${url}`).toBe('unsure')
    }
    expect(await answers({ path: '/public/*' }, ...urls('/public/../admin', '/public/a'))).toEqual(['unsure', 'yes'])
  })

  it('of a path with .. is certain only where it holds whatever a server takes away', async () => {
    const climbing = ['/./admin//../users', '/x/../admin//../users', '/./admin/..%2fusers', '/./admin/..;/users', '/%61dmin//../s']
    expect(await answers({ path: '/admin/*' }, ...urls(...climbing))).toEqual(climbing.map(() => 'unsure'))
    const leaving = ['/public/../admin//../public/x', '/public/a//../../x', '/public/a%2fb/../../../x', '/public/..', '/public/..;/x']
    expect(await answers({ path: '/public/*' }, ...urls(...leaving))).toEqual(leaving.map(() => 'unsure'))
    expect(await answers({ path: '/public/*' }, ...urls('/public/a/../b', '/public/a%2fb/../c', '/x/../y'))).toEqual(['yes', 'yes', 'no'])
    expect(await answers({ path: ['/*'] }, ...urls('/../a'))).toEqual(['yes'])
    expect(await answers({ path: '/' }, ...urls('/a/..'))).toEqual(['unsure'])
    expect(await answers({ path: /^\/a$/ }, ...urls('/a/b/..', '/a', '/a..'))).toEqual(['unsure', 'yes', 'no'])
  })

  it('of a path is never contradicted by a server: whatever it decodes, merges, cuts off and takes away', async () => {
    const piece = fc.constantFrom(
      '/',
      '/',
      '/',
      '..',
      '..',
      '.',
      'admin',
      '%61dmin',
      'x',
      ';',
      ';v=1',
      '\\',
      '%2e',
      '%2f',
      '%252f',
      '%3b',
      '%5C',
      '%25',
    )
    const path = fc.array(piece, { minLength: 1, maxLength: 10 }).map((pieces) => `/${pieces.join('')}`)
    const seen = { yes: 0, no: 0, unsure: 0 }
    let told = 0
    await fc.assert(
      fc.asyncProperty(path, async (url) => {
        const found = await fits({ path: '/admin/*' }, { url })
        seen[found]++
        if (found === 'unsure') return
        for (const server of servers) {
          const there = server(url)
          expect(/^\/admin(?:\/|$)/.test(there) ? 'yes' : 'no', `${url} is ${there}`).toBe(found)
          told++
        }
      }),
      { numRuns: 3000 },
    )
    // It does tell most of the time, or it would be of no use.
    expect(Math.min(seen.yes, seen.no)).toBeGreaterThan(20)
    expect(told).toBeGreaterThan(10_000)
  })

  it('of query, fields and cookies: is there, is not, is this, or one of these', async () => {
    expect(await answers({ query: { a: true } }, ...urls('/?a', '/?b=a', '/'))).toEqual(['yes', 'no', 'no'])
    expect(await answers({ query: { a: false } }, ...urls('/?a', '/'))).toEqual(['no', 'yes'])
    expect(await answers({ query: { a: 'x y' } }, ...urls('/?a=x%20y', '/?a=x+y', '/?%61=x+y', '/?a=x', '/?a=x+y&a=1'))).toEqual([
      'yes',
      'yes',
      'yes',
      'no',
      'unsure',
    ])
    const fields = (...list: readonly Record<string, string | string[]>[]): InjectedRequest[] => list.map((headers) => ({ headers }))
    expect(
      await answers(
        { header: { 'User-Agent': [/^sqlmap/i, 'bad'] } },
        ...fields(
          { 'user-agent': 'SQLmap/1' },
          { 'User-Agent': 'bad' },
          { 'User-Agent': 'not bad' },
          {},
          { 'User-Agent': ['bad', 'good'] },
        ),
      ),
    ).toEqual(['yes', 'yes', 'no', 'no', 'unsure'])
    expect(
      await answers(
        { cookie: { s: '1' } },
        ...fields({ Cookie: 'a=2; s=1' }, { Cookie: 's=2' }, { Cookie: 'xs=1' }, { Cookie: 's=1; s=2' }),
      ),
    ).toEqual(['yes', 'no', 'no', 'unsure'])
  })

  it('of addresses, and of whatever a function knows', async () => {
    expect(
      await answers(
        { clientIp: ['10.0.0.0/8'] },
        { remoteAddress: '10.1.1.1' },
        { remoteAddress: '::ffff:10.1.1.1' },
        { remoteAddress: '192.0.2.1' },
        { remoteAddress: '' },
      ),
    ).toEqual(['yes', 'yes', 'no', 'unsure'])
    expect(await answers({ when: ({ url }) => url.length > 5 }, ...urls('/12345', '/1'))).toEqual(['yes', 'no'])
  })

  it('needs all of its parts', async () => {
    const match: RequestMatch = {
      method: 'POST',
      path: '/a',
      any: [{ query: { x: '1' } }, { header: { 'X-X': true } }],
      not: { query: { y: true } },
    }
    expect(
      await answers(
        match,
        { method: 'POST', url: '/a?x=1' },
        { method: 'POST', url: '/a', headers: { 'X-X': '' } },
        { method: 'POST', url: '/a' },
        { method: 'POST', url: '/a?x=1&y' },
        { url: '/a?x=1' },
      ),
    ).toEqual(['yes', 'yes', 'no', 'no', 'no'])
  })

  it('by a pattern of something too long is open', async () => {
    expect(await fits({ path: /^\/a+$/ }, { url: `/${'a'.repeat(20)}` }, { maxMatchLength: 21 })).toBe('yes')
    expect(await fits({ path: /^\/a+$/ }, { url: `/${'a'.repeat(20)}` }, { maxMatchLength: 20 })).toBe('unsure')
    expect(await fits({ path: /^\/b+$/ }, { url: `/${'a'.repeat(20)}` }, { maxMatchLength: 20 })).toBe('unsure')
  })

  it('combines: what is open may become yes or no, and never one of them where the other was possible', () => {
    type Tree = Answer | { readonly kind: 'all' | 'any'; readonly of: readonly Tree[] } | { readonly kind: 'not'; readonly of: Tree }
    const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom<Answer>('yes', 'no', 'unsure'),
        fc.record({ kind: fc.constantFrom('all' as const, 'any' as const), of: fc.array(tie('tree'), { minLength: 1, maxLength: 3 }) }),
        fc.record({ kind: fc.constant('not' as const), of: tie('tree') }),
      ),
    }))
    const build = (node: Tree): Question =>
      typeof node === 'string'
        ? () => node
        : node.kind === 'not'
          ? noneOf(build(node.of))
          : node.kind === 'all'
            ? allOf(node.of.map(build))
            : anyOf(node.of.map(build))
    const decided = (node: Tree, open: () => boolean): boolean =>
      typeof node === 'string'
        ? node === 'unsure'
          ? open()
          : node === 'yes'
        : node.kind === 'not'
          ? !decided(node.of, open)
          : node.kind === 'all'
            ? node.of.map((part) => decided(part, open)).every(Boolean)
            : node.of.map((part) => decided(part, open)).some(Boolean)
    const exchange = stubExchange() as Exchange
    fc.assert(
      fc.property(tree, fc.array(fc.boolean(), { minLength: 1, maxLength: 30 }), (node, coins) => {
        let i = 0
        const answer = build(node)(exchange)
        const possible = decided(node, () => coins[i++ % coins.length] as boolean)
        if (answer !== 'unsure') expect(answer).toBe(possible ? 'yes' : 'no')
      }),
    )
  })

  it('names what is wrong with it, wherever it stands', () => {
    const read = new OptionReader('test')
    readMatch(read, { path: ['a', /x/g, '/a*b'], all: [{ nope: 1 }, {}], any: [], not: { clientIp: 'x' }, query: { a: 1 } }, 10)
    let paths: string[] = []
    try {
      read.check()
    } catch (error) {
      paths = (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
    expect(paths.toSorted()).toEqual(['all[0].nope', 'all[1]', 'any', 'not.clientIp', 'path[0]', 'path[1]', 'path[2]', 'query.a'])
  })
})

describe('rules', () => {
  it('are read from the top; the first that allows or denies ends it, tags do not', async () => {
    const told = heard<AccessDecision>('weir:access:decision')
    const rules: FilterRule[] = [
      { action: 'tag', name: 'bot', match: { header: { 'User-Agent': /bot/ } }, tag: 'bot', headers: { 'X-Bot': 'yes' } },
      { action: 'allow', name: 'robots', match: { path: '/robots.txt' } },
      {
        action: 'deny',
        name: 'no bots',
        match: { when: ({ locals }) => locals.tags?.includes('bot') === true },
        status: 404,
        body: 'nothing here\n',
      },
      { action: 'tag', tag: 'late' },
    ]
    const stage = requestFilter({ rules })
    await using runner = stageRunner(stage)
    const bot = { 'User-Agent': 'somebot', 'X-Bot': 'forged' }
    const allowed = await runner.send({ url: '/robots.txt', headers: bot })
    expect([allowed.response.status, allowed.upstreamRequests[0]?.headers.getAll('x-bot')]).toEqual([200, ['yes']])
    const denied = await runner.send({ url: '/', headers: bot })
    expect([denied.response.status, denied.response.text()]).toEqual([404, 'nothing here\n'])
    const human = await runner.send({ url: '/', headers: { X_Bot: 'forged', 'X-BOT': 'forged' } })
    expect(human.upstreamRequests[0]?.headers.has('x-bot')).toBe(false)
    expect(human.upstreamRequests[0]?.headers.has('x_bot')).toBe(false)
    expect(stage.stats()).toMatchObject({
      allowed: 2,
      refused: 1,
      dry: 0,
      rules: [{ matched: 2 }, { matched: 1 }, { matched: 1 }, { matched: 1 }],
    })
    expect(told.map(({ verdict, reason, status }) => [verdict, reason, status])).toEqual([
      ['tagged', 'bot', undefined],
      ['tagged', 'bot', undefined],
      ['refused', 'no bots', 404],
      ['tagged', 'rule 4', undefined],
    ])
  })

  it('a tag arrives also when the client names it in Connection', async () => {
    const { upstreamRequests } = await runStage(requestFilter({ rules: [{ action: 'tag', headers: { 'X-Bot': 'yes' } }] }), {
      request: { headers: { Connection: 'close, X-Bot' } },
    })
    expect(upstreamRequests[0]?.headers.get('x-bot')).toBe('yes')
  })

  it('on a dry run refuse nothing; one rule alone on trial lets those behind it decide', async () => {
    const rules: FilterRule[] = [
      { action: 'deny', match: { path: '/a' }, dryRun: true },
      { action: 'deny', match: { path: '/a' }, status: 404 },
    ]
    const trial = requestFilter({ rules })
    expect((await runStage(trial, { request: { url: '/a' } })).response.status).toBe(404)
    expect(trial.stats()).toMatchObject({ allowed: 0, refused: 1, dry: 1 })
    const dry = requestFilter({ rules, default: 'deny', dryRun: true })
    expect((await runStage(dry, { request: { url: '/a' } })).response.status).toBe(200)
    expect((await runStage(dry, { request: { url: '/b' } })).response.status).toBe(200)
    expect(dry.stats()).toMatchObject({ allowed: 0, refused: 0, dry: 2 })
  })
})

describe('a tarpit', () => {
  const tarpit = (options: Partial<RequestFilterOptions> = {}): RequestFilterOptions => ({
    rules: [{ action: 'tarpit', delay: '10s', status: 503 }],
    ...options,
  })

  it('holds the answer for its time, and no longer', async () => {
    const clock = virtualClock()
    const stage = requestFilter(tarpit({ clock }))
    await using runner = stageRunner(stage)
    let answered = false
    const sent = runner.send().then((run) => {
      answered = true
      return run
    })
    await clock.advance(9999)
    await clock.advance(0)
    expect([answered, stage.stats().held]).toEqual([false, 1])
    await clock.advance(1)
    expect((await sent).response.status).toBe(503)
    expect([stage.stats().held, clock.pending]).toEqual([0, 0])
  })

  it('holds no more than it may; what comes beyond is denied at once', async () => {
    const clock = virtualClock()
    const stage = requestFilter(tarpit({ clock, maxHeld: 0 }))
    expect((await runStage(stage)).response.status).toBe(503)
    expect(stage.stats()).toMatchObject({ held: 0, overflowed: 1, refused: 1 })
  })

  it('lets go of all when it is closed', async () => {
    const clock = virtualClock()
    const stage = requestFilter(tarpit({ clock }))
    const runner = stageRunner(stage)
    const sent = runner.send()
    await clock.advance(0)
    expect(stage.stats().held).toBe(1)
    await stage.close?.()
    expect((await sent).response.status).toBe(503)
    await runner.close()
    expect(clock.pending).toBe(0)
  })

  it('on a dry run holds nobody', async () => {
    expect((await runStage(requestFilter(tarpit({ clock: virtualClock(), dryRun: true })))).response.status).toBe(200)
  })
})
