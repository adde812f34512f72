/**
 * A stage on its own, in the proxy it was made for but without a network: `runStage` sends one request through it to an upstream that the
 * test invents, and shows what the client got, what the upstream got, and how the exchange ended. `stageRunner` keeps the proxy for several
 * requests, for stages that remember.
 */
import type { ErrorCode, InjectedRequest, InjectedResponse, Outcome, ProxyError, ProxyOptions, StageLike } from '@weir/core'
import { createProxy } from '@weir/core'
import { type FakeRequest, type FakeResponse, fakeTransport, type Respond } from './fake-transport.ts'
import { defaultDeadline, Watch } from './watch.ts'

export interface RunStageOptions {
  /** Default: `GET /`. */
  readonly request?: InjectedRequest
  /** What the upstream answers. Default: 200, `text/plain`, `upstream`. */
  readonly response?: FakeResponse | Respond
  /** The upstream fails with this instead. */
  readonly error?: ErrorCode | ProxyError
  /** Default: one, `http://upstream.test`. */
  readonly upstreams?: ProxyOptions['upstreams']
  /** Anything else of `createProxy`: `trustedProxies`, `clock`, `retry` ... Default: no retries, so that each request is one. */
  readonly proxy?: Omit<ProxyOptions, 'upstreams' | 'transport' | 'use'>
}

export interface StageRun {
  /** What the client got. Reading it throws when the connection was broken off instead. */
  readonly response: InjectedResponse
  /** What the upstreams got, retries included. Empty when a stage answered. */
  readonly upstreamRequests: readonly FakeRequest[]
  readonly outcome: Outcome
}

export interface StageRunner extends AsyncDisposable {
  /** One request; a second `response` or `error` replaces the first from now on. */
  send(request?: InjectedRequest, answer?: Pick<RunStageOptions, 'response' | 'error'>): Promise<StageRun>
  /** Closes the proxy, and with it the stage. */
  close(): Promise<void>
}

/** One request through `stage` (or several, outermost first), and the proxy closed again. */
export async function runStage(stage: StageLike | readonly StageLike[], options: RunStageOptions = {}): Promise<StageRun> {
  await using runner = stageRunner(stage, options)
  return await runner.send(options.request)
}

/** @throws OptionsError when the stages do not fit together */
export function stageRunner(stage: StageLike | readonly StageLike[], options: Omit<RunStageOptions, 'request'> = {}): StageRunner {
  let answer = answerOf(options)
  const outcomes: Outcome[] = []
  const watch = new Watch()
  const transport = fakeTransport((request, upstream) => (typeof answer === 'function' ? answer(request, upstream) : answer))
  const record: StageLike = {
    name: 'stage-runner',
    handle: () => ({
      onFinish: (outcome) => {
        outcomes.push(outcome)
        watch.changed()
      },
    }),
  }
  const proxy = createProxy({
    retry: false,
    ...options.proxy,
    upstreams: options.upstreams ?? ['http://upstream.test'],
    transport,
    use: [record, ...(isList(stage) ? stage : [stage])],
  })
  let busy = false
  return {
    send: async (request = {}, next) => {
      if (busy) throw new Error('a stage runner sends one request at a time, so that what it saw belongs to that request')
      busy = true
      if (next !== undefined) answer = answerOf(next)
      const before = transport.requests.length
      const finished = outcomes.length
      try {
        const result = await proxy.inject(request).then(
          (response) => ({ response }),
          (error: unknown) => ({ error }),
        )
        // The client has its last byte a turn before the exchange ends.
        const outcome = await watch.until(
          () => outcomes[finished],
          defaultDeadline,
          () => new Error('the exchange did not end: onFinish was not called'),
        )
        return {
          get response() {
            if ('error' in result) throw result.error
            return result.response
          },
          upstreamRequests: transport.requests.slice(before),
          outcome,
        }
      } finally {
        busy = false
      }
    },
    close: () => proxy.close(),
    [Symbol.asyncDispose]: () => proxy.close(),
  }
}

function answerOf({ response, error }: Pick<RunStageOptions, 'response' | 'error'>): FakeResponse | Respond {
  if (error !== undefined) return { error }
  return response ?? { headers: { 'Content-Type': 'text/plain' }, body: 'upstream' }
}

function isList(stage: StageLike | readonly StageLike[]): stage is readonly StageLike[] {
  return Array.isArray(stage)
}
