/**
 * `Vary` (RFC 9110 §12.5.5): a cache that is not told hands the compressed body to a client that cannot read it. It has to stand on every
 * variant, the uncompressed one too, for the first that a cache sees decides.
 */
import type { HeaderList } from '@weir/core'

/** RFC 9842 §6.2: what is packed with a dictionary is for those alone who have it. */
export function varyByDictionary(headers: HeaderList): void {
  varyBy(headers, 'Available-Dictionary')
}

export function varyByEncoding(headers: HeaderList): void {
  varyBy(headers, 'Accept-Encoding')
}

function varyBy(headers: HeaderList, field: string): void {
  const wanted = field.toLowerCase()
  const present = headers.get('vary')
  if (present === undefined || present.trim() === '') {
    headers.set('Vary', field)
    return
  }
  for (const name of present.split(',')) {
    const lower = name.trim().toLowerCase()
    // `*` says more: varies by what no field tells.
    if (lower === '*' || lower === wanted) return
  }
  headers.append('Vary', field)
}
