/**
 * What a check says and how it counts. A check never stops the others: it writes down what it found, and the runner adds up. A skip is an
 * honest third state for a program that this machine lacks; where nothing may be lacking (`WEIR_REQUIRE_ALL=1`) it counts as a failure,
 * so that a green run there means that everything ran.
 */

export interface Check {
  readonly name: string
  /** One line: what a pass proves. */
  readonly proves: string
  run(report: Report): Promise<void>
}

/** Numbers of the tests that a check ran, where it is a suite of many and not one statement. */
export interface TestCount {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

export interface Verdict extends TestCount {
  readonly ok: boolean
}

export class Report {
  readonly failures: string[] = []
  readonly skips: string[] = []
  readonly notes: string[] = []
  tests: TestCount | undefined
  /** False once the whole check was skipped: nothing was shown, so nothing passed. */
  ran: boolean = true

  fail(message: string): void {
    this.failures.push(message)
    console.log(`  FAIL ${message}`)
  }

  skip(message: string): void {
    this.skips.push(message)
    console.log(`  SKIP ${message}`)
  }

  skipCheck(message: string): void {
    this.ran = false
    this.skip(message)
  }

  note(message: string): void {
    this.notes.push(message)
    console.log(`  ${message}`)
  }
}

export function verdict(report: Report, requireAll: boolean): Verdict {
  const skipped = report.skips.length + (report.tests?.skipped ?? 0)
  const skipFails = requireAll ? skipped : 0
  if (report.tests === undefined) {
    const failed = report.failures.length > 0 || skipFails > 0 ? 1 : 0
    return { passed: report.ran ? 1 - failed : 0, failed, skipped, ok: failed === 0 }
  }
  // A suite can break without a failed test: a file that does not load, an unhandled rejection. That is one failure more, not none.
  const broken = report.failures.length > 0 && report.tests.failed === 0 ? 1 : 0
  const failed = report.tests.failed + broken + skipFails
  return { passed: report.tests.passed, failed, skipped, ok: failed === 0 }
}

/** Runs one check; an exception is its failure, not the end of the run. */
export async function perform(check: Check): Promise<Report> {
  const report = new Report()
  try {
    await check.run(report)
  } catch (error) {
    report.fail(error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
  return report
}

/** Runs a check on its own when its file is the program: `node test/checks/docs.ts`. */
export async function standalone(check: Check): Promise<void> {
  const result = verdict(await perform(check), process.env.WEIR_REQUIRE_ALL === '1')
  console.log(`${check.name}: ${result.ok ? 'ok' : 'failed'}`)
  process.exitCode = result.ok ? 0 : 1
}
