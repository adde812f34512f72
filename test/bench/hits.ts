/** P4: a hit in a cache in memory, beside node:http that answers by itself and the caches of others. */
import { startNode } from './children.ts'
import { type Contestant, contest } from './contest.ts'
import { startNginxCache, startVarnish } from './contestants/native.ts'
import { installed } from './machine.ts'
import type { BenchOptions, Section } from './options.ts'
import { factor, failuresOf, standing, table } from './report.ts'
import { measureRequests, measureWarm, turns, warmUp } from './requests.ts'
import { startUpstream } from './upstream.ts'

const FLOOR = 'node:http by itself (floor)'
const WEIR = 'weir, cached'
const CODED = 'weir, cached in Brotli'
/** One field more in the request costs everybody something, so what is stored in Brotli is held against what is asked for in the same words. */
const ASKED = 'weir, cached, asked with Accept-Encoding'
const VARNISH = 'Varnish'

export async function hits(options: BenchOptions): Promise<Section> {
  const upstream = await startUpstream()
  const url = upstream.urls[0] as string
  const peers = [
    ['nginx', 'nginx, cached', startNginxCache],
    ['varnishd', VARNISH, startVarnish],
  ] as const
  const contestants: Contestant[] = [
    { name: FLOOR, leads: true, start: () => startNode('contestants/answer.ts', [url]) },
    { name: WEIR, leads: true, start: () => startNode('contestants/weir-cache.ts', [url]) },
    { name: ASKED, leads: true, start: () => startNode('contestants/weir-cache.ts', [url]) },
    { name: CODED, leads: true, start: () => startNode('contestants/weir-cache.ts', [url, 'compress']) },
    ...peers
      .filter(([program]) => installed(program))
      .map(([, name, start]) => ({ name, leads: name === VARNISH, start: () => start(url) })),
  ]
  const planOf = ({ name }: Contestant) => ({
    connections: 64,
    ...(name === CODED || name === ASKED ? { field: 'Accept-Encoding: br' } : {}),
  })
  const standings = await contest(
    contestants,
    options.rounds,
    (child, contestant) => measureRequests(child, planOf(contestant), options),
    (text) => options.progress(`P4 ${text}`),
    {
      count: turns,
      warmUp: (child, contestant) => warmUp(child, planOf(contestant), options),
      measure: (child, contestant) => measureWarm(child, planOf(contestant), options),
    },
  )
  await upstream.child.stop()
  const absent = peers.filter(([program]) => !installed(program)).map(([, name]) => name)
  return {
    id: 'P4',
    title: 'Cache hit from memory, 1 KiB, 64 connections',
    goal: '≤ 1.20 × floor, at or below Varnish',
    text: `Weir: ${standing(standings, WEIR, 'cpu', FLOOR)} the floor, ${standing(standings, WEIR, 'cpu', VARNISH)} Varnish. A hit
in Brotli: ${standing(standings, CODED, 'cpu', ASKED)} a plain one that is asked for with the same field.

${table(
  ['', 'CPU per request, × floor', 'least-most', 'CPU µs', 'cores busy', 'requests/s', 'p50 ms', 'p99 ms'],
  standings.map((row) => [
    row.name,
    factor(row.ratio('cpu', FLOOR)),
    row.spread('cpu', FLOOR)?.map(factor).join('-') ?? '-',
    row.value('cpu').toFixed(1),
    row.value('cores').toFixed(2),
    row.value('perSecond').toFixed(0),
    row.value('p50').toFixed(2),
    row.value('p99').toFixed(2),
  ]),
)}

${absent.length === 0 ? '' : `Not on this machine, hence not measured: ${absent.join(', ')}.`}`.trim(),
    failures: failuresOf(standings),
  }
}
