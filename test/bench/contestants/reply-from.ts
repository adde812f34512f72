/** Fastify with @fastify/reply-from: one wildcard route, no logger, no body parsing, as many upstream connections as asked for. */
import replyFrom from '@fastify/reply-from'
import fastify from 'fastify'
import { serve, upstream } from './serve.ts'

const app = fastify({ logger: false })
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
await app.register(replyFrom, { base: upstream, undici: { connections: 1024, pipelining: 1 } })
app.all('*', (request, reply) => reply.from(request.raw.url as string))
await app.ready()
serve(app.server)
