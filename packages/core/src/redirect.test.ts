/** `Location` and its kin: an upstream's own address becomes the public one, everybody else's stays byte for byte. */
import { fakeTransport } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createProxy } from './proxy.ts'
import { type PublicFace, rewriteRedirects, rewriteRefresh, rewriteUrl } from './redirect.ts'
import { joinBase, stripPrefix } from './target.ts'

const plain: PublicFace = { proto: 'https', host: 'public.example', base: '', prefix: '', authority: '10.0.0.1:3000' }
const nested: PublicFace = { ...plain, base: '/app', prefix: '/api' }

describe('a URL', () => {
  const rows: [what: string, face: PublicFace, value: string, expected: string][] = [
    ['of the upstream', plain, 'http://10.0.0.1:3000/x?y#z', 'https://public.example/x?y#z'],
    ['of the upstream, in capitals', plain, 'HTTP://10.0.0.1:3000/X', 'https://public.example/X'],
    ['of the upstream, by name', { ...plain, authority: 'backend' }, 'http://BackEnd/x', 'https://public.example/x'],
    ['of the upstream, default port written out', { ...plain, authority: 'backend' }, 'http://backend:80/x', 'https://public.example/x'],
    ['of the upstream, TLS port written out', { ...plain, authority: 'backend' }, 'https://backend:443/x', 'https://public.example/x'],
    ['of the upstream, without a path', plain, 'http://10.0.0.1:3000', 'https://public.example/'],
    ['of the upstream, a query only', plain, 'http://10.0.0.1:3000?x', 'https://public.example?x'],
    ['of the upstream, to the IPv6 literal', { ...plain, authority: '[::1]:3000' }, 'http://[::1]:3000/x', 'https://public.example/x'],
    ['of another port', plain, 'http://10.0.0.1:3001/x', 'http://10.0.0.1:3001/x'],
    ['of a longer name', { ...plain, authority: 'backend' }, 'http://backend.evil.example/x', 'http://backend.evil.example/x'],
    ['with user information', plain, 'http://10.0.0.1:3000@evil.example/', 'http://10.0.0.1:3000@evil.example/'],
    ['of somebody else', plain, 'https://login.example/?back=http://10.0.0.1:3000/', 'https://login.example/?back=http://10.0.0.1:3000/'],
    ['of another scheme', plain, 'ftp://10.0.0.1:3000/x', 'ftp://10.0.0.1:3000/x'],
    ['of another scheme that begins alike', plain, 'httpx://10.0.0.1:3000/x', 'httpx://10.0.0.1:3000/x'],
    ['when nobody knows the public name', { ...plain, host: undefined }, 'http://10.0.0.1:3000/x', 'http://10.0.0.1:3000/x'],
    ['an absolute path', plain, '/x?y', '/x?y'],
    ['another host without a scheme', nested, '//evil.example/app/x', '//evil.example/app/x'],
    ['another host without a scheme, below every base', { ...nested, base: '' }, '//evil.example/x', '//evil.example/x'],
    ['a relative path', nested, 'app/x', 'app/x'],
    ['a path upwards', nested, '../x', '../x'],
    ['a query', nested, '?x', '?x'],
    ['a fragment', nested, '#x', '#x'],
    ['nothing', nested, '', ''],
    ['below the base', nested, '/app/x?y', '/api/x?y'],
    ['below the base, absolute', nested, 'http://10.0.0.1:3000/app/x', 'https://public.example/api/x'],
    ['the base itself', nested, '/app', '/api/'],
    ['the base with a slash', nested, '/app/', '/api/'],
    ['the base with a query', nested, '/app?x', '/api/?x'],
    ['the base with a fragment', nested, '/app#x', '/api/#x'],
    ['a path that only begins like the base', nested, '/application/x', '/application/x'],
    ['outside the base', nested, '/login', '/login'],
    ['a prefix without a base', { ...nested, base: '' }, '/x', '/api/x'],
    ['a base without a prefix', { ...nested, prefix: '' }, '/app/x', '/x'],
  ]
  for (const [what, face, value, expected] of rows) it(`${what}: ${value}`, () => expect(rewriteUrl(value, face)).toBe(expected))

  it('a redirect to where the request went leads the client back to where it asked', () => {
    const path = fc.array(fc.constantFrom('a', 'bc', '%2F', '..', ''), { maxLength: 4 }).map((segments) => `/${segments.join('/')}`)
    fc.assert(
      fc.property(
        path,
        fc.constantFrom('', '?x=/y'),
        fc.constantFrom('', '/app', '/app/v1'),
        fc.constantFrom('', '/api'),
        (rest, query, base, prefix) => {
          fc.pre(!`${prefix}${rest}`.startsWith('//'))
          const asked = `${prefix}${rest}${query}`
          const sent = joinBase(base, stripPrefix(asked, prefix))
          const face: PublicFace = { ...plain, base, prefix }
          expect(rewriteUrl(`http://${face.authority}${sent}`, face)).toBe(`https://public.example${asked}`)
          if (!sent.startsWith('//')) expect(rewriteUrl(sent, face)).toBe(asked)
        },
      ),
    )
  })
})

describe('Refresh', () => {
  const rows: [value: string, expected: string][] = [
    ['5', '5'],
    ['5; url=http://10.0.0.1:3000/app/x', '5; url=https://public.example/api/x'],
    ['0;URL="/app/x"', '0;URL="/api/x"'],
    ["3 ; url = '/app'", "3 ; url = '/api/'"],
    ['1, /app/x', '1, /api/x'],
    ['5; url=http://other.example/app', '5; url=http://other.example/app'],
    ['soon; url=/app/x', 'soon; url=/app/x'],
  ]
  for (const [value, expected] of rows) it(value, () => expect(rewriteRefresh(value, nested)).toBe(expected))
})

describe('fields', () => {
  it('three of them are rewritten, in place and in any case; the rest is left alone', () => {
    const value = 'http://10.0.0.1:3000/app/x'
    const names = ['location', 'Content-LOCATION', 'Link', 'Referer', 'X-Location', 'Locations', 'Origin', 'LOCATION']
    const fields = names.flatMap((name) => [name, value])
    fields.push('Refresh', `0;url=${value}`, 'Upgrade', value)
    rewriteRedirects(fields, nested)
    const seen = 'https://public.example/api/x'
    const kept = { Link: value, Referer: value, 'X-Location': value, Locations: value, Origin: value }
    expect(fields).toEqual([...names.flatMap((name) => [name, name in kept ? value : seen]), 'Refresh', `0;url=${seen}`, 'Upgrade', value])
  })
})

describe('the public scheme', () => {
  // What a proxy in front says of the scheme goes into a URL: only a scheme may come of it.
  const rows: [field: string | readonly string[] | undefined, proto: string][] = [
    [undefined, 'http'],
    ['https', 'https'],
    ['HTTPS', 'https'],
    ['http', 'http'],
    ['https, http', 'https'],
    [['https', 'http'], 'https'],
    ['', 'http'],
    ['javascript:alert(1)//', 'http'],
  ]
  for (const [field, proto] of rows)
    it(`behind a trusted proxy that says ${JSON.stringify(field)} is ${proto}`, async () => {
      const transport = fakeTransport({ status: 302, headers: { Location: 'http://a.test/x' } })
      const proxy = createProxy({ upstreams: ['http://a.test'], transport, trustedProxies: ['loopback'] })
      const { headers } = await proxy.inject({
        headers: { Host: 'public.example', ...(field !== undefined && { 'X-Forwarded-Proto': field }) },
      })
      await proxy.close()
      expect(headers.get('location')).toBe(`${proto}://public.example/x`)
    })

  it("is nobody else's to say", async () => {
    const transport = fakeTransport({ status: 302, headers: { Location: 'http://a.test/x' } })
    const proxy = createProxy({ upstreams: ['http://a.test'], transport })
    const { headers } = await proxy.inject({ headers: { Host: 'public.example', 'X-Forwarded-Proto': 'https' } })
    await proxy.close()
    expect(headers.get('location')).toBe('http://public.example/x')
  })
})
