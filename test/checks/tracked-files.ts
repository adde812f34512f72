/**
 * Nothing committed may depend on the machine that it was written on: no absolute paths of a home or a working folder, no host of a
 * registry, neither in sources nor in the lock file, where a private mirror likes to leave its address.
 */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { type Check, standalone } from './report.ts'
import { files, root } from './workspace.ts'

const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
// Not behind a host, a scheme or another segment: `http://a/root/x` is a URL, not a path.
const before = '(?<![\\w.:/~*-])'

const patterns: readonly (readonly [RegExp, string])[] = [
  [new RegExp(`${before}\\/(?:root|work|home\\/\\w[\\w.-]*|Users\\/\\w[\\w.-]*)\\/[\\w.-]`), 'an absolute path of a machine'],
  [/\b[A-Za-z]:\\Users\\/, 'an absolute path of a machine'],
  [new RegExp(`${before}${literal(root)}(?![\\w-])`), 'the path of this working copy'],
  ...(homedir().length > 5 ? [[new RegExp(`${before}${literal(homedir())}(?![\\w-])`), 'the home folder'] as const] : []),
  [
    /\bregistry\.[\w-]+\.\w+|\bnpm\.pkg\.github\.com|https?:\/\/[\w.-]*(?:artifactory|nexus|verdaccio|codeartifact)[\w.-]*/i,
    'the host of a registry',
  ],
]

/** @returns one line `file:line message` per finding */
export function machineTraces(path: string, text: string): string[] {
  const found: string[] = []
  text.split('\n').forEach((line, index) => {
    for (const [pattern, what] of patterns) {
      const match = pattern.exec(line)
      if (match !== null) found.push(`${path}:${index + 1} ${what}: ${match[0]}`)
    }
  })
  return found
}

export const trackedFiles: Check = {
  name: 'tracked files',
  proves: 'no absolute paths of a machine and no registry hosts in any file',
  async run(report) {
    const paths = files()
    for (const path of paths) {
      const bytes = readFileSync(join(root, path))
      if (!bytes.includes(0)) for (const line of machineTraces(path, bytes.toString())) report.fail(line)
    }
    report.note(`${paths.length} files`)
  },
}

if (import.meta.main) await standalone(trackedFiles)
