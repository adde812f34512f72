/**
 * `pnpm bench`: runs the performance benchmarks and writes docs/performance.md. See README.md beside this file for the flags and for how
 * to read what comes out.
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { bodies } from './bodies.ts'
import { stopAll } from './children.ts'
import { compression } from './compression.ts'
import { environment, render, writeDocument } from './document.ts'
import { growth } from './growth.ts'
import { hits } from './hits.ts'
import { limits } from './limits.ts'
import { withhold } from './machine.ts'
import type { BenchOptions, Section } from './options.ts'
import { picks } from './picks.ts'
import { p1, p3 } from './requests.ts'
import { traces } from './traces.ts'
import { tunnels } from './tunnels.ts'

const benchmarks: Readonly<Record<string, (options: BenchOptions) => Promise<Section>>> = {
  p1,
  p3,
  p4: hits,
  p5: bodies,
  p6: tunnels,
  p7: picks,
  p8: growth,
  p9: limits,
  p10: compression,
  p11: traces,
}

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    rounds: { type: 'string' },
    duration: { type: 'string' },
    quick: { type: 'boolean', default: false },
    out: { type: 'string' },
    without: { type: 'string' },
  },
})

function whole(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) refuse(`--${name} takes a whole number from 1, not '${text}'`)
  return value
}

function refuse(reason: string): never {
  console.error(reason)
  process.exit(2)
}

if (process.platform !== 'linux') refuse("The benchmarks read Linux's accounting of a process (/proc) and run nowhere else.")

const known = Object.keys(benchmarks)
const chosen = flags.only?.toLowerCase().split(',') ?? known
for (const id of chosen) if (!known.includes(id)) refuse(`--only takes ${known.join(', ')}, not '${id}'`)
withhold(flags.without?.split(',') ?? [])

const options: BenchOptions = {
  quick: flags.quick,
  rounds: whole('rounds', flags.rounds, flags.quick ? 1 : 3),
  duration: whole('duration', flags.duration, flags.quick ? 1 : 2),
  progress: (text) => {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
  },
}

const startedAt = performance.now()
const sections: Section[] = []
console.log(environment(options))
for (const id of known.filter((each) => chosen.includes(each))) {
  let section: Section
  try {
    section = await (benchmarks[id] as (typeof benchmarks)[string])(options)
  } catch (error) {
    section = {
      id: id.toUpperCase(),
      title: 'did not finish',
      goal: '-',
      text: '',
      failures: [error instanceof Error ? error.message : String(error)],
    }
  }
  await stopAll()
  sections.push(section)
  options.progress('')
  console.log(render(section))
  for (const failure of section.failures) console.error(`${id}: ${failure}\n`)
}
console.log(`Took ${((performance.now() - startedAt) / 1000).toFixed(0)} s.`)

// A part of the table in place of the whole would look like the whole, so only a complete run writes the page unless told where.
const page = fileURLToPath(new URL('../../docs/performance.md', import.meta.url))
const file = flags.out ?? (flags.quick || chosen.length < known.length ? undefined : page)
if (file !== undefined) {
  writeDocument(file, sections, options)
  console.log(`Written: ${file}`)
}
process.exit(sections.some(({ failures }) => failures.length > 0) ? 1 : 0)
