/**
 * Reads imports and exports out of TypeScript sources with a real parser (the one that vitest brings), since a pattern would also match
 * comments and strings, and would miss `import type` spread over lines. Only the few node shapes that matter are named here.
 */
import { parseAst } from 'vitest/node'

interface Named {
  readonly type: string
  readonly name?: string
  readonly value?: unknown
}
interface Specifier {
  readonly type: string
  readonly importKind?: 'type' | 'value'
  readonly exportKind?: 'type' | 'value'
  readonly exported?: Named
}
interface Declaration {
  readonly type: string
  readonly id?: Named
  readonly declarations?: readonly { readonly id: Named }[]
}
interface Statement {
  readonly type: string
  readonly start: number
  readonly source?: { readonly value: string } | null
  readonly specifiers?: readonly Specifier[]
  readonly importKind?: 'type' | 'value'
  readonly exportKind?: 'type' | 'value'
  readonly exported?: Named | null
  readonly declaration?: Declaration | null
}

export interface Import {
  readonly specifier: string
  /** True when nothing of it is left at run time. */
  readonly typeOnly: boolean
  readonly line: number
}

function parse(text: string): readonly Statement[] {
  // vite types the options of the parser by its JavaScript use; the parser itself takes `lang`.
  const program = parseAst(text, { lang: 'ts' } as unknown as Parameters<typeof parseAst>[1])
  return program.body as unknown as readonly Statement[]
}

/** Every import, re-export, dynamic import and `import('x')` type. */
export function importsOf(text: string): Import[] {
  const found: Import[] = []
  const line = (offset: number): number => text.slice(0, offset).split('\n').length
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) {
      for (const item of value) visit(item)
      return
    }
    if (typeof value !== 'object' || value === null) return
    const node = value as Statement & { readonly expression?: { readonly value?: unknown } }
    const specifier = node.source?.value ?? (node.type === 'TSExternalModuleReference' ? node.expression?.value : undefined)
    if (typeof specifier === 'string') found.push({ specifier, typeOnly: isTypeOnly(node), line: line(node.start) })
    for (const child of Object.values(value)) visit(child)
  }
  visit(parse(text))
  return found.sort((a, b) => a.line - b.line)
}

function isTypeOnly(node: Statement): boolean {
  if (node.type === 'TSImportType' || node.importKind === 'type' || node.exportKind === 'type') return true
  // `import { type A } from 'x'` is type-only in meaning, but under verbatimModuleSyntax it still loads 'x'.
  return false
}

export interface PublicNames {
  readonly values: readonly string[]
  readonly types: readonly string[]
}

/** The names that a module exports, `export *` followed. `load` gives the text behind a relative specifier. */
export function exportsOf(path: string, load: (path: string) => string, resolve: (from: string, specifier: string) => string): PublicNames {
  const values = new Set<string>()
  const types = new Set<string>()
  const add = (name: Named | null | undefined, typeOnly: boolean): void => {
    const text = name?.name ?? name?.value
    if (typeof text === 'string') (typeOnly ? types : values).add(text)
  }
  for (const node of parse(load(path))) {
    if (node.type === 'ExportAllDeclaration') {
      if (node.exported) add(node.exported, node.exportKind === 'type')
      else if (node.source) {
        const inner = exportsOf(resolve(path, node.source.value), load, resolve)
        for (const name of inner.types) types.add(name)
        for (const name of inner.values) (node.exportKind === 'type' ? types : values).add(name)
      }
    } else if (node.type === 'ExportDefaultDeclaration') values.add('default')
    else if (node.type === 'ExportNamedDeclaration') {
      const typeOnly = node.exportKind === 'type'
      for (const item of node.specifiers ?? []) add(item.exported, typeOnly || item.exportKind === 'type')
      add(node.declaration?.id, typeOnly)
      for (const item of node.declaration?.declarations ?? []) add(item.id, false)
    }
  }
  return { values: [...values].sort(), types: [...types].sort() }
}
