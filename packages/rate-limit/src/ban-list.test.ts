/** Keys that are turned away for a time: put there by hand, or by refusals; bounded, and told of. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { InjectedRequest } from '@weir/core'
import { stageRunner, virtualClock } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { BanEvent } from './events.ts'
import { type BanListOptions, banList, type RateLimitStageOptions, rateLimit } from './index.ts'

function rig(options: BanListOptions = {}, limiter?: Partial<RateLimitStageOptions>) {
  const clock = virtualClock(5000)
  const bans = banList({ clock, ...options })
  const rule = bans.after({ refusals: 3, within: '10s', duration: '1m', reason: 'hammering' })
  const limit = limiter && rateLimit({ limit: 1, window: '1h', clock, onRefused: rule, ...limiter })
  const runner = stageRunner([bans, limit])
  onTestFinished(() => runner.close())
  const ask = async (request: InjectedRequest = {}) => (await runner.send(request)).response
  return { clock, bans, ask, status: async (remoteAddress = '192.0.2.1') => (await ask({ remoteAddress })).status }
}

describe('by hand', () => {
  it('bans for so long, and lifts a ban before its time', async () => {
    const { bans, status, clock } = rig()
    expect(await status()).toBe(200)
    bans.ban('192.0.2.1', '10s', 'spam')
    bans.ban('192.0.2.2', '1h')
    expect([await status(), await status('192.0.2.2'), await status('192.0.2.3')]).toEqual([403, 403, 200])
    await clock.advance(9999)
    expect(bans.list()).toEqual([
      { key: '192.0.2.1', reason: 'spam', leftMs: 1 },
      { key: '192.0.2.2', reason: '', leftMs: 3_590_001 },
    ])
    expect(await status()).toBe(403)
    await clock.advance(1)
    expect(await status()).toBe(200)
    expect([bans.unban('192.0.2.2'), bans.unban('192.0.2.2'), bans.unban('192.0.2.1')]).toEqual([true, false, false])
    expect(await status('192.0.2.2')).toBe(200)
    expect(bans.stats()).toEqual({ refused: 3, dryRefused: 0, entries: 0, evictions: 0 })
  })

  it('an IPv6 client is banned with its prefix, in any spelling', async () => {
    const { bans, status } = rig()
    bans.ban('2001:DB8:0::1', '1h')
    expect([await status('2001:db8::ffff'), await status('2001:db8:0:1::1')]).toEqual([403, 200])
    expect(bans.unban('2001:db8:0:0:9::9')).toBe(true)
    expect(await status('2001:db8::ffff')).toBe(200)
  })

  it('an IPv4 client is banned as a socket for both families names it, too', async () => {
    const { bans, status } = rig()
    bans.ban('::ffff:192.0.2.1', '1h')
    expect([await status('192.0.2.1'), await status('::ffff:192.0.2.1'), await status('192.0.2.2')]).toEqual([403, 403, 200])
    expect(bans.unban('192.0.2.1')).toBe(true)
    expect(await status('192.0.2.1')).toBe(200)
  })

  it('bans whoever sent a request, by the key of the list', async () => {
    const { bans, ask } = rig({ key: { header: 'x-user' } })
    const as = (user: string): InjectedRequest => ({ headers: { Host: 'a', 'X-User': user } })
    const catcher = {
      name: 'catcher',
      handle: (exchange: Parameters<typeof bans.banClient>[0]) => bans.banClient(exchange, '1h') as undefined,
    }
    const runner = stageRunner(catcher)
    await runner.send(as('ann'))
    await runner.close()
    expect([(await ask(as('ann'))).status, (await ask(as('bob'))).status]).toEqual([403, 200])
  })

  it('another status tells how long', async () => {
    const { bans, ask, clock } = rig({ status: 429 })
    bans.ban('127.0.0.1', '10s')
    await clock.advance(500)
    expect((await ask()).headers.get('Retry-After')).toBe('10')
    expect((await rig().ask()).headers.has('Retry-After')).toBe(false)
  })

  it('a duration that is none is refused', () => {
    const { bans } = rig()
    for (const wrong of [0, -1, Number.NaN, 'long' as unknown as number])
      expect(() => bans.ban('a', wrong)).toThrow(expect.objectContaining({ code: 'ERR_OPTIONS' }))
    expect(bans.list()).toEqual([])
  })

  it('a full list forgets the ban longest not hit, and counts it', async () => {
    const { bans, status, clock } = rig({ maxEntries: 2 })
    bans.ban('192.0.2.1', '1h')
    bans.ban('192.0.2.2', '1h')
    expect(await status('192.0.2.1')).toBe(403)
    bans.ban('192.0.2.3', '1h')
    expect([await status('192.0.2.1'), await status('192.0.2.2'), bans.stats().evictions]).toEqual([403, 200, 1])
    await clock.advance(3_600_000)
    bans.ban('192.0.2.4', '1h')
    expect(bans.stats()).toMatchObject({ entries: 2, evictions: 1 })
  })
})

describe('by refusals', () => {
  it('bans whoever goes on after so many within the time', async () => {
    const { bans, status, clock } = rig({}, {})
    expect([await status(), await status(), await status(), await status(), await status()]).toEqual([200, 429, 429, 429, 403])
    expect(bans.list()).toEqual([{ key: '192.0.2.1', reason: 'hammering', leftMs: 60_000 }])
    expect(await status('192.0.2.2')).toBe(200)
    await clock.advance(60_000)
    expect(await status()).toBe(429)
  })

  it('does not overrule who lifted a ban, before so many more refusals', async () => {
    const { bans, status, clock } = rig({}, {})
    for (let i = 0; i < 4; i++) await status()
    expect(bans.unban('192.0.2.1')).toBe(true)
    expect([await status(), await status()]).toEqual([429, 429])
    await clock.advance(10_000)
    expect([await status(), await status(), await status(), await status()]).toEqual([429, 429, 429, 403])
  })

  it('does not add up what lies further apart', async () => {
    const { bans, status, clock } = rig({}, {})
    await status()
    for (let i = 0; i < 6; i++) {
      expect(await status()).toBe(429)
      await clock.advance(5000)
    }
    expect(bans.list()).toEqual([])
  })

  it('a dry run of the limit bans nobody; one of the list turns nobody away', async () => {
    const dry = rig({}, { dryRun: true })
    for (let i = 0; i < 9; i++) expect(await dry.status()).toBe(200)
    expect(dry.bans.list()).toEqual([])
    const shadow = rig({ dryRun: true }, {})
    for (const expected of [200, 429, 429, 429, 429]) expect(await shadow.status()).toBe(expected)
    expect([shadow.bans.list().length, shadow.bans.stats().dryRefused]).toEqual([1, 1])
  })

  it('exempt clients are neither banned nor turned away', async () => {
    const { bans, status } = rig({ exempt: ['192.0.2.0/24'] }, {})
    for (const expected of [200, 429, 429, 429, 429]) expect(await status()).toBe(expected)
    expect(bans.list()).toEqual([])
    bans.ban('192.0.2.7', '1h')
    expect(await status('192.0.2.7')).toBe(200)
  })
})

it('publishes bans, their end, and whom they met, without keys', async () => {
  const seen: BanEvent[] = []
  const listen = (message: unknown): void => void seen.push(message as BanEvent)
  subscribe('weir:rate-limit:ban', listen)
  onTestFinished(() => void unsubscribe('weir:rate-limit:ban', listen))
  const { bans, status } = rig({ name: 'blocked' })
  bans.ban('192.0.2.1', 5000, 'why')
  await status()
  bans.unban('192.0.2.1')
  expect(seen.map(({ action, stage, reason, leftMs }) => [action, stage, reason, leftMs])).toEqual([
    ['ban', 'blocked', 'why', 5000],
    ['refused', 'blocked', 'why', 5000],
    ['unban', 'blocked', 'why', 5000],
  ])
  expect(new Set(seen.map(({ keyHash }) => keyHash)).size).toBe(1)
  expect(JSON.stringify(seen)).not.toContain('192.0.2.1')
})
