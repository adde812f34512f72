/** Fields for browsers: ours where the application says nothing. HSTS over real TLS: test/integration/access.test.ts. */
import { createProxy } from '@weir/core'
import type { StageRunner } from '@weir/testing'
import { fakeTransport, runStage, stageRunner } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { securityHeaders } from './security-headers.ts'

async function sent(
  options?: Parameters<typeof securityHeaders>[0],
  headers: Record<string, string> = {},
): Promise<Record<string, string>> {
  const { response } = await runStage(securityHeaders(options), { response: { headers } })
  return Object.fromEntries([...response.headers].filter(([name]) => /^(?:x-|referrer|content-sec|cross|permissions|strict)/i.test(name)))
}

describe('security fields', () => {
  it('have defaults that break no page', async () => {
    expect(await sent()).toEqual({
      'X-Content-Type-Options': 'nosniff',
      'X-Frame-Options': 'SAMEORIGIN',
      'Referrer-Policy': 'strict-origin-when-cross-origin',
      'Cross-Origin-Opener-Policy': 'same-origin-allow-popups',
    })
  })

  it('are what the options say', async () => {
    expect(
      await sent({
        nosniff: false,
        frame: 'DENY',
        referrer: false,
        csp: "default-src 'self'",
        coop: false,
        corp: 'same-site',
        permissions: 'camera=()',
      }),
    ).toEqual({
      'X-Frame-Options': 'DENY',
      'Content-Security-Policy': "default-src 'self'",
      'Cross-Origin-Resource-Policy': 'same-site',
      'Permissions-Policy': 'camera=()',
    })
  })

  it('leave those of the application alone', async () => {
    expect(await sent({ csp: "default-src 'none'" }, { 'x-frame-options': 'ALLOWALL', 'Content-Security-Policy': 'theirs' })).toMatchObject(
      {
        'x-frame-options': 'ALLOWALL',
        'Content-Security-Policy': 'theirs',
      },
    )
  })

  it('stand on answers of other stages and of the proxy too', async () => {
    const { response } = await runStage([securityHeaders(), () => ({ status: 403 })])
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
    const failed = await runStage(securityHeaders(), { error: 'ERR_CONNECT_REFUSED' })
    expect(failed.response.headers.get('x-content-type-options')).toBe('nosniff')
  })
})

describe('HSTS', () => {
  const hsts = async (runner: StageRunner, headers = {}): Promise<string | undefined> =>
    (await runner.send({ headers })).response.headers.get('strict-transport-security')

  it('is silent over plain HTTP, whatever the client claims', async () => {
    await using runner = stageRunner(securityHeaders())
    expect(await hsts(runner, { 'X-Forwarded-Proto': 'https' })).toBeUndefined()
  })

  it('speaks when a trusted proxy says that it was TLS', async () => {
    const proxy = createProxy({
      upstreams: ['http://a.test'],
      transport: fakeTransport(),
      trustedProxies: ['10.0.0.0/8'],
      use: [securityHeaders({ hsts: { maxAge: '1h' } })],
    })
    const from = async (remoteAddress: string, told: string): Promise<string | undefined> =>
      (await proxy.inject({ remoteAddress, headers: { Host: 'a', 'X-Forwarded-Proto': told } })).headers.get('strict-transport-security')
    expect(await from('10.0.0.1', 'https')).toBe('max-age=3600')
    expect(await from('10.0.0.1', 'http')).toBeUndefined()
    expect(await from('192.0.2.1', 'https')).toBeUndefined()
    await proxy.close()
  })

  it('speaks where a terminator or a function says that it was TLS', async () => {
    await using always = stageRunner(securityHeaders({ hsts: { when: 'always', maxAge: '1h' } }))
    expect(await hsts(always)).toBe('max-age=3600')
    await using asked = stageRunner(
      securityHeaders({ hsts: { when: ({ headers }) => headers.has('x-tls'), includeSubDomains: true, preload: true } }),
    )
    expect(await hsts(asked, { 'X-TLS': '1' })).toBe('max-age=31536000; includeSubDomains; preload')
    expect(await hsts(asked)).toBeUndefined()
    await using off = stageRunner(securityHeaders({ hsts: false }))
    expect(await hsts(off)).toBeUndefined()
  })
})
