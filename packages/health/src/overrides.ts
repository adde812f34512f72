/**
 * One upstream's exceptions from the options of a probe: `upstream.meta.health`, then what the function `overrides` returns, name by name.
 * A probe takes the names that it knows; which names there are at all is known here, since a misspelt one would silently be off.
 */
import { OptionReader, type Upstream } from '@weir/core'
import type { GrpcProbeOptions } from './grpc-probe.ts'
import type { HttpProbeOptions } from './http-probe.ts'
import type { TcpProbeOptions } from './tcp-probe.ts'

/** Any option of any probe; an object value (`headers`) takes the place of the whole object. */
export interface ProbeOverrides extends HttpProbeOptions, TcpProbeOptions, GrpcProbeOptions {}

/** `false`: this upstream is not checked, and counts as up. */
export type OverridesFor = (upstream: Upstream) => ProbeOverrides | false | undefined

const addressKeys: readonly string[] = ['address', 'port', 'secure', 'servername', 'tls']

export const httpKeys: readonly string[] = [
  ...addressKeys,
  'path',
  'method',
  'headers',
  'host',
  'status',
  'expectHeaders',
  'body',
  'maxBody',
  'degradedHeader',
  'drainHeader',
  'drainStatus',
  'keepAlive',
]
export const tcpKeys: readonly string[] = [...addressKeys, 'send', 'expect', 'maxBody']
export const grpcKeys: readonly string[] = [...addressKeys, 'service', 'host', 'unimplemented', 'keepAlive']

const known = [...new Set([...httpKeys, ...tcpKeys, ...grpcKeys])]

/** @throws OptionsError */
export function overridesOf(factory: string, upstream: Upstream, overridesFor: OverridesFor | undefined): ProbeOverrides | false {
  const read = new OptionReader(`${factory}, upstream ${upstream.id}`)
  const meta = upstream.meta.health as ProbeOverrides | false | undefined
  const own = overridesFor?.(upstream)
  if (own === false || (own === undefined && meta === false)) return false
  const merged = {
    ...read.at('meta.health').object<ProbeOverrides>(meta === false ? undefined : meta, known),
    ...read.at('overrides').object<ProbeOverrides>(own, known),
  }
  read.check()
  return merged
}

/** The options of a probe with one upstream's exceptions; the same object when it has none. */
export function withOverrides<T extends object>(options: T, overrides: ProbeOverrides, keys: readonly string[]): T {
  const mine = Object.entries(overrides).filter(([key, value]) => value !== undefined && keys.includes(key))
  return mine.length === 0 ? options : { ...options, ...Object.fromEntries(mine) }
}
