/**
 * The load generator: closed loop, as many requests in flight as connections. wrk costs about a quarter of what a Node proxy does per
 * request and so leaves the contestant to be the bottleneck; autocannon, in a process of its own, stands in where wrk is missing, and then
 * throughput and latency describe autocannon more than the proxy. CPU time per request stays meaningful in both cases.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run, scratchDirectory } from './children.ts'
import { installed } from './machine.ts'

export interface LoadPlan {
  readonly port: number
  readonly connections: number
  /** Whole seconds. */
  readonly seconds: number
  /** Sent in turn instead of `GET /`. */
  readonly targets?: readonly Target[]
  /** One more field, `Accept-Encoding: br`. wrk only. */
  readonly field?: string
}

export interface Target {
  readonly host: string
  readonly path: string
}

export interface LoadResult {
  readonly requests: number
  readonly perSecond: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Connection errors, timeouts and every status that is not 2xx. */
  readonly failures: number
}

export function load(plan: LoadPlan): Promise<LoadResult> {
  return installed('wrk') ? wrk(plan) : autocannon(plan)
}

async function wrk({ port, connections, seconds, targets, field }: LoadPlan): Promise<LoadResult> {
  const script = targets === undefined ? [] : ['-s', targetScript(targets)]
  const output = await run('wrk', [
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    '--timeout',
    '10s',
    '--latency',
    ...script,
    ...(field === undefined ? [] : ['-H', field]),
    `http://127.0.0.1:${port}/`,
  ])
  const [, requests, took] = /(\d+) requests in ([\d.]+\w+),/.exec(output) ?? []
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output)?.slice(1) ?? []
  const refused = /Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1] ?? '0'
  if (requests === undefined || took === undefined) throw new Error(`wrk said something unexpected:\n${output}`)
  return {
    requests: Number(requests),
    perSecond: Number(requests) / (milliseconds(took) / 1000),
    p50: milliseconds(/50%\s+([\d.]+\w+)/.exec(output)?.[1] ?? ''),
    p99: milliseconds(/99%\s+([\d.]+\w+)/.exec(output)?.[1] ?? ''),
    failures: [...errors, refused].reduce((sum, n) => sum + Number(n), 0),
  }
}

const inMilliseconds: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000 }

function milliseconds(text: string): number {
  const [, amount, unit = ''] = /^([\d.]+)(us|ms|s|m)$/.exec(text) ?? []
  return Number(amount) * (inMilliseconds[unit] ?? Number.NaN)
}

/** The requests are formatted once, before the clock starts; per request the script only steps through a table. */
function targetScript(targets: readonly Target[]): string {
  const file = join(scratchDirectory(), `targets-${targets.length}-${targets[0]?.host}${targets[0]?.path.replaceAll('/', '_')}.lua`)
  writeFileSync(
    file,
    `local requests = {}
local at = 0
function init()
${targets.map(({ host, path }) => `  requests[#requests + 1] = wrk.format('GET', '${path}', { Host = '${host}' })`).join('\n')}
end
function request()
  at = at % #requests + 1
  return requests[at]
end
`,
  )
  return file
}

async function autocannon(plan: LoadPlan): Promise<LoadResult> {
  const script = fileURLToPath(new URL('load/autocannon.ts', import.meta.url))
  return JSON.parse(await run(process.execPath, [script, JSON.stringify(plan)])) as LoadResult
}
