/** A stage of your own: a function that may answer, ask to be called at later moments, or do nothing. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, type Hooks, type Stage } from '@weir/core'
import { type Echo, echo, testUpstream } from '@weir/testing'

// What stages tell each other travels in `exchange.locals`; its type is open.
declare module '@weir/core' {
  interface ExchangeLocals {
    user?: string
  }
}

/** Refuses requests without a known key, and tells the upstream who is asking. */
function apiKeys(users: ReadonlyMap<string, string>): Stage {
  return {
    name: 'api-keys',
    handle(exchange) {
      const user = users.get(exchange.headers.get('x-api-key') ?? '')
      if (user === undefined) return { status: 401, headers: { 'WWW-Authenticate': 'ApiKey' }, body: 'a key, please\n' }
      exchange.locals.user = user
      return {
        onAttempt(headers) {
          headers.delete('x-api-key')
          headers.set('x-user', user)
        },
      }
    },
  }
}

/** Stateless, so its hooks are one constant object: nothing is allocated per request. */
const logHooks: Hooks = {
  onFinish({ status, reason, upstream, attempts }, exchange) {
    console.log(
      `  log: ${exchange.method} ${exchange.url} ${status} ${reason} user=${exchange.locals.user} tries=${attempts.length} ${upstream?.id ?? '-'}`,
    )
  },
}
const log: Stage = { name: 'log', handle: () => logHooks, order: { before: ['api-keys'] } }

await using service = await testUpstream(echo())
await using proxy = createProxy({
  upstreams: [{ id: 'service', url: service.url }],
  use: [log, apiKeys(new Map([['secret', 'ann']]))],
})
const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/orders`

console.log((await fetch(url)).status)
const response = await fetch(url, { headers: { 'X-Api-Key': 'secret' } })
const { rawHeaders } = (await response.json()) as Echo
console.log(response.status, 'x-user:', rawHeaders[rawHeaders.indexOf('x-user') + 1], 'key sent on:', rawHeaders.includes('X-Api-Key'))
server.close()
