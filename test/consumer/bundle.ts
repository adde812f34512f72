/** Bundles a file of the consumer project with the bundler that vite brings, and says what got in. */
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../checks/workspace.ts'

/** The part of rolldown's interface that is used here; it is a dependency of a dependency, so its own types are out of reach. */
interface Rolldown {
  rolldown(options: { input: string; platform: 'node'; cwd: string }): Promise<{
    write(options: { file: string; minify: boolean }): Promise<{ output: readonly { code?: string; moduleIds?: readonly string[] }[] }>
    close(): Promise<void>
  }>
}

export interface BundleSize {
  readonly bytes: number
  /** Names of the packages with a module in the bundle. */
  readonly packages: readonly string[]
  readonly output: string
}

export async function bundleSize(folder: string, input: string): Promise<BundleSize> {
  const fromVitest = createRequire(createRequire(join(root, 'package.json')).resolve('vitest/package.json'))
  const fromVite = createRequire(fromVitest.resolve('vite/package.json'))
  const { rolldown } = (await import(pathToFileURL(fromVite.resolve('rolldown')).href)) as Rolldown
  const build = await rolldown({ input: join(folder, input), platform: 'node', cwd: folder })
  const output = join(folder, 'bundle', 'out.mjs')
  const written = await build.write({ file: output, minify: true })
  await build.close()
  const names = written.output.flatMap(({ moduleIds = [] }) =>
    moduleIds.map((id) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id.replaceAll('\\', '/'))?.[1]),
  )
  return {
    bytes: written.output.reduce((sum, { code = '' }) => sum + Buffer.byteLength(code), 0),
    packages: [...new Set(names.filter((name) => name !== undefined))].sort(),
    output,
  }
}
