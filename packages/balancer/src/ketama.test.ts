import { crc32 } from 'node:zlib'
import { type Exchange, HeaderList, OptionsError, type Upstream } from '@weir/core'
import { type StubUpstream, stubExchange, stubUpstream, stubUpstreams } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { crcStart, crcText, crcWord } from './crc32.ts'
import { ketama } from './ketama.ts'
import { KetamaRing, type RingServer } from './ketama-ring.ts'

describe('crc32', () => {
  it('is that of zlib, in parts or whole', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.integer(), fc.nat({ max: 40 }), (bytes, word, cut) => {
        const text = Buffer.from(bytes).toString('latin1')
        const tail = Buffer.alloc(4)
        tail.writeInt32LE(word)
        const first = crcText(crcStart, text, 0, Math.min(cut, text.length))
        const whole = crcWord(crcText(first, text, Math.min(cut, text.length), text.length), word)
        expect(~whole >>> 0).toBe(crc32(Buffer.concat([bytes, tail])))
      }),
    )
  })
})

/** The definition, in as few words as possible. */
function plainRing(servers: readonly RingServer[]): { hash: number; owner: number }[] {
  const points = servers.flatMap(({ name, weight }, owner) => {
    const [, host, port = ''] = /^(?:unix:)?(.*?)(?::(\d*))?$/i.exec(name) as unknown as [string, string, string?]
    let previous = Buffer.alloc(4)
    return Array.from({ length: Math.max(1, Math.round(weight * 160)) }, () => {
      const hash = crc32(Buffer.concat([Buffer.from(`${host}\0${port}`, 'latin1'), previous]))
      previous = Buffer.alloc(4)
      previous.writeUInt32LE(hash)
      return { hash, owner }
    })
  })
  return points.sort((a, b) => a.hash - b.hash || a.owner - b.owner)
}

describe('the ring', () => {
  const name = fc.oneof(
    fc.ipV4().chain((ip) => fc.nat({ max: 65_535 }).map((port) => `${ip}:${port}`)),
    fc.domain(),
    fc.constant('unix:/run/a.sock'),
    fc.constant('[::1]:3000'),
    fc.constant('[::1]'),
  )
  const servers = fc.uniqueArray(fc.record({ name, weight: fc.constantFrom(0.001, 0.1, 0.55, 1, 2, 5) }), {
    selector: (server) => server.name,
    minLength: 1,
    maxLength: 6,
  })

  it('has its points where the definition puts them', () => {
    fc.assert(
      fc.property(servers, fc.array(fc.integer(), { minLength: 1, maxLength: 20 }), (servers, hashes) => {
        const ring = new KetamaRing(servers)
        const plain = plainRing(servers)
        for (const hash of [...hashes, 0, -1, plain[0]?.hash ?? 0, plain.at(-1)?.hash ?? 0]) {
          const point = plain.find((p) => p.hash >= hash >>> 0) ?? (plain[0] as { owner: number })
          expect(ring.owner(ring.point(hash | 0))).toBe(point.owner)
        }
      }),
    )
  })

  it('is bounded, whatever the weights', () => {
    const ring = new KetamaRing(Array.from({ length: 50 }, (_, i) => ({ name: `10.0.0.${i}:80`, weight: i === 0 ? 65_535 : 1 })))
    expect(ring.size).toBeLessThanOrEqual(2 ** 21)
    expect(new Set(Array.from({ length: ring.size }, (_, point) => ring.owner(point))).size).toBe(50)
  })
})

const at = (upstreams: readonly Upstream[], hashKey: string, options: Partial<Parameters<typeof ketama>[0]> = {}): string | undefined => {
  const balancer = ketama({ key: 'hashKey', ...options })
  balancer.update(upstreams)
  return balancer.pick(stubExchange({ hashKey }))?.id
}

describe('an upstream is called', () => {
  const keys = Array.from({ length: 60 }, (_, i) => `k${i}`)
  const choices = (name: (i: number) => string, server?: (upstream: Upstream) => string): (number | undefined)[] => {
    const upstreams = [0, 1, 2].map((i) => stubUpstream({ id: name(i) }))
    return keys.map((key) => upstreams.findIndex(({ id }) => id === at(upstreams, key, server && { server })))
  }

  it.each<[string, (i: number) => string, (i: number) => string]>([
    ['by host and port', (i) => `http://10.0.0.${i}:3000`, (i) => `10.0.0.${i}:3000`],
    ['by host alone when the port is 80', (i) => `http://10.0.0.${i}`, (i) => `10.0.0.${i}`],
    ['with its port when that is 443', (i) => `https://app${i}.internal`, (i) => `app${i}.internal:443`],
    ['by the path of its socket', (i) => `unix:///run/${i}.sock`, (i) => `unix:/run/${i}.sock`],
    ['with its base path, if it has one', (i) => `http://10.0.0.1:3000/part${i}`, (i) => `10.0.0.1:3000/part${i}`],
    ['by the id it was given', (i) => `10.9.9.${i}:81`, (i) => `10.9.9.${i}:81`],
  ])('%s', (_, id, text) => {
    const byDefault = choices(id)
    expect(byDefault).toEqual(choices(id, (upstream) => text(Number([0, 1, 2].find((i) => id(i) === upstream.id)))))
    const ring = new KetamaRing([0, 1, 2].map((i) => ({ name: text(i), weight: 1 })))
    expect(byDefault).toEqual(keys.map((key) => ring.owner(ring.point(crc32(Buffer.from(key)) | 0))))
  })
})

describe('a key whose upstream cannot be picked', () => {
  it('goes on along the ring', () => {
    const upstreams = stubUpstreams([1, 2, 1, 3])
    const balancer = ketama({ key: 'hashKey' })
    balancer.update(upstreams)
    const names = upstreams.map(({ id, weight }) => ({ name: id, weight }))
    const plain = plainRing(names)
    for (let i = 0; i < 200; i++) {
      const hash = crc32(Buffer.from(`key ${i}`))
      const start =
        Math.max(
          0,
          plain.findIndex((point) => point.hash >= hash),
        ) % plain.length
      const order = [...new Set([...plain.slice(start), ...plain.slice(0, start)].map(({ owner }) => owner))]
      const tried: StubUpstream[] = []
      for (const owner of order) {
        const picked = balancer.pick(stubExchange({ hashKey: `key ${i}`, tried }))
        expect(picked).toBe(upstreams[owner])
        tried.push(upstreams[owner] as StubUpstream)
      }
    }
  })
})

describe('keys', () => {
  it('are hashed as the bytes they came as', () => {
    const balancer = ketama({ key: 'header:x-user' })
    const upstreams = stubUpstreams(new Array(20).fill(1))
    balancer.update(upstreams)
    const ring = new KetamaRing(upstreams.map(({ id }) => ({ name: id, weight: 1 })))
    const exchange: Exchange = { ...stubExchange(), headers: new HeaderList(['X-User', 'J\u00fcrgen']) }
    expect(balancer.pick(exchange)).toBe(upstreams[ring.owner(ring.point(crc32(Buffer.from('J\u00fcrgen', 'latin1')) | 0))])
  })

  it('of IPv6 clients go by prefix, of IPv4 clients by the text', () => {
    const upstreams = stubUpstreams(new Array(20).fill(1))
    const balancer = ketama({ key: 'clientIp' })
    balancer.update(upstreams)
    const home = (clientIp: string): string | undefined => balancer.pick(stubExchange({ clientIp }))?.id
    expect(home('2001:db8::1')).toBe(home('2001:db8::ffff'))
    expect(home('192.0.2.9')).toBe(at(upstreams, '192.0.2.9'))
  })
})

it('refuses wrong options, in the editor and at run time', () => {
  // @ts-expect-error: not a function
  expect(() => ketama({ key: 'path', server: 'url' })).toThrow(OptionsError)
  // @ts-expect-error: no such option
  expect(() => ketama({ key: 'path', points: 100 })).toThrow(OptionsError)
})
