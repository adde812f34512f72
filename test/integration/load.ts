/** Clients that ask again as soon as they are answered, over connections that they keep: traffic in front of which things are changed. */
import { Agent, get } from 'node:http'

export interface Load {
  readonly answered: number
  /** What any client did not like, in words; empty is the aim. */
  readonly failures: readonly string[]
  /** Lets every client finish its request. */
  stop(): Promise<void>
}

/** @param size bytes that every answer must have, with status 200 */
export function load(port: number, size: number, connections: number): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  let answered = 0
  let stopped = false
  const failures: string[] = []
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const failed = (text: string): void => {
        failures.push(text)
        resolve()
      }
      get({ port, host: '127.0.0.1', agent, path: '/' }, (res) => {
        let bytes = 0
        res.on('data', (chunk: Buffer) => {
          bytes += chunk.length
        })
        res.on('error', (error) => failures.push(`body: ${error.message}`))
        res.on('close', () => {
          answered++
          if (res.statusCode !== 200) failed(`status ${res.statusCode} ${res.headers['proxy-status'] ?? ''}`)
          else if (bytes !== size) failed(`a body of ${bytes} bytes`)
          else resolve()
        })
      }).on('error', (error) => failed(error.message))
    })
  const clients = Array.from({ length: connections }, async () => {
    while (!stopped) await one()
  })
  return {
    get answered() {
      return answered
    },
    failures,
    stop: async () => {
      stopped = true
      await Promise.all(clients)
      agent.destroy()
    },
  }
}
