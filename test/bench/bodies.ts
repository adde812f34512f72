/** P5: bodies of 1 GiB, one at a time, each way, and with a reader that cannot keep up. */
import { cpuMicros, peakBytes, resetPeak, residentBytes } from './accounting.ts'
import { type Child, startNode } from './children.ts'
import { type Contestant, contest } from './contest.ts'
import { absentPeers, FLOOR, HAPROXY, httpContestants, NGINX, PEER, WEIR } from './contestants.ts'
import type { Transfer, TransferResult } from './load/bulk.ts'
import type { BenchOptions, Section } from './options.ts'
import { factor, failuresOf, standing, table } from './report.ts'

const PIPE = 'net pipe (floor)'
const MiB = 2 ** 20

export async function bodies(options: BenchOptions): Promise<Section> {
  const bytes = (options.quick ? 64 : 1024) * MiB
  const slowMs = options.quick ? 300 : 2000
  const upstream = await startNode('upstreams/bulk.ts')
  const client = await startNode('load/bulk.ts')
  const url = `http://127.0.0.1:${upstream.ready.port}`
  const transfer = async (child: Child, what: Omit<Transfer, 'port'>): Promise<number> => {
    const answer = await client.ask<TransferResult & { error?: string }>({ ...what, port: child.ready.port })
    if (answer.error !== undefined) throw new Error(`${what.direction}: ${answer.error}`)
    return answer.seconds
  }

  const contestants: Contestant[] = [
    { name: PIPE, leads: true, start: () => startNode('contestants/pipe.ts', [url]) },
    ...httpContestants(url).filter(({ name }) => [FLOOR, WEIR, PEER, NGINX, HAPROXY].includes(name)),
  ]
  let readings = 0
  const standings = await contest(
    contestants.map((each) => ({ ...each, leads: each.name === PIPE || each.name === WEIR })),
    options.rounds,
    async (child, _contestant, round) => {
      // Code is compiled and V8's young generation reaches its size (some 40 MiB) during the first megabytes of anything; memory is
      // counted from there, since the question is whether it grows with the body.
      await transfer(child, { direction: 'down', bytes: bytes / 16 })
      await transfer(child, { direction: 'up', bytes: bytes / 16 })
      const base = residentBytes(child.pid)
      const sample: Record<string, number> = {}
      for (const direction of ['down', 'up'] as const) {
        resetPeak(child.pid)
        const cpu = cpuMicros(child.pid)
        const seconds = await transfer(child, { direction, bytes })
        sample[direction] = bytes / 2 ** 30 / seconds
        sample[`${direction}Cpu`] = (cpuMicros(child.pid) - cpu) / 1e6 / (bytes / 2 ** 30)
        sample[`${direction}Growth`] = (peakBytes(child.pid) - base) / MiB
        // Once is enough for the slow ones: they measure memory, not time.
        if (round > 0) continue
        resetPeak(child.pid)
        await transfer(child, { direction, bytes, slowMs })
        sample[`${direction}SlowGrowth`] = (peakBytes(child.pid) - base) / MiB
        readings += 1
      }
      return sample
    },
    (text) => options.progress(`P5 ${text}`),
  )
  await client.stop()
  await upstream.stop()

  return {
    id: 'P5',
    title: `Body of ${bytes / MiB} MiB, down and up`,
    goal: '≥ 0.9 × a net pipe; resident memory grows < 64 MiB, also with a slow reader',
    text: `Weir: down ${standing(standings, WEIR, 'down', PIPE)}, up ${standing(standings, WEIR, 'up', PIPE)} the net pipe.

${table(
  [
    '',
    'down, × pipe',
    'up, × pipe',
    'down GiB/s',
    'up GiB/s',
    'CPU s/GiB down',
    'CPU s/GiB up',
    'RSS + MiB down / up',
    'slow reader: RSS + MiB down / up',
  ],
  standings.map((row) => [
    row.name,
    factor(row.ratio('down', PIPE)),
    factor(row.ratio('up', PIPE)),
    row.value('down').toFixed(2),
    row.value('up').toFixed(2),
    row.value('downCpu').toFixed(2),
    row.value('upCpu').toFixed(2),
    `${mebibytes(row.value('downGrowth'))} / ${mebibytes(row.value('upGrowth'))}`,
    `${mebibytes(row.value('downSlowGrowth'))} / ${mebibytes(row.value('upSlowGrowth'))}`,
  ]),
)}

One transfer at a time over one connection. Both ends are processes on bare sockets that write from one buffer; together they take about half
of what the pipe between them takes, so the contestant's core is the limit. The slow reader (the client for down, the upstream for up) takes
about 4 MiB/s for ${slowMs / 1000} s and then the rest at full speed. RSS is the peak of the resident set during the transfer, less what was resident after
a first ${bytes / 16 / MiB} MiB each way. ${absentPeers()}`.trim(),
    failures: [...failuresOf(standings), ...(readings === 0 ? ['no slow transfer ended'] : [])],
  }
}

/** A process that gave memory back in the meantime has not grown. */
function mebibytes(growth: number): string {
  return Number.isNaN(growth) ? '-' : Math.max(0, Math.round(growth)).toFixed(0)
}
