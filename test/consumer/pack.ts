/** Packs every package as a release would, once per process: the checks of manifests and the consumer test look at the same tarballs. */
import { join } from 'node:path'
import { execute, tail } from '../checks/execute.ts'
import { type Manifest, type Package, packages, read, temporaryFolder } from '../checks/workspace.ts'

export interface Packed extends Package {
  readonly name: string
  readonly tarball: string
}

/** The command that the scripts use, so that there is one place that names the version. */
function pnpm(): { readonly program: string; readonly args: readonly string[] } {
  const { scripts = {} } = JSON.parse(read('package.json')) as Manifest
  const pinned = Object.values(scripts)
    .map((script) => /\bpnpm@\d+\.\d+\.\d+/.exec(script)?.[0])
    .find((match) => match !== undefined)
  if (pinned === undefined) throw new Error('no script of package.json names the version of pnpm')
  return { program: 'npx', args: ['--yes', pinned, '--pm-on-fail=ignore'] }
}

let packed: Promise<Packed[]> | undefined

export function tarballs(): Promise<Packed[]> {
  packed ??= pack()
  return packed
}

async function pack(): Promise<Packed[]> {
  const folder = temporaryFolder('packed')
  const { program, args } = pnpm()
  const all = packages()
  const { code, output } = await execute(program, [...args, '--filter', './packages/*', 'pack', '--pack-destination', folder], {
    timeout: 180_000,
  })
  if (code !== 0) throw new Error(`pnpm pack ended with ${code ?? 'a signal'}\n${tail(output)}`)
  return all.map((one) => {
    const { name, version = '' } = one.manifest
    return { ...one, name, tarball: join(folder, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`) }
  })
}
