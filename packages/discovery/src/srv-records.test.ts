import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Server, serversOf, type Target } from './srv-records.ts'

const target = (name: string, priority: number, weight: number, addresses = [`10.0.0.${name.charCodeAt(0)}`], port = 80): Target => ({
  name,
  priority,
  weight,
  port,
  addresses,
})
const shown = (servers: readonly Server[]) => servers.map(({ name, address, priority, weight }) => [name, address, priority, weight])

describe('SRV records in terms of a pool', () => {
  it('priorities are tiers, the lowest number first, and a tier without addresses keeps its place', () => {
    expect(shown(serversOf([target('c', 40, 1), target('a', 20, 1), target('b', 10, 1), target('x', 30, 1, [])]))).toEqual([
      ['b', '10.0.0.98', 0, 1],
      ['a', '10.0.0.97', 1, 1],
      ['c', '10.0.0.99', 3, 1],
    ])
  })

  it('weights stay as they are where nothing speaks against it', () => {
    expect(serversOf([target('a', 1, 10), target('b', 1, 65_535), target('c', 1, 1)]).map(({ weight }) => weight)).toEqual([10, 65_535, 1])
  })

  it('a weight of 0 among its like is 1, and among others very little', () => {
    expect(serversOf([target('a', 1, 0), target('b', 1, 0)]).map(({ weight }) => weight)).toEqual([1, 1])
    expect(serversOf([target('a', 1, 0), target('b', 1, 3)]).map(({ weight }) => weight)).toEqual([1, 300])
    expect(serversOf([target('a', 1, 0), target('b', 2, 3)]).map(({ weight }) => weight)).toEqual([1, 3])
  })

  it('addresses of one target share its weight', () => {
    const servers = serversOf([target('a', 1, 10, ['10.0.0.1', '10.0.0.2']), target('b', 1, 10)])
    expect(servers.map(({ weight }) => weight)).toEqual([500, 500, 1000])
  })

  it('the same place twice is one server: in its best tier, or with both weights', () => {
    expect(shown(serversOf([target('a', 2, 7, ['10.0.0.1']), target('b', 1, 5, ['10.0.0.1'])]))).toEqual([['b', '10.0.0.1', 0, 5]])
    expect(shown(serversOf([target('a', 1, 7, ['10.0.0.1']), target('b', 1, 5, ['10.0.0.1'])]))).toEqual([['a', '10.0.0.1', 0, 12]])
    expect(serversOf([target('a', 1, 7, ['10.0.0.1'], 80), target('a', 1, 5, ['10.0.0.1'], 81)])).toHaveLength(2)
  })

  const targets = fc.array(
    fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      port: fc.constantFrom(80, 81),
      priority: fc.nat({ max: 65_535 }),
      weight: fc.oneof(fc.constant(0), fc.nat({ max: 10 }), fc.nat({ max: 65_535 })),
      addresses: fc.uniqueArray(fc.constantFrom('10.0.0.1', '10.0.0.2', '10.0.0.3', 'fd00::1'), { maxLength: 3 }),
    }),
    { maxLength: 12 },
  )

  it('nobody is lost, nobody is there twice, everybody is usable, whatever the order of the answer', () => {
    fc.assert(
      fc.property(targets, fc.integer(), (records, seed) => {
        const servers = serversOf(records)
        const places = servers.map(({ address, port }) => `${address} ${port}`)
        expect(new Set(places).size).toBe(places.length)
        expect(new Set(places)).toEqual(new Set(records.flatMap(({ addresses, port }) => addresses.map((address) => `${address} ${port}`))))
        for (const { weight, priority } of servers) {
          expect(Number.isInteger(weight) && weight >= 1 && weight <= 65_535).toBe(true)
          expect(Number.isInteger(priority) && priority >= 0 && priority < records.length).toBe(true)
        }
        const turned = records.map((record, index) => ({ record, key: (index * 7919 + seed) % 101 })).sort((x, y) => x.key - y.key)
        expect(serversOf(turned.map(({ record }) => record))).toEqual(servers)
      }),
    )
  })

  it('targets get the shares that their weights name', () => {
    const alone = fc.array(fc.tuple(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 1, max: 4 })), { minLength: 1, maxLength: 8 })
    fc.assert(
      fc.property(alone, (list) => {
        const records = list.map(([weight, count], i) =>
          target(
            String.fromCharCode(97 + i),
            1,
            weight,
            Array.from({ length: count }, (_, k) => `10.0.${i}.${k}`),
          ),
        )
        const servers = serversOf(records)
        const all = servers.reduce((sum, { weight }) => sum + weight, 0)
        const wanted = records.reduce((sum, { weight }) => sum + weight, 0)
        // With equal counts weights are not divided at all: everybody's share is multiplied alike.
        for (const record of records) {
          const got = servers.filter(({ name }) => name === record.name).reduce((sum, { weight }) => sum + weight, 0)
          expect(Math.abs(got / all - record.weight / wanted)).toBeLessThan(0.03)
        }
      }),
    )
  })
})
