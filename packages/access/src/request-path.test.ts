/** The lax reading of a path finds what any server might find behind it. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { laxPath } from './request-path.ts'

describe('the lax reading', () => {
  it('resolves every spelling of /admin/users', () => {
    for (const path of [
      '/admin/users',
      '/%61dmin/users',
      '/%2561dmin/users',
      '/%25252561dmin/users',
      '//admin///users',
      '/./admin/x/../users',
      '/x/%2e%2e/admin/users',
      '/x/..%2fadmin%2Fusers',
      '\\admin\\users',
      '/admin;jsessionid=1/users;v=2',
      '/admin%5cusers',
      '/../../admin/users',
    ])
      expect(laxPath(path), path).toBe('/admin/users')
  })

  it('leaves what is clean as it is', () => {
    for (const path of ['/', '/a', '/a/', '/a.b/..c/d..', '/a-b_c~d/', '*']) expect(laxPath(path)).toBe(path)
    expect(laxPath('/a/./')).toBe('/a/')
    expect(laxPath('/a/..')).toBe('/')
    expect(laxPath('/a/b/..')).toBe('/a/')
  })

  it('has nothing left to resolve, and is the same when something is encoded', () => {
    const piece = fc.constantFrom('/', '..', '.', 'a', 'b', ';', '\\', '%2e', '%2f', '%252f', '%3b', '%5C')
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 15 }), (pieces) => {
        const path = `/${pieces.join('')}`
        const lax = laxPath(path)
        expect(laxPath(lax)).toBe(lax)
        const encoded = path.replace(/[ab.]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)
        expect(laxPath(encoded)).toBe(lax)
      }),
      { numRuns: 1000 },
    )
  })
})
