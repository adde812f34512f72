/** Weir as its users have it: the built package, its defaults, nothing switched off. */
import { createServer } from 'node:http'
import { createProxy } from '@weir/core'
import { serve, upstreams } from './serve.ts'

const proxy = createProxy({ upstreams: [...upstreams] })
const server = createServer()
proxy.attach(server)
serve(server)
