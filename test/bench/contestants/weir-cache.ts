/** Weir with its cache in memory, its defaults otherwise. The upstream states no lifetime, so one is given. */
import { createServer } from 'node:http'
import { responseCache } from '@weir/cache'
import { createProxy } from '@weir/core'
import { serve, upstreams } from './serve.ts'

const proxy = createProxy({ upstreams: [...upstreams], use: [responseCache({ maxSize: '64MiB', negative: { 200: '1h' } })] })
const server = createServer()
proxy.attach(server)
serve(server)
