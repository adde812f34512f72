/**
 * What every case of the transport suite stands on: one transport, its upstreams, a recorder per call, and at the end the checks that hold
 * whatever the case was about: nobody objected, and after `close()` the transport holds no connection.
 */
import assert from 'node:assert/strict'
import type { Transport, TransportTimeouts, Upstream, UpstreamRequest } from '@weir/core'
import { everyRequest, type RawUpstream, type RawUpstreamOptions, rawUpstream, type UpstreamScript } from '../../raw-upstream.ts'
import { defaultDeadline } from '../../watch.ts'
import type { ConformanceCase } from '../case.ts'
import { Recorder, type RecorderOptions } from './recorder.ts'

export type { ConformanceCase }

export interface TransportFactoryOptions {
  readonly tls?: { readonly ca?: string; readonly insecure?: boolean }
}

export type TransportFactory = (options?: TransportFactoryOptions) => Transport

/** What a transport says that it cannot do. Each entry that is not written means that it can, and the suite holds it to that. */
export interface DeclaredDeviations {
  /** `false`: there is no `upgrade`. */
  readonly upgrade?: false
  /** `false`: trailers of a request are not sent. */
  readonly requestTrailers?: false
  /** `true`: whitespace behind a value (RFC 9112 §5 excludes it) is delivered with the value. */
  readonly trailingWhitespace?: true
  /** `false`: the Host field goes first and is named `host`, whatever its case and place were. Its value is as given. */
  readonly hostFieldAsGiven?: false
  /** `false`: a target of `*` is refused with ERR_REQUEST_NOT_SENT. */
  readonly asteriskTarget?: false
}

export type CallOptions = Partial<Omit<UpstreamRequest, 'timeouts'>> & { readonly timeouts?: Partial<TransportTimeouts> }

export interface Rig {
  readonly transport: Transport
  /** An upstream for this case; closed with it. */
  upstream(script: UpstreamScript | string, options?: RawUpstreamOptions): Promise<RawUpstream>
  /** The upstream object of a URL, the same one each time: transports key their connections by it. */
  at(url: string): Upstream
  /** Sends a request. Default: GET / without body, generous timeouts. */
  send(to: RawUpstream | Upstream, request?: CallOptions, sink?: RecorderOptions): Recorder
  /** Has this recorder checked at the end like those that `send` makes. */
  watch<R extends Recorder>(recorder: R): R
  /** Runs at the end of the case, last one first. */
  defer(close: () => unknown): void
}

export const timeouts: TransportTimeouts = { connect: 5000, head: 5000, idle: 5000 }
export const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
/** `ok` for every method: a HEAD is answered without the body. */
export const okay: UpstreamScript = everyRequest(({ method }) => (method === 'HEAD' ? ok.slice(0, -2) : ok))

/** A case with a transport of its own. */
export function testCase(
  name: string,
  make: TransportFactory,
  run: (rig: Rig) => Promise<void>,
  options?: TransportFactoryOptions,
): ConformanceCase {
  return {
    name,
    run: async () => {
      const transport = make(options)
      const recorders: Recorder[] = []
      const upstreams: RawUpstream[] = []
      const endings: (() => unknown)[] = []
      const known = new Map<string, Upstream>()
      const at = (url: string): Upstream => {
        const upstream = known.get(url) ?? plainUpstream(url)
        known.set(url, upstream)
        return upstream
      }
      const watch = <R extends Recorder>(recorder: R): R => {
        recorders.push(recorder)
        return recorder
      }
      const rig: Rig = {
        transport,
        at,
        upstream: async (script, upstreamOptions) => {
          const upstream = await rawUpstream(script, upstreamOptions)
          upstreams.push(upstream)
          return upstream
        },
        send: (to, request = {}, sink = {}) => {
          const recorder = watch(new Recorder(sink))
          const full = {
            method: 'GET',
            path: '/',
            headers: ['Host', 'upstream.test'],
            body: undefined,
            ...request,
            timeouts: { ...timeouts, ...request.timeouts },
          }
          transport.send(full, 'id' in to ? to : at(to.url), recorder)
          if (recorder.state === 'new') recorder.objections.push('send returned without onStart')
          return recorder
        },
        watch,
        defer: (close) => void endings.push(close),
      }
      try {
        await run(rig)
        for (const recorder of recorders) if (recorder.state !== 'new' && !recorder.over) recorder.abort()
        while (endings.length > 0) await endings.pop()?.()
        await transport.close?.()
        // Whatever a transport keeps to itself, its connections show at the other end.
        for (const upstream of upstreams) for (const connection of upstream.connections) await leftAlone(connection)
        await turns(3)
        assert.deepEqual(
          recorders.flatMap((recorder) => recorder.objections),
          [],
          'the transport broke the contract of its sink',
        )
      } finally {
        while (endings.length > 0) await endings.pop()?.()
        await transport.close?.()
        for (const upstream of upstreams) await upstream.close()
      }
    },
  }
}

/** Soon, since a transport that merely lets its idle connections time out must not pass for one that closes them. */
async function leftAlone(connection: RawUpstream['connections'][number]): Promise<void> {
  connection.resume()
  await eventually(`connection ${connection.number} closes with the transport`, () => connection.ending !== 'open', 2000)
}

function plainUpstream(url: string): Upstream {
  return {
    id: url,
    url: new URL(url),
    host: undefined,
    weight: 1,
    configuredWeight: 1,
    priority: 0,
    state: 'up',
    degraded: false,
    inflight: 0,
    maxConcurrent: Number.POSITIVE_INFINITY,
    full: false,
    latencyMs: 0,
    meta: {},
  }
}

/** Lets this many turns of the event loop pass: for "nothing more happens", where there is no event to wait for. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise<void>((resolve) => setImmediate(resolve))
}

/** Waits until a number has not changed for `quiet` milliseconds: the far end of back-pressure has no event. */
export async function steady(read: () => number, quiet = 150): Promise<number> {
  let last = read()
  let since = performance.now()
  const end = since + 4 * defaultDeadline
  while (performance.now() - since < quiet) {
    if (performance.now() > end) throw new Error(`never steady: ${last}`)
    await new Promise<void>((resolve) => setTimeout(resolve, 10))
    const now = read()
    if (now !== last) since = performance.now()
    last = now
  }
  return last
}

/** Waits for something that has no event of its own, by looking each turn. */
export async function eventually(what: string, look: () => boolean, limit: number = defaultDeadline): Promise<void> {
  const end = performance.now() + limit
  while (!look()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${limit} ms`)
    await new Promise<void>((resolve) => setTimeout(resolve, 5))
  }
}

/** What the upstream must see of these fields, given what the transport declares about Host. */
export function asSent(headers: readonly string[], declared: DeclaredDeviations): string[] {
  if (declared.hostFieldAsGiven !== false) return [...headers]
  const host: string[] = []
  const rest: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    if (name.toLowerCase() === 'host') host.push('host', value)
    else rest.push(name, value)
  }
  return [...host, ...rest]
}

/** Without the fields that belong to the connection and not to the message. */
export function endToEnd(headers: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if (!/^(connection|content-length|transfer-encoding)$/i.test(headers[i] as string))
      kept.push(headers[i] as string, headers[i + 1] as string)
  }
  return kept
}
