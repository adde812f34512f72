/**
 * A WebSocket echo on bare sockets: it knows one frame, 128 bytes masked with zeros (which RFC 6455 §5.3 permits and which makes the mask a
 * no-op), and returns the same payload unmasked. No library, so that the upstream costs next to nothing and the tunnel is what is measured.
 */
import { createHash } from 'node:crypto'
import { createServer } from 'node:net'
import { frameOf, requestFrame, responseFrame } from '../load/frame.ts'

const server = createServer({ noDelay: true }, (socket) => {
  let head: string | undefined = ''
  let rest: Buffer | undefined
  socket.on('data', (chunk: Buffer) => {
    if (head !== undefined) {
      head += chunk.toString('latin1')
      if (!head.endsWith('\r\n\r\n')) return
      const key = /\r\nsec-websocket-key: *(\S+)/i.exec(head)?.[1] ?? ''
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
      head = undefined
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      )
      return
    }
    let data = rest === undefined ? chunk : Buffer.concat([rest, chunk])
    while (data.length >= requestFrame.length) {
      socket.write(frameOf(responseFrame, data.subarray(requestFrame.length - 128, requestFrame.length)))
      data = data.subarray(requestFrame.length)
    }
    rest = data.length > 0 ? data : undefined
  })
  socket.on('error', () => socket.destroy())
})

process.once('disconnect', () => process.exit(0))
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => process.send?.({ port: (server.address() as { port: number }).port }))
