/** P9: what one decision of a rate limit costs. Measured by `decide.ts` in a process of its own; its text is taken over as it is. A smoke run has few clients. */
import { fileURLToPath } from 'node:url'
import { run } from './children.ts'
import type { BenchOptions, Section } from './options.ts'

export async function limits(options: BenchOptions): Promise<Section> {
  const script = fileURLToPath(new URL('decide.ts', import.meta.url))
  const text = (await run(process.execPath, ['--expose-gc', script, ...(options.quick ? ['20000'] : [])])).trim()
  return {
    id: 'P9',
    title: 'One decision of a rate limit, in memory',
    goal: '≤ 300 ns with a million keys, bounded memory; on Redis one round trip (shown by a test)',
    text,
    failures: text === '' ? ['decide.ts printed nothing'] : [],
  }
}
