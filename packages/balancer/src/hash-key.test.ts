import { getHeapStatistics } from 'node:v8'
import { type Exchange, HeaderList, OptionReader, OptionsError } from '@weir/core'
import { seededRandom, stubExchange } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type HashKey, type HashKeyOptions, hashKeyNames, type KeyReader, readHashKey } from './hash-key.ts'
import { hashText } from './text-hash.ts'

/** A reader whose hashes tell what was read. */
function reading(options: Partial<HashKeyOptions>): { key: KeyReader; texts: string[] } {
  const texts: string[] = []
  const read = new OptionReader('test')
  const key = readHashKey(read, read.object(options, hashKeyNames), {
    text: (text, start, end) => texts.push(text.slice(start, end)),
    address: (address, prefix) => texts.push(`${address}/${prefix}`),
  })
  read.check()
  return { key, texts }
}

interface Parts {
  readonly url?: string
  readonly headers?: readonly string[]
  readonly clientIp?: string
  readonly hashKey?: string
}

const request = ({ headers = [], ...rest }: Parts): Exchange => ({ ...stubExchange(rest), headers: new HeaderList(headers) })

function keyOf(key: HashKey | readonly HashKey[], parts: Parts): string | undefined {
  const { key: reader, texts } = reading({ key, missing: 'none' })
  return reader.read(request(parts)) ? texts[0] : undefined
}

describe('a key is read from', () => {
  it.each<[HashKey, Parts, string | undefined]>([
    [{ header: 'X-User' }, { headers: ['Accept', '*', 'x-uSER', 'Ann', 'X-User', 'Bob'] }, 'Ann'],
    ['header:x-user', { headers: ['X-Use', 'no', 'X-Userx', 'no', 'X_User', 'no'] }, undefined],
    ['header:x-user', { headers: ['X-User', ''] }, undefined],
    [{ cookie: 'uid' }, { headers: ['Cookie', 'xuid=1; uid=42; uid=43'] }, '42'],
    ['cookie:uid', { headers: ['cookie', 'a=b', 'COOKIE', 'c=d;uid="4 2"'] }, '"4 2"'],
    ['cookie:uid', { headers: ['Cookie', 'UID=1; uidx=2; uid; uid=; b=uid=3'] }, undefined],
    ['cookie:uid', { headers: ['Cookie', 'uid=; uid=9'] }, '9'],
    [{ query: 'tenant' }, { url: '/a?x=tenant=1&tenant=a%20b&tenant=c' }, 'a%20b'],
    ['query:tenant', { url: '/tenant=1' }, undefined],
    ['query:t', { url: '/?t' }, undefined],
    ['path', { url: '/a/b?c' }, '/a/b'],
    ['path', { url: '/a/b' }, '/a/b'],
    [{ path: {} }, { url: '/a/b?c=/d' }, '/a/b'],
    [{ path: { depth: 1 } }, { url: '/a/b/c' }, '/a'],
    [{ path: { depth: 2 } }, { url: '/a/b/c' }, '/a/b'],
    [{ path: { depth: 2 } }, { url: '/a?b=/c/d' }, '/a'],
    [{ path: { depth: 9 } }, { url: '/a/' }, '/a/'],
    ['url', { url: '/a?b' }, '/a?b'],
    ['clientIp', { clientIp: '192.0.2.7' }, '192.0.2.7/64'],
    ['clientIp', { clientIp: '' }, undefined],
    ['hashKey', { hashKey: 'k' }, 'k'],
    ['hashKey', {}, undefined],
    [({ method }) => `m-${method}`, {}, 'm-GET'],
    [() => undefined, {}, undefined],
    [() => '', {}, undefined],
  ])('%j', (key, parts, expected) => expect(keyOf(key, parts)).toBe(expected))

  it('the first place of a list that has one', () => {
    const keys = ['header:x-user', 'cookie:uid', 'clientIp'] as const
    expect(keyOf(keys, { headers: ['Cookie', 'uid=7', 'X-User', 'ann'] })).toBe('ann')
    expect(keyOf(keys, { headers: ['Cookie', 'uid=7'] })).toBe('7')
    expect(keyOf(keys, { headers: ['X-User', ''] })).toBe('192.0.2.1/64')
    expect(keyOf(keys, { clientIp: '' })).toBeUndefined()
  })

  it('a cookie or query among any others', () => {
    const name = fc.constantFrom('a', 'aa', 'ab', 'b')
    const value = fc.stringMatching(/^[a-z=]{0,3}$/)
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value), { maxLength: 6 }), name, (pairs, wanted) => {
        const expected = pairs.find(([n, v]) => n === wanted && v !== '')?.[1]
        expect(keyOf({ query: wanted }, { url: `/?${pairs.map((pair) => pair.join('=')).join('&')}` })).toBe(expected)
        expect(keyOf({ cookie: wanted }, { headers: ['Cookie', pairs.map((pair) => pair.join('=')).join('; ')] })).toBe(expected)
      }),
    )
  })
})

describe('a missing key', () => {
  it('is made up by chance, from the injected source', () => {
    const hashes = (missing?: 'random'): number[] => {
      const { key } = reading({ key: 'hashKey', random: seededRandom(5), ...(missing && { missing }) })
      return Array.from({ length: 50 }, () => (key.read(request({})) ? key.hash : Number.NaN))
    }
    expect(hashes()).toEqual(hashes('random'))
    expect(new Set(hashes()).size).toBe(50)
  })

  it('is the client, or chance when there is none', () => {
    const { key, texts } = reading({ key: 'hashKey', missing: 'clientIp', ipv6Prefix: 48, random: () => 0.25 })
    expect(key.read(request({}))).toBe(true)
    expect(texts).toEqual(['192.0.2.1/48'])
    expect(key.read(request({ clientIp: '' }))).toBe(true)
    expect(key.hash).toBe(2 ** 30)
  })

  it('is no answer', () => {
    const { key } = reading({ key: 'hashKey', missing: 'none' })
    expect(key.read(request({}))).toBe(false)
    expect(key.read(request({ hashKey: 'a' }))).toBe(true)
  })
})

describe('reading a key', () => {
  const parts: Parts = {
    url: '/first/second/third?tenant=abcdef&b=1',
    headers: ['HOST', 'x', 'X-USER', 'someone', 'COOKIE', 'a=b; uid=12345678'],
  }

  it.each<[HashKey]>([
    ['header:x-user'],
    ['cookie:uid'],
    ['query:tenant'],
    ['path'],
    [{ path: { depth: 2 } }],
    ['url'],
    ['clientIp'],
    ['hashKey'],
  ])('allocates nothing: %j', (where) => {
    const read = new OptionReader('test')
    const key = readHashKey(
      read,
      { key: where },
      { text: (text, start, end) => hashText(text, 0, start, end), address: (a) => hashText(a, 0) },
    )
    const exchanges = Array.from({ length: 64 }, (_, i) => request({ ...parts, hashKey: `k${i}`, clientIp: `192.0.2.${i}` }))
    let sum = 0
    let quiet = 0
    for (let rounds = 0; rounds < 400 && quiet < 5; rounds++) {
      const before = getHeapStatistics().used_heap_size
      for (let i = 0; i < 5_000; i++) {
        key.read(exchanges[i & 63] as Exchange)
        sum ^= key.hash
      }
      quiet = Math.abs(getHeapStatistics().used_heap_size - before) < 10_000 ? quiet + 1 : 0
    }
    expect(Number.isInteger(sum)).toBe(true)
    expect(quiet).toBe(5)
  })
})

describe('wrong key options', () => {
  it('are refused in the editor', () => {
    // @ts-expect-error: no such place
    expect(() => reading({ key: 'body' })).toThrow(OptionsError)
    // @ts-expect-error: no such place
    expect(() => reading({ key: { trailer: 'x' } })).toThrow(OptionsError)
    // @ts-expect-error: no such policy
    expect(() => reading({ key: 'path', missing: 'first' })).toThrow(OptionsError)
  })

  it('are refused at run time', () => {
    for (const key of [
      'header:',
      'header:a b',
      'cookie:a=b',
      'query:a&b',
      'path:2',
      { path: { depth: 0 } },
      { path: { depth: 1.5 } },
      { path: { segments: 1 } },
      { header: 'a', cookie: 'b' },
      {},
      [],
      ['path', 'x'],
      7,
      null,
      undefined,
    ])
      expect(() => reading({ key: key as HashKey }), JSON.stringify(key)).toThrow(OptionsError)
  })

  it('are reported with their paths, all at once', () => {
    try {
      reading({ key: ['path', 'nowhere'], missing: 'x', ipv6Prefix: 0, random: 1, other: 1 } as never)
      expect.unreachable()
    } catch (error) {
      const paths = (error as OptionsError).problems.map(({ path }) => path).sort()
      expect(paths).toEqual(['ipv6Prefix', 'key[1]', 'missing', 'other', 'random'])
    }
  })
})
