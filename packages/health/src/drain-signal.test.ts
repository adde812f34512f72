/** Drain signals through the whole proxy, without sockets. */
import { createPool, createProxy } from '@weir/core'
import { type FakeResponse, fakeTransport, stubOutcome, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type DrainSignalOptions, drainSignal } from './drain-signal.ts'
import { findField } from './find-field.ts'

function rig(options: DrainSignalOptions) {
  const clock = virtualClock()
  const answers = new Map<string, FakeResponse>()
  const transport = fakeTransport((_request, { id }) => answers.get(id) ?? {})
  const pool = createPool({
    upstreams: ['a', 'b'].map((id) => ({ url: `http://${id}.test`, id })),
    health: [drainSignal(options)],
    transport,
    clock,
  })
  const proxy = createProxy({ pool })
  return {
    clock,
    pool,
    answers,
    /** Who answered. */
    async ask(times = 2): Promise<string[]> {
      const before = transport.requests.length
      for (let i = 0; i < times; i++) await proxy.inject({ url: '/' })
      return transport.requests.slice(before).map(({ upstream }) => upstream.id)
    },
    state: (id: string) => pool.get(id)?.state,
    close: () => proxy.close().then(() => pool.close()),
  }
}

describe('a signal', () => {
  it('by field drains the one that sent it, and holds for its time', async () => {
    const r = rig({ header: 'X-Going-Away', duration: '30s' })
    r.answers.set('b', { headers: { 'x-going-AWAY': '' } })
    await r.ask(2)
    expect([r.state('a'), r.state('b')]).toEqual(['up', 'draining'])
    expect(await r.ask(2)).toEqual(['a', 'a'])
    expect(r.pool.health().upstreams[1]?.reason).toContain('x-going-away')
    r.answers.clear()
    await r.clock.advance(29_999)
    expect(r.state('b')).toBe('draining')
    await r.clock.advance(1)
    expect(r.state('b')).toBe('up')
    expect((await r.ask(2)).toSorted()).toEqual(['a', 'b'])
    await r.close()
  })

  it('by status; anything else is none', async () => {
    const r = rig({ status: '598-599' })
    r.answers.set('a', { status: 503, headers: { 'x-going-away': '1' } })
    await r.ask(2)
    expect(r.state('a')).toBe('up')
    r.answers.set('a', { status: 599 })
    await r.ask(2)
    expect(r.state('a')).toBe('draining')
    await r.close()
  })

  it('that is repeated begins its time anew', async () => {
    const r = rig({ header: 'x-bye', duration: '10s' })
    for (const id of ['a', 'b']) r.answers.set(id, { headers: { 'x-bye': '1' } })
    await r.ask(1)
    const [first, second] = r.state('a') === 'draining' ? ['a', 'b'] : ['b', 'a']
    await r.clock.advance(6000)
    await r.ask(1)
    expect([r.state('a'), r.state('b')]).toEqual(['draining', 'draining'])
    await r.clock.advance(4000)
    expect([r.state(first as string), r.state(second as string)]).toEqual(['up', 'draining'])
    // The first one is asked again now, and says it again.
    await r.ask(1)
    await r.clock.advance(9999)
    expect(r.state(first as string)).toBe('draining')
    await r.clock.advance(1)
    expect(r.state(first as string)).toBe('up')
    await r.close()
  })
})

it('a signal that comes while one holds prolongs it', async () => {
  const clock = virtualClock()
  const policy = drainSignal({ header: 'x-bye', duration: '10s' })
  const pool = createPool({ upstreams: ['http://a.test'], health: [policy], transport: fakeTransport(), clock })
  const [a] = pool.upstreams
  if (a === undefined) throw new Error('no upstream')
  policy.onHead?.(a, 200, ['x-bye', ''], stubOutcome(a))
  await clock.advance(6000)
  policy.onHead?.(a, 200, ['x-bye', ''], stubOutcome(a))
  await clock.advance(9999)
  expect(a.state).toBe('draining')
  expect(clock.pending).toBe(1)
  await clock.advance(1)
  expect(a.state).toBe('up')
  expect(clock.pending).toBe(0)
})

it('who leaves, and a closed pool, leave no timer', async () => {
  const r = rig({ header: 'x-bye' })
  for (const id of ['a', 'b']) r.answers.set(id, { headers: { 'x-bye': '1' } })
  await r.ask(2)
  expect(r.clock.pending).toBe(2)
  await r.pool.remove('a')
  expect(r.clock.pending).toBe(1)
  await r.close()
  expect(r.clock.pending).toBe(0)
})

it('fields are found whatever their case, values are not names', () => {
  expect(findField(['A', '1', 'X-Bye', '2'], 'x-bye')).toBe('2')
  expect(findField(['A', 'x-bye', 'x-bye'], 'x-bye')).toBeUndefined()
  expect(findField(['x[', '1'], 'x{')).toBeUndefined()
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.string({ maxLength: 3 }), fc.string()), { maxLength: 6 }),
      fc.string({ maxLength: 3 }),
      (fields, given) => {
        const ascii = (text: string): string => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase())
        const name = ascii(given)
        expect(findField(fields.flat(), name)).toBe(fields.find(([field]) => ascii(field) === name)?.[1])
      },
    ),
  )
})

it('wrong options are named', () => {
  expect(() => drainSignal({})).toThrow('`header` or a `status`')
  expect(() => drainSignal({ header: 'a b' })).toThrow('header')
  expect(() => drainSignal({ status: 42, duration: 0 })).toThrow('duration')
})
