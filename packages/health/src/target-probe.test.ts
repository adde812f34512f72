/** Probe options of an upstream that stays in its pool while its source says something else of it. */
import { once } from 'node:events'
import { createPool, type Pool, type UpstreamInput, type UpstreamSource } from '@weir/core'
import { fakeTransport, testUpstream, type VirtualClock, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type ActiveCheckOptions, activeCheck } from './active-check.ts'
import type { ProbeOverrides } from './overrides.ts'

type Health = ProbeOverrides | false | undefined

interface Rig extends AsyncDisposable {
  readonly clock: VirtualClock
  readonly pool: Pool
  /** What the probes were opened, asked and closed with, in order. */
  readonly log: readonly string[]
  /** The answer of the probes from now on. */
  pass: boolean | 'never'
  /** The source says this of its one upstream from now on. */
  say(health: Health, more?: object): Promise<void>
}

async function rig(health: Health, options: ActiveCheckOptions = {}): Promise<Rig> {
  const clock = virtualClock()
  const log: string[] = []
  const lists: (readonly UpstreamInput[])[] = []
  let pushed = Promise.withResolvers<void>()
  const source: UpstreamSource = {
    async *[Symbol.asyncIterator]() {
      for (;;) {
        await pushed.promise
        pushed = Promise.withResolvers()
        while (lists.length > 0) yield lists.shift() as readonly UpstreamInput[]
      }
    },
  }
  const push = async (said: Health, more: object = {}): Promise<void> => {
    lists.push([{ url: 'http://a.test', id: 'a', meta: { health: said }, ...more }])
    pushed.resolve()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const check = activeCheck({
    jitter: 0,
    interval: 1000,
    fall: 2,
    rise: 2,
    probe: {
      name: 'logged',
      open({ overrides: { path = '-' } }) {
        if (path === 'wrong') throw new Error('wrong path')
        log.push(`open ${path}`)
        return {
          run: async () => {
            log.push(`ask ${path}`)
            if (self.pass === 'never') await new Promise(() => {})
            if (self.pass !== true) throw new Error('no')
          },
          close: () => void log.push(`close ${path}`),
        }
      },
    },
    ...options,
  })
  const pool = createPool({ upstreams: source, health: [check], transport: fakeTransport(), clock })
  const self: Rig = {
    clock,
    pool,
    log,
    pass: true,
    say: push,
    [Symbol.asyncDispose]: () => pool.close(),
  }
  await push(health)
  const started = pool.start()
  await clock.advance(0)
  await started
  await clock.advance(0)
  return self
}

const state = (r: Rig): string | undefined => r.pool.get('a')?.state

describe('an upstream that stays', () => {
  it('is asked as its meta.health now says, from its next probe on, and keeps its state', async () => {
    await using r = await rig({ path: '/1' })
    const upstream = r.pool.get('a')
    r.pass = false
    await r.clock.advance(5000)
    expect(state(r)).toBe('down')
    const before = r.log.length
    await r.say({ path: '/2' })
    r.pass = true
    await r.clock.advance(1000)
    expect(r.log.slice(before)).toEqual(['open /2', 'close /1', 'ask /2'])
    expect(state(r)).toBe('down')
    await r.clock.advance(1000)
    expect([state(r), r.pool.get('a') === upstream]).toEqual(['up', true])
    expect(r.log.filter((line) => line === 'ask /1').length).toBeGreaterThan(1)
    expect(r.log.slice(before + 2).every((line) => line === 'ask /2')).toBe(true)
  })

  it('keeps its probe when something else of it changes', async () => {
    await using r = await rig({ path: '/1' })
    await r.say({ path: '/1' }, { weight: 5 })
    await r.say({ path: '/1' }, { weight: 5, meta: { zone: 'b', health: { path: '/1' } } })
    await r.clock.advance(3000)
    expect(r.pool.get('a')?.weight).toBe(5)
    expect(r.log.filter((line) => !line.startsWith('ask'))).toEqual(['open /1'])
  })

  it('is asked as `overrides` now says, which may look at any of its meta', async () => {
    await using r = await rig(undefined, { overrides: ({ meta }) => ({ path: `/${meta.zone ?? 'none'}` }) })
    await r.say(undefined, { meta: { zone: 'b' } })
    await r.clock.advance(3000)
    expect(r.log.at(-1)).toBe('ask /b')
  })

  it('is up and asked no more when it is exempt, and asked again when it is not', async () => {
    await using r = await rig({ path: '/1' })
    r.pass = false
    await r.clock.advance(5000)
    expect(state(r)).toBe('down')
    await r.say(false)
    await r.clock.advance(1000)
    const before = r.log.length
    expect([state(r), r.log.at(-1)]).toEqual(['up', 'close /1'])
    await r.clock.advance(10_000)
    expect(r.log.length).toBe(before)
    await r.say({ path: '/2' })
    await r.clock.advance(1000)
    // It served until now: that holds until its probes have failed often enough.
    expect([state(r), ...r.log.slice(before)]).toEqual(['up', 'open /2', 'ask /2'])
    await r.clock.advance(1000)
    expect(state(r)).toBe('down')
  })

  it('that was exempt from the start is asked when it is exempt no more', async () => {
    await using r = await rig(false)
    await r.clock.advance(5000)
    expect(r.log).toEqual([])
    await r.say(undefined)
    await r.clock.advance(1000)
    expect(r.log).toEqual(['open -', 'ask -'])
  })

  for (const initial of ['up', 'pending'] as const)
    it(`that joined with options that were wrong begins when they are mended, ${initial}`, async () => {
      await using r = await rig({ path: '/1' }, { initial })
      r.pool.add({ url: 'http://b.test', id: 'b', meta: { health: { path: 'wrong' } } })
      expect(r.pool.health().upstreams[1]).toMatchObject({ state: 'down', reason: 'health check failed: wrong path' })
      await r.say({ path: '/1' }, { id: 'c', meta: { health: { path: 'wrong' } } })
      expect(r.pool.get('c')?.state).toBe('down')
      await r.say({ path: '/1' }, { id: 'c', meta: { health: { path: '/c' } } })
      await r.clock.advance(1000)
      expect([r.pool.get('c')?.state, r.log.at(-1)]).toEqual(['up', 'ask /c'])
      expect(r.pool.get('b')?.state).toBe('down')
    })

  for (const wrong of [{ path: 'wrong' }, { pth: '/' }])
    it(`goes on as before when what is said of it is wrong, with a warning: ${JSON.stringify(wrong)}`, async () => {
      await using r = await rig({ path: '/1' })
      const warned = once(process, 'warning')
      let warnings = 0
      const count = (): void => void warnings++
      process.on('warning', count)
      await r.say(wrong as Health)
      await r.clock.advance(5000)
      const [warning] = (await warned) as [Error & { code: string }]
      process.off('warning', count)
      expect([warning.code, warnings]).toEqual(['WEIR_HEALTH_OPTIONS', 1])
      expect(warning.message).toContain('upstream a')
      expect(state(r)).toBe('up')
      expect(r.log.filter((line) => !line.startsWith('ask'))).toEqual(['open /1'])
      await r.say({ path: '/2' })
      await r.clock.advance(1000)
      expect(r.log.at(-1)).toBe('ask /2')
    })

  it('that is exempt before its first probe keeps nobody waiting', async () => {
    await using r = await rig(false, { initial: 'pending' })
    const check = activeCheck({ initial: 'pending', probe: async () => {} })
    let meta: object = {}
    const pool = createPool({ upstreams: [{ url: 'http://a.test', id: 'a' }], health: [check], transport: fakeTransport(), clock: r.clock })
    Object.defineProperty(pool.get('a'), 'meta', { get: () => meta })
    const started = pool.start()
    meta = { health: false }
    await r.clock.advance(0)
    await started
    expect(pool.get('a')?.state).toBe('up')
    await pool.close()
  })

  it('gets no second probe beside one that has not ended', async () => {
    await using r = await rig({ path: '/1' }, { timeout: 500 })
    r.pass = 'never'
    await r.clock.advance(2000)
    const before = r.log.length
    await r.say({ path: '/2' })
    await r.clock.advance(10_000)
    expect(r.log.slice(before)).toEqual([])
    expect(state(r)).toBe('down')
  })

  it('leaves no timer when it goes, exempt or wrong', async () => {
    await using r = await rig(false)
    r.pool.add({ url: 'http://b.test', id: 'b', meta: { health: { path: 'wrong' } } })
    await r.clock.advance(1500)
    expect(r.clock.pending).toBe(2)
    await r.pool.remove('a')
    await r.pool.remove('b')
    expect(r.clock.pending).toBe(0)
  })
})

it('a health port that moves is followed, over real sockets', async () => {
  await using before = await testUpstream({ '*': 500 })
  await using after = await testUpstream({ '*': 200 })
  let health = { port: before.port }
  const moved = Promise.withResolvers<void>()
  const list = (): readonly UpstreamInput[] => [{ url: 'http://127.0.0.1:9', id: 'a', meta: { health } }]
  const upstreams: UpstreamSource = {
    async *[Symbol.asyncIterator]() {
      yield list()
      await moved.promise
      yield list()
    },
  }
  const pool = createPool({
    upstreams,
    health: [activeCheck({ interval: 10, rise: 1, fall: 1, initial: 'pending' })],
    transport: fakeTransport(),
  })
  await pool.start()
  expect(pool.get('a')?.state).toBe('down')
  health = { port: after.port }
  moved.resolve()
  await expect.poll(() => pool.get('a')?.state).toBe('up')
  await pool.close()
})
