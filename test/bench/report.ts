/** Figures as Markdown, in one form for the terminal and for docs/performance.md. */
import type { Standings } from './contest.ts'

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map((cell) => (cell === 'NaN' ? '-' : cell)).join(' | ')} |`
  return [line(head), `|---|${'--:|'.repeat(head.length - 1)}`, ...rows.map(line)].join('\n')
}

export function factor(ratio: number | undefined): string {
  return ratio === undefined || Number.isNaN(ratio) ? '-' : ratio.toFixed(2)
}

/** `1.03 × (1.01-1.06 over the rounds)`. */
export function standing(standings: Standings, name: string, metric: string, to: string): string {
  const row = standings.find((each) => each.name === name)
  const spread = row?.spread(metric, to)
  return `${factor(row?.ratio(metric, to))} ×${spread === undefined ? '' : ` (${spread.map(factor).join('-')} over the rounds)`}`
}

export function failuresOf(standings: Standings): string[] {
  return standings.flatMap((row) => (row.failed === undefined ? [] : [`${row.name}: ${row.failed}`]))
}
