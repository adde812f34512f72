/**
 * The two loops over stages: inward through `handle` until somebody replies, outward through the hooks. Both are synchronous loops that turn
 * into a promise chain at the first promise they meet, and only from there on; the rest of the loop is the same code entered at a later index.
 */
import { Readable } from 'node:stream'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import type { HeaderList } from './headers.ts'
import type { OptionReader } from './options.ts'
import type { Hooks, ProxyResponse, Reply, Stage, StageLike } from './stage.ts'
import type { Upstream } from './upstream.ts'

/** Runs `fn` now when the value is there, later when it is a promise. */
export function isPromise<T>(value: unknown): value is Promise<T> {
  return typeof value === 'object' && value !== null && typeof (value as Promise<T>).then === 'function'
}

/** Names, checks and orders a list of stages; undefined when empty, so that one test skips it. @returns stages in list order */
export function compileStages(list: unknown, read: OptionReader): readonly Stage[] | undefined {
  if (list === undefined) return undefined
  if (!Array.isArray(list)) {
    read.problem('use', list, 'a list of stages')
    return undefined
  }
  const stages: Stage[] = []
  list.forEach((entry: StageLike, index) => {
    if (entry === false || entry === null || entry === undefined) return
    if (typeof entry === 'function') stages.push({ name: entry.name || `stage${index}`, handle: entry })
    else if (typeof entry === 'object' && typeof entry.handle === 'function' && typeof entry.name === 'string') stages.push(entry)
    else read.problem(`use[${index}]`, entry, 'a stage: a function of the exchange, an object with name and handle, or false')
  })
  return stages.length === 0 ? undefined : stages
}

/** Verifies every `order` wish over the whole chain; stages are never re-sorted behind their author's back. */
export function checkOrder(stages: readonly Stage[], read: OptionReader): void {
  stages.forEach((stage, index) => {
    const { order } = stage
    if (order === undefined) return
    const fine =
      typeof order === 'object' && order !== null && [order.after, order.before].every((list) => list === undefined || isNames(list))
    if (!fine) read.problem(`use[${index}].order`, order, "{ after: ['name'], before: ['name'] }")
  })
  stages
    .filter((stage) => isNames(stage.order?.after ?? []) && isNames(stage.order?.before ?? []))
    .forEach((stage, index) => {
      for (const other of stage.order?.after ?? []) {
        const at = stages.findIndex((candidate) => candidate.name === other)
        if (at > index)
          read.problem(
            'use',
            `${stage.name} before ${other}`,
            `${stage.name} after ${other}, as ${stage.name} requires; swap them in the list`,
          )
      }
      for (const other of stage.order?.before ?? []) {
        const at = stages.findIndex((candidate) => candidate.name === other)
        if (at >= 0 && at < index)
          read.problem(
            'use',
            `${stage.name} after ${other}`,
            `${stage.name} before ${other}, as ${stage.name} requires; swap them in the list`,
          )
      }
    })
}

function isNames(list: unknown): boolean {
  return Array.isArray(list) && list.every((name) => typeof name === 'string')
}

/**
 * The hooks of one exchange, innermost first, which is the order of the way back. A chain of objects of a class and not an array: what outlives a
 * young collection and comes from a literal is a risk (docs/decisions/0019).
 */
export class HookChain {
  readonly hooks: Hooks
  readonly outer: HookChain | undefined

  constructor(hooks: Hooks, outer: HookChain | undefined) {
    this.hooks = hooks
    this.outer = outer
  }
}

export interface StageSink {
  onReply(exchange: LiveExchange, reply: Reply): void
  /** Nobody replied. */
  onPassed(exchange: LiveExchange): void
  onStageError(exchange: LiveExchange, error: ProxyError): void
  /** A stage returned hooks after the exchange had ended. */
  onLateHooks(exchange: LiveExchange, hooks: Hooks): void
}

/** Inward: `handle` of every stage from `index` on. */
export function runStages(exchange: LiveExchange, stages: readonly Stage[], index: number, sink: StageSink): void {
  for (let i = index; i < stages.length; i++) {
    const stage = stages[i] as Stage
    let result: unknown
    try {
      result = stage.handle(exchange)
    } catch (cause) {
      sink.onStageError(exchange, stageError(stage.name, cause))
      return
    }
    if (result === undefined) {
      if (exchange.failing) return
      continue
    }
    if (isPromise<Reply | Hooks | undefined>(result)) {
      result.then(
        (value) => {
          if (exchange.finished || exchange.failing) {
            stop(exchange, value, sink)
            return
          }
          if (value === undefined || value === null || !take(exchange, value, sink, stage)) runStages(exchange, stages, i + 1, sink)
        },
        (cause) => sink.onStageError(exchange, stageError(stage.name, cause)),
      )
      return
    }
    if (exchange.failing) {
      stop(exchange, result as Reply | Hooks | null, sink)
      return
    }
    if (result !== null && take(exchange, result as Reply | Hooks, sink, stage)) return
  }
  sink.onPassed(exchange)
}

/** The client has left meanwhile, or the exchange has failed. Whatever the stage took for it, it gives back in onFinish. */
function stop(exchange: LiveExchange, value: Reply | Hooks | null | undefined, sink: StageSink): void {
  if (typeof value !== 'object' || value === null) return
  if ('status' in value) {
    if (value.body instanceof Readable) value.body.on('error', () => {}).destroy()
    return
  }
  if (exchange.finished) sink.onLateHooks(exchange, value)
  else keepHooks(exchange, value)
}

/** True when that was the end of the way inward: a reply, or a mistake. */
function take(exchange: LiveExchange, value: Reply | Hooks, sink: StageSink, stage: Stage): boolean {
  if (typeof value !== 'object') {
    const cause = new TypeError(`handle gave a ${typeof value}, and not a reply, hooks or undefined`)
    sink.onStageError(exchange, stageError(stage.name, cause))
    return true
  }
  if ('status' in value) {
    sink.onReply(exchange, value)
    return true
  }
  keepHooks(exchange, value)
  return false
}

function keepHooks(exchange: LiveExchange, hooks: Hooks): void {
  exchange.hooks = new HookChain(hooks, exchange.hooks)
}

export function hasResponseHooks(exchange: LiveExchange): boolean {
  for (let link = exchange.hooks; link !== undefined; link = link.outer) if (link.hooks.onResponse !== undefined) return true
  return false
}

/** `onAttempt`, in the order of the stages: what an inner one sets stands. */
export function runAttemptHooks(chain: HookChain, headers: HeaderList, upstream: Upstream): void {
  if (chain.outer !== undefined) runAttemptHooks(chain.outer, headers, upstream)
  const result: unknown = chain.hooks.onAttempt?.(headers, upstream)
  if (!isPromise(result)) return
  // What it does later would come too late, and what it rejects with would end the process.
  result.then(undefined, () => {})
  throw new TypeError('onAttempt gave a promise; it has to be synchronous, since the request is written when it returns')
}

/** Outward: `onResponse`, from `chain` on. `done` is called once, with an error when a hook threw. Returns false when it went asynchronous. */
export function runResponseHooks(
  exchange: LiveExchange,
  response: ProxyResponse,
  chain: HookChain | undefined,
  done: (error: ProxyError | undefined) => void,
): boolean {
  for (let link = chain; link !== undefined; link = link.outer) {
    const { hooks, outer } = link
    if (hooks.onResponse === undefined) continue
    let result: unknown
    try {
      result = hooks.onResponse(response, exchange)
    } catch (cause) {
      done(stageError('onResponse', cause))
      return true
    }
    if (isPromise<void>(result)) {
      result.then(
        () => {
          if (!exchange.finished) runResponseHooks(exchange, response, outer, done)
        },
        (cause) => {
          if (!exchange.finished) done(stageError('onResponse', cause))
        },
      )
      return false
    }
  }
  done(undefined)
  return true
}

/** Outward: `onError`, from `chain` on; the first reply wins. */
export function runErrorHooks(
  exchange: LiveExchange,
  error: ProxyError,
  chain: HookChain | undefined,
  done: (reply: Reply | undefined) => void,
): void {
  for (let link = chain; link !== undefined; link = link.outer) {
    const { hooks, outer } = link
    if (hooks.onError === undefined) continue
    let result: unknown
    try {
      result = hooks.onError(error, exchange)
    } catch {
      // The failure at hand is the one to report; a hook that fails on top of it must not hide it.
      continue
    }
    if (isPromise<Reply | undefined>(result)) {
      if (error.code === 'ERR_DEADLINE' || error.code === 'ERR_DRAINING') {
        // Time is up: a hook that wants more of it is not waited for.
        result.catch(() => {})
        continue
      }
      result.then(
        (reply) => {
          if (exchange.finished) return
          if (reply) done(reply)
          else runErrorHooks(exchange, error, outer, done)
        },
        () => {
          if (!exchange.finished) runErrorHooks(exchange, error, outer, done)
        },
      )
      return
    }
    if (result) {
      done(result as Reply)
      return
    }
  }
  done(undefined)
}

export function stageError(name: string, cause: unknown): ProxyError {
  // A header value that cannot be sent is the mistake of whoever set it here, not of the client.
  return ProxyError.is(cause) && cause.code !== 'ERR_HEADER_VALUE'
    ? cause
    : new ProxyError('ERR_STAGE', { message: `${name} failed: ${cause instanceof Error ? cause.message : String(cause)}`, cause })
}
