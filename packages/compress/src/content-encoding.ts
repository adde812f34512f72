/** `Content-Encoding` (RFC 9110 §8.4): which codings lie on top of each other. */
import type { HeaderList } from '@weir/core'
import { canonicalName } from './codings.ts'

/** More of them than this are no service to anybody. */
export const maxLayers = 3

/** In the order in which they were applied; `identity` is none. */
export function layersOf(headers: HeaderList): string[] {
  return (headers.get('content-encoding') ?? '')
    .split(',')
    .map((layer) => canonicalName(layer.trim().toLowerCase()))
    .filter((layer) => layer !== '' && layer !== 'identity')
}
