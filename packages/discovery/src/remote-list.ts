/**
 * What a list from another machine may not say. Whoever writes it decides who serves, and can have any server asked that the guard lets pass; that
 * is what it is for. It does not decide what else this machine talks to, what it sends there besides a health question, or which certificates it believes:
 * that is for whoever configures the proxy, and must be written there.
 */
import type { OptionProblem, UpstreamInput } from '@weir/core'

/**
 * What active checks may be told of an upstream (`meta.health`): how to ask that server, and what to expect of it. Left out are `address` (another
 * server), `tls` and `servername` (whom to believe), `headers` and `send` (credentials, other protocols) and `maxBody` (memory of the proxy); and what
 * is not known here.
 */
export const questionOptions: readonly string[] = [
  'port',
  'secure',
  'path',
  'method',
  'host',
  'status',
  'expectHeaders',
  'body',
  'expect',
  'degradedHeader',
  'drainHeader',
  'drainStatus',
  'keepAlive',
  'service',
  'unimplemented',
]

/** @param probeOptions those that the list may set, or `all` */
export function remoteProblems(list: readonly UpstreamInput[], probeOptions: readonly string[] | 'all'): readonly OptionProblem[] {
  return list.flatMap((entry, index) => [
    ...socketProblems(entry, `$[${index}]`),
    ...(probeOptions === 'all' ? [] : probeProblems(entry, `$[${index}]`, probeOptions)),
  ])
}

/** Sockets of this machine are nothing that another one can know of, and no check of addresses looks at them. */
function socketProblems(entry: UpstreamInput, path: string): OptionProblem[] {
  const url = typeof entry === 'object' && 'url' in entry ? entry.url : entry
  if (!/^\s*unix:/i.test(String(url))) return []
  return [{ path, given: JSON.stringify(entry), expected: 'no unix: socket, which only a list of this machine may name' }]
}

function probeProblems(entry: UpstreamInput, path: string, known: readonly string[]): OptionProblem[] {
  const health = typeof entry === 'object' && 'meta' in entry ? entry.meta?.health : undefined
  if (typeof health !== 'object' || health === null) return []
  return Object.keys(health)
    .filter((name) => !known.includes(name))
    .map((name) => ({
      path: `${path}.meta.health.${name}`,
      // It may be a secret.
      given: '(set)',
      expected: 'no such option of probes in a list that was fetched, unless `probeOptions` of the source names it',
    }))
}
