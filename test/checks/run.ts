/**
 * Everything that must hold before a change goes in, one after the other, all of them whatever fails: `npm test` ends here. The last line
 * counts the tests and the checks. With `WEIR_REQUIRE_ALL=1` nothing may be skipped for want of a program.
 *
 * `node test/checks/run.ts biome docs` runs only the checks whose names contain one of the words.
 */
import { consumer } from '../consumer/run.ts'
import { command } from './command.ts'
import { docs } from './docs.ts'
import { examples } from './examples.ts'
import { isInstalled } from './execute.ts'
import { importDirection } from './import-direction.ts'
import { otherNodes } from './other-nodes.ts'
import { attwCheck, publintCheck } from './package-lint.ts'
import { type Check, perform, type Verdict, verdict } from './report.ts'
import { vitest } from './vitest-run.ts'

// Cheap ones first; the packed packages need the build of `types`.
const checks: readonly Check[] = [
  command('biome', 'lint rules and format hold, warnings included', 'biome', ['check', '--error-on-warnings', '--max-diagnostics=100']),
  command('types', 'packages, tests and examples compile', 'tsc', ['-b']),
  command('promises', 'no promise is left floating, every union is switched to its end', 'oxlint', ['--type-aware', '--deny-warnings']),
  command('knip', 'no file, export or dependency is unused', 'knip', ['--no-progress']),
  importDirection,
  vitest,
  ...otherNodes,
  ...docs,
  examples,
  publintCheck,
  attwCheck,
  ...consumer,
]

const programs = ['nginx', 'wrk', 'h2load', 'chromium', 'redis-server', 'valkey-server', 'openssl']
const requireAll = process.env.WEIR_REQUIRE_ALL === '1'
const words = process.argv.slice(2)
const chosen = words.length === 0 ? checks : checks.filter(({ name }) => words.some((word) => name.includes(word)))

console.log(`Node ${process.version}, ${process.platform}-${process.arch}${requireAll ? ', nothing may be skipped' : ''}`)
const absent = programs.filter((program) => !isInstalled(program))
if (absent.length > 0) console.log(`Not installed: ${absent.join(', ')}; what needs them is ${requireAll ? 'a failure' : 'skipped'}`)

const results: { readonly check: Check; readonly verdict: Verdict; readonly seconds: number }[] = []
for (const check of chosen) {
  console.log(`\n== ${check.name}: ${check.proves}`)
  const from = performance.now()
  const result = verdict(await perform(check), requireAll)
  results.push({ check, verdict: result, seconds: (performance.now() - from) / 1000 })
}

const row = (name: string, ...cells: readonly (string | number)[]): string =>
  name.padEnd(24) + cells.map((cell) => String(cell).padStart(9)).join('')
console.log(`\n${row('', 'passed', 'failed', 'skipped', 'seconds')}`)
for (const { check, verdict: v, seconds } of results) {
  console.log(`${row(check.name, v.passed, v.failed, v.skipped, seconds.toFixed(1))}  ${v.ok ? 'ok' : 'FAILED'}`)
}
const sum = (field: 'passed' | 'failed'): number => results.reduce((total, result) => total + result.verdict[field], 0)
const failed = results.length === 0 ? 1 : sum('failed')
if (results.length === 0) console.log(`no check is named ${words.join(' or ')}`)
// Set before the line is written, so that nothing can come after it.
process.exitCode = failed === 0 ? 0 : 1
console.log(`\n${sum('passed')} passed, ${failed} failed`)
