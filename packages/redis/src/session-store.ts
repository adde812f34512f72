/**
 * The store of `@weir/sticky` on Redis or Valkey, for its modes that need one: learned sessions and keys. Of two proxies that pin one session at once
 * exactly one has its way, and both are told which. The absolute end of a session is a time of day of the proxy that wrote it, and is judged by the
 * server's clock: keep both synchronised to within what matters to you.
 */
import { OptionReader } from '@weir/core'
import type { SessionStore } from '@weir/sticky'
import { keyText } from './key-text.ts'
import { type LinkOptions, linkKeys, readLink } from './link-options.ts'
import { RedisStoreError } from './redis-error.ts'
import { RedisLink } from './redis-link.ts'
import { deleteScript, getScript, setScript } from './session-script.ts'

/** The last moment that a Date can name: Lua reads no `Infinity`. */
const farthest = 8.64e15

export interface RedisSessionOptions extends LinkOptions {}

/** @throws OptionsError */
export function redisSessionStore(options: RedisSessionOptions): SessionStore {
  const read = new OptionReader('redisSessionStore')
  const settings = readLink(read, read.object<RedisSessionOptions>(options ?? {}, linkKeys))
  read.check()
  const link = new RedisLink('sticky', settings)
  const nameOf = (key: string): string => `${settings.prefix}:session:{${keyText(key)}}`
  const text = (answer: unknown): string => {
    if (typeof answer !== 'string') throw new RedisStoreError('ERR_REDIS_REPLY', `not the id of an upstream: ${typeof answer}`)
    return answer
  }

  return {
    async get(key) {
      const answer = await link.run(getScript, [nameOf(key)], [])
      return answer === null ? undefined : text(answer)
    },
    async set(key, upstreamId, { idleMs, absolute, replaces }) {
      const idle = idleMs === Number.POSITIVE_INFINITY ? 'inf' : String(Math.ceil(idleMs))
      return text(
        await link.run(
          setScript,
          [nameOf(key)],
          [upstreamId, idle, String(Math.min(absolute, farthest)), replaces === undefined ? '' : `=${replaces}`],
        ),
      )
    },
    async delete(key) {
      await link.run(deleteScript, [nameOf(key)], [])
    },
  }
}
