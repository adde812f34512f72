/** Where and with what a run took place: without it no figure means anything. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, release, type as system, totalmem } from 'node:os'
import { dirname, join } from 'node:path'

const withheld = new Set<string>()
const found = new Map<string, string | undefined>()

/** Behave as if these programs were absent. */
export function withhold(names: readonly string[]): void {
  for (const name of names) withheld.add(name)
}

const versionFlag: Readonly<Record<string, string>> = { nginx: '-v', haproxy: '-v', wrk: '-v', caddy: 'version' }

/** First version number that the program prints about itself; undefined when it cannot be run. */
export function programVersion(name: string): string | undefined {
  if (!found.has(name)) {
    const { error, stdout, stderr } = spawnSync(name, [versionFlag[name] ?? '--version'], { encoding: 'utf8' })
    found.set(name, error ? undefined : (/\d+(\.\d+)+/.exec(`${stdout}${stderr}`)?.[0] ?? 'unknown'))
  }
  return found.get(name)
}

export function installed(name: string): boolean {
  return !withheld.has(name) && programVersion(name) !== undefined
}

/** Version of a package as installed beside this file. Read from its package.json, which `exports` may hide, hence the walk upwards. */
export function packageVersion(name: string): string {
  let directory = dirname(createRequire(import.meta.url).resolve(name))
  while (directory !== dirname(directory)) {
    try {
      const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as { name?: string; version?: string }
      if (manifest.name === name && manifest.version !== undefined) return manifest.version
    } catch {
      // No manifest at this level.
    }
    directory = dirname(directory)
  }
  return 'unknown'
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly kernel: string
  readonly memoryGiB: number
}

export function machine(): Machine {
  const list = cpus()
  return {
    cpu: list[0]?.model.trim() ?? 'unknown',
    cores: list.length,
    kernel: `${system()} ${release()}`,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
  }
}
