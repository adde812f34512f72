import type { UpstreamInput, UpstreamSource } from '@weir/core'
import { virtualClock } from '@weir/testing'
import { describe, expect, it, vi } from 'vitest'
import { read, until, urlsOf } from './fixtures/reading.ts'
import { type Outlet, sourceOf } from './list-iterator.ts'
import { map } from './map.ts'
import { merge, mergeWith } from './merge.ts'

const list = (...ports: number[]): { url: string }[] => ports.map((port) => ({ url: `http://10.0.0.1:${port}/` }))
const urls = (...ports: number[]): string[] => ports.map((port) => `http://10.0.0.1:${port}`)

/** A source that gives what the test says. */
function byHand() {
  const outlets: Outlet[] = []
  const stop = vi.fn()
  const source = sourceOf((outlet) => {
    outlets.push(outlet)
    return stop
  })
  return { source, stop, outlets, opened: (count: number) => until(`opened ${count} times`, () => outlets[count - 1]) }
}

async function* generated(...lists: (readonly UpstreamInput[])[]): AsyncGenerator<readonly UpstreamInput[]> {
  yield* lists
}

describe('map', () => {
  it('changes upstreams, whatever their shape, and leaves some out', async () => {
    const source = map(
      generated(['http://10.0.0.1:1', { url: new URL('http://10.0.0.1:2'), weight: 3 }, 'http://10.0.0.1:3']),
      (upstream) => (upstream.id.endsWith(':3') ? undefined : { ...upstream, host: 'api.example.com' }),
    )
    const iterator = source[Symbol.asyncIterator]()
    expect((await iterator.next()).value).toEqual([
      { url: 'http://10.0.0.1:1/', id: 'http://10.0.0.1:1', host: 'api.example.com' },
      { url: 'http://10.0.0.1:2/', id: 'http://10.0.0.1:2', weight: 3, host: 'api.example.com' },
    ])
    expect((await iterator.next()).done).toBe(true)
  })

  it('ends what it reads when it is left, also while waiting, and when the function throws', async () => {
    const hand = byHand()
    const iterator = map(hand.source, (upstream) => upstream)[Symbol.asyncIterator]()
    const pending = iterator.next()
    await iterator.return?.()
    expect([(await pending).done, hand.stop.mock.calls.length]).toEqual([true, 1])

    const broken = map(hand.source, () => {
      throw new Error('mine')
    })[Symbol.asyncIterator]()
    const failing = broken.next()
    hand.outlets[1]?.put(list(1))
    await expect(failing).rejects.toThrow('mine')
    expect(hand.stop).toHaveBeenCalledTimes(2)
  })

  it('refuses what is no source or no function', () => {
    expect(() => map([] as never, undefined as never)).toThrow(expect.objectContaining({ code: 'ERR_OPTIONS' }))
  })
})

describe('merge', () => {
  it('waits for every source, then gives all of them with each change', async () => {
    const [one, two] = [byHand(), byHand()]
    await using reading = read(merge(one.source, list(9), two.source))
    const first = await one.opened(1)
    first.put(list(1))
    const second = await two.opened(1)
    await new Promise((resolve) => setImmediate(resolve))
    expect(reading.lists).toEqual([])
    second.put(list(2))
    expect(await reading.urls(1)).toEqual(urls(1, 2, 9))
    first.put(list(1, 3))
    expect(await reading.urls(2)).toEqual(urls(1, 2, 3, 9))
    second.put([])
    expect(await reading.urls(3)).toEqual(urls(1, 3, 9))
  })

  it('takes an upstream that two sources name from the earlier one', async () => {
    await using reading = read(
      merge([{ url: 'http://10.0.0.1:1', weight: 5 }], ['http://10.0.0.1:1/', { id: 'http://10.0.0.1:1', url: 'http://10.0.0.2' }]),
    )
    expect(await reading.list(1)).toEqual([{ url: 'http://10.0.0.1:1/', id: 'http://10.0.0.1:1', weight: 5 }])
  })

  it('goes on without a source that fails, keeps what it gave, and opens it again with pauses that grow', async () => {
    const clock = virtualClock()
    const [one, two] = [byHand(), byHand()]
    await using reading = read(mergeWith(clock, [one.source, two.source]))
    const first = await one.opened(1)
    first.put(list(1))
    const second = await two.opened(1)
    second.fail(new Error('not yet'))
    expect(await reading.urls(1)).toEqual(urls(1))
    for (const [count, pause] of [1000, 2000, 4000].entries()) {
      await clock.advance(pause - 1)
      expect(two.outlets).toHaveLength(count + 1)
      await clock.advance(1)
      expect(two.outlets).toHaveLength(count + 2)
      if (count < 2) two.outlets[count + 1]?.fail(new Error('not yet'))
      await clock.advance(0)
    }
    two.outlets[3]?.put(list(2))
    expect(await reading.urls(2)).toEqual(urls(1, 2))
    two.outlets[3]?.fail(new Error('gone'))
    first.put(list(3))
    expect(await reading.urls(3)).toEqual(urls(2, 3))
    await clock.advance(1000)
    two.outlets[4]?.put(list(2, 4))
    expect(await reading.urls(4)).toEqual(urls(2, 3, 4))
  })

  it('throws when no source has ever given a list', async () => {
    const clock = virtualClock()
    const [one, two] = [byHand(), byHand()]
    const pending = mergeWith(clock, [one.source, two.source])[Symbol.asyncIterator]().next()
    const outlet = await one.opened(1)
    outlet.fail(new Error('first'))
    const other = await two.opened(1)
    other.fail(new Error('second'))
    await expect(pending).rejects.toThrow('second')
    expect([clock.pending, one.outlets.length, two.outlets.length]).toEqual([0, 1, 1])
  })

  it('takes a list with nonsense in it for a failure of that source', async () => {
    const clock = virtualClock()
    const hand = byHand()
    await using reading = read(mergeWith(clock, [hand.source, list(1)]))
    const outlet = await hand.opened(1)
    outlet.put([{ url: 'nonsense' }])
    expect(await reading.urls(1)).toEqual(urls(1))
    expect(hand.stop).toHaveBeenCalledTimes(1)
  })

  it('ends with the last of its sources', async () => {
    const iterator = merge(list(1), generated(list(2), list(3)))[Symbol.asyncIterator]()
    const seen: string[][] = []
    for (let result = await iterator.next(); result.done !== true; result = await iterator.next()) seen.push(urlsOf(result.value))
    expect(seen.at(-1)).toEqual(urls(1, 3))
  })

  it('leaves every source when it is left, and the next reader opens them anew', async () => {
    const clock = virtualClock()
    const [one, two, broken] = [byHand(), byHand(), byHand()]
    const source = mergeWith(clock, [one.source, two.source, broken.source])
    const iterator = source[Symbol.asyncIterator]()
    const pending = iterator.next()
    const [first] = [await one.opened(1), await two.opened(1)]
    const failing = await broken.opened(1)
    first.put(list(1))
    failing.fail(new Error('broken'))
    await clock.advance(0)
    await iterator.return?.()
    expect((await pending).done).toBe(true)
    await clock.advance(60_000)
    expect([one.stop.mock.calls.length, two.stop.mock.calls.length, clock.pending, broken.outlets.length]).toEqual([1, 1, 0, 1])
    const other = source[Symbol.asyncIterator]()
    void other.next()
    await one.opened(2)
    await other.return?.()
  })

  it('opens nothing when it is left at once', async () => {
    const hand = byHand()
    const iterator = merge(hand.source)[Symbol.asyncIterator]()
    const pending = iterator.next()
    await iterator.return?.()
    await pending
    expect(hand.outlets).toHaveLength(0)
  })

  it('refuses what is no source', () => {
    expect(() => merge()).toThrow(expect.objectContaining({ code: 'ERR_OPTIONS' }))
    expect(() => merge('http://10.0.0.1' as never as UpstreamSource)).toThrow(expect.objectContaining({ code: 'ERR_OPTIONS' }))
  })
})
