/**
 * Packages point at core and nowhere else, or a fix in one of them drags all of them along. What may import what:
 *
 * - core imports none of ours;
 * - a package imports `@weir/core`;
 * - an adapter (`redis`, `status`, `testing`) implements ports that other packages define, so it may also import their *types*;
 * - test files may import `@weir/testing` besides;
 * - nobody reaches into another package (`@weir/core/...`, `../../core/...`), nor imports itself by name.
 *
 * The manifests say the same: core is a peer, so that an application holds one copy of it.
 */
import { posix } from 'node:path'
import { type Check, type Report, standalone } from './report.ts'
import { importsOf } from './syntax.ts'
import { files, type Manifest, packages, read } from './workspace.ts'

const scope = '@weir/'
const adapters: ReadonlySet<string> = new Set(['redis', 'status', 'testing'])

export interface SourceFile {
  /** From the root: `packages/<folder>/src/...`. */
  readonly path: string
  readonly text: string
}

const isTest = (path: string): boolean => /\.test(?:-d)?\.ts$/.test(path)

/** @returns one line `file:line message` per wrong import */
export function wrongImports(sources: readonly SourceFile[]): string[] {
  const wrong: string[] = []
  for (const { path, text } of sources) {
    const [, folder = ''] = path.split('/')
    for (const { specifier, typeOnly, line } of importsOf(text)) {
      const reason = specifier.startsWith('.') ? relativeReason(path, specifier) : packageReason(folder, specifier, typeOnly, isTest(path))
      if (reason !== undefined) wrong.push(`${path}:${line} imports '${specifier}': ${reason}`)
    }
  }
  return wrong
}

function relativeReason(path: string, specifier: string): string | undefined {
  const source = path.split('/').slice(0, 3).join('/')
  const target = posix.join(posix.dirname(path), specifier)
  return target.startsWith(`${source}/`) ? undefined : `leaves ${source}; import the package by its name`
}

function packageReason(folder: string, specifier: string, typeOnly: boolean, test: boolean): string | undefined {
  if (!specifier.startsWith(scope)) return undefined
  const [target = '', ...deeper] = specifier.slice(scope.length).split('/')
  if (deeper.length > 0) return 'deep imports are closed; export it from the index or do without'
  if (target === folder) return 'a package imports itself by relative paths'
  if (test && target === 'testing') return undefined
  if (folder === 'core') return 'core imports none of our packages'
  if (target === 'core') return undefined
  if (!adapters.has(folder)) return `only @weir/core may be imported${test ? ' (and @weir/testing in tests)' : ''}`
  return typeOnly ? undefined : 'an adapter may import only types of other packages: write `import type`'
}

/** @returns one line per wrong entry of a package's manifest */
export function wrongManifests(manifests: readonly { readonly folder: string; readonly manifest: Manifest }[]): string[] {
  const wrong: string[] = []
  for (const { folder, manifest } of manifests) {
    const say = (field: string, name: string, reason: string): void =>
      void wrong.push(`packages/${folder}/package.json ${field} '${name}': ${reason}`)
    if (manifest.name !== scope + folder) say('name', manifest.name, `expected ${scope}${folder}, after its folder`)
    for (const field of ['dependencies', 'optionalDependencies'] as const)
      for (const name of ours(manifest[field])) say(field, name, 'ours are peer dependencies, so that there is one copy')
    for (const name of ours(manifest.peerDependencies)) {
      if (folder === 'core') say('peerDependencies', name, 'core depends on none of ours')
      else if (name !== `${scope}core` && !adapters.has(folder)) say('peerDependencies', name, 'only @weir/core')
    }
    for (const name of ours(manifest.devDependencies)) {
      const allowed = name === `${scope}testing` || (folder !== 'core' && (name === `${scope}core` || adapters.has(folder)))
      if (!allowed) say('devDependencies', name, 'only @weir/core and @weir/testing')
    }
    if (folder !== 'core' && manifest.peerDependencies?.[`${scope}core`] === undefined) say('peerDependencies', `${scope}core`, 'missing')
  }
  return wrong
}

function ours(dependencies: Readonly<Record<string, string>> | undefined): string[] {
  return Object.keys(dependencies ?? {}).filter((name) => name.startsWith(scope))
}

export const importDirection: Check = {
  name: 'import direction',
  proves: 'every package imports only @weir/core of ours; adapters import types; no deep imports',
  async run(report: Report) {
    const paths = files('packages').filter((path) => /^packages\/[^/]+\/src\/.*\.ts$/.test(path))
    for (const line of wrongImports(paths.map((path) => ({ path, text: read(path) })))) report.fail(line)
    for (const line of wrongManifests(packages())) report.fail(line)
    report.note(`${paths.length} source files, ${packages().length} manifests`)
  },
}

if (import.meta.main) await standalone(importDirection)
