/** P1 and P3: small requests through everybody, at 64 and at 512 connections. */
import { cpuMicros } from './accounting.ts'
import type { Child } from './children.ts'
import { type Contestant, contest, type Sample } from './contest.ts'
import { absentPeers, CADDY, FAST_UNDICI, FLOOR, HAPROXY, httpContestants, NGINX, PEER, WEIR } from './contestants.ts'
import { type LoadPlan, load } from './load.ts'
import type { BenchOptions, Section } from './options.ts'
import { factor, failuresOf, standing, table } from './report.ts'
import { startUpstream } from './upstream.ts'

/**
 * Two seconds at full load before anything is counted: after one second V8's optimising compiler still takes a tenth of the CPU time. Six with many
 * connections, because node accepts one of them per turn of its loop, and a turn with hundreds of busy ones is long: in the first seconds most
 * of the load comes over those that were accepted first, the others wait.
 */
export async function measureRequests(child: Child, plan: Plan, options: BenchOptions): Promise<Sample> {
  await warmUp(child, plan, options)
  return await measureWarm(child, plan, options)
}

type Plan = Omit<LoadPlan, 'port' | 'seconds'>

const many = (plan: Plan): boolean => plan.connections > 100

export async function warmUp(child: Child, plan: Plan, options: BenchOptions): Promise<void> {
  if (!options.quick) await load({ ...plan, port: child.ready.port, seconds: many(plan) ? 6 : 2 })
}

export async function measureWarm(child: Child, plan: Plan, options: BenchOptions): Promise<Sample> {
  const { port } = child.ready
  const before = cpuMicros(child.pid)
  const result = await load({ ...plan, port, seconds: many(plan) && !options.quick ? options.duration * 2 : options.duration })
  const cpu = cpuMicros(child.pid) - before
  if (result.failures > 0) throw new Error(`${result.failures} of ${result.requests} requests failed`)
  return {
    cpu: cpu / result.requests,
    cores: cpu / 1e6 / (result.requests / result.perSecond),
    perSecond: result.perSecond,
    p50: result.p50,
    p99: result.p99,
  }
}

/** Of those that lead, in each round. */
export const turns = 6

export function p1(options: BenchOptions): Promise<Section> {
  return requests(
    options,
    { id: 'P1', connections: 64, goal: '≤ 1.05 × floor; ≤ 0.40 × http-proxy-3 with agent; ahead of every Node peer and of Caddy' },
    () => true,
  )
}

export function p3(options: BenchOptions): Promise<Section> {
  const short = [FLOOR, WEIR, PEER]
  const long = [...short, FAST_UNDICI, NGINX, HAPROXY, CADDY]
  return requests(options, { id: 'P3', connections: 512, goal: '≤ 1.05 × floor' }, ({ name }) =>
    (options.quick ? short : long).includes(name),
  )
}

async function requests(
  options: BenchOptions,
  { id, connections, goal }: { id: string; connections: number; goal: string },
  takesPart: (contestant: Contestant) => boolean,
): Promise<Section> {
  const upstream = await startUpstream()
  const standings = await contest(
    httpContestants(upstream.urls[0] as string).filter(takesPart),
    options.rounds,
    (child) => measureRequests(child, { connections }, options),
    (text) => options.progress(`${id} ${text}`),
    {
      count: turns,
      warmUp: (child) => warmUp(child, { connections }, options),
      measure: (child) => measureWarm(child, { connections }, options),
    },
  )
  await upstream.child.stop()
  return {
    id,
    title: `Proxied GET, 1 KiB, ${connections} connections`,
    goal,
    text: `Weir: ${standing(standings, WEIR, 'cpu', FLOOR)} the floor, ${standing(standings, WEIR, 'cpu', PEER)} http-proxy-3 with agent.

${table(
  ['', 'CPU per request, × floor', 'least-most', '× http-proxy-3', 'CPU µs', 'cores busy', 'requests/s', 'p50 ms', 'p99 ms'],
  standings.map((row) => [
    row.name,
    factor(row.ratio('cpu', FLOOR)),
    row.spread('cpu', FLOOR)?.map(factor).join('-') ?? '-',
    factor(row.ratio('cpu', PEER)),
    row.value('cpu').toFixed(1),
    row.value('cores').toFixed(2),
    row.value('perSecond').toFixed(0),
    row.value('p50').toFixed(2),
    row.value('p99').toFixed(2),
  ]),
)}

${absentPeers()}`.trim(),
    failures: failuresOf(standings),
  }
}
