/**
 * Redis clients differ in how they are asked and agree in what they do. This is all that the stores need of one; `fromIoredis` and `fromNodeRedis`
 * make it of the client that an application has already. Weir never connects, never disconnects, and never sets an option of a client.
 */

/** Text, or bytes as they are. */
export type RedisArgument = string | Buffer

/** The two ways to run a script. */
export interface RedisScripts {
  evalSha(sha: string, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown>
  eval(source: string, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown>
}

export interface RedisClient extends RedisScripts {
  /** For events and errors. */
  readonly name: string
  /** Keys are spread over nodes: those of one call must have one hash tag. */
  readonly cluster: boolean
  /** False while a command would only be put in a queue, which is where a dead server turns into memory. */
  readonly ready: boolean
}

/** A client that can also be asked for bytes, which the cache needs for bodies. */
export interface BinaryRedisClient extends RedisClient {
  /** The same connection; what would be a string in an answer is a Buffer. */
  readonly binary: RedisScripts
}

/** What `fromIoredis` needs; `Redis` and `Cluster` of ioredis and of iovalkey are of this shape. */
export interface IoredisLike {
  readonly status: string
  readonly isCluster?: boolean
  evalsha(sha: string, count: number, ...rest: RedisArgument[]): Promise<unknown>
  eval(source: string, count: number, ...rest: RedisArgument[]): Promise<unknown>
  callBuffer(command: string, ...rest: (RedisArgument | number)[]): Promise<unknown>
}

/** For `ioredis` and `iovalkey`, single servers, Sentinel and clusters. The client stays yours: connect it, listen to its errors, and close it. */
export function fromIoredis(client: IoredisLike): BinaryRedisClient {
  return {
    name: 'ioredis',
    cluster: client.isCluster === true,
    get ready() {
      return client.status === 'ready'
    },
    evalSha: (sha, keys, args) => client.evalsha(sha, keys.length, ...keys, ...args),
    eval: (source, keys, args) => client.eval(source, keys.length, ...keys, ...args),
    binary: {
      evalSha: (sha, keys, args) => client.callBuffer('evalsha', sha, keys.length, ...keys, ...args),
      eval: (source, keys, args) => client.callBuffer('eval', source, keys.length, ...keys, ...args),
    },
  }
}

interface NodeRedisScripts {
  evalSha(sha: string, options: { keys: string[]; arguments: RedisArgument[] }): Promise<unknown>
  eval(source: string, options: { keys: string[]; arguments: RedisArgument[] }): Promise<unknown>
}

/** What `fromNodeRedis` needs: what `createClient` and `createCluster` of the package `redis` return. */
export interface NodeRedisLike extends NodeRedisScripts {
  /** Of a single client. */
  readonly isReady?: boolean
  /** Of a cluster. */
  readonly isOpen?: boolean
  /** The same client with other types in its answers. */
  withTypeMapping(mapping: { [bulk]: typeof Buffer }): NodeRedisScripts
}

/** `RESP_TYPES.BLOB_STRING` of the package `redis`: the byte that such a string begins with. */
const bulk = 36

/** For the package `redis` (node-redis), single servers and clusters. The client stays yours: connect it, listen to its errors, and close it. */
export function fromNodeRedis(client: NodeRedisLike): BinaryRedisClient {
  const scripts = (of: NodeRedisScripts): RedisScripts => ({
    evalSha: (sha, keys, args) => of.evalSha(sha, { keys: [...keys], arguments: [...args] }),
    eval: (source, keys, args) => of.eval(source, { keys: [...keys], arguments: [...args] }),
  })
  const cluster = client.isReady === undefined
  return {
    name: 'node-redis',
    cluster,
    get ready() {
      return (cluster ? client.isOpen : client.isReady) === true
    },
    ...scripts(client),
    binary: scripts(client.withTypeMapping({ [bulk]: Buffer })),
  }
}
