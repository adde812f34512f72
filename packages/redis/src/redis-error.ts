/** Why a store did not get an answer. Features catch it and do what their `onStoreError` says, so that clients never see one. */

export type RedisStoreErrorCode =
  /** The client is not connected: a command would only wait in its queue. */
  | 'ERR_REDIS_NOT_READY'
  /** No answer within `timeout`. */
  | 'ERR_REDIS_TIMEOUT'
  /** `maxPending` calls wait for an answer already. */
  | 'ERR_REDIS_OVERLOADED'
  /** Calls failed in a row a moment ago, and the next attempt is not due yet. */
  | 'ERR_REDIS_CIRCUIT_OPEN'
  /** The server, or the client, said no. `cause` has its words. */
  | 'ERR_REDIS_COMMAND'
  /** On a cluster: one decision about keys that live on different nodes. */
  | 'ERR_REDIS_CROSS_SLOT'
  /** The answer is not one of this script's: another program uses the same keys. */
  | 'ERR_REDIS_REPLY'

export class RedisStoreError extends Error {
  override readonly name: string = 'RedisStoreError'
  readonly code: RedisStoreErrorCode

  constructor(code: RedisStoreErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
  }
}
