/**
 * The little of Markdown that the docs checks need: fenced code, links, and the anchors that GitHub makes of headings. Fences and inline
 * code are blanked before links are looked for, keeping every offset, so that a line number found later is the line in the file.
 */

export interface Fence {
  /** First word of the info string; empty for a bare fence. */
  readonly language: string
  /** The words after it. */
  readonly info: readonly string[]
  readonly code: string
  /** Line of the first line of code, from 1. */
  readonly line: number
}

export interface Link {
  readonly target: string
  readonly line: number
}

/** Inline code. */
export interface Span {
  readonly code: string
  readonly line: number
}

export interface Page {
  readonly fences: readonly Fence[]
  readonly spans: readonly Span[]
  readonly links: readonly Link[]
  readonly anchors: ReadonlySet<string>
}

export function parsePage(source: string): Page {
  const fences: Fence[] = []
  const prose: string[] = []
  let open: { mark: string; indent: number; language: string; info: string[]; code: string[]; line: number } | undefined
  source.split('\n').forEach((line, index) => {
    const match = /^(\s*(?:>\s?)?)(`{3,}|~{3,})\s*([^`]*)$/.exec(line)
    if (open !== undefined) {
      const [, , mark = '', info = ''] = match ?? []
      if (mark.startsWith(open.mark) && info.trim() === '') {
        fences.push({ language: open.language, info: open.info, code: open.code.join('\n'), line: open.line })
        open = undefined
      } else open.code.push(line.slice(Math.min(open.indent, line.length - line.trimStart().length)))
      prose.push('')
    } else if (match !== null) {
      const [, lead = '', mark = '', info = ''] = match
      const [language = '', ...words] = info.trim().split(/\s+/)
      open = { mark, indent: lead.length, language, info: words, code: [], line: index + 2 }
      prose.push('')
    } else prose.push(line)
  })
  // A fence that is never closed swallows the rest of the page, as it does when rendered; its code is checked all the same.
  if (open !== undefined) fences.push({ language: open.language, info: open.info, code: open.code.join('\n'), line: open.line })
  const text = prose.join('\n')
  const spans = [...text.matchAll(spanPattern)].map((match) => ({ code: (match[2] ?? '').trim(), line: lineAt(text, match.index) }))
  return { fences, spans, links: linksOf(text), anchors: anchorsOf(prose) }
}

const spanPattern = /(`+)((?:(?!\1)[\s\S])*?)\1/g

const lineAt = (text: string, offset: number): number => text.slice(0, offset).split('\n').length

function linksOf(page: string): Link[] {
  const text = page.replace(spanPattern, (code) => code.replace(/[^\n]/g, ' '))
  const patterns = [
    /\]\(\s*<?([^\s)>]+)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/g, // [text](target), ![image](target "title")
    /^\s{0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)/gm, // [reference]: target
    /<(?:a|img)\s[^>]*?(?:href|src)="([^"]+)"/g,
  ]
  return patterns.flatMap((pattern) =>
    [...text.matchAll(pattern)].map((match) => ({
      target: match[1] ?? '',
      line: lineAt(text, match.index + match[0].search(/\S/)),
    })),
  )
}

function anchorsOf(prose: readonly string[]): Set<string> {
  const anchors = new Set<string>()
  const seen = new Map<string, number>()
  for (const line of prose) {
    for (const match of line.matchAll(/<[^>]+?\s(?:id|name)="([^"]+)"/g)) anchors.add(match[1] ?? '')
    const heading = /^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$/.exec(line)
    if (heading === null) continue
    const slug = slugOf(heading[1] ?? '')
    const count = seen.get(slug) ?? 0
    seen.set(slug, count + 1)
    anchors.add(count === 0 ? slug : `${slug}-${count}`)
  }
  return anchors
}

/** GitHub's rule: the rendered text in lower case, without punctuation, blanks as hyphens. */
export function slugOf(heading: string): string {
  return heading
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/<[^>]+>/g, '')
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}\p{Pc}\- ]/gu, '')
    .replaceAll(' ', '-')
}

/** Cells of the table rows of a page, each with its header row. */
export function tableRows(
  text: string,
): { readonly header: readonly string[]; readonly cells: readonly string[]; readonly line: number }[] {
  const rows: { header: string[]; cells: string[]; line: number }[] = []
  let header: string[] | undefined
  const lines = text.split('\n')
  lines.forEach((line, index) => {
    if (!/^\s*\|.*\|\s*$/.test(line)) header = undefined
    else if (header === undefined) header = cellsOf(line)
    else if (!/^[\s|:-]+$/.test(line)) rows.push({ header, cells: cellsOf(line), line: index + 1 })
  })
  return rows
}

function cellsOf(line: string): string[] {
  return line
    .trim()
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim())
}
