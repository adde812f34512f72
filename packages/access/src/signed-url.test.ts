/** Links that hold for a while. */
import type { InjectedRequest } from '@weir/core'
import { runStage } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type SignedUrlOptions, signedUrl, signUrl } from './signed-url.ts'

const secret = 'sixteen bytes or more'
const now = (): number => 1_000_000
const sign = (url: string, options = {}): string => signUrl(url, { secret, ttl: '1m', now, ...options })

async function ask(
  request: InjectedRequest,
  options: Partial<SignedUrlOptions> = {},
): Promise<{ status: number; path: string | undefined }> {
  const { response, upstreamRequests } = await runStage(signedUrl({ secret, now, ...options }), { request })
  return { status: response.status, path: upstreamRequests[0]?.path }
}

describe('a link', () => {
  it('lets in, and the upstream sees what was signed', async () => {
    expect(await ask({ url: sign('/file.zip') })).toEqual({ status: 200, path: '/file.zip' })
    expect(await ask({ url: sign('/a%20b?x=1&y') })).toEqual({ status: 200, path: '/a%20b?x=1&y' })
    expect(await ask({ url: sign('/a') }, { strip: false })).toEqual({ status: 200, path: sign('/a') })
    expect(await ask({ url: new URL(sign('https://cdn.example.com/a?b')).href.slice('https://cdn.example.com'.length) })).toEqual({
      status: 200,
      path: '/a?b',
    })
  })

  it('holds to its end, and is gone from then on', async () => {
    const url = sign('/a')
    expect((await ask({ url }, { now: () => now() + 59_999 })).status).toBe(200)
    expect((await ask({ url }, { now: () => now() + 60_000 })).status).toBe(410)
  })

  it('that was changed anywhere is refused', async () => {
    const url = sign('/dir/file?x=1')
    await fc.assert(
      fc.asyncProperty(fc.nat(url.length - 1), fc.constantFrom('a', '0', 'Z', '_', '-', '&', '=', '?'), async (at, letter) => {
        if (at === 0 || url[at] === letter) return
        const changed = url.slice(0, at) + letter + url.slice(at + 1)
        const { status } = await ask({ url: changed })
        // The last character of the signature has four bits; the two others are not read.
        const same = at === url.length - 1 && Buffer.from(changed.slice(-43), 'base64url').equals(Buffer.from(url.slice(-43), 'base64url'))
        expect(status, changed).toBe(same ? 200 : 403)
      }),
      { numRuns: 300 },
    )
    for (const other of ['/dir/file?x=1', '/', `${url}&y=2`, url.replace('?x=1&', '?'), url.replace('/file', '/../file')])
      expect((await ask({ url: other })).status).toBe(403)
  })

  it('is for the methods that the stage says', async () => {
    expect((await ask({ url: sign('/a'), method: 'HEAD' })).status).toBe(200)
    expect((await ask({ url: sign('/a'), method: 'POST' })).status).toBe(403)
    expect((await ask({ url: sign('/a'), method: 'PUT' }, { methods: ['PUT'] })).status).toBe(200)
    expect((await ask({ url: sign('/a') }, { methods: ['PUT'] })).status).toBe(403)
  })

  it('can be for one client', async () => {
    const url = sign('/a', { clientIp: '192.0.2.1' })
    expect((await ask({ url, remoteAddress: '::ffff:192.0.2.1' }, { bindClientIp: true })).status).toBe(200)
    const mapped = sign('/a', { clientIp: '::ffff:192.0.2.1' })
    expect((await ask({ url: mapped, remoteAddress: '192.0.2.1' }, { bindClientIp: true })).status).toBe(200)
    const long = sign('/a', { clientIp: '2001:DB8:0:0::1' })
    expect((await ask({ url: long, remoteAddress: '2001:db8::1' }, { bindClientIp: true })).status).toBe(200)
    expect((await ask({ url: long, remoteAddress: '2001:db8::2' }, { bindClientIp: true })).status).toBe(403)
    expect((await ask({ url, remoteAddress: '192.0.2.2' }, { bindClientIp: true })).status).toBe(403)
    expect((await ask({ url, remoteAddress: '192.0.2.1' })).status).toBe(403)
    expect((await ask({ url: sign('/a'), remoteAddress: '192.0.2.1' }, { bindClientIp: true })).status).toBe(403)
  })

  it('of the old secret is good while both are listed', async () => {
    const old = sign('/a')
    const next = 'another secret, longer'
    expect((await ask({ url: old }, { secret: [next, secret] })).status).toBe(200)
    expect((await ask({ url: sign('/a', { secret: [next, secret] }) }, { secret: next })).status).toBe(200)
    expect((await ask({ url: old }, { secret: next })).status).toBe(403)
  })

  it('on a dry run is only looked at', async () => {
    const stage = signedUrl({ secret, dryRun: true })
    expect((await runStage(stage, { request: { url: '/a' } })).response.status).toBe(200)
    expect(stage.stats()).toEqual({ allowed: 0, refused: 0, dry: 1 })
  })
})

it('what cannot be signed is refused, and no secret is shown', () => {
  for (const [url, options, paths] of [
    ['relative', {}, ['url']],
    ['/a#b', {}, ['url']],
    ['/a b', {}, ['url']],
    ['/a', { secret: 'short' }, ['secret']],
    ['/a', { ttl: undefined }, ['ttl']],
  ] as const) {
    let error: { problems: { path: string }[]; message: string } | undefined
    try {
      sign(url, options)
    } catch (thrown) {
      error = thrown as typeof error
    }
    expect(error?.problems.map(({ path }) => path)).toEqual(paths)
    expect(error?.message).not.toContain('"short"')
  }
})
