/** Names that two programs read in two ways, and names that are ours alone. */
import { runStage } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type HeaderHygieneOptions, headerHygiene } from './header-hygiene.ts'

type Fields = Readonly<Record<string, string | readonly string[]>>

/** Names of what arrived, without what every request has; or the status of the refusal. */
async function arrives(options: HeaderHygieneOptions, headers: Fields, remoteAddress = '192.0.2.1'): Promise<string[] | number> {
  const { response, upstreamRequests } = await runStage(headerHygiene(options), { request: { headers, remoteAddress } })
  if (response.status !== 200) return response.status
  const [request] = upstreamRequests
  return [...(request?.headers ?? [])]
    .map(([name]) => name)
    .filter((name) => !/^(?:host|x-forwarded-.*|connection|content-length)$/i.test(name))
}

const odd: Fields = { Proxy: 'evil:80', X_User: 'root', 'X-User': 'me', 'A!b': '1', Accept: '*/*' }

describe('names', () => {
  it('that are unusual do not arrive, unless they may', async () => {
    expect(await arrives({}, odd)).toEqual(['X-User', 'Accept'])
    expect(await arrives({ underscores: 'allow' }, odd)).toEqual(['X_User', 'X-User', 'Accept'])
    expect(await arrives({ unusual: 'allow' }, odd)).toEqual(['X-User', 'A!b', 'Accept'])
    expect(await arrives({ proxyField: 'allow' }, { pROXY: '1' })).toEqual(['pROXY'])
    expect(await arrives({}, { pROXY: '1' })).toEqual([])
  })

  it('can be a reason to refuse', async () => {
    for (const option of ['underscores', 'unusual', 'proxyField'] as const) {
      expect(await arrives({ [option]: 'reject' }, odd), option).toBe(400)
      expect(await arrives({ [option]: 'reject' }, { Accept: '1' }), option).toEqual(['Accept'])
    }
  })

  it('that are left are letters, digits and hyphens, whatever came', async () => {
    const name = fc
      .stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}$/)
      .filter((n) => !/^(?:host|connection|content-length|transfer-encoding|upgrade|expect|te|trailer)$/i.test(n))
    await fc.assert(
      fc.asyncProperty(fc.dictionary(name, fc.constant('v'), { noNullPrototype: true, maxKeys: 8 }), async (headers) => {
        const names = await arrives({}, headers)
        const expected = Object.keys(headers).filter(
          (n) => /^[a-z0-9-]+$/i.test(n) && n.toLowerCase() !== 'proxy' && !/^(?:forwarded|x-real-ip)$/i.test(n),
        )
        expect(names).toEqual(expected)
      }),
      { numRuns: 100 },
    )
  })
})

describe('internal fields', () => {
  const options: HeaderHygieneOptions = { internal: ['X-Internal-*', 'X-Role'], underscores: 'allow' }
  const headers: Fields = { 'x-internal-user': 'root', X_Internal_Group: 'wheel', 'X-Role': 'admin', 'X-Rolex': 'gold', 'X-Internal': 'no' }

  it('come off, in every spelling', async () => {
    expect(await arrives(options, headers)).toEqual(['X-Rolex', 'X-Internal'])
  })

  it('stay of those who may send them', async () => {
    expect(await arrives({ ...options, trusted: '192.0.2.0/24' }, headers)).toEqual(Object.keys(headers))
    expect(await arrives({ ...options, trusted: ['10.0.0.0/8'] }, headers)).toEqual(['X-Rolex', 'X-Internal'])
    expect(await arrives({ ...options, trusted: ({ headers }) => headers.has('x-role') }, headers)).toEqual(Object.keys(headers))
  })

  it('set by a stage behind it stay', async () => {
    const { upstreamRequests } = await runStage([headerHygiene(options), (exchange) => void exchange.headers.set('X-Role', 'guest')], {
      request: { headers },
    })
    expect(upstreamRequests[0]?.headers.get('x-role')).toBe('guest')
  })
})

it('a dry run counts and changes nothing', async () => {
  const stage = headerHygiene({ dryRun: true, unusual: 'reject', internal: ['X-User'] })
  const { upstreamRequests } = await runStage(stage, { request: { headers: odd } })
  const names = [...(upstreamRequests[0]?.headers ?? [])].map(([name]) => name)
  expect(names).toEqual(expect.arrayContaining(Object.keys(odd)))
  expect(stage.stats()).toEqual({ allowed: 1, refused: 0, dry: 1, dropped: { underscores: 1, unusual: 0, proxyField: 1, internal: 1 } })
})
