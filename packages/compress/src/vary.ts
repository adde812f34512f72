/**
 * `Vary` (RFC 9110 §12.5.5): a cache that is not told hands the compressed body to a client that cannot read it. It has to stand on every
 * variant, the uncompressed one too, for the first that a cache sees decides.
 */
import type { HeaderList } from '@weir/core'

export function varyByEncoding(headers: HeaderList): void {
  const present = headers.get('vary')
  if (present === undefined || present.trim() === '') {
    headers.set('Vary', 'Accept-Encoding')
    return
  }
  for (const name of present.split(',')) {
    const lower = name.trim().toLowerCase()
    // `*` says more: varies by what no field tells.
    if (lower === '*' || lower === 'accept-encoding') return
  }
  headers.append('Vary', 'Accept-Encoding')
}
