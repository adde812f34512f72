/** The clients that the stores are tried with, each on a single server and on a cluster, connected and ready. */
import { type BinaryRedisClient, fromIoredis, fromNodeRedis } from '@weir/redis'
import { Cluster as IoCluster, Redis as IoRedis } from 'ioredis'
import { Redis as IoValkey, Cluster as IoValkeyCluster } from 'iovalkey'
import { createClient, createCluster } from 'redis'

export interface Connected extends AsyncDisposable {
  readonly client: BinaryRedisClient
}

type Connect = (ports: readonly number[]) => Promise<Connected>

const host = '127.0.0.1'

/** Errors of a client without a listener end the process; that the server goes away is what these tests are about. */
function quiet(emitter: { on(event: 'error', listener: () => void): unknown }): void {
  emitter.on('error', () => {})
}

async function ready(emitter: { readonly status: string; once(event: 'ready', listener: () => void): unknown }): Promise<void> {
  if (emitter.status !== 'ready') await new Promise<void>((resolve) => void emitter.once('ready', resolve))
}

const bySentinel = (port: number) => ({
  sentinels: [{ host, port }],
  name: 'shared',
  retryStrategy: () => 50,
  sentinelRetryStrategy: () => 50,
})

async function connected(client: IoRedis | IoValkey): Promise<Connected> {
  quiet(client)
  await ready(client)
  return { client: fromIoredis(client), [Symbol.asyncDispose]: async () => client.disconnect() }
}

/** Through a sentinel that knows the primary by the name `shared`. */
export const sentinelClients: readonly (readonly [name: string, connect: (port: number) => Promise<Connected>])[] = [
  ['ioredis', (port) => connected(new IoRedis(bySentinel(port)))],
  ['iovalkey', (port) => connected(new IoValkey(bySentinel(port)))],
]

export const clients: readonly (readonly [name: string, single: Connect, cluster: Connect])[] = [
  [
    'ioredis',
    async ([port]) => {
      const client = new IoRedis({ host, port: port as number, retryStrategy: () => 50 })
      quiet(client)
      await ready(client)
      return { client: fromIoredis(client), [Symbol.asyncDispose]: async () => client.disconnect() }
    },
    async (ports) => {
      const client = new IoCluster(ports.map((port) => ({ host, port })))
      quiet(client)
      await ready(client)
      return { client: fromIoredis(client), [Symbol.asyncDispose]: async () => client.disconnect() }
    },
  ],
  [
    'iovalkey',
    async ([port]) => {
      const client = new IoValkey({ host, port: port as number, retryStrategy: () => 50 })
      quiet(client)
      await ready(client)
      return { client: fromIoredis(client), [Symbol.asyncDispose]: async () => client.disconnect() }
    },
    async (ports) => {
      const client = new IoValkeyCluster(ports.map((port) => ({ host, port })))
      quiet(client)
      await ready(client)
      return { client: fromIoredis(client), [Symbol.asyncDispose]: async () => client.disconnect() }
    },
  ],
  [
    'node-redis',
    async ([port]) => {
      const client = createClient({ socket: { host, port: port as number, reconnectStrategy: () => 50 } })
      quiet(client)
      await client.connect()
      return { client: fromNodeRedis(client), [Symbol.asyncDispose]: async () => client.destroy() }
    },
    async (ports) => {
      const client = createCluster({ rootNodes: ports.map((port) => ({ socket: { host, port } })) })
      quiet(client)
      await client.connect()
      return { client: fromNodeRedis(client), [Symbol.asyncDispose]: async () => client.destroy() }
    },
  ],
]
