/** The two frames of the WebSocket benchmark: a binary message of 128 bytes, masked (client) and bare (server). RFC 6455 §5.2. */

const payload = Buffer.alloc(128, 'x')

/** FIN and opcode 2; mask bit and 126, so a 16-bit length follows; a mask of zeros. */
export const requestFrame: Buffer = Buffer.concat([Buffer.from([0x82, 0x80 | 126, 0, 128, 0, 0, 0, 0]), payload])
export const responseFrame: Buffer = Buffer.concat([Buffer.from([0x82, 126, 0, 128]), payload])

/** The template's head with this payload. */
export function frameOf(template: Buffer, content: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(template.length)
  template.copy(frame, 0, 0, template.length - content.length)
  content.copy(frame, template.length - content.length)
  return frame
}
