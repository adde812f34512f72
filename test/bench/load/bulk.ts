/**
 * The client of the bulk transfers: one connection, bare sockets, one transfer per question. It reads into one reused buffer while it reads
 * at full speed, so that it spends little more than the copy out of the kernel.
 */
import { connect, type Socket } from 'node:net'
import { slowly } from './slowly.ts'

export interface Transfer {
  readonly port: number
  readonly direction: 'down' | 'up'
  readonly bytes: number
  /** Milliseconds for which the receiving end (this one for `down`, the upstream for `up`) reads at about 4 MiB/s. */
  readonly slowMs?: number
}

export interface TransferResult {
  readonly seconds: number
}

const block = Buffer.alloc(1024 * 1024, 'x')
const space = Buffer.allocUnsafe(1024 * 1024)

function transfer({ port, direction, bytes, slowMs }: Transfer): Promise<TransferResult> {
  return new Promise((resolve, reject) => {
    const startedAt = performance.now()
    let head = ''
    let left = -1
    const take = (chunk: Buffer): void => {
      if (left < 0) {
        head += chunk.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) return
        const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1]
        if (!head.startsWith('HTTP/1.1 200') || length === undefined || (direction === 'down' && Number(length) !== bytes)) {
          finish(new Error(`unexpected response: ${head.slice(0, 200)}`))
          return
        }
        left = Number(length) - (head.length - end - 4)
      } else left -= chunk.length
      if (left <= 0) finish(left < 0 ? new Error('more bytes than announced') : undefined)
    }
    const finish = (error?: Error): void => {
      socket.removeAllListeners('close')
      socket.destroy()
      if (error) reject(error)
      else resolve({ seconds: (performance.now() - startedAt) / 1000 })
    }
    const slowDown = direction === 'down' && slowMs !== undefined
    const socket: Socket = connect({
      port,
      host: '127.0.0.1',
      ...(!slowDown && {
        onread: {
          buffer: space,
          callback: (size: number) => {
            take(space.subarray(0, size))
            return true
          },
        },
      }),
    })
    socket.on('error', finish)
    socket.on('close', () => finish(new Error(`connection closed with ${left} bytes to go`)))
    if (direction === 'down') {
      if (slowDown) {
        socket.on('data', take)
        slowly(socket, slowMs)
      }
      socket.write(`GET /${bytes} HTTP/1.1\r\nHost: bench.test\r\n\r\n`)
      return
    }
    const query = slowMs === undefined ? '' : `?slow=${slowMs}`
    socket.write(
      `PUT /sink${query} HTTP/1.1\r\nHost: bench.test\r\nContent-Type: application/octet-stream\r\nContent-Length: ${bytes}\r\n\r\n`,
    )
    let unsent = bytes
    const fill = (): void => {
      while (unsent > 0) {
        const part = unsent >= block.length ? block : block.subarray(0, unsent)
        unsent -= part.length
        if (!socket.write(part)) {
          socket.once('drain', fill)
          return
        }
      }
    }
    fill()
  })
}

process.once('disconnect', () => process.exit(0))
process.on('message', (question) => {
  transfer(question as Transfer).then(
    (result) => process.send?.(result),
    (error: Error) => process.send?.({ error: error.message }),
  )
})
process.send?.({ port: 0 })
