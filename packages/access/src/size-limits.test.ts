/** Each limit with its own status, exact to the byte. Bodies that lie are on real sockets: test/integration/access.test.ts. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, type InjectedRequest, type StageHandler } from '@weir/core'
import { rawRequest, runStage, testUpstream } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type SizeLimitsOptions, sizeLimits } from './size-limits.ts'

const off = { url: false, headers: false, headerCount: false, header: false, body: false } as const

async function status(options: SizeLimitsOptions, request: InjectedRequest): Promise<number> {
  return (await runStage(sizeLimits({ ...off, ...options }), { request })).response.status
}

describe('a limit', () => {
  it('of the target is exact, and 414', async () => {
    const url = `/${'a'.repeat(98)}`
    expect(await status({ url: 99 }, { url })).toBe(200)
    expect(await status({ url: 98 }, { url })).toBe(414)
    expect(await status({ url: 98 }, { url: `/?${'a'.repeat(97)}` })).toBe(414)
  })

  it('of the fields is exact, and 431', async () => {
    // `Host: localhost`, `Connection: ...` come by injection: what counts is measured, not guessed.
    let lines: readonly string[] = []
    const headers = { 'X-Long': 'v'.repeat(300), 'X-Two': ['1', '2'] }
    const look: StageHandler = (exchange) => {
      lines = [...exchange.headers].map(([name, value]) => `${name}: ${value}\r\n`)
    }
    await runStage(look, { request: { headers } })
    const total = lines.join('').length
    expect(await status({ headers: total }, { headers })).toBe(200)
    expect(await status({ headers: total - 1 }, { headers })).toBe(431)
    expect(await status({ headerCount: lines.length }, { headers })).toBe(200)
    expect(await status({ headerCount: lines.length - 1 }, { headers })).toBe(431)
    expect(await status({ header: 'X-Long: \r\n'.length + 300 }, { headers })).toBe(200)
    expect(await status({ header: 'X-Long: \r\n'.length + 299 }, { headers })).toBe(431)
  })

  it('of the body is exact, and 413, whatever length was declared', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(40), fc.nat(40), async (size, limit) => {
        const body = 'b'.repeat(size)
        const expected = size > limit ? 413 : 200
        expect(await status({ body: limit }, { method: 'POST', body })).toBe(expected)
        const chunks = `${size > 0 ? `${size.toString(16)}\r\n${body}\r\n` : ''}0\r\n\r\n`
        expect(await status({ body: limit }, { method: 'POST', headers: { 'Transfer-Encoding': 'chunked' }, body: chunks })).toBe(expected)
      }),
      { numRuns: 40 },
    )
  })
})

describe('a body that a parser in front has read', () => {
  it('is measured as it is rebuilt', async () => {
    const upstream = await testUpstream()
    const proxy = createProxy({ upstreams: [upstream.url], use: [sizeLimits({ body: 5 })] })
    const server = createServer((req, res) => {
      const chunks: Buffer[] = []
      req
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .on('end', () => proxy(Object.assign(req, { rawBody: Buffer.concat(chunks) }), res))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const post = async (body: string): Promise<number> =>
      (
        await rawRequest(
          port,
          `POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
        )
      ).status
    expect([await post('12345'), await post('123456')]).toEqual([200, 413])
    await new Promise((resolve) => server.close(resolve))
    await proxy.close()
    await upstream.close()
  })
})

describe('limits', () => {
  it('have defaults, and each can be off', async () => {
    const long = { url: `/${'a'.repeat(8200)}` }
    expect((await runStage(sizeLimits(), { request: long })).response.status).toBe(414)
    expect(await status({}, long)).toBe(200)
    const big = { method: 'POST', body: 'b'.repeat(1_048_577) }
    expect((await runStage(sizeLimits(), { request: big })).response.status).toBe(413)
    expect(await status({}, big)).toBe(200)
  })

  it('count what they refuse, and on a dry run refuse nothing', async () => {
    const stage = sizeLimits({ url: 10, body: 3, dryRun: true })
    expect((await runStage(stage, { request: { url: '/12345678901' } })).response.status).toBe(200)
    expect(
      (
        await runStage(stage, {
          request: { method: 'POST', headers: { 'Transfer-Encoding': 'chunked' }, body: '4\r\nbody\r\n4\r\nbody\r\n0\r\n\r\n' },
        })
      ).response.status,
    ).toBe(200)
    expect((await runStage(stage, { request: { method: 'POST', body: 'abc' } })).response.status).toBe(200)
    expect(stage.stats()).toEqual({ allowed: 1, refused: 0, dry: 2, exceeded: { url: 1, headers: 0, headerCount: 0, header: 0, body: 1 } })
  })
})
