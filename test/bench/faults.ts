/** Plays every fault scenario under every set-up and writes the client's view into docs/health.md, between its two marks. Run: `npm run faults`. */
import { readFileSync, writeFileSync } from 'node:fs'
import { type FaultResult, faultScenarios, faultSetups, playFault } from '../integration/fault-scenarios.ts'
import { table } from './report.ts'

const seconds = 10
const rate = 200
const page = new URL('../../docs/health.md', import.meta.url)
const marks = ['<!-- faults: begin -->', '<!-- faults: end -->'] as const

const rows: string[][] = []
for (const scenario of faultScenarios) {
  const row = [scenario.name]
  for (const setup of faultSetups) {
    const result: FaultResult = await playFault(scenario, setup, seconds, rate)
    row.push(`${result.errors} (${result.p99.toFixed(0)} ms)`)
    process.stderr.write(`${scenario.name}, ${setup.name}: ${JSON.stringify(result)}\n`)
  }
  rows.push(row)
}

const text = readFileSync(page, 'utf8')
const [begin, end] = marks.map((mark) => text.indexOf(mark)) as [number, number]
if (begin < 0 || end < begin) throw new Error(`docs/health.md has no ${marks.join(' ... ')}`)
const written = `${marks[0]}
${table(['one of three servers', ...faultSetups.map(({ name }) => name)], rows)}

Failed requests of ${seconds * rate} (and the 99th percentile of what the client waited). Measured ${new Date().toISOString().slice(0, 10)} on Node ${process.versions.node}: GETs
at ${rate} a second over ${seconds} s through three real servers on loopback; trouble begins after a fifth of the time.
`
writeFileSync(page, text.slice(0, begin) + written + text.slice(end))
