/**
 * Is this a list of upstreams? Core has the only answer: the list is given to a pool that is never used, so what passes here is exactly what a
 * pool accepts, duplicate ids included, now and after the next release.
 */
import { createPool, type OptionProblem, OptionsError, type Transport, type UpstreamInput, type UpstreamOptions } from '@weir/core'

/** Keeps the pool from making a transport of its own. */
const inert: Transport = { name: 'inert', send: () => {} }

const list = 'a list of upstreams such as [\'http://10.0.0.1:3000\', { "url": "http://10.0.0.2:3000", "weight": 2 }]'

/** All problems, with paths from `$`, the list (RFC 9535). */
export function listProblems(value: unknown): readonly OptionProblem[] {
  // A pool would take a source as well.
  if (!Array.isArray(value)) return [{ path: '$', given: kindOf(value), expected: list }]
  try {
    createPool({ upstreams: value, transport: inert, health: [] })
    return []
  } catch (error) {
    if (!OptionsError.is(error)) throw error
    return error.problems.map((problem) => ({ ...problem, path: problem.path.replace(/^upstreams/, '$') }))
  }
}

/** One shape for all: an object with a URL as text and an id, so that lists can be compared. The input has passed `listProblems`. */
export function normalise(input: UpstreamInput): UpstreamOptions & { readonly id: string } {
  const given = typeof input === 'string' || input instanceof URL ? { url: input } : input
  const { href } = new URL(given.url)
  return { ...given, url: href, id: given.id ?? href.replace(/\/+$/, '') }
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value !== 'object') return JSON.stringify(value)?.slice(0, 80) ?? typeof value
  return `an object with ${Object.keys(value).slice(0, 5).join(', ') || 'no properties'}`
}
