/** Weir with its cache in memory, its defaults otherwise. The upstream states no lifetime, so one is given. */
import { createServer } from 'node:http'
import { memoryStore, responseCache } from '@weir/cache'
import { compress } from '@weir/compress'
import { createProxy } from '@weir/core'
import { serve, upstreams } from './serve.ts'

const store = memoryStore({ maxSize: '64MiB', admission: process.argv.includes('frequency') ? 'frequency' : 'all' })
const cache = responseCache({ store, negative: { 200: '1h' } })
const proxy = createProxy({ upstreams: [...upstreams], use: [cache, process.argv.includes('compress') && compress()] })
const server = createServer()
proxy.attach(server)
serve(server)
