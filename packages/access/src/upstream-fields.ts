/**
 * Fields by which the proxy tells an upstream something that the upstream will believe: who the user is, what a rule found. The same field from a
 * client must never get there, whether the proxy has something to say or not; so client copies come off first, always. And ours are set for
 * each attempt, behind the removal of what the client names in `Connection`: set earlier, a client could name them away.
 */
import type { Exchange, HeaderList, Hooks } from '@weir/core'

/** Takes off what a client sent under these names, behind its body too, also with `_` for `-`, which CGI reads as the same. */
export function stripFields(exchange: Exchange, names: ReadonlySet<string>): void {
  if (names.size === 0) return
  if (exchange.hasBody) exchange.dropTrailers((name) => names.has(fieldKey(name)))
  const { raw } = exchange.headers
  let found: string[] | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (!names.has(fieldKey(name))) continue
    found ??= []
    found.push(name)
  }
  if (found !== undefined) for (const name of found) exchange.headers.delete(name)
}

/** How `stripFields` knows a name. */
export function fieldKey(name: string): string {
  const lower = name.toLowerCase()
  return lower.includes('_') ? lower.replaceAll('_', '-') : lower
}

/** Made by `new`: it lives as long as the exchange (docs/decisions/0019). */
export class StampedFields implements Hooks {
  readonly #fields: readonly string[]

  /** @param fields name, value, name, value ... */
  constructor(fields: readonly string[]) {
    this.#fields = fields
  }

  onAttempt(headers: HeaderList): void {
    for (let i = 0; i < this.#fields.length; i += 2) headers.set(this.#fields[i] as string, this.#fields[i + 1] as string)
  }
}

/** As a field value may be: what HTTP forbids (RFC 9110 §5.5) is percent-encoded in UTF-8, and so is the percent sign, so that it can be read back. */
export function fieldValue(text: string): string {
  return /[^\x20-\x24\x26-\x7e]/.test(text)
    ? text.replace(/[^\x20-\x24\x26-\x7e]+/g, (part) => encodeURIComponent(Buffer.from(part).toString()))
    : text
}
