import { Transform } from 'node:stream'
import type { Stage } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { runStage, stageRunner } from './run-stage.ts'

describe('runStage', () => {
  it('shows what a stage that replies says, and that no upstream was asked', async () => {
    const { response, upstreamRequests, outcome } = await runStage(() => ({ status: 403, headers: { 'X-Why': 'no' }, body: 'no' }))
    expect(response.status).toBe(403)
    expect(response.headers.get('x-why')).toBe('no')
    expect(response.text()).toBe('no')
    expect(upstreamRequests).toEqual([])
    expect(outcome).toMatchObject({ status: 403, reason: 'completed', attempts: [] })
  })

  it('shows what the upstream gets and what becomes of its answer', async () => {
    const stage: Stage = {
      name: 'both-ways',
      handle: (exchange) => {
        exchange.headers.set('X-User', 'ann')
        return {
          onResponse: (response) => {
            response.headers.set('X-Seen', String(response.upstream?.url.hostname))
            response.transform(
              new Transform({
                transform: (chunk: Buffer, _encoding, done) => done(null, chunk.toString().toUpperCase()),
              }),
            )
          },
        }
      },
    }
    const { response, upstreamRequests, outcome } = await runStage(stage, {
      request: { method: 'POST', url: '/orders?x=1', headers: { 'X-Trace': ['1', '2'] }, body: 'two beers' },
      response: ({ body }) => ({ status: 201, headers: { 'Content-Type': 'text/plain' }, body: [`got ${body}`, '!'] }),
    })
    expect(response.status).toBe(201)
    expect(response.headers.get('x-seen')).toBe('upstream.test')
    expect(response.text()).toBe('GOT TWO BEERS!')
    expect(upstreamRequests).toHaveLength(1)
    expect(upstreamRequests[0]).toMatchObject({ method: 'POST', path: '/orders?x=1' })
    expect(upstreamRequests[0]?.headers.get('x-user')).toBe('ann')
    expect(upstreamRequests[0]?.headers.getAll('x-trace')).toEqual(['1', '2'])
    expect(upstreamRequests[0]?.body.toString()).toBe('two beers')
    expect(outcome).toMatchObject({ status: 201, reason: 'completed' })
  })

  it('lets the upstream fail, before its head and behind it', async () => {
    const stage: Stage = { name: 'apologise', handle: () => ({ onError: (error) => ({ status: 503, body: `sorry: ${error.code}` }) }) }
    const refused = await runStage(stage, { error: 'ERR_CONNECT_REFUSED' })
    expect(refused.response.status).toBe(503)
    expect(refused.response.text()).toBe('sorry: ERR_CONNECT_REFUSED')
    const cut = await runStage(stage, { response: { status: 200, body: ['half'], error: 'ERR_UPSTREAM_BODY' } })
    expect(() => cut.response).toThrow('broken off')
    expect(cut.outcome).toMatchObject({ reason: 'ERR_UPSTREAM_BODY' })
  })

  it('goes through with a stage that wants nothing', async () => {
    const { response } = await runStage(() => undefined)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('text/plain')
    expect(response.text()).toBe('upstream')
    expect((await runStage([])).response.text()).toBe('upstream')
  })

  it('closes the stage with its proxy', async () => {
    const calls: string[] = []
    await runStage({
      name: 'counted',
      handle: () => undefined,
      start: () => void calls.push('start'),
      close: () => void calls.push('close'),
    })
    expect(calls).toEqual(['start', 'close'])
  })
})

describe('stageRunner', () => {
  it('keeps a stage over several requests, each with its own account', async () => {
    let count = 0
    await using runner = stageRunner(() => (++count > 2 ? { status: 429 } : undefined))
    expect((await runner.send({ url: '/1' })).upstreamRequests.map((seen) => seen.path)).toEqual(['/1'])
    const second = await runner.send({ url: '/2' }, { response: { status: 404 } })
    expect(second.upstreamRequests.map((seen) => seen.path)).toEqual(['/2'])
    expect(second.response.status).toBe(404)
    const third = await runner.send()
    expect(third.response.status).toBe(429)
    expect(third.upstreamRequests).toEqual([])
  })

  it('shows every try', async () => {
    let asked = 0
    await using runner = stageRunner([], {
      upstreams: ['http://one.test', 'http://two.test'],
      response: () => (++asked === 1 ? { error: 'ERR_CONNECT_REFUSED' } : { body: 'second try' }),
      proxy: { retry: {} },
    })
    const { response, upstreamRequests, outcome } = await runner.send()
    expect(response.text()).toBe('second try')
    expect(upstreamRequests.map((seen) => seen.upstream.url.hostname)).toHaveLength(2)
    expect(outcome.attempts.map((attempt) => attempt.error?.code)).toEqual(['ERR_CONNECT_REFUSED', undefined])
  })

  it('takes several stages, outermost first, and refuses a wrong order', async () => {
    const mark = (name: string): Stage => ({
      name,
      handle: (exchange) => {
        exchange.headers.append('X-Passed', name)
        return undefined
      },
    })
    const { upstreamRequests } = await runStage([mark('outer'), false, mark('inner')])
    expect(upstreamRequests[0]?.headers.getAll('x-passed')).toEqual(['outer', 'inner'])
    expect(() => stageRunner([{ ...mark('a'), order: { after: ['b'] } }, mark('b')])).toThrow()
  })

  it('takes one request at a time', async () => {
    await using runner = stageRunner([])
    const first = runner.send()
    await expect(runner.send()).rejects.toThrow('one request at a time')
    await first
  })
})
