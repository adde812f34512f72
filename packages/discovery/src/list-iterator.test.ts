import { describe, expect, it, vi } from 'vitest'
import { type Outlet, sourceOf } from './list-iterator.ts'

const one = [{ url: 'http://10.0.0.1' }]
const two = [{ url: 'http://10.0.0.2' }]
const done = { done: true, value: undefined }

function rig() {
  const outlets: Outlet[] = []
  const stop = vi.fn()
  const source = sourceOf((outlet) => {
    outlets.push(outlet)
    return stop
  })
  return { iterator: source[Symbol.asyncIterator]() as Required<AsyncIterator<typeof one, undefined>>, outlets, stop, source }
}

describe('an iterator of lists', () => {
  it('opens at the first next, once, and each iterator for itself', async () => {
    const { iterator, outlets, source } = rig()
    expect(outlets).toHaveLength(0)
    const [first, second] = [iterator.next(), iterator.next()]
    expect(outlets).toHaveLength(1)
    outlets[0]?.put(one)
    outlets[0]?.put(two)
    expect([(await first).value, (await second).value]).toEqual([one, two])
    void source[Symbol.asyncIterator]().next()
    expect(outlets).toHaveLength(2)
  })

  it('keeps the newest list alone for a slow reader', async () => {
    const { iterator, outlets } = rig()
    const first = iterator.next()
    outlets[0]?.put(one)
    expect((await first).value).toBe(one)
    outlets[0]?.put(one)
    outlets[0]?.put(two)
    expect((await iterator.next()).value).toBe(two)
  })

  it('ends at return while a next is waiting, and stops what it opened once', async () => {
    const { iterator, outlets, stop } = rig()
    const pending = [iterator.next(), iterator.next()]
    expect(await iterator.return()).toEqual(done)
    expect(await Promise.all(pending)).toEqual([done, done])
    await iterator.return()
    expect(stop).toHaveBeenCalledTimes(1)
    expect(outlets[0]?.closed).toBe(true)
    outlets[0]?.put(one)
    outlets[0]?.fail(new Error('late'))
    expect(await iterator.next()).toEqual(done)
  })

  it('opens nothing when it is returned before it is read', async () => {
    const { iterator, outlets, stop } = rig()
    await iterator.return()
    expect(await iterator.next()).toEqual(done)
    expect([outlets.length, stop.mock.calls.length]).toEqual([0, 0])
  })

  it('throws a failure to whoever waits, once, and stops', async () => {
    const { iterator, outlets, stop } = rig()
    const [first, second] = [iterator.next(), iterator.next()]
    const error = new Error('broken')
    outlets[0]?.fail(error)
    await expect(first).rejects.toBe(error)
    expect([await second, await iterator.next()]).toEqual([done, done])
    expect(stop).toHaveBeenCalledTimes(1)
  })

  it('keeps a failure for the next reader, in the place of an unread list', async () => {
    const { iterator, outlets } = rig()
    const first = iterator.next()
    outlets[0]?.put(one)
    await first
    outlets[0]?.put(two)
    const error = new Error('broken')
    outlets[0]?.fail(error)
    await expect(iterator.next()).rejects.toBe(error)
    expect(await iterator.next()).toEqual(done)
  })

  it('ends when there is nothing more, after what is unread was read', async () => {
    const { iterator, outlets, stop } = rig()
    const first = iterator.next()
    outlets[0]?.put(one)
    await first
    outlets[0]?.put(two)
    outlets[0]?.end()
    outlets[0]?.put(one)
    expect(stop).toHaveBeenCalledTimes(1)
    expect((await iterator.next()).value).toBe(two)
    expect(await iterator.next()).toEqual(done)
    const other = rig()
    const pending = other.iterator.next()
    other.outlets[0]?.end()
    expect(await pending).toEqual(done)
  })

  it('throws what opening throws', async () => {
    const error = new Error('no')
    const iterator = sourceOf(() => {
      throw error
    })[Symbol.asyncIterator]()
    await expect(iterator.next()).rejects.toBe(error)
    expect(await iterator.next()).toEqual(done)
  })
})
