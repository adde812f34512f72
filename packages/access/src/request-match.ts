/**
 * Questions about a request, and their three answers: yes, no, and "one cannot tell". The third is what makes filters safe. A path that two servers
 * read differently, a parameter given twice of which one fits, a value too long to be matched: whoever answers yes or no there can be played
 * with, in one direction or the other. Here it stays open through `all`, `any` and `not`, as in Kleene's logic, and the rule decides: one that
 * denies takes it for a yes, one that allows for a no.
 */
import type { Exchange, OptionReader } from '@weir/core'
import { readRangeSet } from './ip-rules.ts'
import { canBeAt, laxPath, type PathReading, pathOf, readPath, staysBelow } from './request-path.ts'

/** A value: `true` is there, `false` is absent, a text is equal, a RegExp matches; a list: one of these. */
export type ValueMatch = boolean | string | RegExp | readonly (string | RegExp)[]

/** Everything that is given must hold. */
export interface RequestMatch {
  /** `'GET'`, or a list; in upper case. */
  readonly method?: string | readonly string[]
  /** `'/exact'`, `'/below/*'` (which covers `/below` too), a RegExp, or a list. Not with the query. */
  readonly path?: string | RegExp | readonly (string | RegExp)[]
  /** Query parameters, decoded. */
  readonly query?: Readonly<Record<string, ValueMatch>>
  /** Field lines. */
  readonly header?: Readonly<Record<string, ValueMatch>>
  /** Cookies, as they were sent. */
  readonly cookie?: Readonly<Record<string, ValueMatch>>
  /** Addresses and ranges, as of `exchange.clientIp`. */
  readonly clientIp?: string | readonly string[]
  /** Whatever else. It must be quick, and not wait. */
  readonly when?: (exchange: Exchange) => boolean
  readonly all?: readonly RequestMatch[]
  readonly any?: readonly RequestMatch[]
  readonly not?: RequestMatch
}

export type Answer = 'yes' | 'no' | 'unsure'
export type Question = (exchange: Exchange) => Answer

const keys = ['method', 'path', 'query', 'header', 'cookie', 'clientIp', 'when', 'all', 'any', 'not']

export function allOf(questions: readonly Question[]): Question {
  if (questions.length === 1) return questions[0] as Question
  return (exchange) => {
    let answer: Answer = 'yes'
    for (const question of questions) {
      const one = question(exchange)
      if (one === 'no') return 'no'
      if (one === 'unsure') answer = 'unsure'
    }
    return answer
  }
}

export function anyOf(questions: readonly Question[]): Question {
  return (exchange) => {
    let answer: Answer = 'no'
    for (const question of questions) {
      const one = question(exchange)
      if (one === 'yes') return 'yes'
      if (one === 'unsure') answer = 'unsure'
    }
    return answer
  }
}

export function noneOf(question: Question): Question {
  return (exchange) => opposite(question(exchange))
}

function opposite(answer: Answer): Answer {
  return answer === 'yes' ? 'no' : answer === 'no' ? 'yes' : 'unsure'
}

const yes: Question = () => 'yes'

/** @param longest input of a RegExp, in characters; what is longer is not matched, and its answer is open */
export function readMatch(read: OptionReader, value: unknown, longest: number, depth = 0): Question {
  const given = read.object<RequestMatch>(value as RequestMatch, keys)
  if (depth > 16) {
    read.problem('', value, 'no more than 16 levels')
    return yes
  }
  const questions: Question[] = []
  if (given.method !== undefined) questions.push(readMethods(read, given.method))
  if (given.path !== undefined) questions.push(readPaths(read, given.path, longest))
  for (const part of ['query', 'header', 'cookie'] as const)
    if (given[part] !== undefined) questions.push(...readValues(read.at(part), given[part], part, longest))
  if (given.clientIp !== undefined) {
    const ranges = readRangeSet(read, 'clientIp', given.clientIp)
    questions.push(({ clientIp }) => {
      const found = ranges.find(clientIp)
      return found === -2 ? 'unsure' : found >= 0 ? 'yes' : 'no'
    })
  }
  if (given.when !== undefined) {
    const when = read.function('when', given.when, (_: Exchange): boolean => true)
    questions.push((exchange) => (when(exchange) ? 'yes' : 'no'))
  }
  for (const part of ['all', 'any'] as const) {
    const list: unknown = given[part]
    if (list === undefined) continue
    if (!Array.isArray(list) || list.length === 0) {
      read.problem(part, list, 'a list of matches with at least one in it')
      continue
    }
    const inner = list.map((entry: unknown, index) =>
      readMatch(read.at(part).at(index), requireObject(read.at(part), index, entry), longest, depth + 1),
    )
    questions.push(part === 'all' ? allOf(inner) : anyOf(inner))
  }
  if (given.not !== undefined) questions.push(noneOf(readMatch(read.at('not'), requireObject(read, 'not', given.not), longest, depth + 1)))
  return questions.length === 0 ? yes : allOf(questions)
}

/** In a list `undefined` is a slip, and would match everything. */
function requireObject(read: OptionReader, name: string | number, value: unknown): unknown {
  if (typeof value === 'object' && value !== null && Object.keys(value).length > 0) return value
  read.problem(name, value, 'a match with something in it')
  return {}
}

function readMethods(read: OptionReader, value: unknown): Question {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (list.length === 0 || !list.every((entry) => typeof entry === 'string' && /^[A-Z][A-Z-]*$/.test(entry)))
    read.problem('method', value, "a method in upper case such as 'POST', or a list of them")
  const methods = new Set(list)
  return ({ method }) => (methods.has(method) ? 'yes' : 'no')
}

function readPaths(read: OptionReader, value: unknown, longest: number): Question {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value]
  const tests = list.flatMap((entry, index): ((path: PathReading) => Answer)[] => {
    if (isPattern(entry))
      return [
        // A pattern does not say what it needs: behind a `..` anything may match it.
        ({ strict, lax, names }) => (names === undefined ? both(matches(entry, strict, longest), matches(entry, lax, longest)) : 'unsure'),
      ]
    if (
      typeof entry === 'string' &&
      /^\/(?:[!-"$->@-~])*$/.test(entry) &&
      !entry.slice(0, -1).includes('*') &&
      (!entry.endsWith('*') || entry.endsWith('/*'))
    ) {
      const below = entry.endsWith('/*')
      const raw = below ? entry.slice(0, -2) : entry
      const resolved = raw === '' ? '' : laxPath(raw)
      return [
        ({ strict, lax, names }) =>
          names === undefined ? both(isAt(strict, raw, below), isAt(lax, resolved, below)) : mayBeAt(strict, names, raw, resolved, below),
      ]
    }
    const expected =
      "a path as it is sent (percent-encoded, without query) such as '/exact' or '/below/*', or a RegExp without the flags g and y"
    if (Array.isArray(value)) read.at('path').problem(index, entry, expected)
    else read.problem('path', entry, expected)
    return []
  })
  if (list.length === 0) read.problem('path', value, 'at least one path')
  return ({ url }) => {
    const path = readPath(pathOf(url))
    let answer: Answer = 'no'
    for (const test of tests) {
      const one = test(path)
      if (one === 'yes') return 'yes'
      if (one === 'unsure') answer = 'unsure'
    }
    return answer
  }
}

function isAt(path: string, wanted: string, below: boolean): Answer {
  return path === wanted || (below && path.startsWith(wanted) && path.charCodeAt(wanted.length) === 0x2f) ? 'yes' : 'no'
}

/** With `..` in the path. */
function mayBeAt(path: string, names: readonly string[], wanted: string, resolved: string, below: boolean): Answer {
  if (below && wanted === '') return 'yes'
  if (below && wanted === resolved && path.startsWith(`${wanted}/`) && staysBelow(path.slice(wanted.length + 1))) return 'yes'
  return canBeAt(names, resolved) ? 'unsure' : 'no'
}

/** Two readings of one thing. */
function both(a: Answer, b: Answer): Answer {
  return a === b ? a : 'unsure'
}

/** Flags g and y make a RegExp remember where it was. */
function isPattern(value: unknown): value is RegExp {
  return value instanceof RegExp && !value.global && !value.sticky
}

function matches(pattern: RegExp, text: string, longest: number): Answer {
  return text.length > longest ? 'unsure' : pattern.test(text) ? 'yes' : 'no'
}

function readValues(read: OptionReader, value: unknown, part: 'query' | 'header' | 'cookie', longest: number): Question[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Object.keys(value).length === 0) {
    read.problem('', value, 'an object of names and what their values are: true, false, a text, a RegExp, or a list of texts and RegExps')
    return []
  }
  return Object.entries(value).flatMap(([name, wanted]: [string, unknown]): Question[] => {
    const values = valuesOf(part, name)
    if (typeof wanted === 'boolean') return [(exchange) => (values(exchange).length > 0 === wanted ? 'yes' : 'no')]
    const list: readonly unknown[] = Array.isArray(wanted) ? wanted : [wanted]
    if (list.length === 0 || !list.every((entry): entry is string | RegExp => typeof entry === 'string' || isPattern(entry))) {
      read.problem(name, wanted, 'true, false, a text, a RegExp without the flags g and y, or a list of texts and RegExps')
      return []
    }
    return [(exchange) => someOf(values(exchange), list, longest)]
  })
}

/** Several values under one name: servers differ in which of them they take, so all have to agree. */
function someOf(values: readonly string[], wanted: readonly (string | RegExp)[], longest: number): Answer {
  let answer: Answer | undefined
  for (const value of values) {
    let one: Answer = 'no'
    for (const want of wanted) {
      const found = typeof want === 'string' ? (want === value ? 'yes' : 'no') : matches(want, value, longest)
      if (found === 'yes') {
        one = 'yes'
        break
      }
      if (found === 'unsure') one = 'unsure'
    }
    answer = answer === undefined ? one : both(answer, one)
  }
  return answer ?? 'no'
}

function valuesOf(part: 'query' | 'header' | 'cookie', name: string): (exchange: Exchange) => readonly string[] {
  switch (part) {
    case 'header':
      return ({ headers }) => headers.getAll(name)
    case 'cookie':
      return ({ headers }) => cookieValues(headers.getAll('cookie'), name)
    case 'query':
      return ({ url }) => {
        const query = url.indexOf('?')
        return query < 0 ? [] : new URLSearchParams(url.slice(query)).getAll(name)
      }
  }
}

function cookieValues(lines: readonly string[], name: string): string[] {
  return lines.flatMap((line) =>
    line.split(';').flatMap((pair) => {
      const equals = pair.indexOf('=')
      return equals >= 0 && pair.slice(0, equals).trim() === name ? [pair.slice(equals + 1).trim()] : []
    }),
  )
}
