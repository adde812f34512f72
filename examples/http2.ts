/** HTTP/2 and HTTP/1.1 on one TLS port; upstreams are spoken to in HTTP/1.1. */
import { once } from 'node:events'
import { connect, createSecureServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'
import { certificates, type Echo, echo, testUpstream } from '@weir/testing'

await using service = await testUpstream(echo())
await using proxy = createProxy({ upstreams: [service.url] })

// A certificate made on the spot; yours comes from files or from an ACME client.
const { ca, localhost } = certificates()
const server = proxy.attach(createSecureServer({ ...localhost, allowHTTP1: true })).listen(0, '127.0.0.1')
await once(server, 'listening')

const session = connect(`https://localhost:${(server.address() as AddressInfo).port}`, { ca })

async function get(path: string): Promise<string> {
  const stream = session.request({ ':path': path })
  const answered = once(stream, 'response') as Promise<[Record<string, unknown>]>
  let text = ''
  stream.setEncoding('utf8')
  for await (const chunk of stream) text += chunk
  const [head] = await answered
  const { url, rawHeaders } = JSON.parse(text) as Echo
  const host = rawHeaders.find((_, index) => rawHeaders[index - 1]?.toLowerCase() === 'host')
  return `${session.alpnProtocol} ${head[':status']}: the upstream got ${url} with Host: ${host}`
}

console.log(await Promise.all([get('/one'), get('/two')])) // two streams of one connection

session.close()
server.close()
