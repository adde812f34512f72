/** P10: what the compress stage adds to the streams that do its work. Measured by `encode.ts` in a process of its own; its text is taken over as it is. */
import { fileURLToPath } from 'node:url'
import { run } from './children.ts'
import type { BenchOptions, Section } from './options.ts'

export async function compression({ quick, rounds }: BenchOptions): Promise<Section> {
  const script = fileURLToPath(new URL('encode.ts', import.meta.url))
  const text = (await run(process.execPath, ['--expose-gc', script, String(quick ? 1 : 13 * rounds)])).trim()
  return {
    id: 'P10',
    title: 'Compression, against bare streams of node:zlib',
    goal: '≥ 0.95 × the bytes per CPU second of a stage that does nothing but transform',
    text,
    failures: text === '' ? ['encode.ts printed nothing'] : [],
  }
}
