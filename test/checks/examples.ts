/**
 * Every example runs to its end by itself: it starts what it shows, uses it, closes it. An example that hangs leaks something, and teaches
 * others to. The first lines may name programs without which it cannot run: `// needs: redis-server`. The demo is not among them, because
 * it stays up until one stops it.
 */
import { execute, isInstalled, tail } from './execute.ts'
import { type Check, standalone } from './report.ts'
import { files, read } from './workspace.ts'

const runLimit = 20_000
const lineLimit = 60

export function neededPrograms(text: string): string[] {
  return [...text.matchAll(/^\/\/ needs: (.+)$/gm)].flatMap((match) => (match[1] ?? '').split(/[,\s]+/).filter(Boolean))
}

export const examples: Check = {
  name: 'examples',
  proves: `every example ends with 0 within ${runLimit / 1000} s and has fewer than ${lineLimit} lines`,
  async run(report) {
    const paths = files('examples').filter((path) => /^examples\/[^/]+\.ts$/.test(path) && path !== 'examples/demo.ts')
    if (paths.length === 0) report.fail('there is no example')
    for (const path of paths) {
      const text = read(path)
      const lines = text.trimEnd().split('\n').length
      if (lines >= lineLimit) report.fail(`${path} has ${lines} lines`)
      const absent = neededPrograms(text).filter((program) => !isInstalled(program))
      if (absent.length > 0) {
        report.skip(`${path} needs ${absent.join(', ')}`)
        continue
      }
      const { code, output, timedOut } = await execute(process.execPath, [path], { timeout: runLimit })
      if (timedOut) report.fail(`${path} did not end within ${runLimit / 1000} s\n${tail(output)}`)
      else if (code !== 0) report.fail(`${path} ended with ${code ?? 'a signal'}\n${tail(output)}`)
      else report.note(`${path}: ok`)
    }
  },
}

if (import.meta.main) await standalone(examples)
