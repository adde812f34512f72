/**
 * A request straight through node:http: for what undici cannot put on the wire (the target `*`, request trailers), and the plain form of
 * what http-proxy.ts does with http-proxy-3 in between. Not a transport of its own, since it carries no upgrades.
 */

import type { ClientRequest } from 'node:http'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { isField } from '../headers.ts'
import type { Upstream } from '../upstream.ts'
import { ClientCall } from './client-call.ts'
import { type ConnectionSettings, Connections, type Line } from './connections.ts'
import { frame, type WireHead } from './framing.ts'
import type { ResponseSink, Transport, UpstreamRequest } from './transport.ts'

/** Makes the request; the body follows. May throw: node checks names, values and target. */
export type RequestMaker = (head: WireHead, line: Line, settings: ConnectionSettings) => ClientRequest

/** The three parts of a transport that concern requests. Whoever makes it closes it. */
export type RequestSender = Required<Pick<Transport, 'send' | 'forget' | 'close'>>

/** The options of node's request, flat field list included. Address, TLS and pooling are the agent's. */
export interface WireOptions {
  readonly agent: Line['agent']
  readonly method: string
  readonly path: string
  /** A flat list: node then writes the fields as they are, in their order and case, and adds no Host. */
  readonly headers: string[]
  readonly hostname: string
  readonly port: number
  readonly socketPath?: string
  readonly maxHeaderSize: number
}

export function wireOptions(head: WireHead, line: Line, settings: ConnectionSettings): WireOptions {
  const { hostname, port, socketPath } = line.target
  return {
    agent: line.agent,
    method: head.method,
    path: head.path,
    headers: head.headers,
    hostname,
    port,
    ...(socketPath === undefined ? {} : { socketPath }),
    maxHeaderSize: settings.maxHeaderSize,
  }
}

const makePlain: RequestMaker = (head, line, settings) => {
  const options = wireOptions(head, line, settings)
  return line.target.protocol === 'https:' ? httpsRequest(options) : httpRequest(options)
}

/** Sends requests over kept connections, one pool of them per upstream. */
export function nodeHttp(settings: ConnectionSettings, make: RequestMaker = makePlain): RequestSender {
  const connections = new Connections(settings)
  return {
    send(request: UpstreamRequest, upstream: Upstream, sink: ResponseSink): void {
      const call = new ClientCall(upstream, sink, request.timeouts)
      sink.onStart(call)
      if (call.over) return
      try {
        const head = frame(request)
        const isLast = head.headers.some((name, i) => i % 2 === 0 && isField(name, 'connection'))
        if (settings.keepAliveTimeout === 0 && !isLast) head.headers.push('Connection', 'close')
        const line = connections.to(upstream)
        if (request.fresh === true) line.dropIdle()
        const { made, fresh } = line.watch(() => make(head, line, settings))
        // Node says so to the upstream and would keep the connection all the same.
        if (isLast) made.shouldKeepAlive = false
        call.follow(made, fresh, request.body, head.length)
        if (request.body === undefined) made.end()
      } catch (error) {
        call.refuse(error)
      }
    },
    forget: (upstream) => connections.forget(upstream),
    close: () => connections.close(),
  }
}
