/** The time of a request stands still while its stages run for the first time, and never longer. */
import { fakeTransport } from '@weir/testing'
import { expect, it } from 'vitest'
import { readClock } from './clock.ts'
import { OptionReader } from './options.ts'
import { createProxy } from './proxy.ts'
import type { ProxyOptions } from './proxy-options.ts'
import type { StageHandler } from './stage.ts'

const system = readClock(undefined, new OptionReader('test'))

/** Uses up some real time. */
function work(): void {
  const until = performance.now() + 2
  while (performance.now() < until);
}

async function send(stage: StageHandler, options: Partial<ProxyOptions> = {}): Promise<void> {
  const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(), use: [stage], ...options })
  await proxy.inject({}).catch(() => {})
  await proxy.close()
}

it('stands still in the turn of a request, and goes on behind it', async () => {
  const seen: number[] = []
  await send(async (exchange) => {
    seen.push(system.now() - exchange.startedAt)
    work()
    seen.push(system.now() - exchange.startedAt)
    await Promise.resolve()
    seen.push(system.now() - exchange.startedAt)
  })
  const [first, second, later] = seen as [number, number, number]
  expect([first, second]).toEqual([0, 0])
  expect(later).toBeGreaterThan(1)
  const before = system.now()
  work()
  expect(system.now()).toBeGreaterThan(before)
})

it('goes on when a stage has thrown, and when the request is left to somebody else', async () => {
  await send(() => {
    throw new Error('oops')
  })
  const before = system.now()
  work()
  expect(system.now()).toBeGreaterThan(before)
  const proxy = createProxy({
    routes: [{ match: { host: 'other.test' }, pool: { upstreams: ['http://a.test'], transport: fakeTransport() } }],
  })
  const times: number[] = []
  const req = {
    method: 'GET',
    url: '/',
    rawHeaders: ['Host', 'a.test'],
    httpVersionMajor: 1,
    httpVersionMinor: 1,
    socket: { remoteAddress: '192.0.2.1' },
  }
  const call = (): void =>
    proxy(req, {}, () => {
      times.push(system.now())
      work()
      times.push(system.now())
      throw new Error('an application that fails')
    })
  expect(call).toThrow('an application that fails')
  expect(times[1]).toBeGreaterThan(times[0] as number)
  await proxy.close()
})

it('is not what a clock of one’s own says', async () => {
  let time = 1_000
  const clock = { ...system, now: () => time++ }
  const seen: number[] = []
  await send(
    ({ startedAt }) => {
      seen.push(startedAt, clock.now(), clock.now())
      const before = system.now()
      work()
      seen.push(system.now() - before)
    },
    { clock },
  )
  const [startedAt, first, second, real] = seen as [number, number, number, number]
  expect([first - startedAt, second - startedAt]).toEqual([1, 2])
  expect(real).toBeGreaterThan(1)
})
