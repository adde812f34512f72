/** The loops outward over hooks: innermost first, in one go as long as nobody returns a promise, and nothing for an exchange that has ended. */
import { fakeTransport, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { HookChain, hasResponseHooks, runErrorHooks, runResponseHooks } from './pipeline.ts'
import { createProxy } from './proxy.ts'
import type { Hooks, MaybePromise, ProxyResponse, Reply, Stage } from './stage.ts'

/** @param hooks in the order of the stages, outermost first */
const chainOf = (hooks: readonly Hooks[] = []): HookChain | undefined =>
  hooks.reduce<HookChain | undefined>((outer, each) => new HookChain(each, outer), undefined)
const exchangeWith = (hooks?: Hooks[]): LiveExchange => ({ hooks: chainOf(hooks), finished: false }) as unknown as LiveExchange
const response = { status: 200 } as ProxyResponse
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))
const reply = (status: number): Reply => ({ status })

describe('outward', () => {
  const hook = (log: string[], name: string, result: () => MaybePromise<void> = () => undefined): Hooks => ({
    onResponse: () => {
      log.push(name)
      return result()
    },
  })
  const run = (exchange: LiveExchange, log: string[]): boolean =>
    runResponseHooks(exchange, response, exchange.hooks, (error) =>
      log.push(error === undefined ? 'done' : `error ${error.code} ${error.message}`),
    )

  it('response hooks run innermost first, in one go', () => {
    const log: string[] = []
    const sync = run(exchangeWith([hook(log, 'outer'), {}, hook(log, 'inner')]), log)
    log.push('returned')
    expect(log).toEqual(['inner', 'outer', 'done', 'returned'])
    expect(sync).toBe(true)
  })

  it('a promise makes the rest wait for it', async () => {
    const log: string[] = []
    const sync = run(
      exchangeWith([hook(log, 'outer'), hook(log, 'middle', async () => void log.push('middle done')), hook(log, 'inner')]),
      log,
    )
    log.push('returned')
    await turn()
    expect(log).toEqual(['inner', 'middle', 'middle done', 'returned', 'outer', 'done'])
    expect(sync).toBe(false)
  })

  it('hooks are called on their own object, with response and exchange', () => {
    const exchange = exchangeWith()
    const seen: unknown[] = []
    const own = {
      onResponse(...args: unknown[]) {
        seen.push(this, ...args)
      },
    }
    exchange.hooks = chainOf([own])
    run(exchange, [])
    expect(seen).toHaveLength(3)
    expect(seen[0]).toBe(own)
    expect(seen[1]).toBe(response)
    expect(seen[2]).toBe(exchange)
  })

  it('one that throws, or rejects, ends it once', async () => {
    const log: string[] = []
    const thrown = (): never => {
      throw new Error('oops')
    }
    expect(run(exchangeWith([hook(log, 'never'), hook(log, 'bad', thrown)]), log)).toBe(true)
    run(exchangeWith([hook(log, 'never'), hook(log, 'worse', () => Promise.reject(new Error('late')))]), log)
    await turn()
    expect(log).toEqual(['bad', 'error ERR_STAGE onResponse failed: oops', 'worse', 'error ERR_STAGE onResponse failed: late'])
  })

  it('an exchange that ended while a hook waited hears no more', async () => {
    const log: string[] = []
    for (const result of [() => Promise.resolve(), () => Promise.reject(new Error('late'))]) {
      const exchange = exchangeWith([hook(log, 'never'), hook(log, 'slow', result)])
      run(exchange, log)
      ;(exchange as { finished: boolean }).finished = true
      await turn()
    }
    expect(log).toEqual(['slow', 'slow'])
  })

  it('hooks without onResponse are not worth a look', () => {
    expect(hasResponseHooks(exchangeWith())).toBe(false)
    expect(hasResponseHooks(exchangeWith([{}, { onFinish() {} }]))).toBe(false)
    expect(hasResponseHooks(exchangeWith([{}, hook([], 'x')]))).toBe(true)
  })
})

describe('an error on its way out', () => {
  const failure = new ProxyError('ERR_DNS')
  const hook = (log: string[], name: string, result: () => MaybePromise<Reply | undefined> = () => undefined): Hooks => ({
    onError: (error) => {
      expect(error).toBe(failure)
      log.push(name)
      return result()
    },
  })
  const run = (hooks: Hooks[] | undefined, log: string[]): LiveExchange => {
    const exchange = exchangeWith(hooks)
    runErrorHooks(exchange, failure, exchange.hooks, (answer) => log.push(`answer ${answer?.status}`))
    return exchange
  }

  it('passes all hooks, innermost first, in one go', () => {
    const log: string[] = []
    run([hook(log, 'outer'), {}, hook(log, 'inner')], log)
    run(undefined, log)
    expect(log).toEqual(['inner', 'outer', 'answer undefined', 'answer undefined'])
  })

  it('the first reply wins', async () => {
    const log: string[] = []
    run([hook(log, 'never'), hook(log, 'first', () => reply(200)), hook(log, 'inner')], log)
    run([hook(log, 'never'), hook(log, 'late', async () => reply(201)), hook(log, 'later', async () => undefined)], log)
    await turn()
    expect(log).toEqual(['inner', 'first', 'answer 200', 'later', 'late', 'answer 201'])
  })

  it('a hook that fails on top of it is passed over', async () => {
    const log: string[] = []
    const thrown = (): never => {
      throw new Error('oops')
    }
    run(
      [hook(log, 'outer', () => reply(500)), hook(log, 'rejects', () => Promise.reject(new Error('late'))), hook(log, 'throws', thrown)],
      log,
    )
    await turn()
    expect(log).toEqual(['throws', 'rejects', 'outer', 'answer 500'])
  })

  it('nothing is answered to an exchange that has ended meanwhile', async () => {
    const log: string[] = []
    const exchange = run([hook(log, 'never'), hook(log, 'slow', async () => reply(200))], log)
    ;(exchange as { finished: boolean }).finished = true
    await turn()
    expect(log).toEqual(['slow'])
  })
})

describe('the finish', () => {
  it('comes once to every hook, innermost first, synchronously behind the last byte; one that throws does not silence the others', async () => {
    const log: string[] = []
    const hook = (name: string, then?: () => void): Stage => ({
      name,
      handle: () => ({
        onFinish: ({ status, reason }) => {
          log.push(`${name} ${status} ${reason}`)
          then?.()
        },
      }),
    })
    const thrown = (): never => {
      throw new Error('oops')
    }
    const warnings: Error[] = []
    const warned = (warning: Error): void => void warnings.push(warning)
    process.on('warning', warned)
    const proxy = createProxy({
      upstreams: ['http://a.test'],
      transport: fakeTransport({ body: 'x' }),
      use: [hook('outer'), hook('bad', thrown), hook('inner')],
    })
    await proxy.inject({})
    await proxy.close()
    await turn()
    process.off('warning', warned)
    expect(log).toEqual(['inner 200 completed', 'bad 200 completed', 'outer 200 completed'])
    expect(warnings.map((warning) => (warning as NodeJS.ErrnoException).code)).toEqual(['WEIR_ON_FINISH'])
  })

  it('comes also to hooks that a stage returns when the exchange has ended already: what it took must be given back', async () => {
    const clock = virtualClock()
    const store = Promise.withResolvers<void>()
    let held = 0
    const limiter: Stage = {
      name: 'limiter',
      handle: async () => {
        held++
        await store.promise
        return { onFinish: () => void held-- }
      },
    }
    const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(), use: [limiter], clock })
    const answer = proxy.inject({})
    await turn()
    expect(held).toBe(1)
    const closed = proxy.close({ deadline: 1000 })
    await clock.advance(1000)
    expect((await answer).status).toBe(503)
    store.resolve()
    await closed
    await turn()
    expect(held).toBe(0)
  })
})

it('an exchange that was cut while a stage waited is not forwarded when the stage comes back', async () => {
  const clock = virtualClock()
  const transport = fakeTransport()
  const store = Promise.withResolvers<void>()
  const logged = Promise.withResolvers<void>()
  const finished: string[] = []
  const slowLog: Stage = {
    name: 'slow-log',
    handle: () => ({ onResponse: () => logged.promise, onFinish: ({ status, reason }) => void finished.push(`${status} ${reason}`) }),
  }
  const limiter: Stage = { name: 'limiter', handle: () => store.promise }
  const proxy = createProxy({ upstreams: ['http://a.test'], transport, use: [slowLog, limiter], clock })
  const answer = proxy.inject({ method: 'POST', body: 'x' })
  await turn()
  const closed = proxy.close({ deadline: 1000 })
  await clock.advance(1000)
  // The 503 waits for the log; meanwhile the limiter lets the exchange pass.
  store.resolve()
  await turn()
  expect(transport.requests).toEqual([])
  logged.resolve()
  expect((await answer).status).toBe(503)
  await closed
  expect(transport.requests).toEqual([])
  expect(finished).toEqual(['503 ERR_DRAINING'])
})
