import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { perform, Report, verdict } from './report.ts'
import { countTests, type VitestReport } from './vitest-run.ts'

beforeEach(() => void vi.spyOn(console, 'log').mockImplementation(() => {}))
afterEach(() => void vi.restoreAllMocks())

describe('the verdict on a check', () => {
  it('is one pass, or one failure however much is wrong', () => {
    const report = new Report()
    expect(verdict(report, false)).toEqual({ passed: 1, failed: 0, skipped: 0, ok: true })
    report.fail('a')
    report.fail('b')
    expect(verdict(report, false)).toEqual({ passed: 0, failed: 1, skipped: 0, ok: false })
  })

  it('takes a skip for a failure only where nothing may be lacking', () => {
    const report = new Report()
    report.skip('redis-server is not installed')
    expect(verdict(report, false)).toMatchObject({ failed: 0, skipped: 1, ok: true })
    expect(verdict(report, true)).toMatchObject({ passed: 0, failed: 1, ok: false })
  })

  it('does not count a check that was skipped whole as passed', () => {
    const report = new Report()
    report.skipCheck('there is no such page')
    expect(verdict(report, false)).toEqual({ passed: 0, failed: 0, skipped: 1, ok: true })
    expect(verdict(report, true)).toEqual({ passed: 0, failed: 1, skipped: 1, ok: false })
  })

  it('takes an exception for a failure', async () => {
    const report = await perform({ name: 'x', proves: 'y', run: () => Promise.reject(new Error('broken')) })
    expect(verdict(report, false).ok).toBe(false)
  })
})

describe('the verdict on the tests', () => {
  const result = (over: Partial<VitestReport>): VitestReport => ({
    success: true,
    numPassedTests: 5,
    numFailedTests: 0,
    numPendingTests: 0,
    numTodoTests: 0,
    testResults: [],
    ...over,
  })
  const judge = (over: Partial<VitestReport>, exitCode: number | null, requireAll = false): unknown => {
    const report = new Report()
    countTests(result(over), exitCode, report)
    return verdict(report, requireAll)
  }

  it('counts each test', () => {
    expect(judge({}, 0)).toEqual({ passed: 5, failed: 0, skipped: 0, ok: true })
    expect(judge({ numFailedTests: 2 }, 1)).toEqual({ passed: 5, failed: 2, skipped: 0, ok: false })
  })

  it('fails on skipped tests only where nothing may be lacking', () => {
    expect(judge({ numPendingTests: 2, numTodoTests: 1 }, 0)).toMatchObject({ failed: 0, skipped: 3, ok: true })
    expect(judge({ numPendingTests: 2, numTodoTests: 1 }, 0, true)).toMatchObject({ passed: 5, failed: 3, ok: false })
  })

  it('fails when a file did not load, when an error stood outside of any test, when nothing ran', () => {
    const testResults = [{ name: 'a.test.ts', status: 'failed', message: 'SyntaxError', assertionResults: [] }]
    expect(judge({ testResults }, 1)).toMatchObject({ failed: 1, ok: false })
    expect(judge({}, 1)).toMatchObject({ failed: 1, ok: false })
    expect(judge({}, null)).toMatchObject({ failed: 1, ok: false })
    expect(judge({ numPassedTests: 0 }, 0)).toMatchObject({ failed: 1, ok: false })
  })
})
