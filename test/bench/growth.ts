/** P8: what a request costs as the configuration and the number of clients grow. Everybody is compared with himself when small. */
import { readFileSync } from 'node:fs'
import { cpuMicros } from './accounting.ts'
import { type Child, startNode } from './children.ts'
import { type Contestant, contest, type Sample, type Standings } from './contest.ts'
import type { RotateOrder } from './load/rotate.ts'
import type { LoadResult, Target } from './load.ts'
import { type BenchOptions, fewerRounds, type Section } from './options.ts'
import { factor, failuresOf, table } from './report.ts'
import { measureRequests } from './requests.ts'
import { startUpstream } from './upstream.ts'

interface Step extends Contestant {
  /** Name of the small one that it is compared with. */
  readonly small: string
  measure(child: Child): Promise<Sample>
}

export async function growth(options: BenchOptions): Promise<Section> {
  const many = options.quick ? 50 : 1000
  const wanted = options.quick ? 500 : 10_000
  const clients = Math.min(wanted, openFileLimit() - 500)
  const upstream = await startUpstream(many)
  const one = upstream.urls.slice(0, 1)
  const targets: Target[] = Array.from({ length: many }, (_, i) => ({ host: `host${i}.test`, path: `/service-${i}/item` }))
  const n = (value: number): string => value.toLocaleString('en')

  const upstreamStep = (name: string, file: string, small: string, urls: readonly string[]): Step => ({
    name,
    small,
    start: () => startNode(`contestants/${file}.ts`, urls),
    measure: (child) => measureRequests(child, { connections: 64 }, options),
  })
  const routeStep = (name: string, by: string): Step => ({
    name,
    small: '1 route',
    start: () => startNode('contestants/weir-routes.ts', [...one, by, String(many)]),
    measure: (child) => measureRequests(child, { connections: 64, targets }, options),
  })
  const clientStep = (name: string, file: string, small: string, connections: number): Step => ({
    name,
    small,
    start: () => startNode(`contestants/${file}.ts`, one),
    measure: (child) => measureRotation(child, connections, options),
  })
  const groups: Step[][] = [
    [
      upstreamStep('1 upstream', 'weir', '1 upstream', one),
      upstreamStep(`${n(many)} upstreams`, 'weir', '1 upstream', upstream.urls),
      upstreamStep('floor, 1 upstream', 'undici-client-freelist', 'floor, 1 upstream', one),
      upstreamStep(`floor, ${n(many)} upstreams`, 'undici-client-freelist', 'floor, 1 upstream', upstream.urls),
    ],
    [routeStep('1 route', 'any'), routeStep(`${n(many)} routes by host`, 'hosts'), routeStep(`${n(many)} routes by path`, 'paths')],
    [
      clientStep('64 keep-alive connections', 'weir', '64 keep-alive connections', 64),
      clientStep(`${n(clients)} keep-alive connections`, 'weir', '64 keep-alive connections', clients),
      clientStep('floor, 64 connections', 'undici-client-freelist', 'floor, 64 connections', 64),
      clientStep(`floor, ${n(clients)} connections`, 'undici-client-freelist', 'floor, 64 connections', clients),
    ],
  ]
  const results: [Step, Standings][] = []
  const failures: string[] = []
  for (const steps of groups) {
    const standings = await contest(
      steps,
      fewerRounds(options),
      (child, contestant) => (contestant as Step).measure(child),
      (text) => options.progress(`P8 ${text}`),
    )
    for (const step of steps) results.push([step, standings])
    failures.push(...failuresOf(standings))
  }
  await upstream.child.stop()

  return {
    id: 'P8',
    title: 'Cost as work grows',
    goal: 'CPU per request within 1.15 × of the small case',
    text: `${table(
      ['', 'CPU per request, × the small case', 'least-most', 'CPU µs', 'requests/s'],
      results.map(([step, standings]) => {
        const row = standings.find(({ name }) => name === step.name)
        return [
          step.name,
          step.name === step.small ? '1' : factor(row?.ratio('cpu', step.small)),
          step.name === step.small ? '' : (row?.spread('cpu', step.small)?.map(factor).join('-') ?? '-'),
          (row?.value('cpu') ?? Number.NaN).toFixed(1),
          (row?.value('perSecond') ?? Number.NaN).toFixed(0),
        ]
      }),
    )}

Upstreams and routes: 64 connections; the requests go to each route in turn, one route takes them all in the small case. Connections: 64 requests in flight
in both cases, each on the connection that has rested longest, so that only the number of open connections differs. The floor's rows show how much of
the growth is Node's and the kernel's: sockets that have rested are no longer in the caches.${clients < wanted ? ` The limit of open files allowed ${n(clients)} connections, not ${n(wanted)}.` : ''}`,
    failures,
  }
}

async function measureRotation(child: Child, connections: number, options: BenchOptions): Promise<Sample> {
  const client = await startNode('load/rotate.ts')
  try {
    const order = async <T>(what: RotateOrder): Promise<T> => {
      const answer = await client.ask<T & { error?: string }>(what)
      if (answer.error !== undefined) throw new Error(answer.error)
      return answer
    }
    await order({ do: 'open', port: child.ready.port, count: connections })
    if (!options.quick) await order({ do: 'run', seconds: 2, inFlight: 64 })
    const before = cpuMicros(child.pid)
    const result = await order<LoadResult>({ do: 'run', seconds: options.duration, inFlight: 64 })
    if (result.failures > 0) throw new Error(`${result.failures} requests or connections failed`)
    return { cpu: (cpuMicros(child.pid) - before) / result.requests, perSecond: result.perSecond }
  } finally {
    await client.stop()
  }
}

/** Node raises its soft limit to the hard one at start, and its children inherit that. */
function openFileLimit(): number {
  const limit = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1]
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit)
}
