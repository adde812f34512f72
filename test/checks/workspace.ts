/**
 * The repository as the checks see it: its packages and its files. Files are found by walking, not by asking git, because a copy of the
 * sources without git (or a machine without it) must pass the same checks.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root: string = fileURLToPath(new URL('../../', import.meta.url)).replace(/[\\/]$/, '')

export interface Manifest {
  readonly name: string
  readonly version?: string
  readonly private?: boolean
  readonly scripts?: Readonly<Record<string, string>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
  readonly peerDependenciesMeta?: Readonly<Record<string, { readonly optional?: boolean }>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

export interface Package {
  /** Folder below `packages/`. */
  readonly folder: string
  readonly path: string
  readonly manifest: Manifest
}

export function readManifest(path: string): Manifest {
  return JSON.parse(readFileSync(path, 'utf8')) as Manifest
}

export function packages(): Package[] {
  return readdirSync(join(root, 'packages'))
    .filter((folder) => existsSync(join(root, 'packages', folder, 'package.json')))
    .sort()
    .map((folder) => {
      const path = join(root, 'packages', folder)
      return { folder, path, manifest: readManifest(join(path, 'package.json')) }
    })
}

/** The same list as .gitignore: what is made and never committed. */
const ignored = /^(?:node_modules|dist|coverage|\.tmp|\.git)$|\.(?:tgz|tsbuildinfo)$/

/** Every file that is or may be committed, as a path from the root with `/`. */
export function files(below = ''): string[] {
  const found: string[] = []
  const visit = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (ignored.test(entry.name)) continue
      const path = join(folder, entry.name)
      if (entry.isDirectory()) visit(path)
      else if (entry.isFile()) found.push(relative(root, path).split(sep).join('/'))
    }
  }
  if (existsSync(join(root, below))) visit(join(root, below))
  return found.sort()
}

export function read(path: string): string {
  return readFileSync(join(root, path), 'utf8')
}

/** A folder that goes when this process ends. Inside `inside`, or else in the temporary folder of the system. */
export function temporaryFolder(name: string, inside: string = tmpdir()): string {
  const path = mkdtempSync(join(inside, `weir-${name}-`))
  process.once('exit', () => rmSync(path, { recursive: true, force: true }))
  return path
}
