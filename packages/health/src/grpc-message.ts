/**
 * The two messages of grpc.health.v1, by hand: a protobuf library for one string and one enum would be the largest thing in this package.
 *
 *   HealthCheckRequest  { string service = 1; }
 *   HealthCheckResponse { ServingStatus status = 1; }   UNKNOWN 0, SERVING 1, NOT_SERVING 2, SERVICE_UNKNOWN 3
 *
 * Wire format: protobuf encoding (varints, tag = field << 3 | type), behind gRPC's five bytes of compressed flag and length.
 */

export const serving = 1
export const statusNames: readonly string[] = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN']

export function encodeCheck(service: string): Buffer {
  const name = Buffer.from(service)
  // The default value of a field is not written.
  const message = name.length === 0 ? name : Buffer.concat([Buffer.of(0x0a), encodeVarint(name.length), name])
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** @returns the serving status of the one message in `body`, or undefined when that is not what it holds */
export function decodeStatus(body: Buffer): number | undefined {
  if (body.length < 5 || body[0] !== 0 || body.readUInt32BE(1) !== body.length - 5) return undefined
  let status = 0
  let at = 5
  while (at < body.length) {
    const tag = readVarint(body, at)
    if (tag === undefined) return undefined
    at = tag.end
    const type = tag.value & 7
    if (type === 0) {
      const value = readVarint(body, at)
      if (value === undefined) return undefined
      if (tag.value >>> 3 === 1) status = value.value
      at = value.end
    } else if (type === 2) {
      const length = readVarint(body, at)
      if (length === undefined) return undefined
      at = length.end + length.value
    } else if (type === 1 || type === 5) at += type === 1 ? 8 : 4
    else return undefined
  }
  return at === body.length ? status : undefined
}

function encodeVarint(value: number): Buffer {
  const bytes: number[] = []
  let left = value
  for (; left > 0x7f; left >>>= 7) bytes.push((left & 0x7f) | 0x80)
  bytes.push(left)
  return Buffer.from(bytes)
}

/** Up to 28 bits; the longer ones of other fields are read past, their value is not used. */
function readVarint(bytes: Buffer, start: number): { readonly value: number; readonly end: number } | undefined {
  let value = 0
  for (let i = 0; i < 10; i++) {
    const byte = bytes[start + i]
    if (byte === undefined) return undefined
    if (i < 4) value |= (byte & 0x7f) << (7 * i)
    if (byte < 0x80) return { value, end: start + i + 1 }
  }
  return undefined
}
