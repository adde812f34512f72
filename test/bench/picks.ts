/**
 * P7: what one pick of each balancing strategy costs. Measured by `pick.ts` in a process of its own; its table is taken over as it is. A
 * smoke run takes one strategy only.
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { run } from './children.ts'
import type { BenchOptions, Section } from './options.ts'

export async function picks(options: BenchOptions): Promise<Section> {
  const script = fileURLToPath(new URL('pick.ts', import.meta.url))
  const output = existsSync(script) ? (await run(process.execPath, [script, ...(options.quick ? ['roundRobin'] : [])])).trim() : ''
  return {
    id: 'P7',
    title: 'One pick, any strategy',
    goal: '≤ 100 ns at 10 upstreams; at 10,000 upstreams at most O(log n); least connections and P2C flat',
    text: output.includes('|--') || output === '' ? output : `\`\`\`\n${output}\n\`\`\``,
    failures: output === '' ? ['pick.ts is missing or printed nothing'] : [],
  }
}
