/** In which order resources go, and that everything is counted. */
import { describe, expect, it } from 'vitest'
import { DiskIndex, type Held, sizeOnDisk, weightInMemory } from './disk-index.ts'

let ids = 0
function held(notedAt: number, more: Partial<Held> = {}): Held {
  const id = String(ids++)
  return {
    id,
    path: `000/${id}`,
    head: '[]',
    storedAt: 0,
    size: 10,
    tags: [],
    slot: { size: 256, index: 0, sequence: 1 },
    notedAt,
    ...more,
  }
}

function order(index: DiskIndex, not: (key: string) => boolean = () => false): string[] {
  const gone: string[] = []
  for (let key = index.victim(not); key !== undefined; key = index.victim(not)) {
    gone.push(key)
    index.set(key, [])
  }
  return gone
}

describe('what goes first', () => {
  it('is what was not used for longest', () => {
    const index = new DiskIndex()
    for (const key of ['a', 'b', 'c', 'd']) index.set(key, [held(0)])
    index.find('b')
    index.peek('a')
    index.set('c', [held(0), held(0)])
    index.find('a')
    expect(order(index)).toEqual(['c', 'd', 'b', 'a'])
  })

  it('is what was found at the start and not used since, the oldest of those', () => {
    const index = new DiskIndex()
    index.set('new', [held(0)])
    for (const [key, at] of [
      ['x', 30],
      ['y', 10],
      ['z', 20],
      ['used', 1],
    ] as const)
      index.add(key, held(at))
    index.find('used')
    expect(order(index)).toEqual(['y', 'z', 'x', 'new', 'used'])
  })

  it('is about the oldest of very many', () => {
    const index = new DiskIndex()
    // Like hashes: in no order.
    for (let i = 0; i < 2000; i++) index.add(String(i), held((i * 1009) % 2000))
    const at = order(index).map((key) => (Number(key) * 1009) % 2000)
    const mean = (part: number[]): number => part.reduce((sum, one) => sum + one, 0) / part.length
    expect(at).toHaveLength(2000)
    expect(mean(at.slice(0, 1000))).toBeLessThan(mean(at.slice(1000)) - 500)
  })

  it('is none that is being changed', () => {
    const index = new DiskIndex()
    for (const key of ['a', 'b']) index.set(key, [held(0)])
    for (const key of ['c', 'd']) index.add(key, held(0))
    expect(order(index, (key) => key === 'a' || key === 'c')).toEqual(['d', 'b'])
    expect(index.victim((key) => key === 'a' || key === 'c')).toBeUndefined()
    expect(index.victim(() => false)).toBe('c')
  })

  it('goes by what was used last of a resource', () => {
    const index = new DiskIndex()
    index.add('a', held(5))
    index.add('a', held(50))
    index.add('b', held(10))
    expect(order(index)).toEqual(['b', 'a'])
  })
})

it('counts come back to nothing', () => {
  const index = new DiskIndex()
  const tagged = held(0, { tags: ['t', 'u'] })
  const other = held(0, { tags: ['t'] })
  index.set('a', [tagged])
  index.add('b', other)
  expect([...index.keysOf('t')]).toEqual(['a', 'b'])
  expect(index).toMatchObject({
    entries: 2,
    bytes: sizeOnDisk(tagged) + sizeOnDisk(other),
    memory: weightInMemory(tagged) + weightInMemory(other),
  })
  index.set('a', [])
  expect([...index.keysOf('t')]).toEqual(['b'])
  expect([...index.keysOf('u')]).toEqual([])
  index.set('b', [])
  expect(index).toMatchObject({ entries: 0, bytes: 0, memory: 0 })
  expect(index.keys()).toEqual([])
})
