/** What stands between a store and its server, on a virtual clock, with a client that does what the test says. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { OptionReader } from '@weir/core'
import { virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { RedisClient } from './client.ts'
import type { LinkOptions } from './link-options.ts'
import { readLink } from './link-options.ts'
import { type RedisCircuitMessage, RedisLink } from './redis-link.ts'
import { script } from './script.ts'

const messages: RedisCircuitMessage[] = []
const listener = (message: unknown): void => void messages.push(message as RedisCircuitMessage)
beforeAll(() => subscribe('weir:redis:circuit', listener))
afterAll(() => void unsubscribe('weir:redis:circuit', listener))
afterEach(() => void messages.splice(0))

type Answer = 'answer' | 'refuse' | 'hang' | 'noscript'

function rig(options: Partial<LinkOptions> = {}) {
  const clock = virtualClock()
  const sent: string[] = []
  let behaviour: Answer = 'answer'
  let ready = true
  const hanging: ((value: string) => void)[] = []
  const act = (): Promise<unknown> => {
    switch (behaviour) {
      case 'answer':
        return Promise.resolve('fine')
      case 'refuse':
        return Promise.reject(new Error('LOADING Redis is loading the dataset in memory'))
      case 'noscript':
        return Promise.reject(new Error('NOSCRIPT No matching script. Please use EVAL.'))
      case 'hang':
        return new Promise((resolve) => void hanging.push(resolve))
    }
  }
  const client: RedisClient = {
    name: 'fake',
    cluster: false,
    get ready() {
      return ready
    },
    evalSha: (sha) => {
      sent.push(`sha ${sha.length}`)
      return act()
    },
    eval: (source) => {
      sent.push(source)
      return Promise.resolve('loaded')
    },
  }
  const read = new OptionReader('link')
  const link = new RedisLink(
    'test',
    readLink(read, { client, clock, timeout: 50, failures: 3, retryAfter: 1000, maxPending: 4, ...options }),
  )
  read.check()
  const ask = (): Promise<string> =>
    link.run(script('return 1'), ['k'], []).then(
      (answer) => String(answer),
      (error: { code: string }) => error.code,
    )
  return {
    clock,
    sent,
    ask,
    be: (next: Answer) => {
      behaviour = next
    },
    connected: (value: boolean) => {
      ready = value
    },
    release: () => {
      for (const resolve of hanging.splice(0)) resolve('late')
    },
  }
}

describe('a call', () => {
  it('sends the digest, and the script itself only to a server that does not know it', async () => {
    const r = rig()
    expect(await r.ask()).toBe('fine')
    r.be('noscript')
    expect(await r.ask()).toBe('loaded')
    expect(r.sent).toEqual(['sha 40', 'sha 40', 'return 1'])
  })

  it('ends at its deadline', async () => {
    const r = rig()
    r.be('hang')
    const asked = r.ask()
    await r.clock.advance(49)
    let ended = false
    void asked.then(() => {
      ended = true
    })
    await r.clock.advance(0)
    expect(ended).toBe(false)
    await r.clock.advance(1)
    expect(await asked).toBe('ERR_REDIS_TIMEOUT')
    expect(r.clock.pending).toBe(0)
  })

  it('is not made while the client is not connected, and that opens no circuit', async () => {
    const r = rig()
    r.connected(false)
    for (let i = 0; i < 10; i++) expect(await r.ask()).toBe('ERR_REDIS_NOT_READY')
    r.connected(true)
    expect(await r.ask()).toBe('fine')
    expect(r.sent).toHaveLength(1)
  })

  it('is not made while too many wait, those included whose deadline has passed', async () => {
    const r = rig({ failures: 100 })
    r.be('hang')
    const waiting = [r.ask(), r.ask(), r.ask(), r.ask()]
    expect(await r.ask()).toBe('ERR_REDIS_OVERLOADED')
    await r.clock.advance(50)
    expect(await Promise.all(waiting)).toEqual(Array(4).fill('ERR_REDIS_TIMEOUT'))
    // The client still has them.
    expect(await r.ask()).toBe('ERR_REDIS_OVERLOADED')
    r.release()
    await r.clock.advance(0)
    r.be('answer')
    expect(await r.ask()).toBe('fine')
    expect(r.sent).toHaveLength(5)
  })
})

describe('the circuit', () => {
  it('opens after failures in a row, lets one through after the pause, and closes with its answer', async () => {
    const r = rig()
    r.be('refuse')
    for (let i = 0; i < 3; i++) expect(await r.ask()).toBe('ERR_REDIS_COMMAND')
    expect(messages).toMatchObject([{ store: 'test', client: 'fake', state: 'open', error: { code: 'ERR_REDIS_COMMAND' } }])
    await r.clock.advance(999)
    expect(await r.ask()).toBe('ERR_REDIS_CIRCUIT_OPEN')
    await r.clock.advance(1)
    r.be('hang')
    const trial = r.ask()
    expect(await r.ask()).toBe('ERR_REDIS_CIRCUIT_OPEN')
    r.release()
    expect(await trial).toBe('late')
    expect(messages.map(({ state }) => state)).toEqual(['open', 'closed'])
    r.be('answer')
    expect(await r.ask()).toBe('fine')
    expect(r.sent).toHaveLength(5)
  })

  it('stays open when the one fails, for a pause more, and says so once', async () => {
    const r = rig()
    r.be('refuse')
    for (let i = 0; i < 3; i++) await r.ask()
    for (let i = 0; i < 3; i++) {
      await r.clock.advance(1000)
      expect(await r.ask()).toBe('ERR_REDIS_COMMAND')
      expect(await r.ask()).toBe('ERR_REDIS_CIRCUIT_OPEN')
    }
    expect(messages).toHaveLength(1)
  })

  it('a success in between begins the count anew', async () => {
    const r = rig()
    for (let i = 0; i < 5; i++) {
      r.be('refuse')
      await r.ask()
      await r.ask()
      r.be('answer')
      expect(await r.ask()).toBe('fine')
    }
    expect(messages).toEqual([])
  })

  it('whatever happens: it never sends while open, and never stays open once the server answers', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ be: fc.constantFrom('answer', 'refuse', 'hang'), wait: fc.constantFrom(0, 50, 500, 1000) }), {
          maxLength: 30,
        }),
        async (steps) => {
          messages.length = 0
          const r = rig({ maxPending: 1000 })
          for (const { be, wait } of steps) {
            r.be(be)
            const before = r.sent.length
            const asked = r.ask()
            await r.clock.advance(50)
            const code = await asked
            // Open, nothing is sent; closed, everything is.
            expect(r.sent.length - before).toBe(code === 'ERR_REDIS_CIRCUIT_OPEN' ? 0 : 1)
            await r.clock.advance(wait)
          }
          r.be('answer')
          await r.clock.advance(1000)
          expect(await r.ask()).toBe('fine')
          expect(await r.ask()).toBe('fine')
        },
      ),
    )
  })
})
