/** A check that is one command of a tool: it passes when the command ends with 0. */
import { execute, tail, tool } from './execute.ts'
import type { Check } from './report.ts'

export function command(name: string, proves: string, program: string, args: readonly string[]): Check {
  return {
    name,
    proves,
    async run(report) {
      const { code, output } = await execute(tool(program), args, { timeout: 5 * 60_000 })
      if (code !== 0) report.fail(`${program} ${args.join(' ')} ended with ${code ?? 'a signal'}\n${tail(output, 120)}`)
    },
  }
}
