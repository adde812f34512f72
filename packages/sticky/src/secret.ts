/**
 * Keys. A secret is never used as it is: HKDF (RFC 5869) makes of it one key for signing and one for naming upstreams, bound to the mode and the
 * name of the cookie. So two stages with one secret do not accept each other's cookies, and nobody learns a key from seeing the other one's
 * output. Secrets are long by demand: whoever guesses one chooses servers.
 */
import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto'
import type { OptionReader } from '@weir/core'

/** At least 32 bytes; text counts as UTF-8. `openssl rand -base64 32` makes one. */
export type Secret = string | Uint8Array

/** As key objects: an HMAC takes 2.3 µs with one, and 12 µs with the same key in a buffer (Node 24). */
export interface Keys {
  readonly sign: KeyObject
  readonly name: KeyObject
}

const leastBytes = 32
const expected = `at least ${leastBytes} bytes, such as what 'openssl rand -base64 32' prints, or a list of such secrets, the newest first`

/** Newest first. Never empty, also when there was a problem. */
export function readSecrets(read: OptionReader, value: unknown): readonly Buffer[] {
  const list: unknown[] = Array.isArray(value) ? value : [value]
  if (list.length === 0) read.problem('secret', '(an empty list)', expected)
  const secrets: Buffer[] = []
  list.forEach((entry, index) => {
    const bytes = typeof entry === 'string' ? Buffer.from(entry, 'utf8') : entry instanceof Uint8Array ? Buffer.from(entry) : undefined
    const at = Array.isArray(value) ? read.at('secret') : read
    // The problem names the length and not what was given: error messages end up in logs.
    if (bytes === undefined || bytes.length < leastBytes)
      at.problem(Array.isArray(value) ? index : 'secret', bytes === undefined ? typeof entry : `(${bytes.length} bytes)`, expected)
    else if (secrets.some((other) => other.equals(bytes))) at.problem(index, '(the same secret again)', 'each secret once')
    else secrets.push(bytes)
  })
  return secrets.length > 0 ? secrets : [Buffer.alloc(leastBytes)]
}

/** @param context what else must be the same for a value to be accepted */
export function deriveKeys(secret: Buffer, context: string): Keys {
  const derive = (use: string): KeyObject =>
    createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', `weir sticky 1 ${use} ${context}`, 32)))
  return { sign: derive('sign'), name: derive('name') }
}
