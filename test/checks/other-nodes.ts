/**
 * What differs between the versions of Node.js that are promised: when a response says that it is closed, when a reset is one, what becomes of a head without a body.
 * All tests run on the newest of them but one; those that meet such differences run on the oldest and on the newest, too.
 */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { nodeBinary, nodeVersions } from '../consumer/node-versions.ts'
import { execute, tail } from './execute.ts'
import type { Check } from './report.ts'
import { countTests, type VitestReport } from './vitest-run.ts'
import { temporaryFolder } from './workspace.ts'

const behaviours = [
  'e12-http2-fields',
  'e13-expect-continue',
  'e16-upstream-death',
  'e17-client-disconnect',
  'e18-early-rejection',
  'e25-field-order',
  'e28-http10',
  'h2-early-answers',
  'stored-replies',
].map((name) => `test/integration/${name}.test.ts`)

const vitest = join(createRequire(import.meta.url).resolve('vitest/package.json'), '..', 'vitest.mjs')

export const otherNodes: readonly Check[] = [nodeVersions[0], nodeVersions.at(-1)].map(
  (version): Check => ({
    name: `tests: node ${version}`,
    proves: 'who leaves is seen, what breaks looks broken, and early answers arrive on this version, too',
    async run(report) {
      const node = await nodeBinary(version as string)
      const file = join(temporaryFolder(`vitest-${version}`), 'report.json')
      const args = [vitest, 'run', ...behaviours, '--reporter=dot', '--reporter=json', `--outputFile.json=${file}`]
      const { code, output } = await execute(node, args, { timeout: 3 * 60_000 })
      if (existsSync(file)) countTests(JSON.parse(readFileSync(file, 'utf8')) as VitestReport, code, report)
      else report.fail(`vitest left no report and ended with ${code ?? 'a signal'}\n${tail(output)}`)
      if (report.tests === undefined || report.tests.failed > 0) console.log(tail(output))
    },
  }),
)
