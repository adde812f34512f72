import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { certificateAuthority, certificates } from './certificates.ts'

describe('certificates', () => {
  it('signs leaves that verify against their own authority only', () => {
    const { ca, localhost, wrongName } = certificates()
    const authority = new X509Certificate(ca)
    const leaf = new X509Certificate(localhost.cert)
    expect(authority.ca).toBe(true)
    expect(leaf.ca).toBe(false)
    expect(leaf.checkIssued(authority)).toBe(true)
    expect(leaf.verify(authority.publicKey)).toBe(true)
    expect(leaf.verify(new X509Certificate(certificateAuthority().ca).publicKey)).toBe(false)
    expect(leaf.checkHost('localhost')).toBe('localhost')
    expect(leaf.checkIP('127.0.0.1')).toBe('127.0.0.1')
    expect(new X509Certificate(wrongName.cert).checkHost('localhost')).toBeUndefined()
    expect(new X509Certificate(wrongName.cert).checkHost('wrong.test')).toBe('wrong.test')
  })

  it('dates them: valid now, or expired', () => {
    const { localhost, expired } = certificates()
    const now = Date.now()
    const good = new X509Certificate(localhost.cert)
    expect(good.validFromDate.getTime()).toBeLessThan(now)
    expect(good.validToDate.getTime()).toBeGreaterThan(now)
    const old = new X509Certificate(expired.cert)
    expect(old.validToDate.getTime()).toBeLessThan(now)
    expect(old.validFromDate.getTime()).toBeLessThan(old.validToDate.getTime())
  })

  it('is made once per process', () => {
    expect(certificates()).toBe(certificates())
  })
})
