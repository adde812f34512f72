/**
 * A response with somebody's session cookie must not be handed to somebody else: a shared cache in front of the proxy that stores it gives one
 * client's server to all. `Cache-Control: private` says so to every cache that obeys RFC 9111; our own stands inside this stage and never
 * sees the cookie.
 */
import type { HeaderList } from '@weir/core'

export function makePrivate(headers: HeaderList): void {
  const present = headers.get('cache-control')
  // `private="field"` protects one field only; quoted parts are left out before looking.
  const directives = (present ?? '').replace(/"[^"]*"/g, '').split(',')
  for (const directive of directives) {
    const name = directive.trim().toLowerCase()
    if (name === 'private' || name === 'no-store') return
  }
  if (present === undefined || present.trim() === '') headers.set('Cache-Control', 'private')
  else headers.set('Cache-Control', `${present}, private`)
}
