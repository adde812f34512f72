/**
 * docs/errors.md lists exactly the codes of core's error table, with the same status and RFC 9209 type. The page is a table with the
 * columns Code, Status and Type (others as one likes); a code without a type has a dash.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { tableRows } from './markdown.ts'
import { type Check, standalone } from './report.ts'
import { read, root } from './workspace.ts'

const page = 'docs/errors.md'

export type ErrorRows = Readonly<Record<string, { readonly status: number; readonly type: string | undefined }>>

/** @returns one line per difference between the page and the table */
export function differences(text: string, table: ErrorRows): string[] {
  const wrong: string[] = []
  const seen = new Set<string>()
  for (const { header, cells, line } of tableRows(text)) {
    const cell = (name: string): string => (cells[header.findIndex((title) => title.toLowerCase() === name)] ?? '').replaceAll('`', '')
    const code = cell('code')
    if (!code.startsWith('ERR_')) continue
    const row = table[code]
    if (seen.has(code)) wrong.push(`${page}:${line} ${code} is listed twice`)
    seen.add(code)
    if (row === undefined) {
      wrong.push(`${page}:${line} ${code} is not in the error table`)
      continue
    }
    if (cell('status') !== String(row.status)) wrong.push(`${page}:${line} ${code} has status ${row.status}, not '${cell('status')}'`)
    const type = /^[-–—]?$/.test(cell('type')) ? undefined : cell('type')
    if (type !== row.type) wrong.push(`${page}:${line} ${code} has type ${row.type ?? '(none)'}, not '${cell('type')}'`)
  }
  for (const code of Object.keys(table)) if (!seen.has(code)) wrong.push(`${page} does not list ${code}`)
  return wrong
}

export const docsErrors: Check = {
  name: 'docs: errors',
  proves: 'docs/errors.md lists exactly the codes, statuses and types of the error table',
  async run(report) {
    if (!existsSync(join(root, page))) {
      report.skipCheck(`${page} does not exist`)
      return
    }
    const { errorTable } = await import('@weir/core')
    for (const line of differences(read(page), errorTable)) report.fail(line)
    report.note(`${Object.keys(errorTable).length} codes`)
  },
}

if (import.meta.main) await standalone(docsErrors)
