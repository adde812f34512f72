/**
 * The public surface, listed. A name that slips into an index is a promise to everybody who installs the package, and a name that slips
 * out breaks them; so both show up as a changed line of exports.snapshot.json, to be looked at. `pnpm run exports:update` rewrites it.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { exportsOf, type PublicNames } from './syntax.ts'
import { packages } from './workspace.ts'

export type PublicSurface = Readonly<Record<string, PublicNames>>

const snapshotFile = fileURLToPath(new URL('./exports.snapshot.json', import.meta.url))

export function publicSurface(): PublicSurface {
  const surface: Record<string, PublicNames> = {}
  for (const { manifest, path } of packages()) {
    const index = join(path, 'src', 'index.ts')
    surface[manifest.name] = exportsOf(
      index,
      (file) => readFileSync(file, 'utf8'),
      (from, specifier) => join(dirname(from), specifier),
    )
  }
  return surface
}

export function snapshot(): PublicSurface {
  return existsSync(snapshotFile) ? (JSON.parse(readFileSync(snapshotFile, 'utf8')) as PublicSurface) : {}
}

if (import.meta.main) {
  const surface = publicSurface()
  writeFileSync(snapshotFile, `${JSON.stringify(surface, null, 2)}\n`)
  for (const [name, { values, types }] of Object.entries(surface)) console.log(`${name}: ${values.length} values, ${types.length} types`)
}
