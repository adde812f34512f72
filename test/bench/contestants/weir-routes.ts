/** Weir with as many routes as the command line says: `paths 1000` or `hosts 1000` on one pool; the targets are those of `growth.ts`. */
import { createServer } from 'node:http'
import { createPool, createProxy } from '@weir/core'
import { serve, upstreams } from './serve.ts'

const [by, count] = process.argv.slice(-2)
const pool = createPool({ upstreams: [...upstreams] })
const numbers = Array.from({ length: Number(count) }, (_, i) => i)
const proxy = createProxy({
  routes:
    by === 'any'
      ? [{ match: { path: '/' }, pool }]
      : numbers.map((i) => ({ match: by === 'hosts' ? { host: `host${i}.test` } : { path: `/service-${i}` }, pool })),
})
const server = createServer()
proxy.attach(server)
serve(server)
