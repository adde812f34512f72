/**
 * The other end of the bulk transfers, on bare sockets so that it costs less than any contestant: `GET /<bytes>` is answered with so many
 * bytes, written from one 1 MiB buffer; a `PUT` is counted, thrown away and answered when whole. `?slow=<ms>` makes it read the body at
 * about 4 MiB/s for so long before it takes the rest at full speed.
 */
import { createServer, type Socket } from 'node:net'
import { slowly } from '../load/slowly.ts'

const block = Buffer.alloc(1024 * 1024, 'x')

function send(socket: Socket, bytes: number): void {
  let left = bytes
  const fill = (): void => {
    while (left > 0) {
      const part = left >= block.length ? block : block.subarray(0, left)
      left -= part.length
      if (!socket.write(part)) {
        socket.once('drain', fill)
        return
      }
    }
  }
  socket.write(`HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ${bytes}\r\n\r\n`)
  fill()
}

const server = createServer((socket) => {
  let head = ''
  let left = 0
  const take = (chunk: Buffer): void => {
    if (left > 0) {
      left -= chunk.length
      if (left <= 0) socket.write('HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok')
      return
    }
    head += chunk.toString('latin1')
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    const rest = chunk.subarray(chunk.length - (head.length - end - 4))
    const [method, target = ''] = head.split(' ', 2)
    const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1]
    head = ''
    if (method === 'GET') {
      send(socket, Number(target.slice(1)))
      return
    }
    // Every contestant is given a Content-Length and has no reason to reframe; one that does is told so by a cut connection.
    if (length === undefined) {
      socket.destroy()
      return
    }
    left = Number(length)
    const slow = /[?]slow=(\d+)/.exec(target)?.[1]
    if (slow !== undefined) slowly(socket, Number(slow))
    if (rest.length > 0) take(rest)
  }
  socket.on('data', take)
  socket.on('error', () => socket.destroy())
})

process.once('disconnect', () => process.exit(0))
server.listen({ port: 0, host: '127.0.0.1' }, () => process.send?.({ port: (server.address() as { port: number }).port }))
