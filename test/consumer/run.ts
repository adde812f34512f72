/**
 * The packages as their users meet them: packed, installed by npm into an empty project, compiled and run on every Node.js version that is
 * promised. Everything else here runs against the sources, where a missing file, a forgotten dependency or a wrong `exports` stays hidden.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execute, tail, tool } from '../checks/execute.ts'
import { type Check, standalone } from '../checks/report.ts'
import { packages } from '../checks/workspace.ts'
import { bundleSize } from './bundle.ts'
import { nodeBinary, nodeVersions } from './node-versions.ts'
import { project } from './project.ts'

const contents: Check = {
  name: 'consumer: files',
  proves: 'tarballs hold code, types, README and licence, and neither tests, sources nor leftovers',
  async run(report) {
    const folder = await project()
    for (const { manifest, path } of packages()) {
      const files = readdirSync(join(folder, 'node_modules', manifest.name), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) =>
          join(entry.parentPath, entry.name)
            .slice(join(folder, 'node_modules', manifest.name).length + 1)
            .replaceAll('\\', '/'),
        )
      for (const wanted of ['package.json', 'README.md', 'LICENSE', 'dist/index.js', 'dist/index.d.ts'])
        if (!files.includes(wanted)) report.fail(`${manifest.name} lacks ${wanted}`)
      for (const file of files) {
        if (/\.test\.|(?:^|\/)test\/|^src\/|\.tsbuildinfo$|(?<!\.d)\.ts$/.test(file))
          report.fail(`${manifest.name} should not hold ${file}`)
        // dist outlives its sources when a file is renamed; a tarball with such a leftover is not what the sources say.
        const source = /^dist\/(.+?)(?:\.d\.ts|\.js)$/.exec(file)?.[1]
        if (source !== undefined && !existsSync(join(path, 'src', `${source}.ts`)))
          report.fail(`${manifest.name} holds ${file}, which has no source: remove packages/*/dist and build again`)
      }
    }
  },
}

const resolutions = [
  ['NodeNext', 'NodeNext'],
  ['ESNext', 'bundler'],
] as const

const types: Check = {
  name: 'consumer: types',
  proves: 'an application compiles under NodeNext and under bundler resolution, library types included',
  async run(report) {
    const folder = await project()
    const lines = packages().map(({ manifest, folder: name }) => `export * as ${name.replaceAll('-', '_')} from '${manifest.name}'\n`)
    writeFileSync(join(folder, 'every-package.ts'), lines.join(''))
    for (const [module, moduleResolution] of resolutions) {
      const compilerOptions = {
        strict: true,
        noEmit: true,
        target: 'ES2023',
        module,
        moduleResolution,
        types: ['node'],
        skipLibCheck: false,
      }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }))
      const { code, output } = await execute(tool('tsc'), ['-p', folder, '--pretty', 'false'], { cwd: folder, timeout: 120_000 })
      if (code !== 0) report.fail(`moduleResolution ${moduleResolution}: tsc ended with ${code ?? 'a signal'}\n${tail(output)}`)
    }
  },
}

const runs = nodeVersions.map(
  (version): Check => ({
    name: `consumer: node ${version}`,
    proves: 'import and require both proxy a request; every package loads and has no entrance but its index',
    async run(report) {
      const folder = await project()
      const node = await nodeBinary(version)
      const reported = await execute(node, ['--version'], { timeout: 10_000 })
      if (reported.stdout.trim() !== `v${version}`) report.fail(`${node} says ${reported.output}`)
      for (const file of ['esm.mjs', 'commonjs.cjs', 'surface.mjs']) {
        const { code, output } = await execute(node, [join(folder, file)], { cwd: folder, timeout: 30_000 })
        if (code !== 0) report.fail(`${file} ended with ${code ?? 'a signal'}\n${tail(output)}`)
        else if (output.trim() !== '') report.fail(`${file} printed something (a warning?)\n${tail(output)}`)
      }
    },
  }),
)

const bundle: Check = {
  name: 'consumer: bundle',
  proves: 'one small import bundles; its size is reported',
  async run(report) {
    const { bytes, packages: names, output } = await bundleSize(await project(), 'bundled.js')
    report.note(`import { HeaderList }: ${(bytes / 1024).toFixed(1)} KiB from ${names.join(', ')}`)
    const { code, output: printed } = await execute(process.execPath, [output], { timeout: 20_000 })
    if (code !== 0 || !printed.includes("'A', '1'")) report.fail(`the bundle ended with ${code ?? 'a signal'}\n${tail(printed)}`)
  },
}

export const consumer: readonly Check[] = [contents, types, ...runs, bundle]

if (import.meta.main) {
  for (const check of consumer) {
    console.log(`\n== ${check.name}: ${check.proves}`)
    const before = process.exitCode
    await standalone(check)
    process.exitCode ||= before
  }
}
