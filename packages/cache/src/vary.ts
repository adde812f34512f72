/**
 * `Vary` (RFC 9110 §12.5.5, RFC 9111 §4.1): which request a stored response was chosen for. Requests that differ in nothing the origin could have meant are
 * made equal first, or a header with a hundred spellings makes a hundred copies: lines are joined, spaces around commas go, the codings and languages that a
 * client takes are put in order.
 */
import type { HeaderList } from '@weir/core'

/** Lower-case names; undefined without the field, '*' when it varies by what no field tells. */
export function varyNames(headers: HeaderList): readonly string[] | '*' | undefined {
  const field = headers.get('vary')
  if (field === undefined) return undefined
  const names = new Set<string>()
  for (const part of field.split(',')) {
    const name = part.trim().toLowerCase()
    if (name === '*') return '*'
    if (name !== '') names.add(name)
  }
  return names.size === 0 ? undefined : [...names].sort()
}

/** Stands for a field that the request does not have. */
const absent = '\u0000'

/** What the request says in these fields: flat list of names and normalised values. */
export function selectingFields(names: readonly string[], request: HeaderList): string[] {
  const fields: string[] = []
  for (const name of names) fields.push(name, normalized(name, request))
  return fields
}

/** @param fields of the stored response @param contentLanguage the stored response's, if it has one language */
export function matches(
  fields: readonly string[],
  request: HeaderList,
  contentLanguage: string | undefined,
  known: Map<string, string> = new Map(),
): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    let value = known.get(name)
    // Once for a request, however many variants there are.
    if (value === undefined) {
      value = normalized(name, request)
      known.set(name, value)
    }
    if (value === fields[i + 1]) continue
    // Whoever wants this language before all others gets what the origin has in it.
    if (name === 'accept-language' && contentLanguage !== undefined && firstChoice(value) === contentLanguage) continue
    return false
  }
  return true
}

function normalized(name: string, request: HeaderList): string {
  const value = request.get(name)
  if (value === undefined) return absent
  if (name === 'accept-encoding') return rankedOnce(value, false)
  if (name === 'accept-language') return rankedOnce(value, true)
  return value
    .split(',')
    .map((part) => part.trim())
    .join(',')
}

const rankings = new Map<string, string>()

/** Browsers send a few dozen values between them; long ones are not worth a place. */
function rankedOnce(value: string, byWeight: boolean): string {
  if (value.length > 128) return ranked(value, byWeight)
  const name = byWeight ? `l${value}` : value
  const known = rankings.get(name)
  if (known !== undefined) return known
  const made = ranked(value, byWeight)
  if (rankings.size >= 1000) rankings.clear()
  rankings.set(name, made)
  return made
}

/** `a,b;q=0.5` as `a>b`: what is liked equally in alphabetical order, weights only as an order. What is not taken is listed behind `!`. */
function ranked(value: string, byWeight: boolean): string {
  const taken: { readonly name: string; readonly weight: number }[] = []
  const refused: string[] = []
  for (const part of value.split(',')) {
    const [name = '', ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase())
    if (name === '') continue
    const q = parameters.find((parameter) => parameter.startsWith('q='))
    const weight = q === undefined ? 1 : Number(q.slice(2))
    if (weight === 0) refused.push(name)
    else taken.push({ name, weight: byWeight && weight > 0 ? weight : 1 })
  }
  taken.sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1))
  let text = ''
  taken.forEach(({ name, weight }, index) => {
    if (index > 0) text += taken[index - 1]?.weight === weight ? '=' : '>'
    text += name
  })
  return refused.length === 0 ? text : `${text}!${refused.sort().join('=')}`
}

/** The one language that is wanted before all others. */
function firstChoice(ranking: string): string | undefined {
  const [first = ''] = ranking.split(/[>!]/, 1)
  return first === '' || first.includes('=') ? undefined : first
}
