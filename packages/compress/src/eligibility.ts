/**
 * What about a response alone, whoever asks, speaks against compressing it. The rest depends on the request, and therefore needs a `Vary`: the
 * order of the two questions is the point of this file. A response that is never compressed gets no `Vary`, for that would split caches
 * for nothing; one that is compressed for others gets it even if this client takes it as it is.
 */
import type { HeaderList, ProxyResponse } from '@weir/core'
import { essenceOf } from './content-types.ts'
import type { CompressReason } from './events.ts'
import { announcesDigest } from './validators.ts'

export interface Eligibility {
  readonly minSize: number
  readonly types: (type: string, response: ProxyResponse) => boolean
  readonly statuses: (status: number) => boolean
}

const noTransform = /(?:^|,)\s*no-transform\s*(?:,|$)/i

/** RFC 9111 §5.2.2.6. */
export function forbidsTransform(headers: HeaderList): boolean {
  return noTransform.test(headers.get('cache-control') ?? '')
}

/** Undefined when there is no length, or nobody can say which. */
export function lengthOf(headers: HeaderList): number | undefined {
  const value = headers.get('content-length')
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

/** Undefined: it is compressed for those who take it. */
export function objection(response: ProxyResponse, { minSize, types, statuses }: Eligibility): CompressReason | undefined {
  const { status, headers } = response
  // It stands for a response that may well have been compressed, and says nothing of its type.
  if (status === 304) return forbidsTransform(headers) ? 'no-transform' : undefined
  // A part by range, and a difference (RFC 3229): both are counted in the bytes of a certain coding.
  if (status === 206 || status === 226 || !statuses(status)) return 'status'
  if (status < 200 || status === 204 || status === 205) return 'bodiless'
  if (headers.has('content-range')) return 'range'
  const coding = headers.get('content-encoding')
  if ((coding !== undefined && coding.trim().toLowerCase() !== 'identity') || headers.has('transfer-encoding')) return 'encoded'
  if (forbidsTransform(headers)) return 'no-transform'
  if (!types(essenceOf(headers.get('content-type')), response)) return 'type'
  const length = lengthOf(headers)
  // What a stage or the proxy itself answers has its length counted later. Error answers are a line or two.
  if (length === undefined ? response.upstream === undefined && status >= 400 : length < minSize || length === 0) return 'small'
  return announcesDigest(headers) ? 'digest-trailer' : undefined
}
