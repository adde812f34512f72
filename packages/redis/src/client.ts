/**
 * Redis clients differ in how they are asked and agree in what they do. This is all that the stores need of one; `fromIoredis` and `fromNodeRedis`
 * make it of the client that an application has already. Weir never connects, never disconnects, and never sets an option of a client.
 */

export interface RedisClient {
  /** For events and errors. */
  readonly name: string
  /** Keys are spread over nodes: those of one call must have one hash tag. */
  readonly cluster: boolean
  /** False while a command would only be put in a queue, which is where a dead server turns into memory. */
  readonly ready: boolean
  evalSha(sha: string, keys: readonly string[], args: readonly string[]): Promise<unknown>
  eval(source: string, keys: readonly string[], args: readonly string[]): Promise<unknown>
}

/** What `fromIoredis` needs; `Redis` and `Cluster` of ioredis and of iovalkey are of this shape. */
export interface IoredisLike {
  readonly status: string
  readonly isCluster?: boolean
  evalsha(sha: string, count: number, ...rest: string[]): Promise<unknown>
  eval(source: string, count: number, ...rest: string[]): Promise<unknown>
}

/** For `ioredis` and `iovalkey`, single servers, Sentinel and clusters. The client stays yours: connect it, listen to its errors, and close it. */
export function fromIoredis(client: IoredisLike): RedisClient {
  return {
    name: 'ioredis',
    cluster: client.isCluster === true,
    get ready() {
      return client.status === 'ready'
    },
    evalSha: (sha, keys, args) => client.evalsha(sha, keys.length, ...keys, ...args),
    eval: (source, keys, args) => client.eval(source, keys.length, ...keys, ...args),
  }
}

/** What `fromNodeRedis` needs: what `createClient` and `createCluster` of the package `redis` return. */
export interface NodeRedisLike {
  /** Of a single client. */
  readonly isReady?: boolean
  /** Of a cluster. */
  readonly isOpen?: boolean
  evalSha(sha: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
  eval(source: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
}

/** For the package `redis` (node-redis), single servers and clusters. The client stays yours: connect it, listen to its errors, and close it. */
export function fromNodeRedis(client: NodeRedisLike): RedisClient {
  const cluster = client.isReady === undefined
  return {
    name: 'node-redis',
    cluster,
    get ready() {
      return (cluster ? client.isOpen : client.isReady) === true
    },
    evalSha: (sha, keys, args) => client.evalSha(sha, { keys: [...keys], arguments: [...args] }),
    eval: (source, keys, args) => client.eval(source, { keys: [...keys], arguments: [...args] }),
  }
}
