/**
 * Code in the docs is code: every `ts` fence is type-checked against the built packages, and a fence marked `ts run` is also executed. A
 * reader copies it and it works, or this check fails. Each fence is a module of its own, written below as many empty lines as stand above
 * it on its page, so that the compiler's line numbers are the page's.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execute, tail, tool } from './execute.ts'
import { type Fence, type Page, parsePage, type Span } from './markdown.ts'
import { type Check, type Report, standalone } from './report.ts'
import { files, packages, read, readManifest, root, temporaryFolder } from './workspace.ts'

const runLimit = 20_000

export interface CodeFence extends Fence {
  readonly page: string
}

/** Every page of the docs; change logs are generated. */
export function pages(): string[] {
  return files().filter((path) => path.endsWith('.md') && !path.startsWith('.changeset/') && !path.endsWith('CHANGELOG.md'))
}

/** Fences that would escape the check: another name for TypeScript, a word after `ts` that is not `run`, plain JavaScript. */
export function fenceProblem({ language, info }: Fence): string | undefined {
  if (['typescript', 'mts', 'cts', 'tsx', 'js', 'javascript', 'mjs', 'jsx'].includes(language))
    return `a fence '${language}' is not checked; write 'ts' (or 'cjs' for require)`
  if (language === 'ts' && info.some((word) => word !== 'run')) return `'ts ${info.join(' ')}': only 'ts' and 'ts run' exist`
  return undefined
}

/** Lines of shell fences, and inline code: `npm run x` in a sentence misleads as well as one in a fence. */
export function commandsOf({ fences, spans }: Page): Span[] {
  const shell = fences.filter(({ language }) => ['sh', 'bash', 'shell', 'console'].includes(language))
  return [...shell.flatMap(({ code, line }) => code.split('\n').map((text, index) => ({ code: text, line: line + index }))), ...spans]
}

export interface Known {
  readonly scripts: ReadonlySet<string>
  readonly packages: ReadonlySet<string>
}

const npmCommands = new Set(['install', 'i', 'add', 'ci', 'init', 'exec', 'view', 'pack', 'publish', 'version', 'config', 'create', 'dlx'])

/** A wrong `npm` or `pnpm` command: a script that does not exist, a package that is neither ours nor used here. */
export function shellProblem(line: string, known: Known): string | undefined {
  for (const part of line.split(/&&|\|\||[;|]/)) {
    const [program, ...words] = part
      .trim()
      .replace(/^\$\s+/, '')
      .replace(/\s#.*$/, '')
      .split(/\s+/)
    if (program !== 'npm' && program !== 'pnpm') continue
    const [command = '', ...rest] = words.filter((word) => !word.startsWith('-'))
    if (command === 'run' || !npmCommands.has(command)) {
      const script = command === 'run' ? (rest[0] ?? '') : command
      if (script !== '' && !known.scripts.has(script)) return `'${part.trim()}': package.json has no script '${script}'`
    } else if (['install', 'i', 'add'].includes(command)) {
      for (const name of rest.map((word) => word.replace(/(?!^)@.*$/, '')))
        if (!known.packages.has(name)) return `'${part.trim()}': nothing here is or uses a package '${name}'`
    }
  }
  return undefined
}

function known(): Known {
  const manifests = ['package.json', 'test/package.json', 'examples/package.json'].map((path) => readManifest(join(root, path)))
  manifests.push(...packages().map(({ manifest }) => manifest))
  const used = manifests.flatMap((m) => Object.keys({ ...m.dependencies, ...m.devDependencies, ...m.peerDependencies }))
  return {
    scripts: new Set(Object.keys(manifests[0]?.scripts ?? {})),
    packages: new Set([...used, ...packages().map(({ manifest }) => manifest.name)]),
  }
}

export const docsCode: Check = {
  name: 'docs: code',
  proves: 'every ts fence compiles, every ts run fence runs, commands name scripts and packages that exist',
  async run(report) {
    const fences = pages().flatMap((page) => parsePage(read(page)).fences.map((fence): CodeFence => ({ ...fence, page })))
    if (!pages().includes('README.md')) report.fail('README.md does not exist')
    for (const fence of fences) {
      const problem = fenceProblem(fence)
      if (problem !== undefined) report.fail(`${fence.page}:${fence.line} ${problem}`)
    }
    const names = known()
    for (const page of pages())
      for (const { code, line } of commandsOf(parsePage(read(page)))) {
        const wrong = shellProblem(code, names)
        if (wrong !== undefined) report.fail(`${page}:${line} ${wrong}`)
      }
    const code = fences.filter(({ language }) => language === 'ts' || language === 'cjs')
    report.note(`${pages().length} pages, ${code.length} fences of code`)
    if (code.length > 0) await compileAndRun(code, report)
  },
}

async function compileAndRun(fences: readonly CodeFence[], report: Report): Promise<void> {
  // Inside test/, whose package.json names every package of ours, so that imports resolve as they do for a user.
  const parent = join(root, 'test', '.tmp')
  mkdirSync(parent, { recursive: true })
  const folder = temporaryFolder('docs', parent)
  const placed = fences.map((fence) => {
    const name = `${fence.page.replaceAll('/', '__')}.${fence.line}.${fence.language}`
    // `export {}` after the code makes a module of a fence without imports: two pages may both declare `const proxy`.
    const end = fence.language === 'ts' ? '\nexport {}\n' : '\n'
    writeFileSync(join(folder, name), '\n'.repeat(fence.line - 1) + fence.code + end)
    return { fence, name, path: join(folder, name) }
  })
  const off = { composite: false, isolatedDeclarations: false, declaration: false, declarationMap: false, importHelpers: false }
  const config = { extends: join(root, 'tsconfig.base.json'), compilerOptions: { ...off, noEmit: true }, include: ['*.ts'] }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))

  const { code, output, timedOut } = await execute(tool('tsc'), ['-p', folder, '--pretty', 'false'], { cwd: folder, timeout: 120_000 })
  const errors = output.split('\n').filter((line) => line.includes('error TS'))
  for (const line of errors)
    report.fail(
      line.replace(
        /^(\S+?)\.md\.\d+\.ts\((\d+),(\d+)\)/,
        (_, page: string, row, column) => `${page.replaceAll('__', '/')}.md:${row}:${column}`,
      ),
    )
  if ((code !== 0 || timedOut) && errors.length === 0) report.fail(`tsc ended with ${code}\n${tail(output)}`)

  for (const { fence, name, path } of placed) {
    const args = fence.language === 'cjs' ? ['--check', path] : fence.info.includes('run') ? [path] : undefined
    if (args === undefined) continue
    const result = await execute(process.execPath, args, { timeout: runLimit })
    if (result.code !== 0)
      report.fail(
        `${fence.page}:${fence.line} ended with ${result.code ?? 'a signal'}\n${tail(result.output.replaceAll(name, fence.page))}`,
      )
  }
}

if (import.meta.main) await standalone(docsCode)
