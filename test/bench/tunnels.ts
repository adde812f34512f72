/** P6: a thousand WebSockets. What a tunnel adds to the latency of a small message, what it costs per message, and what it holds in memory. */
import { cpuMicros, residentBytes } from './accounting.ts'
import { type Child, startNode } from './children.ts'
import { type Contestant, contest } from './contest.ts'
import type { EchoResult, TunnelOrder } from './load/tunnels.ts'
import { type BenchOptions, fewerRounds, type Section } from './options.ts'
import { factor, failuresOf, table } from './report.ts'

const FLOOR = 'two sockets and two pipes (floor)'
const PEER = 'http-proxy-3 `ws`'

export async function tunnels(options: BenchOptions): Promise<Section> {
  const count = options.quick ? 100 : 1000
  const perSecond = options.quick ? 500 : 2000
  const upstream = await startNode('upstreams/echo.ts')
  const client = await startNode('load/tunnels.ts')
  const url = `http://127.0.0.1:${upstream.ready.port}`
  const order = async <T>(what: TunnelOrder): Promise<T> => {
    const answer = await client.ask<T & { error?: string }>(what)
    if (answer.error !== undefined) throw new Error(answer.error)
    return answer
  }
  const contestant = (name: string, file: string, leads = false): Contestant => ({
    name,
    leads,
    start: () => startNode(file, [url], ['--expose-gc']),
  })
  const settled = async (child: Child): Promise<{ held: number; resident: number }> => {
    const { held } = await child.ask<{ held: number }>({})
    return { held, resident: residentBytes(child.pid) }
  }

  const contestants = [
    contestant(FLOOR, 'contestants/pipe.ts'),
    contestant(PEER, 'contestants/http-proxy-3.ts', true),
    contestant('weir', 'contestants/weir.ts', true),
  ]
  const standings = await contest(
    contestants,
    fewerRounds(options),
    async (child) => {
      try {
        const { port } = child.ready
        // Code that opens a tunnel is loaded and compiled before the memory of the many is counted.
        await order({ do: 'open', port, count: 50 })
        await order({ do: 'full', seconds: 0.5, inFlight: 16 })
        await order({ do: 'close' })
        const before = await settled(child)
        await order({ do: 'open', port, count })
        const after = await settled(child)
        const perTunnel = (now: number, then: number): number => (now - then) / count / 1024
        await order({ do: 'full', seconds: options.duration / 2, inFlight: 64 })
        const cpuBefore = cpuMicros(child.pid)
        const full = await order<EchoResult>({ do: 'full', seconds: options.duration, inFlight: 64 })
        const cpu = (cpuMicros(child.pid) - cpuBefore) / full.echoes
        const paced = await order<EchoResult>({ do: 'paced', seconds: options.duration, perSecond })
        return {
          p50: paced.p50 * 1000,
          p99: paced.p99 * 1000,
          cpu,
          fullPerSecond: full.perSecond,
          heldKiB: perTunnel(after.held, before.held),
          residentKiB: perTunnel(after.resident, before.resident),
        }
      } finally {
        await order({ do: 'close' })
      }
    },
    (text) => options.progress(`P6 ${text}`),
  )
  await client.stop()
  await upstream.stop()

  return {
    id: 'P6',
    title: `${count.toLocaleString('en')} WebSockets, echo of 128 B`,
    goal: 'latency ≤ 1.05 × http-proxy-3 `ws`; memory per tunnel ≤ 1.1 × two raw sockets',
    text: `${table(
      [
        '',
        'p50, × http-proxy-3',
        'p99, × http-proxy-3',
        'held, × two sockets',
        'p50 µs',
        'p99 µs',
        'CPU µs per echo',
        'echoes/s',
        'held, KiB per tunnel',
        'resident, KiB per tunnel',
      ],
      standings.map((row) => [
        row.name,
        factor(row.ratio('p50', PEER)),
        factor(row.ratio('p99', PEER)),
        factor(row.ratio('heldKiB', FLOOR)),
        row.value('p50').toFixed(0),
        row.value('p99').toFixed(0),
        row.value('cpu').toFixed(1),
        row.value('fullPerSecond').toFixed(0),
        row.value('heldKiB').toFixed(1),
        row.value('residentKiB').toFixed(1),
      ]),
    )}

Latency at ${perSecond.toLocaleString('en')} echoes a second spread over all tunnels, so that no queue forms; CPU and throughput with 64 echoes in flight. Memory is what has
grown from none to ${count.toLocaleString('en')} open and idle tunnels. "Held" is what is reachable after garbage collection, of V8's heap and outside it. "Resident" is what the
system has given, which has V8's young generation in it as well: that grows with how fast tunnels are opened, up to some 100 MiB, and not with how many are
open, so fewer tunnels look dearer there than more. The kernel's socket buffers are in neither.
${fewerRounds(options)} rounds.`,
    failures: failuresOf(standings),
  }
}
