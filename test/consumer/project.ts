/** A fresh project that has installed the tarballs with npm, as a user would; made once per process. */
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execute, tail } from '../checks/execute.ts'
import { readManifest, root, temporaryFolder } from '../checks/workspace.ts'
import { tarballs } from './pack.ts'

let made: Promise<string> | undefined

/** @returns its folder */
export function project(): Promise<string> {
  made ??= make()
  return made
}

async function make(): Promise<string> {
  const folder = temporaryFolder('consumer')
  cpSync(fileURLToPath(new URL('./fixture', import.meta.url)), folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }))
  const files = (await tarballs()).map(({ tarball }) => tarball)
  const types = `@types/node@${readManifest(join(root, 'package.json')).devDependencies?.['@types/node']}`
  const args = ['install', '--no-audit', '--no-fund', '--loglevel=error', ...files, types]
  const { code, output } = await execute('npm', args, { cwd: folder, timeout: 300_000 })
  if (code !== 0) throw new Error(`npm install of the tarballs ended with ${code ?? 'a signal'}\n${tail(output)}`)
  return folder
}
