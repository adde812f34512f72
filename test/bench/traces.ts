/** P11: what a cache of 64 MiB makes of a Zipf trace, beside nginx and Varnish; and what 100,000 entries take. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cpuMicros } from './accounting.ts'
import { type Child, run, scratchDirectory, startNode } from './children.ts'
import { startNginxCache, startVarnish } from './contestants/native.ts'
import { installed } from './machine.ts'
import type { BenchOptions, Section } from './options.ts'
import { table } from './report.ts'
import { zipfTrace } from './zipf.ts'

export async function traces(options: BenchOptions): Promise<Section> {
  const inProcess = await run(process.execPath, [
    '--expose-gc',
    fileURLToPath(new URL('keep.ts', import.meta.url)),
    ...(options.quick ? ['quick'] : []),
  ])
  const failures: string[] = []
  const rows: string[][] = []
  if (installed('wrk')) {
    const count = options.quick ? 20_000 : 1_000_000
    const script = traceScript(zipfTrace(count))
    const contestants: readonly (readonly [name: string, start: (url: string) => Promise<Child>])[] = [
      ['weir', (url) => startNode('contestants/weir-cache.ts', [url])],
      ['weir, `admission: frequency`', (url) => startNode('contestants/weir-cache.ts', [url, 'frequency'])],
      ...(installed('nginx') ? ([['nginx', (url: string) => startNginxCache(url, { maxSize: '64m' })]] as const) : []),
      ...(installed('varnishd') ? ([['Varnish', (url: string) => startVarnish(url, '64m')]] as const) : []),
    ]
    for (const [name, start] of contestants) {
      options.progress(`P11 ${name}`)
      const upstream = await startNode('upstreams/sized.ts')
      const child = await start(`http://127.0.0.1:${upstream.ready.port}`)
      try {
        const before = cpuMicros(child.pid)
        const output = await run('wrk', [
          '-t1',
          '-c64',
          `-d${options.quick ? 2 : 30}s`,
          '--timeout',
          '10s',
          '-s',
          script,
          `http://127.0.0.1:${child.ready.port}/`,
        ])
        const cpu = cpuMicros(child.pid) - before
        const requests = Number(/(\d+) requests in/.exec(output)?.[1])
        const { requests: misses } = await upstream.ask<{ requests: number }>({})
        if (/Non-2xx|Socket errors/.test(output)) failures.push(`${name}: ${output}`)
        rows.push([name, requests.toLocaleString('en'), `${((1 - misses / requests) * 100).toFixed(1)} %`, (cpu / requests).toFixed(1)])
      } catch (error) {
        failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`)
      } finally {
        await child.stop()
        await upstream.stop()
      }
    }
  }
  return {
    id: 'P11',
    title: 'A cache on a Zipf trace, and its memory',
    goal: 'resident memory ≤ 1.3 × of what the store counts',
    text: `${inProcess.trim()}

${rows.length === 0 ? 'wrk is not on this machine, hence nothing over HTTP.' : table(['The same over HTTP, 64 connections, 30 s', 'requests', 'hits', 'CPU µs per request, misses included'], rows)}`,
    failures,
  }
}

function traceScript(trace: Uint32Array): string {
  const directory = scratchDirectory()
  const ids = join(directory, 'trace.txt')
  writeFileSync(ids, trace.join('\n'))
  const script = join(directory, 'trace.lua')
  writeFileSync(
    script,
    `local ids = {}
local made = {}
local at = 0
function init()
  for line in io.lines('${ids}') do ids[#ids + 1] = line end
end
function request()
  at = at % #ids + 1
  local id = ids[at]
  local text = made[id]
  if text == nil then
    text = 'GET /o/' .. id .. ' HTTP/1.1\\r\\nHost: shop.example\\r\\n\\r\\n'
    made[id] = text
  end
  return text
end
`,
  )
  return script
}
