/**
 * The tests, counted one by one. Vitest's exit code alone would not do: it is 0 when tests were skipped, and it does not say how many ran.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execute, tool } from './execute.ts'
import type { Check, Report } from './report.ts'
import { temporaryFolder } from './workspace.ts'

/** The part of vitest's JSON report that is read here. */
export interface VitestReport {
  readonly success: boolean
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: readonly {
    readonly name: string
    readonly status: string
    readonly message: string
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[]
  }[]
}

export function countTests(result: VitestReport, exitCode: number | null, report: Report): void {
  report.tests = {
    passed: result.numPassedTests,
    failed: result.numFailedTests,
    skipped: result.numPendingTests + result.numTodoTests,
  }
  for (const file of result.testResults) {
    const failed = file.assertionResults.some((test) => test.status === 'failed')
    if (file.status === 'failed' && !failed) report.fail(`${file.name} did not run: ${file.message.split('\n')[0]}`)
    for (const test of file.assertionResults)
      if (test.status !== 'passed') console.log(`  ${test.status === 'failed' ? 'FAIL' : 'SKIP'} ${test.fullName}`)
  }
  if (result.numPassedTests + result.numFailedTests === 0) report.fail('no test ran')
  else if (exitCode !== 0 && result.numFailedTests === 0 && report.failures.length === 0)
    report.fail(`every test passed, yet vitest ended with ${exitCode ?? 'a signal'}: an error outside of any test, see above`)
}

export const vitest: Check = {
  name: 'tests',
  proves: 'every vitest test passes',
  async run(report) {
    const file = join(temporaryFolder('vitest'), 'report.json')
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
    const { code, timedOut } = await execute(tool('vitest'), ['run', ...reporters], { timeout: 14 * 60_000, echo: true })
    if (timedOut) report.fail('the tests did not end within 14 minutes')
    if (existsSync(file)) countTests(JSON.parse(readFileSync(file, 'utf8')) as VitestReport, code, report)
    else report.fail(`vitest left no report and ended with ${code ?? 'a signal'}`)
  },
}
