/**
 * Wrong options that an editor refuses. Every entry is wrong for the compiler (the line below `@ts-expect-error` must fail to compile, or the type
 * check of the tests does) and for the factory, and the paths say that both see the same mistake. What only the factory can see stands below.
 */

import type { Exchange, OptionsError, Stage } from '@weir/core'
import { describe, expect, expectTypeOf, it } from 'vitest'
import {
  type AuthFacts,
  apiKeys,
  basicAuth,
  clientCertificate,
  connectionLimit,
  cors,
  forwardAuth,
  hashApiKey,
  hashPassword,
  headerHygiene,
  hideIdentity,
  type IpAccessStage,
  ipAccess,
  jwtAuth,
  minBodyRate,
  requestFilter,
  securityHeaders,
  signedUrl,
  signUrl,
  sizeLimits,
} from './index.ts'

function paths(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    return (error as OptionsError).problems.map(({ path }) => path)
  }
  return []
}
type Row = readonly [what: string, run: () => unknown, paths: readonly string[]]
const table = (rows: readonly Row[]): void => {
  for (const [what, run, expected] of rows) it(what, () => expect(paths(run).toSorted()).toEqual(expected.toSorted()))
}

const secret = 'sixteen bytes or more'
const jwt = { algorithms: ['HS256'], keys: { secret: 'x'.repeat(32) }, issuer: false, audience: false } as const

describe('what the compiler sees', () => {
  table([
    // @ts-expect-error no options
    ['ipAccess of nothing', () => ipAccess(), ['options']],
    // @ts-expect-error misspelt
    ['ipAccess with a misspelt option', () => ipAccess({ alow: '10.0.0.0/8', deny: 'all' }), ['alow']],
    // @ts-expect-error a rule does one thing
    ['a rule that allows and denies', () => ipAccess({ rules: [{ allow: 'all', deny: 'all' }] }), ['rules[0]']],
    // @ts-expect-error a number is no range
    ['a number as range', () => ipAccess({ deny: [10] }), ['deny[0]']],
    // @ts-expect-error a path is `file:/...`
    ['rules by path', () => ipAccess({ rules: '/etc/rules' }), ['rules']],
    // @ts-expect-error neither
    ['a default that is none', () => ipAccess({ deny: 'all', default: 'drop' }), ['default']],
    // @ts-expect-error a number of connections
    ['a limit of connections in words', () => connectionLimit({ perClient: '50' }), ['perClient']],
    // @ts-expect-error misspelt
    ['a misspelt limit of connections', () => connectionLimit({ perAddress: 50 }), ['perAddress']],
    // @ts-expect-error true says nothing
    ['a limit that is true', () => sizeLimits({ body: true }), ['body']],
    // @ts-expect-error KB is ambiguous
    ['a decimal size', () => sizeLimits({ url: '8KB' }), ['url']],
    // @ts-expect-error a unit of its own
    ['a rate with a unit of time', () => minBodyRate({ rate: '500B/s' }), ['rate']],
    // @ts-expect-error misspelt
    ['a misspelt rate', () => minBodyRate({ minRate: 500 }), ['minRate']],
    // @ts-expect-error no such policy
    ['a policy that is none', () => headerHygiene({ underscores: 'keep' }), ['underscores']],
    // @ts-expect-error a list
    ['one internal name', () => headerHygiene({ internal: 'X-A' }), ['internal']],
    // @ts-expect-error a flag is no page
    ['error pages by text', () => hideIdentity({ errorPages: 'sorry' }), ['errorPages']],
    // @ts-expect-error rules are missing
    ['a filter without rules', () => requestFilter({}), ['rules']],
    // @ts-expect-error no such action
    ['an action that is none', () => requestFilter({ rules: [{ action: 'drop' }] }), ['rules[0].action']],
    // @ts-expect-error `allow` answers nothing
    ['an answer of allow', () => requestFilter({ rules: [{ action: 'allow', status: 403 }] }), ['rules[0].status']],
    // @ts-expect-error no such fact
    ['a fact that is none', () => requestFilter({ rules: [{ action: 'deny', match: { body: /x/ } }] }), ['rules[0].match.body']],
    // @ts-expect-error origins are required
    ['cors for nobody', () => cors({}), ['origins']],
    // @ts-expect-error a list
    ['one method', () => cors({ origins: '*', methods: 'GET' }), ['methods']],
    // @ts-expect-error no such value
    ['a frame policy that is none', () => securityHeaders({ frame: 'ALLOW' }), ['frame']],
    // @ts-expect-error seconds are a number of milliseconds, or have a unit
    ['a max-age without unit', () => securityHeaders({ hsts: { maxAge: '31536000' } }), ['hsts.maxAge']],
    // @ts-expect-error users are required
    ['basicAuth for nobody', () => basicAuth({}), ['users']],
    // @ts-expect-error keys are required
    ['apiKeys without keys', () => apiKeys({}), ['keys']],
    // @ts-expect-error the hash is missing
    ['a key without hash', () => apiKeys({ keys: [{ name: 'a' }] }), ['keys[0].hash']],
    // @ts-expect-error the secret is missing
    ['signedUrl without secret', () => signedUrl({}), ['secret']],
    // @ts-expect-error unbounded is impossible
    ['a link without end', () => signUrl('/a', { secret }), ['ttl']],
    // @ts-expect-error the address is missing
    ['forwardAuth to nobody', () => forwardAuth({}), ['url']],
    // @ts-expect-error a cache without ttl
    ['a cache for ever', () => forwardAuth({ url: 'http://a.test', cache: { max: 5 } }), ['cache.ttl']],
    // @ts-expect-error true says nothing
    ['onError: true', () => forwardAuth({ url: 'http://a.test', onError: true }), ['onError']],
    // @ts-expect-error algorithms are required
    ['jwtAuth by any algorithm', () => jwtAuth({ ...jwt, algorithms: undefined }), ['algorithms']],
    // @ts-expect-error "none" is no algorithm
    ['jwtAuth by none', () => jwtAuth({ ...jwt, algorithms: ['none'] }), ['algorithms']],
    // @ts-expect-error audience is required, or false
    ['jwtAuth for anybody', () => jwtAuth({ ...jwt, audience: undefined }), ['audience']],
    // @ts-expect-error a flag
    ['required by text', () => clientCertificate({ required: 'yes' }), ['required']],
  ])

  it('stages are stages, and say what they know', () => {
    expectTypeOf(ipAccess).returns.toEqualTypeOf<IpAccessStage>()
    expectTypeOf<IpAccessStage>().toExtend<Stage>()
    expectTypeOf<Exchange['locals']['auth']>().toEqualTypeOf<AuthFacts | undefined>()
    expectTypeOf<Exchange['locals']['tags']>().toEqualTypeOf<string[] | undefined>()
    expectTypeOf(hashPassword).returns.resolves.toBeString()
    expectTypeOf(hashApiKey).returns.toBeString()
    expect(ipAccess({ deny: [] }).name).toBe('ipAccess')
  })
})

describe('what only the factory sees, all of it at once', () => {
  const nonsense = { a: 1 } as never
  const common = (prefix = ''): string[] => [`${prefix}name`, `${prefix}dryRun`]
  const bad = { name: '', dryRun: 'yes' } as unknown as { name: string; dryRun: boolean }
  table([
    [
      'ipAccess',
      () => ipAccess({ ...bad, allow: ['10.0.0.0/8', 'x', '10.0.0.1/8'], deny: '', status: 200, refresh: 1, clock: nonsense }),
      [...common(), 'allow[1]', 'allow[2]', 'deny', 'status', 'refresh', 'clock'],
    ],
    ['ipAccess in two ways', () => ipAccess({ rules: [], deny: 'all' }), ['rules']],
    ['ipAccess from nowhere', () => ipAccess({ rules: 'file:' }), ['rules']],
    [
      'connectionLimit',
      () => connectionLimit({ ...bad, perClient: 0, ipv4Prefix: 33, ipv6Prefix: 8, exempt: ['10.0.0.1/8'] }),
      [...common(), 'perClient', 'ipv4Prefix', 'ipv6Prefix', 'exempt[0]'],
    ],
    [
      'sizeLimits',
      () => sizeLimits({ ...bad, url: 0, headers: -1, headerCount: 0.5, header: 0, body: -1 }),
      [...common(), 'url', 'headers', 'headerCount', 'header', 'body'],
    ],
    ['minBodyRate', () => minBodyRate({ ...bad, rate: 0, grace: -1, clock: nonsense }), [...common(), 'rate', 'grace', 'clock']],
    [
      'headerHygiene',
      () => headerHygiene({ ...bad, internal: ['', 'X*Y', 'Host', 'X-*'], trusted: ['x'] }),
      [...common(), 'internal[0]', 'internal[1]', 'internal[2]', 'trusted[0]'],
    ],
    [
      'hideIdentity',
      () => hideIdentity({ name: '', remove: ['a b'], keep: nonsense, server: 'a\nb', date: nonsense }),
      ['name', 'remove[0]', 'keep', 'server', 'date'],
    ],
    [
      'requestFilter',
      () =>
        requestFilter({
          ...bad,
          maxMatchLength: 0,
          maxHeld: -1,
          rules: [
            { action: 'deny', status: 200, body: 1 as never },
            { action: 'tarpit', delay: '1h' },
            { action: 'tag' },
            { action: 'tag', tag: '', headers: { 'Content-Length': '1', 'X-A': 'a\nb' } },
          ],
        }),
      [
        ...common(),
        'maxMatchLength',
        'maxHeld',
        'rules[0].status',
        'rules[0].body',
        'rules[1].delay',
        'rules[2]',
        'rules[3].tag',
        'rules[3].headers.Content-Length',
        'rules[3].headers.X-A',
      ],
    ],
    [
      'securityHeaders',
      () => securityHeaders({ name: '', csp: 'a\nb', referrer: '', permissions: nonsense, hsts: { preload: true, when: nonsense } }),
      ['name', 'csp', 'referrer', 'permissions', 'hsts.preload', 'hsts.when'],
    ],
    [
      'cors',
      () =>
        cors({
          name: '',
          origins: ['https://a.test/', 'https://A.test', '*', /a/g],
          exposeHeaders: ['a b'],
          maxAge: -1,
          privateNetwork: nonsense,
        }),
      ['name', 'origins[0]', 'origins[1]', 'origins[2]', 'origins[3]', 'exposeHeaders', 'maxAge', 'privateNetwork'],
    ],
    ['cors for everybody with credentials', () => cors({ origins: '*', credentials: true }), ['credentials']],
    [
      'basicAuth',
      () =>
        basicAuth({
          ...bad,
          users: { ada: 'plain', 'a:b': '' },
          realm: 'ü',
          userHeader: 'Host',
          concurrency: 0,
          maxWaiting: -1,
          remember: -1,
          maxRemembered: 0,
          timeout: 0,
        }),
      [...common(), 'users.ada', 'users.a:b', 'realm', 'userHeader', 'concurrency', 'maxWaiting', 'remember', 'maxRemembered', 'timeout'],
    ],
    [
      'apiKeys',
      () => apiKeys({ ...bad, keys: [], header: 'a b', scheme: 'a b', query: 'a&b', nameHeader: 'TE', now: nonsense }),
      [...common(), 'header', 'scheme', 'query', 'nameHeader', 'now'],
    ],
    [
      'signedUrl',
      () => signedUrl({ ...bad, secret: [secret, 'short'], methods: ['get'], bindClientIp: nonsense }),
      [...common(), 'secret', 'methods', 'bindClientIp'],
    ],
    [
      'forwardAuth',
      () =>
        forwardAuth({
          ...bad,
          url: 'ftp://a.test',
          requestHeaders: ['a b'],
          responseHeaders: ['Content-Length'],
          relayHeaders: nonsense,
          timeout: 0,
          concurrency: 0,
          maxWaiting: -1,
          cache: { ttl: 0, max: 0, key: ['a b'], vary: ['host' as never] },
        }),
      [
        ...common(),
        'url',
        'requestHeaders[0]',
        'responseHeaders[0]',
        'relayHeaders',
        'timeout',
        'concurrency',
        'maxWaiting',
        'cache.ttl',
        'cache.max',
        'cache.key[0]',
        'cache.vary',
      ],
    ],
    [
      'jwtAuth',
      () =>
        jwtAuth({
          ...bad,
          algorithms: ['ES256'],
          keys: { jwks: { url: 'http://id.test/jwks', maxAge: 0, cooldown: -1 } },
          issuer: '',
          audience: [],
          skew: '1h',
          cookie: 'a b',
          claimHeaders: { sub: 'a b' },
        }),
      [...common(), 'keys.jwks.url', 'keys.jwks.maxAge', 'keys.jwks.cooldown', 'issuer', 'audience', 'skew', 'cookie', 'claimHeaders.sub'],
    ],
    ['jwtAuth with a key that everybody knows as secret', () => jwtAuth({ ...jwt, algorithms: ['HS256', 'RS256'] }), ['algorithms']],
    ['jwtAuth with a short secret', () => jwtAuth({ ...jwt, keys: { secret: 'short' } }), ['keys.secret']],
    ['jwtAuth with two kinds of keys', () => jwtAuth({ ...jwt, keys: { secret: 'x'.repeat(32), publicKey: '' } as never }), ['keys']],
    [
      'jwtAuth with a private key',
      () => jwtAuth({ ...jwt, algorithms: ['ES256'], keys: { publicKey: '-----BEGIN PRIVATE KEY-----' } }),
      ['keys.publicKey'],
    ],
    [
      'clientCertificate',
      () => clientCertificate({ ...bad, accept: nonsense, subjectHeader: 'a b' }),
      [...common(), 'accept', 'subjectHeader'],
    ],
  ])

  it('no message shows a secret', () => {
    for (const run of [
      () => basicAuth({ users: { ada: 'hunter2hunter2' } }),
      () => apiKeys({ keys: [{ name: 'a', hash: 'hunter2hunter2' }] }),
      () => signedUrl({ secret: ['hunter2hunter2'] }),
      () => jwtAuth({ ...jwt, keys: { secret: 'hunter2hunter2' } }),
    ]) {
      let message = ''
      try {
        run()
      } catch (error) {
        message = (error as Error).message
      }
      expect(message).toContain('wrong option')
      expect(message).not.toContain('hunter2')
    }
  })
})
