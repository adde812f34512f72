/**
 * `Accept-Encoding` (RFC 9110 §12.5.3): which coding a client gets. The field is a list of wishes with weights, and the answer to wishes that
 * cannot be met is the body as it is, never a 406: a client that gets identity against its will can always read it.
 *
 * A field that cannot be read is read as far as it can. What is doubtful counts as "no": an entry whose weight makes no sense is not taken for
 * a wish, and of two entries for one coding the less willing one holds. The price of a wrong "no" is a larger body, that of a wrong "yes"
 * is a client that sees garbage.
 */
import { canonicalName } from './codings.ts'

/** A few digits more than the grammar has are no reason to refuse. */
const weightPattern = /^(?:[01]|[01]?\.\d{1,9}|[01]\.)$/

/** Weights by coding, in lower case, `*` and `identity` among them. */
export type Preferences = ReadonlyMap<string, number>

export function readPreferences(field: string): Preferences {
  const weights = new Map<string, number>()
  for (const entry of field.split(',')) {
    const [name = '', ...parameters] = entry.split(';')
    const coding = canonicalName(name.trim().toLowerCase())
    if (coding === '') continue
    const weight = weightOf(parameters)
    weights.set(coding, Math.min(weight, weights.get(coding) ?? 1))
  }
  return weights
}

function weightOf(parameters: readonly string[]): number {
  for (const parameter of parameters) {
    const equals = parameter.indexOf('=')
    if (parameter.slice(0, Math.max(equals, 0)).trim().toLowerCase() !== 'q') continue
    const value = parameter.slice(equals + 1).trim()
    return weightPattern.test(value) && Number(value) <= 1 ? Number(value) : 0
  }
  return 1
}

/** @returns 0 when the client does not want it */
export function weightFor(preferences: Preferences, coding: string): number {
  return preferences.get(coding) ?? preferences.get('*') ?? 0
}

/** The coding to use, or undefined for none. @param offered in order of preference, for ties @param field undefined when the client sent none */
export function chooseCoding<C extends string>(field: string | undefined, offered: readonly C[]): C | undefined {
  // No field means by the letter that anything goes. In practice it is a client that knows no coding.
  if (field === undefined || field === '') return undefined
  const preferences = readPreferences(field)
  // Identity has no weight unless it is given one: it is what remains.
  let best = preferences.get('identity') ?? preferences.get('*') ?? 0
  let chosen: C | undefined
  for (const coding of offered) {
    const weight = weightFor(preferences, coding)
    // A tie with identity goes to the coding: whoever lists both equally can read both.
    if (weight > 0 && (chosen === undefined ? weight >= best : weight > best)) {
      best = weight
      chosen = coding
    }
  }
  return chosen
}
