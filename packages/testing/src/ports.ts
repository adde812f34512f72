/**
 * Ports that do not answer, made so that nothing else can start answering on them. A test that closes a server and connects to its old port
 * is flaky on a busy machine: the kernel may have given the port away. Here the port stays taken, by a connection whose *local* end it is:
 * nobody listens on it, so a connect is refused, and nobody can be given it.
 */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { Worker } from 'node:worker_threads'

export interface DeadPort extends AsyncDisposable {
  readonly port: number
  readonly url: string
  close(): Promise<void>
}

/** A port of 127.0.0.1 that refuses connections until closed. */
export async function refusedPort(): Promise<DeadPort> {
  const hold = await holdPort(0)
  return deadPort(hold.port, () => hold.release())
}

/**
 * A port of 127.0.0.1 where connecting neither succeeds nor fails: its listener's queue is full and nobody accepts. The listener lives in a
 * worker that sleeps, since Node's own event loop would accept.
 */
export async function blackHolePort(): Promise<DeadPort> {
  const signal = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(
    `const { workerData, parentPort } = require('node:worker_threads')
     const server = require('node:net').createServer()
     server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
       parentPort.postMessage(server.address().port)
       setImmediate(() => { Atomics.wait(workerData, 0, 0); process.exit() })
     })`,
    { eval: true, workerData: signal },
  )
  const [port] = (await once(worker, 'message')) as [number]
  // A backlog of 1 holds two connections on Linux; the third SYN goes unanswered. Two more make sure wherever the rule differs.
  const fillers = Array.from({ length: 4 }, () => connect({ port, host: '127.0.0.1' }).on('error', () => {}))
  await Promise.all(fillers.slice(0, 2).map((socket) => once(socket, 'connect')))
  return deadPort(port, async () => {
    for (const socket of fillers) socket.destroy()
    Atomics.store(signal, 0, 1)
    Atomics.notify(signal, 0)
    await once(worker, 'exit')
  })
}

export interface PortHold {
  readonly port: number
  release(): Promise<void>
}

/**
 * Keeps a port from being given away while nothing listens on it. A port given by number can be listened on again before
 * the hold is released; `port: 0` takes any free one, for good.
 */
export async function holdPort(port: number): Promise<PortHold> {
  if (port !== 0) return hold(port)
  // A port that `connect()` chose by itself may be chosen again for another destination, itself included; one bound by number never is.
  for (let attempt = 0; ; attempt++) {
    try {
      return await hold(await unusedPort())
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || attempt === 20) throw error
    }
  }
}

async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}

async function hold(port: number): Promise<PortHold> {
  const server: Server = createServer()
  const accepted = once(server, 'connection') as Promise<[Socket]>
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port: anchor } = server.address() as AddressInfo
  const holder = connect({ port: anchor, host: '127.0.0.1', localPort: port, localAddress: '127.0.0.1' })
  try {
    await once(holder, 'connect')
  } catch (error) {
    accepted.catch(() => {})
    server.close()
    throw error
  }
  const [other] = await accepted
  return {
    port: holder.localPort as number,
    release: async () => {
      // Reset, not closed: a connection in TIME_WAIT would hold the port for another minute.
      holder.on('error', () => {})
      other.on('error', () => {})
      holder.resetAndDestroy()
      other.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

function deadPort(port: number, release: () => Promise<void>): DeadPort {
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= release()
    return closing
  }
  return { port, url: `http://127.0.0.1:${port}`, close, [Symbol.asyncDispose]: close }
}
