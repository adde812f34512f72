import { OptionsError } from '@weir/core'
import { seededRandom, stubExchange, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { hash } from './hash.ts'
import { ipHash } from './ip-hash.ts'

describe('hash', () => {
  it('sends the same key to the same upstream, and other keys to others', () => {
    const balancer = hash({ key: 'hashKey' })
    balancer.update(stubUpstreams([1, 1, 1, 1]))
    const at = (hashKey: string): string | undefined => balancer.pick(stubExchange({ hashKey }))?.id
    const keys = Array.from({ length: 400 }, (_, i) => `user-${i}`)
    const first = keys.map(at)
    expect(keys.map(at)).toEqual(first)
    for (const id of ['a', 'b', 'c', 'd']) expect(Math.abs(first.filter((other) => other === id).length - 100)).toBeLessThan(45)
  })

  it('by client is the same as ipHash', () => {
    const upstreams = stubUpstreams([1, 2, 3])
    const [one, other] = [hash({ key: 'clientIp', ipv6Prefix: 48 }), ipHash({ ipv6Prefix: 48 })]
    one.update(upstreams)
    other.update(upstreams.toReversed())
    for (let i = 0; i < 500; i++) {
      const exchange = stubExchange({ clientIp: i % 2 ? `198.51.100.${i >> 1}` : `2001:db8:${i}::${i}` })
      expect(one.pick(exchange)?.id).toBe(other.pick(exchange)?.id)
    }
  })

  it('spreads exchanges without a key over all, by weight', () => {
    const balancer = hash({ key: 'cookie:uid', random: seededRandom(1) })
    balancer.update(stubUpstreams([1, 3]))
    let a = 0
    for (let i = 0; i < 4_000; i++) if (balancer.pick(stubExchange())?.id === 'a') a++
    expect(Math.abs(a - 1_000)).toBeLessThan(5 * Math.sqrt(750))
  })

  it('gives no answer without a key when told so', () => {
    const balancer = hash({ key: 'hashKey', missing: 'none' })
    balancer.update(stubUpstreams([1]))
    expect(balancer.pick(stubExchange())).toBeUndefined()
    expect(balancer.pick(stubExchange({ hashKey: 'x' }))?.id).toBe('a')
  })

  it('refuses wrong options, in the editor and at run time', () => {
    // @ts-expect-error: a key is required
    expect(() => hash({})).toThrow(OptionsError)
    // @ts-expect-error: and so are options
    expect(() => hash()).toThrow(OptionsError)
  })
})
