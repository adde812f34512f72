/** What a response still says of the inside. */
import type { StageHandler } from '@weir/core'
import type { FakeResponse } from '@weir/testing'
import { runStage } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type HideIdentityOptions, hideIdentity } from './hide-identity.ts'

const talkative: FakeResponse = {
  headers: {
    Server: 'nginx/1.18.0',
    'X-Powered-By': 'PHP/8.1',
    'X-AspNetMvc-Version': '5',
    'X-Generator': 'Drupal',
    'x-accel-redirect': '/secret',
    Via: '1.1 inner',
    'X-Team': 'blue',
    Date: 'Mon, 01 Jan 2024 00:00:00 GMT',
    'Set-Cookie': ['a=1', 'b=2'],
  },
  body: 'fine',
}

async function names(options: HideIdentityOptions = {}, response: FakeResponse = talkative): Promise<string[]> {
  const run = await runStage(hideIdentity(options), { response })
  return [...run.response.headers]
    .map(([name]) => name.toLowerCase())
    .filter((name) => !/^(?:connection|keep-alive|content-length|transfer-encoding)$/.test(name))
}

describe('fields', () => {
  it('that name products come off, and nothing else', async () => {
    expect(await names()).toEqual(['x-team', 'date', 'set-cookie', 'set-cookie'])
  })

  it('can be kept, or others added', async () => {
    expect(await names({ keep: ['X-Powered-By', 'X-Accel-*'], remove: ['X-T*'], via: 'keep' })).toEqual([
      'x-powered-by',
      'x-accel-redirect',
      'via',
      'date',
      'set-cookie',
      'set-cookie',
    ])
  })

  it('Server may be one of our own, and Date is that of the upstream or the present', async () => {
    const run = await runStage(hideIdentity({ server: 'edge' }), { response: talkative })
    expect(run.response.headers.getAll('server')).toEqual(['edge'])
    expect(run.response.headers.get('date')).toBe('Mon, 01 Jan 2024 00:00:00 GMT')
    let seen: string | undefined
    const look: StageHandler = () => ({
      onResponse({ headers }) {
        seen = headers.get('date')
      },
    })
    await runStage([look, hideIdentity()], { response: { body: 'x' } })
    expect(Math.abs(Date.parse(seen as unknown as string) - Date.now())).toBeLessThan(60_000)
    await runStage([look, hideIdentity({ date: false })], { response: { body: 'x' } })
    expect(seen).toBeUndefined()
  })
})

describe('error pages of an upstream', () => {
  const trace: FakeResponse = {
    status: 503,
    headers: { 'Retry-After': '7', 'X-Trace': 'at /srv/app.js:1' },
    body: 'Error: at /srv/app.js:1',
  }

  it('pass by default', async () => {
    expect((await runStage(hideIdentity(), { response: trace })).response.text()).toContain('/srv/app.js')
  })

  it('are replaced whole, but for Retry-After', async () => {
    const stage = hideIdentity({ errorPages: true })
    const { response } = await runStage(stage, { response: trace })
    expect([response.status, response.text(), response.headers.get('x-trace'), response.headers.get('retry-after')]).toEqual([
      503,
      '503 Service Unavailable\n',
      undefined,
      '7',
    ])
    expect(stage.stats()).toEqual({ responses: 1, removed: 0, errorPages: 1 })
  })

  it('are replaced by what a function says, or pass', async () => {
    const stage = hideIdentity({ errorPages: (status) => (status === 503 ? { status: 500, body: 'sorry' } : undefined) })
    const replaced = await runStage(stage, { response: trace })
    expect([replaced.response.status, replaced.response.text()]).toEqual([500, 'sorry'])
    expect(
      (await runStage(hideIdentity({ errorPages: () => undefined }), { response: { status: 500, body: 'api' } })).response.text(),
    ).toBe('api')
  })

  it('are no business of 4xx, nor of answers that the proxy made', async () => {
    expect((await runStage(hideIdentity({ errorPages: true }), { response: { status: 404, body: 'api' } })).response.text()).toBe('api')
    const own = await runStage([hideIdentity({ errorPages: true }), () => ({ status: 500, body: 'mine' })])
    expect(own.response.text()).toBe('mine')
  })
})
