/**
 * The loop inward over stages, and what it is made of. What must stay synchronous is shown by order alone: when `runStages` returns, everything has happened. A promise
 * made anywhere on the way would put at least a microtask in between.
 */
import { describe, expect, it } from 'vitest'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { type OptionProblem, OptionReader, type OptionsError } from './options.ts'
import { checkOrder, compileStages, HookChain, isPromise, runStages, type StageSink, stageError } from './pipeline.ts'
import type { Hooks, MaybePromise, Reply, Stage, StageHandler, StageLike } from './stage.ts'

type Result = Reply | Hooks | undefined
const chainOf = (hooks: readonly Hooks[]): HookChain | undefined =>
  hooks.reduce<HookChain | undefined>((outer, each) => new HookChain(each, outer), undefined)
const exchangeWith = (): LiveExchange => ({ hooks: undefined, finished: false }) as unknown as LiveExchange
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))
const reply = (status: number): Reply => ({ status })

function sinkTo(log: string[]): StageSink {
  return {
    onReply: (_, { status }) => log.push(`reply ${status}`),
    onPassed: () => log.push('passed'),
    onLateHooks: () => log.push('late hooks'),
    onStageError: (_, { code, message }) => log.push(`error ${code} ${message}`),
  }
}
/** A stage that says when it runs. */
const stage = (log: string[], name: string, result: () => MaybePromise<Result>): Stage => ({
  name,
  handle: () => {
    log.push(name)
    return result()
  },
})
const problemsOf = (run: (read: OptionReader) => void): readonly OptionProblem[] => {
  const read = new OptionReader('createProxy')
  run(read)
  try {
    read.check()
  } catch (error) {
    return (error as OptionsError).problems
  }
  return []
}

describe('a list of stages', () => {
  const compile = (list: unknown): readonly Stage[] | undefined => compileStages(list, new OptionReader('createProxy'))
  const nothing: StageHandler = () => undefined

  it('empty, or of nothing but switched off ones, is absent', () => {
    for (const list of [undefined, [], [false, null, undefined]]) expect(compile(list)).toBeUndefined()
  })

  it('keeps its order; functions get names', () => {
    const own: Stage = { name: 'own', handle: nothing }
    function named(): void {}
    const list: StageLike[] = [
      false,
      own,
      named,
      null,
      (
        () => () =>
          undefined
      )(),
      undefined,
    ]
    const stages = compile(list)
    expect(stages?.map(({ name }) => name)).toEqual(['own', 'named', 'stage4'])
    expect(stages?.[0]).toBe(own)
    expect(stages?.[1]?.handle).toBe(named)
  })

  it('what is no stage is a problem at its index', () => {
    const wrong = ['compress', 5, true, {}, { name: 'x' }, { handle: nothing }, { name: 5, handle: nothing }, Promise.resolve(nothing)]
    expect(problemsOf((read) => compileStages([nothing, ...wrong], read)).map(({ path }) => path)).toEqual(
      wrong.map((_, i) => `use[${i + 1}]`),
    )
    for (const list of ['x', {}, nothing, null])
      expect(problemsOf((read) => compileStages(list, read)).map(({ path }) => path)).toEqual(['use'])
  })
})

describe('their order', () => {
  const named = (name: string, order?: NonNullable<Stage['order']>): Stage => ({ name, handle: () => undefined, ...(order && { order }) })
  const check = (...stages: Stage[]): readonly OptionProblem[] => problemsOf((read) => checkOrder(stages, read))

  it('fits, or the other stage is not there', () => {
    expect(check(named('sticky', { before: ['cache'] }), named('cache', { after: ['sticky', 'absent'], before: ['absent'] }))).toEqual([])
    expect(check()).toEqual([])
  })

  it('does not fit: the problem names both stages and what to do', () => {
    for (const stages of [
      [named('cache', { after: ['sticky'] }), named('other'), named('sticky')],
      [named('cache'), named('other'), named('sticky', { before: ['cache'] })],
    ]) {
      const found = check(...stages)
      expect(found).toHaveLength(1)
      const { path, given, expected } = found[0] as OptionProblem
      expect(path).toBe('use')
      for (const text of [given, expected]) expect(text).toMatch(/cache.*sticky|sticky.*cache/)
      expect(given).toMatch(/^"cache before sticky|^"sticky after cache/)
      expect(expected).toMatch(/swap/)
    }
  })

  it('all that do not fit are told', () => {
    expect(check(named('a', { after: ['b', 'c'] }), named('b'), named('c', { before: ['a'] }))).toHaveLength(3)
  })
})

describe('inward', () => {
  it('synchronous stages run in one go: nothing is left for later', () => {
    const log: string[] = []
    runStages(
      exchangeWith(),
      [stage(log, 'a', () => undefined), stage(log, 'b', () => ({})), stage(log, 'c', () => undefined)],
      0,
      sinkTo(log),
    )
    log.push('returned')
    expect(log).toEqual(['a', 'b', 'c', 'passed', 'returned'])
  })

  it('so does a synchronous reply, and a synchronous throw', () => {
    const log: string[] = []
    runStages(exchangeWith(), [stage(log, 'a', () => reply(204)), stage(log, 'b', () => undefined)], 0, sinkTo(log))
    log.push('returned')
    const failing = stage(log, 'bad', () => {
      throw new Error('oops')
    })
    runStages(exchangeWith(), [failing, stage(log, 'b', () => undefined)], 0, sinkTo(log))
    log.push('returned')
    expect(log).toEqual(['a', 'reply 204', 'returned', 'bad', 'error ERR_STAGE bad failed: oops', 'returned'])
  })

  it('from the first promise on it goes on later, in the same order', async () => {
    const log: string[] = []
    const exchange = exchangeWith()
    const hooks: Hooks[] = [{}, {}, {}]
    const stages = [
      stage(log, 'a', () => hooks[0]),
      stage(log, 'b', async () => hooks[1]),
      stage(log, 'c', () => undefined),
      stage(log, 'd', () => hooks[2]),
    ]
    runStages(exchange, stages, 0, sinkTo(log))
    log.push('returned')
    await turn()
    expect(log).toEqual(['a', 'b', 'returned', 'c', 'd', 'passed'])
    expect(exchange.hooks).toEqual(chainOf(hooks))
    for (let link = exchange.hooks; link !== undefined; link = link.outer) expect(link.hooks).toBe(hooks.pop())
    expect(hooks).toEqual([])
  })

  it('whoever replies first ends it; only those outside have hooks', async () => {
    for (const result of [() => reply(403), async () => reply(403)]) {
      const log: string[] = []
      const exchange = exchangeWith()
      const outer: Hooks = {}
      runStages(exchange, [stage(log, 'outer', () => outer), stage(log, 'deny', result), stage(log, 'inner', () => ({}))], 0, sinkTo(log))
      await turn()
      expect(log).toEqual(['outer', 'deny', 'reply 403'])
      expect(exchange.hooks).toEqual(chainOf([outer]))
    }
  })

  it('a rejection is an error; what a stage throws on purpose keeps its code', async () => {
    const log: string[] = []
    runStages(exchangeWith(), [stage(log, 'a', () => Promise.reject(new Error('store')))], 0, sinkTo(log))
    runStages(exchangeWith(), [stage(log, 'b', () => Promise.reject('text'))], 0, sinkTo(log))
    runStages(
      exchangeWith(),
      [stage(log, 'c', () => Promise.reject(new ProxyError('ERR_QUEUE_FULL', { message: 'full' })))],
      0,
      sinkTo(log),
    )
    await turn()
    expect(log).toEqual(['a', 'b', 'c', 'error ERR_STAGE a failed: store', 'error ERR_STAGE b failed: text', 'error ERR_QUEUE_FULL full'])
  })

  it('null, undefined and a thenable of them are no interest', async () => {
    const log: string[] = []
    const exchange = exchangeWith()
    const results = [() => null, async () => null, async () => undefined] as unknown as (() => Result)[]
    runStages(
      exchange,
      results.map((result, i) => stage(log, String(i), result)),
      0,
      sinkTo(log),
    )
    await turn()
    await turn()
    expect(log).toEqual(['0', '1', '2', 'passed'])
    expect(exchange.hooks).toBeUndefined()
  })

  it('an exchange that has ended meanwhile goes no further; hooks that come too late are handed over for its end', async () => {
    const run = async (result: MaybePromise<Result>): Promise<string[]> => {
      const log: string[] = []
      const exchange = exchangeWith()
      runStages(exchange, [stage(log, 'slow', async () => result), stage(log, 'never', () => undefined)], 0, sinkTo(log))
      ;(exchange as { finished: boolean }).finished = true
      await turn()
      return log
    }
    expect(await run(undefined)).toEqual(['slow'])
    expect(await run(reply(200))).toEqual(['slow'])
    expect(await run({ onFinish() {} })).toEqual(['slow', 'late hooks'])
  })
})

it('isPromise knows a thenable, and no more', () => {
  // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
  for (const value of [Promise.resolve(), { then() {} }]) expect(isPromise(value)).toBe(true)
  // biome-ignore lint/suspicious/noThenProperty: as above
  for (const value of [undefined, null, 5, 'then', {}, { then: 5 }, () => {}]) expect(isPromise(value)).toBe(false)
})

it('stageError names the stage and keeps the cause', () => {
  const cause = new Error('oops')
  expect(stageError('cache', cause)).toMatchObject({ code: 'ERR_STAGE', cause, message: 'cache failed: oops' })
  const own = new ProxyError('ERR_DEADLINE')
  expect(stageError('cache', own)).toBe(own)
})
