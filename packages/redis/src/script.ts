/**
 * A Lua script with its digest. The server knows scripts by digest once it has seen them, so that a decision sends forty bytes of name and not the
 * script; after a restart, or on another node of a cluster, it has forgotten them, and the whole is sent once more.
 */
import { createHash } from 'node:crypto'

export interface Script {
  readonly source: string
  /** SHA-1 in hexadecimal, as `EVALSHA` wants it. */
  readonly sha: string
}

export function script(source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') }
}
