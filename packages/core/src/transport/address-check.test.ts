/** Which addresses may be connected to: what a URL holds, and what its name resolves to now. */
import type { LookupAddress, LookupOptions } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { stubUpstream } from '@weir/testing'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { ProxyError } from '../errors.ts'
import { checkedLookup, refusedAddress } from './address-check.ts'

const resolver = vi.hoisted(() => ({
  asked: [] as [hostname: string, options: unknown][],
  error: null as Error | null,
  answer: [] as { address: string; family: number }[],
  /** Answers before `lookup` returns, so that what its callback throws comes back to the test and not to the process. */
  atOnce: false,
}))
vi.mock('node:dns', () => ({
  lookup: (hostname: string, options: unknown, callback: (error: Error | null, found: unknown) => void): void => {
    resolver.asked.push([hostname, options])
    const found = resolver.error === null ? resolver.answer : undefined
    if (resolver.atOnce) callback(resolver.error, found)
    else process.nextTick(callback, resolver.error, found)
  },
}))
beforeEach(() => {
  resolver.asked.length = 0
  resolver.error = null
  resolver.answer = []
  resolver.atOnce = false
})

const upstream = (url: string): ReturnType<typeof stubUpstream> => stubUpstream({ id: url })

describe('an address in the URL', () => {
  const rows: [url: string, asked: string | undefined][] = [
    ['http://127.0.0.1:80', '127.0.0.1'],
    ['https://10.1.2.3', '10.1.2.3'],
    ['http://[::1]:8080', '::1'],
    ['http://[FD00:0:0::1]', 'fd00::1'],
    // Every spelling of it: the URL has made it plain.
    ['http://0x7f.1', '127.0.0.1'],
    ['http://2130706433', '127.0.0.1'],
    ['http://017700000001', '127.0.0.1'],
    ['http://localhost', undefined],
    ['http://127.0.0.1.nip.test', undefined],
    ['unix:/run/app.sock', undefined],
  ]
  for (const [url, asked] of rows)
    it(`of ${url} is ${asked === undefined ? 'none: nobody is asked here' : `asked for as ${asked}`}`, () => {
      const seen: string[] = []
      const allow = (answer: boolean) => (address: string) => {
        seen.push(address)
        return answer
      }
      expect(refusedAddress(upstream(url), allow(true))).toBeUndefined()
      const refused = refusedAddress(upstream(url), allow(false))
      expect(refused?.code).toBe(asked === undefined ? undefined : 'ERR_ADDRESS_DENIED')
      expect(seen).toEqual(asked === undefined ? [] : [asked, asked])
    })

  it('is not asked for without a check', () => {
    expect(refusedAddress(upstream('http://127.0.0.1'), undefined)).toBeUndefined()
  })

  it('refused is a failure before anything was sent: any method may be tried elsewhere', () => {
    expect(refusedAddress(upstream('http://127.0.0.1'), () => false)).toMatchObject({ phase: 'connect', retry: true, status: 502 })
  })
})

interface Found {
  readonly error: Error | null
  readonly address: string | readonly LookupAddress[]
  readonly family: number | undefined
}

function look(lookup: LookupFunction, options: LookupOptions): Promise<Found> {
  return new Promise((resolve) => lookup('api.test', options, (error, address, family) => resolve({ error, address, family })))
}

describe('the addresses of a name', () => {
  const v4 = (address: string): LookupAddress => ({ address, family: 4 })
  const v6 = (address: string): LookupAddress => ({ address, family: 6 })
  const outside = (address: string): boolean => !address.startsWith('10.') && address !== '::1'

  it('are all asked about, and only those that are allowed are given out', async () => {
    resolver.answer = [v4('10.0.0.1'), v4('192.0.2.1'), v6('::1'), v6('2001:db8::1')]
    const found = await look(checkedLookup(outside), { all: true })
    expect(found).toEqual({ error: null, address: [v4('192.0.2.1'), v6('2001:db8::1')], family: undefined })
  })

  it('one by one: the first that is allowed, and not the first', async () => {
    resolver.answer = [v6('::1'), v4('10.0.0.1'), v4('192.0.2.1'), v6('2001:db8::1')]
    expect(await look(checkedLookup(outside), {})).toEqual({ error: null, address: '192.0.2.1', family: 4 })
    resolver.answer = [v6('2001:db8::1'), v4('192.0.2.1')]
    expect(await look(checkedLookup(outside), { all: false })).toEqual({ error: null, address: '2001:db8::1', family: 6 })
  })

  for (const all of [true, false])
    it(`none of them allowed is a refusal (all: ${all})`, async () => {
      resolver.answer = [v4('10.0.0.1'), v6('::1')]
      const { error } = await look(checkedLookup(outside), { all })
      expect(error).toSatisfy(ProxyError.is)
      expect((error as ProxyError).code).toBe('ERR_ADDRESS_DENIED')
    })

  it('a failed resolution is passed on as it is, and nobody is asked', async () => {
    resolver.error = Object.assign(new Error('getaddrinfo ENOTFOUND api.test'), { code: 'ENOTFOUND' })
    let asked = 0
    const { error } = await look(
      checkedLookup(() => {
        asked++
        return true
      }),
      { all: true },
    )
    expect([error, asked]).toEqual([resolver.error, 0])
  })

  it('are asked for anew at every connection: what was allowed before is not now', async () => {
    const lookup = checkedLookup(outside)
    resolver.answer = [v4('192.0.2.1')]
    expect((await look(lookup, { all: true })).error).toBeNull()
    resolver.answer = [v4('10.0.0.1')]
    expect((await look(lookup, { all: true })).error).not.toBeNull()
    expect(resolver.asked).toHaveLength(2)
  })

  it('are looked up with the caller’s own options', async () => {
    resolver.answer = [v4('192.0.2.1')]
    await look(checkedLookup(outside), { family: 4, hints: 1024 })
    expect(resolver.asked).toEqual([['api.test', { family: 4, hints: 1024, all: true }]])
  })
})

describe('IPv4 written as IPv6', () => {
  const allow = (address: string): boolean => address !== '169.254.169.254'

  it('is asked about as IPv4, in a URL and behind a name', async () => {
    expect(refusedAddress(upstream('http://[::ffff:169.254.169.254]'), allow)?.code).toBe('ERR_ADDRESS_DENIED')
    expect(refusedAddress(upstream('http://[::ffff:10.0.0.1]'), allow)).toBeUndefined()
    resolver.answer = [
      { address: '::ffff:169.254.169.254', family: 6 },
      { address: '::ffff:10.0.0.1', family: 6 },
    ]
    const given = await new Promise((resolve) => {
      checkedLookup(allow)('name.test', { all: true } as never, (_error, found) => resolve(found))
    })
    expect(given).toEqual([{ address: '::ffff:10.0.0.1', family: 6 }])
  })
})

describe('a check that throws', () => {
  const broken = (): boolean => {
    throw new Error('the check is broken')
  }

  // From within the resolver's callback it would end the process.
  it('refuses the addresses of a name', async () => {
    resolver.atOnce = true
    resolver.answer = [{ address: '192.0.2.1', family: 4 }]
    expect((await look(checkedLookup(broken), { all: true })).error).toMatchObject({ code: 'ERR_ADDRESS_DENIED' })
  })

  it('refuses the address of a URL', () => {
    expect(refusedAddress(upstream('http://192.0.2.1'), broken)?.code).toBe('ERR_ADDRESS_DENIED')
  })
})
