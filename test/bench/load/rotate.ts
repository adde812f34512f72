/**
 * A client with many keep-alive connections of which few are busy: `inFlight` requests at a time, each on the connection that has rested
 * longest. This separates what an open connection costs from what a concurrent request costs, which wrk (every connection always busy)
 * cannot.
 */
import { connect, type Socket } from 'node:net'
import type { LoadResult } from '../load.ts'
import { percentile } from '../stats.ts'

export type RotateOrder =
  | { readonly do: 'open'; readonly port: number; readonly count: number }
  | { readonly do: 'run'; readonly seconds: number; readonly inFlight: number }

interface Connection {
  readonly socket: Socket
  sentAt: number
  /** Bytes of the response that are still to come; -1 while the head is. */
  left: number
}

const request = 'GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n'
const resting: Connection[] = []
/** Index of the connection that has rested longest; a queue without shifting. */
let head = 0
let failures = 0
let onAnswer: ((connection: Connection) => void) | undefined

function open(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    const connection: Connection = { socket, sentAt: 0, left: -1 }
    socket.on('connect', () => {
      resting.push(connection)
      resolve()
    })
    socket.on('data', (chunk: Buffer) => {
      if (connection.left < 0) {
        const end = chunk.indexOf('\r\n\r\n')
        const text = chunk.toString('latin1', 0, end)
        const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1]
        if (end < 0 || length === undefined || !text.startsWith('HTTP/1.1 200')) {
          failures += 1
          socket.destroy()
          return
        }
        connection.left = Number(length) - (chunk.length - end - 4)
      } else connection.left -= chunk.length
      if (connection.left > 0) return
      connection.left = -1
      onAnswer?.(connection)
    })
    socket.on('error', reject)
    socket.on('close', () => {
      failures += 1
    })
  })
}

async function openAll(port: number, count: number): Promise<void> {
  for (let done = 0; done < count; ) {
    const wave = Math.min(100, count - done)
    await Promise.all(Array.from({ length: wave }, () => open(port)))
    done += wave
  }
}

function run(seconds: number, inFlight: number): Promise<LoadResult> {
  return new Promise((resolve) => {
    const latencies: number[] = []
    const startedAt = performance.now()
    let pending = 0
    failures = 0
    const finish = (): void => {
      clearTimeout(stuck)
      const took = (performance.now() - startedAt) / 1000
      latencies.sort((a, b) => a - b)
      resolve({
        requests: latencies.length,
        perSecond: latencies.length / took,
        p50: percentile(latencies, 0.5),
        p99: percentile(latencies, 0.99),
        failures: failures + pending,
      })
    }
    const stuck = setTimeout(finish, seconds * 1000 + 5000)
    const step = (): void => {
      const connection = resting[head]
      if (connection === undefined) return
      head += 1
      if (head > 65_536) {
        resting.splice(0, head)
        head = 0
      }
      pending += 1
      connection.sentAt = performance.now()
      connection.socket.write(request)
    }
    onAnswer = (connection) => {
      const now = performance.now()
      latencies.push(now - connection.sentAt)
      pending -= 1
      resting.push(connection)
      if (now - startedAt < seconds * 1000) step()
      else if (pending === 0) finish()
    }
    for (let i = 0; i < inFlight; i++) step()
  })
}

process.once('disconnect', () => process.exit(0))
process.on('message', (message) => {
  const order = message as RotateOrder
  const work = order.do === 'open' ? openAll(order.port, order.count) : run(order.seconds, order.inFlight)
  work.then(
    (result) => process.send?.(result ?? {}),
    (error: Error) => process.send?.({ error: error.message }),
  )
})
process.send?.({ port: 0 })
