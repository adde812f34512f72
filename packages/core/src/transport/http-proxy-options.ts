/**
 * How target and fields get through http-proxy-3 unharmed. It builds node's request options by assigning to the object that it is given as
 * `ssl`: a path that has been through two URL parsers, and a copy of `req.headers` with one case, one order and one line per name. Accessors
 * on that object let these assignments pass without effect, and give node what core decided, fields as the flat list that it writes as is.
 * They are own and enumerable, since node copies the options before it reads them. No event is involved, so nothing in a request (`Expect`
 * switches `proxyReq` off) can go around it.
 */
import type { ServerOptions } from 'http-proxy-3'
import type { ConnectionSettings, Line } from './connections.ts'
import type { WireHead } from './framing.ts'
import { wireOptions } from './node-http.ts'

/** Options for one call of `web` or `ws`. */
export function proxyOptions(head: WireHead, line: Line, settings: ConnectionSettings): ServerOptions {
  const wire = wireOptions(head, line, settings)
  const pinned = {
    get method() {
      return wire.method
    },
    set method(_) {},
    get path() {
      return wire.path
    },
    set path(_) {},
    get headers() {
      return wire.headers
    },
    set headers(_) {},
    maxHeaderSize: wire.maxHeaderSize,
  }
  return {
    target: line.target as unknown as NonNullable<ServerOptions['target']>,
    ssl: pinned as unknown as NonNullable<ServerOptions['ssl']>,
    agent: line.agent,
    secure: settings.tls.connect.rejectUnauthorized !== false,
    selfHandleResponse: true,
  }
}
