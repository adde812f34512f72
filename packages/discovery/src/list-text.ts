/** From text to a list of upstreams, the same for files and endpoints: decode, parse, check. Whatever is wrong is one `DiscoveryError`. */
import type { MaybePromise, UpstreamInput } from '@weir/core'
import { DiscoveryError, messageOf } from './discovery-error.ts'
import { listProblems } from './list-check.ts'

/** Turns text into what should be a list; may throw. */
export type Parse = (text: string) => MaybePromise<unknown>

export const parseJson: Parse = (text) => JSON.parse(text) as unknown

/** @param what it is, for messages: a path, a URL. @throws DiscoveryError */
export async function readList(bytes: Uint8Array, parse: Parse, source: string, what: string): Promise<readonly UpstreamInput[]> {
  let value: unknown
  try {
    value = await parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new DiscoveryError('ERR_DISCOVERY_SYNTAX', source, `${what} cannot be parsed: ${messageOf(cause)}`, { cause })
  }
  const problems = listProblems(value)
  if (problems.length === 0) return value as readonly UpstreamInput[]
  throw new DiscoveryError('ERR_DISCOVERY_LIST', source, `${what} is no list of upstreams`, { problems })
}
