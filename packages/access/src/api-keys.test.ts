/** Keys of programs. */
import type { InjectedRequest } from '@weir/core'
import { runStage, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ApiKeysOptions, apiKeys, hashApiKey } from './api-keys.ts'

const keys = [
  { name: 'billing', hash: hashApiKey('k-billing') },
  { name: 'büro', hash: hashApiKey('k-old'), expires: new Date(1000) },
]

async function ask(
  request: InjectedRequest,
  options: Partial<ApiKeysOptions> = {},
): Promise<{ status: number; url: string | undefined; names: readonly (string | undefined)[] }> {
  const { response, upstreamRequests } = await runStage(apiKeys({ keys, nameHeader: 'X-Key-Name', now: () => 999, ...options }), {
    request,
  })
  const [sent] = upstreamRequests
  return {
    status: response.status,
    url: sent?.path,
    names: ['x-key-name', 'x-api-key', 'authorization'].map((name) => sent?.headers.get(name)),
  }
}

describe('a key', () => {
  it('that is known lets in, names its owner, and goes no further', async () => {
    expect(await ask({ headers: { 'X-API-Key': 'k-billing', 'X-Key-Name': 'forged' } })).toEqual({
      status: 200,
      url: '/',
      names: ['billing', undefined, undefined],
    })
    expect((await ask({ headers: { 'X-API-Key': 'k-old' } })).names[0]).toBe('b%C3%BCro')
    expect((await ask({ headers: { 'X-API-Key': 'k-billing' } }, { stripCredentials: false })).names[1]).toBe('k-billing')
  })

  it('that is unknown, twice there, or over, does not', async () => {
    for (const value of ['', 'k-billin', 'k-billing2', keys[0]?.hash as string, ['k-billing', 'k-billing']])
      expect((await ask({ headers: { 'X-API-Key': value } })).status, String(value)).toBe(401)
    expect((await ask({})).status).toBe(401)
    expect((await ask({ headers: { 'X-API-Key': 'k-old' } }, { now: () => 1000 })).status).toBe(401)
  })

  it('is found where the options say', async () => {
    const bearer: Partial<ApiKeysOptions> = { scheme: 'Bearer' }
    expect((await ask({ headers: { Authorization: 'bearer k-billing' } }, bearer)).names).toEqual(['billing', undefined, undefined])
    expect((await ask({ headers: { Authorization: 'k-billing' } }, bearer)).status).toBe(401)
    expect((await ask({ headers: { 'X-API-Key': 'k-billing' } }, bearer)).status).toBe(401)
    const query: Partial<ApiKeysOptions> = { query: 'key' }
    expect(await ask({ url: '/a?x=%20&key=k-billing&y' }, query)).toMatchObject({ status: 200, url: '/a?x=%20&y' })
    expect(await ask({ url: '/a?key=k-billing' }, query)).toMatchObject({ status: 200, url: '/a' })
    expect((await ask({ url: '/a?key=k-billing', headers: { 'X-API-Key': 'k-billing' } }, query)).status).toBe(401)
    expect((await ask({ url: '/a?key=k-billing' })).status).toBe(401)
  })

  it('is asked for with a challenge', async () => {
    const { response } = await runStage(apiKeys({ keys, scheme: 'Bearer', realm: 'api' }))
    expect(response.headers.get('www-authenticate')).toBe('Bearer realm="api"')
  })

  it('is good exactly while it is in the list', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(fc.stringMatching(/^[a-z0-9]{1,8}$/), { minLength: 1, maxLength: 8 }), fc.nat(), async (all, cut) => {
        const kept = all.slice(0, cut % all.length)
        const stage = apiKeys({ keys: all.map((key) => ({ name: key, hash: hashApiKey(key) })) })
        await using runner = stageRunner(stage)
        const good = async (): Promise<string[]> => {
          const found: string[] = []
          for (const key of all) if ((await runner.send({ headers: { 'X-API-Key': key } })).response.status === 200) found.push(key)
          return found
        }
        expect(await good()).toEqual(all)
        stage.replace(kept.map((key) => ({ name: key, hash: hashApiKey(key) })))
        expect(await good()).toEqual(kept)
      }),
      { numRuns: 20 },
    )
  })
})

it('a wrong list of keys changes nothing, and shows no key', () => {
  const stage = apiKeys({ keys })
  let message = ''
  try {
    stage.replace([
      { name: '', hash: 'my-secret-key' },
      { name: 'x', hash: hashApiKey('x'), expires: new Date(Number.NaN) },
    ])
  } catch (error) {
    message = (error as Error).message
    expect((error as { problems: { path: string }[] }).problems.map(({ path }) => path)).toEqual([
      'keys[0].name',
      'keys[0].hash',
      'keys[1].expires',
    ])
  }
  expect(message).not.toBe('')
  expect(message).not.toContain('my-secret-key')
})

it('a dry run lets everybody in, and leaves the key', async () => {
  const stage = apiKeys({ keys, dryRun: true })
  const { response, upstreamRequests } = await runStage(stage, { request: { headers: { 'X-API-Key': 'wrong' } } })
  expect([response.status, upstreamRequests[0]?.headers.get('x-api-key'), stage.stats().dry]).toEqual([200, 'wrong', 1])
})
