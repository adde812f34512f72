import { describe, expect, it } from 'vitest'
import { publicSurface, snapshot } from './exports.ts'
import { exportsOf } from './syntax.ts'
import { packages } from './workspace.ts'

describe('public names', () => {
  const surface = publicSurface()

  it('are the listed ones (after a wanted change: pnpm run exports:update)', () => {
    expect(surface).toEqual(snapshot())
  })

  // The list above is read from the sources; what the module really exports must agree, or the list is worth nothing.
  it.each(packages().map(({ manifest, path }) => [manifest.name, path] as const))('of %s exist at run time', async (name, path) => {
    const module = (await import(`${path}/src/index.ts`)) as object
    expect(Object.keys(module).sort()).toEqual(surface[name]?.values)
  })
})

describe('reading exports', () => {
  const names = (modules: Record<string, string>): unknown =>
    exportsOf(
      'index',
      (path) => modules[path] ?? '',
      (_, specifier) => specifier.replace(/^\.\/|\.ts$/g, ''),
    )

  it('tells values from types and follows export *', () => {
    const index = [
      `export { a, b as c, type T } from './a.ts'`,
      `export type { U } from './a.ts'`,
      `export * from './star.ts'`,
      `export * as space from './a.ts'`,
      `export interface I {}`,
      `export function f() {}`,
      `export const x = 1, y = 2`,
      `export class K {}`,
      `export type Z = string`,
    ].join('\n')
    expect(names({ index, star: `export const inner = 1\nexport type Inner = string\nconst hidden = 1` })).toEqual({
      values: ['K', 'a', 'c', 'f', 'inner', 'space', 'x', 'y'],
      types: ['I', 'Inner', 'T', 'U', 'Z'],
    })
  })

  it('takes export type * as types only', () => {
    expect(names({ index: `export type * from './star.ts'`, star: `export class K {}` })).toEqual({ values: [], types: ['K'] })
  })
})
