/** The smallest useful proxy: two upstreams that take turns, WebSockets included, one safe retry, sane timeouts. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port

// Two services to stand behind the proxy.
const services = ['a', 'b'].map((name) =>
  createServer((req, res) => res.end(`${name} got ${req.method} ${req.url}`)).listen(0, '127.0.0.1'),
)
await Promise.all(services.map((service) => once(service, 'listening')))

const proxy = createProxy({ upstreams: services.map((service) => `http://127.0.0.1:${portOf(service)}`) })
const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await once(server, 'listening')

for (let i = 1; i <= 4; i++) {
  const response = await fetch(`http://127.0.0.1:${portOf(server)}/hello?n=${i}`)
  console.log(response.status, await response.text())
}

// Stop accepting, let what runs come to its end, then let go of the upstreams.
server.close()
await proxy.close()
for (const service of services) service.close()
