/**
 * A proxy that is watched: `startProxy` of the shared set-up with a stage in front of all others that writes down how each exchange ended,
 * because half of what these tests ask is what the *operator* is told.
 */
import type { Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { AttachableServer, Exchange, Outcome, ProxyOptions, Stage } from '@weir/core'
import { type Mounting, type RunningProxy, startProxy as startPlain } from './setup.ts'

export { gate, transports } from './setup.ts'

export interface ObservedProxy extends RunningProxy {
  /** How the exchanges that reached the stages ended, in order. */
  readonly outcomes: readonly Outcome[]
  /** Their exchanges, in the same order. */
  readonly exchanges: readonly Exchange[]
  /** The nth outcome (from 1), as soon as it is there. */
  outcome(number?: number, deadline?: number): Promise<Outcome>
}

export async function startProxy(options: ProxyOptions, mounting: Mounting = {}): Promise<ObservedProxy> {
  const { stage, ...observed } = observer()
  const running = await startPlain({ ...options, use: [stage, ...(options.use ?? [])] }, mounting)
  return { ...running, ...observed }
}

export interface Observer extends Pick<ObservedProxy, 'outcomes' | 'exchanges' | 'outcome'> {
  readonly stage: Stage
}

/** The stage alone, for proxies that a test makes itself. */
export function observer(): Observer {
  const outcomes: Outcome[] = []
  const exchanges: Exchange[] = []
  const changed = signal()
  const hooks = {
    onFinish: (outcome: Outcome, exchange: Exchange): void => {
      outcomes.push(outcome)
      exchanges.push(exchange)
      changed.fire()
    },
  }
  return {
    stage: { name: 'observer', handle: () => hooks },
    outcomes,
    exchanges,
    outcome: (number = 1, deadline) => changed.until(() => outcomes[number - 1], `outcome ${number}`, deadline),
  }
}

/** Waits for a state that nobody announces (a counter of the product), without keeping the processor from those who are to bring it about. */
export async function until<T>(what: string, look: () => T | undefined | false, deadline = 5000): Promise<T> {
  const end = performance.now() + deadline
  for (let turn = 0; ; turn++) {
    const found = look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > end) throw new Error(`${what}: not within ${deadline} ms`)
    await new Promise<void>((resolve) => {
      if (turn < 20) setImmediate(resolve)
      else setTimeout(resolve, 2)
    })
  }
}

export interface Signal {
  fire(): void
  /** Resolves with the first thing that `look` returns; it is asked now and at every `fire()`. */
  until<T>(look: () => T | undefined, what: string, deadline?: number): Promise<T>
}

/** For states that somebody can announce. */
export function signal(): Signal {
  const looks = new Set<() => void>()
  return {
    fire: () => {
      for (const look of [...looks]) look()
    },
    until: (look, what, deadline = 5000) =>
      new Promise((resolve, reject) => {
        const settle = (act: () => void): void => {
          clearTimeout(timer)
          looks.delete(check)
          act()
        }
        const check = (): void => {
          const found = look()
          if (found !== undefined) settle(() => resolve(found))
        }
        const timer = setTimeout(() => settle(() => reject(new Error(`${what}: not within ${deadline} ms`))), deadline)
        looks.add(check)
        check()
      }),
  }
}

export interface Listening extends AsyncDisposable {
  readonly port: number
  /** Open connections. */
  readonly sockets: ReadonlySet<Socket>
  /** Destroys every connection and resolves when the server is closed. */
  close(): Promise<void>
}

/** For servers that a test makes itself. */
export async function listen(server: AttachableServer, host = '127.0.0.1'): Promise<Listening> {
  const sockets = new Set<Socket>()
  const emitter = server as Server
  emitter.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => emitter.listen(0, host, resolve))
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => emitter.close(() => resolve()))
    for (const socket of sockets) socket.destroy()
    await closed
  }
  return { port: (emitter.address() as AddressInfo).port, sockets, close, [Symbol.asyncDispose]: close }
}
