/**
 * The client of the WebSocket benchmark: opens tunnels and keeps them, then echoes over them in one of two ways. `paced`: a fixed number of
 * messages a second, far below what any contestant can carry, so that latency is the way through the proxy and not a queue. `full`: 64
 * messages in flight, going round all tunnels, so that the proxy's core is busy and its cost per message shows.
 */
import { connect, type Socket } from 'node:net'
import { percentile } from '../stats.ts'
import { requestFrame, responseFrame } from './frame.ts'

export type TunnelOrder =
  | { readonly do: 'open'; readonly port: number; readonly count: number }
  | { readonly do: 'paced'; readonly seconds: number; readonly perSecond: number }
  | { readonly do: 'full'; readonly seconds: number; readonly inFlight: number }
  | { readonly do: 'close' }

export interface EchoResult {
  readonly echoes: number
  readonly perSecond: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
}

interface Tunnel {
  readonly socket: Socket
  sentAt: number
  received: number
  onEcho: (() => void) | undefined
}

const tunnels: Tunnel[] = []
let broken: string | undefined

function open(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    const tunnel: Tunnel = { socket, sentAt: 0, received: 0, onEcho: undefined }
    let head: string | undefined = ''
    socket.write(
      'GET /echo HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    )
    socket.on('data', (chunk: Buffer) => {
      if (head !== undefined) {
        head += chunk.toString('latin1')
        if (!head.endsWith('\r\n\r\n')) return
        if (head.startsWith('HTTP/1.1 101') && head.includes('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')) {
          head = undefined
          tunnels.push(tunnel)
          resolve()
        } else reject(new Error(`no tunnel: ${head}`))
        return
      }
      tunnel.received += chunk.length
      if (tunnel.received < responseFrame.length) return
      tunnel.received -= responseFrame.length
      tunnel.onEcho?.()
    })
    const fail = (error?: Error): void => {
      broken ??= `a tunnel broke: ${error?.message ?? 'closed'}`
      reject(new Error(broken))
    }
    socket.on('error', fail)
    socket.on('close', () => fail())
  })
}

async function openAll(port: number, count: number): Promise<void> {
  for (let done = 0; done < count; ) {
    const wave = Math.min(50, count - done)
    await Promise.all(Array.from({ length: wave }, () => open(port)))
    done += wave
  }
}

function send(tunnel: Tunnel): void {
  tunnel.sentAt = performance.now()
  tunnel.socket.write(requestFrame)
}

function summary(latencies: number[], seconds: number): EchoResult {
  latencies.sort((a, b) => a - b)
  return {
    echoes: latencies.length,
    perSecond: latencies.length / seconds,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
  }
}

function paced(seconds: number, perSecond: number): Promise<EchoResult> {
  return new Promise((resolve) => {
    const latencies: number[] = []
    const startedAt = performance.now()
    let sent = 0
    let pending = 0
    for (const tunnel of tunnels)
      tunnel.onEcho = () => {
        latencies.push(performance.now() - tunnel.sentAt)
        pending -= 1
      }
    const timer = setInterval(() => {
      const elapsed = (performance.now() - startedAt) / 1000
      if (elapsed < seconds) {
        // At most two per turn: a burst would measure its own queue. The count catches up over the next turns.
        for (let burst = 0; burst < 2 && sent < elapsed * perSecond; burst++) {
          send(tunnels[sent++ % tunnels.length] as Tunnel)
          pending += 1
        }
      } else if (pending === 0 || elapsed > seconds + 5) {
        clearInterval(timer)
        resolve(summary(latencies, seconds))
      }
    }, 1)
  })
}

function full(seconds: number, inFlight: number): Promise<EchoResult> {
  return new Promise((resolve) => {
    const latencies: number[] = []
    const startedAt = performance.now()
    let next = 0
    let pending = 0
    const step = (): void => {
      send(tunnels[next++ % tunnels.length] as Tunnel)
      pending += 1
    }
    for (const tunnel of tunnels)
      tunnel.onEcho = () => {
        const now = performance.now()
        latencies.push(now - tunnel.sentAt)
        pending -= 1
        if (now - startedAt < seconds * 1000) step()
        else if (pending === 0) resolve(summary(latencies, (now - startedAt) / 1000))
      }
    for (let i = 0; i < Math.min(inFlight, tunnels.length); i++) step()
  })
}

async function obey(order: TunnelOrder): Promise<unknown> {
  switch (order.do) {
    case 'open':
      broken = undefined
      await openAll(order.port, order.count)
      return {}
    case 'paced':
      return await paced(order.seconds, order.perSecond)
    case 'full':
      return await full(order.seconds, order.inFlight)
    case 'close': {
      for (const { socket } of tunnels) {
        socket.removeAllListeners('close')
        socket.destroy()
      }
      tunnels.length = 0
      return {}
    }
  }
}

process.once('disconnect', () => process.exit(0))
process.on('message', (order) => {
  obey(order as TunnelOrder).then(
    (result) => process.send?.(broken === undefined ? result : { error: broken }),
    (error: Error) => process.send?.({ error: error.message }),
  )
})
process.send?.({ port: 0 })
