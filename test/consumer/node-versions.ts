/**
 * The Node.js versions that `engines` promises, each at its floor: the newest one runs all other tests already, and it is the oldest that
 * lacks things. They come from the npm packages that carry the binaries, kept in the temporary folder of the system between runs.
 */
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execute, tail } from '../checks/execute.ts'

export const nodeVersions: readonly string[] = ['22.19.0', '24.11.0', '26.10.0']

/** As the npm package `node` names them. */
function platformPackage(): string {
  if (process.platform === 'win32') return `node-win-${process.arch === 'ia32' ? 'x86' : process.arch}`
  return `${process.platform === 'darwin' && process.arch === 'arm64' ? 'node-bin' : 'node'}-${process.platform}-${process.arch}`
}

/** @returns the path of the binary */
export async function nodeBinary(version: string): Promise<string> {
  const name = platformPackage()
  const kept = join(tmpdir(), `weir-node-${version}`)
  const binary = join('node_modules', name, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
  if (existsSync(join(kept, binary))) return join(kept, binary)
  // Installed beside and moved into place, so that an interrupted run leaves no half of it behind.
  const folder = `${kept}-${process.pid}`
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{"private":true}')
  const args = ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', `${name}@${version}`]
  const { code, output } = await execute('npm', args, { cwd: folder, timeout: 180_000 })
  if (code !== 0) throw new Error(`npm could not install ${name}@${version}\n${tail(output)}`)
  if (existsSync(kept)) rmSync(kept, { recursive: true })
  renameSync(folder, kept)
  return join(kept, binary)
}
