/**
 * From an address and a port to an upstream. The URL holds the address, so that every address is a server of its own to balancers and health
 * policies; the name goes along as `host`, so that `Host`, the TLS server name and the certificate are still those of the name.
 */
import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import type { OptionReader, UpstreamOptions } from '@weir/core'

/** What every server that is found is given. */
export interface FoundOptions {
  /** Default `http`. */
  readonly protocol?: 'http' | 'https'
  /** Most exchanges at once to each server. Default: the pool's. */
  readonly maxConcurrent?: number
  /** Given to each as it is. Default: none. */
  readonly meta?: Readonly<Record<string, unknown>>
}

export const foundKeys: readonly (keyof FoundOptions)[] = ['protocol', 'maxConcurrent', 'meta']

export interface FoundSettings {
  readonly protocol: 'http' | 'https'
  readonly rest: Pick<UpstreamOptions, 'maxConcurrent' | 'meta'>
}

export function readFound(options: Partial<FoundOptions>, read: OptionReader): FoundSettings {
  const maxConcurrent = read.number('maxConcurrent', options.maxConcurrent, undefined, { min: 1 })
  const { meta } = options
  if (meta !== undefined && (typeof meta !== 'object' || meta === null)) read.problem('meta', meta, 'an object')
  return {
    protocol: read.oneOf<'http' | 'https'>('protocol', options.protocol, ['http', 'https'], 'http'),
    rest: { ...(maxConcurrent === undefined ? null : { maxConcurrent }), ...(meta === undefined ? null : { meta }) },
  }
}

export const standardPort: Readonly<Record<'http' | 'https', number>> = { http: 80, https: 443 }

/** @param name what it goes by, without a port */
export function foundServer(
  { protocol, rest }: FoundSettings,
  name: string,
  address: string,
  port: number,
  standing: Pick<UpstreamOptions, 'weight' | 'priority'>,
): UpstreamOptions & { readonly id: string } {
  const literal = isIP(address) === 6 ? `[${address}]` : address
  const url = new URL(`${protocol}://${literal}:${port}`).origin
  const host = port === standardPort[protocol] ? name : `${name}:${port}`
  return { url, id: url, host, ...standing, ...rest }
}

/** A DNS name in ASCII without the last dot; '' when it was wrong. */
export function readName(option: string, value: unknown, read: OptionReader): string {
  const expected = "a DNS name such as 'app.example.internal'"
  const ascii = typeof value === 'string' ? domainToASCII(value.replace(/\.$/, '')) : ''
  if (isIP(ascii) !== 0) read.problem(option, value, `${expected}; an address needs no source, it can be listed in \`upstreams\``)
  else if (ascii.length > 253 || !/^(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}$/i.test(ascii)) read.problem(option, value, expected)
  else return ascii
  return ''
}
